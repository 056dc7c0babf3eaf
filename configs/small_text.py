"""A T5 1.1-shaped model of 13 M parameters on a few dozen megabytes of English text.

Command:   DATA=/path/to/text t5jax train configs/small_text.py, after `t5jax cache` with the flags
           --data.train-files "$DATA/*.jsonl.gz" --data.validation-files "$DATA/c4-validation*.gz"
           --data.vocabulary.path /path/to/t5/spiece.model
Hardware:  2 CPU cores, 53 minutes with other work beside it
Result:    text loss 6.80 nats on C4 validation rows, unigram model 7.35; docs/small_text.md
"""

from t5jax.checkpoints import CheckpointConfig
from t5jax.config import RunConfig, TrainConfig
from t5jax.data.config import DataConfig
from t5jax.data.vocabularies import SentencePieceVocabulary
from t5jax.model.config import T5Config
from t5jax.training.optimizers import AdamW
from t5jax.training.schedules import Cosine


def config() -> RunConfig:
    return RunConfig(
        workdir="runs/small_text",
        model=T5Config(
            emb_dim=160,
            num_heads=4,
            mlp_dim=512,
            num_encoder_layers=3,
            num_decoder_layers=3,
            dtype="float32",
            unroll_layers="all",
        ),
        data=DataConfig(
            mixture="jsonl_span_corruption",
            train_files=("data/text/*.jsonl.gz",),
            validation_files=("data/text/c4-validation*.json.gz",),
            vocabulary=SentencePieceVocabulary(path="data/t5/spiece.model"),
            inputs_length=128,
            cache_dir="runs/data",
        ),
        train=TrainConfig(
            num_train_steps=4400, batch_size=16, eval_every_steps=400, num_eval_rows=1024
        ),
        optimizer=AdamW(learning_rate=5e-2, rms_scaled=True, schedule=Cosine(warmup_steps=100)),
        checkpoints=CheckpointConfig(save_every_steps=400),
    )
