"""Fine-tunes the model of configs/small_pretraining.py on one of T5's tasks; docs/transfer.md.

Command:   t5jax cache configs/small_finetuning.py FLAGS, then t5jax train with the same;
           FLAGS: --data.mixture glue_sst2_v002 --data.datasets-dir DATA
           --data.vocabulary.path words.model --init.path runs/small_pretraining
Hardware:  2 CPU cores, 5 to 10 minutes a task
Result:    docs/transfer.md
"""

from t5jax.checkpoints import CheckpointConfig
from t5jax.config import RunConfig, TrainConfig, WarmStart
from t5jax.data.config import DataConfig
from t5jax.data.vocabularies import SentencePieceVocabulary
from t5jax.decoding import DecodingConfig
from t5jax.evaluation.config import EvaluationConfig
from t5jax.model.config import T5Config
from t5jax.training.optimizers import AdamW
from t5jax.training.schedules import Linear


def config() -> RunConfig:
    return RunConfig(
        workdir="runs/small_finetuning",
        model=T5Config(
            vocab_size=8000,
            emb_dim=192,
            num_heads=3,
            mlp_dim=512,
            num_encoder_layers=3,
            num_decoder_layers=3,
            dtype="float32",
            unroll_layers="all",
            dropout_rate=0.1,
        ),
        data=DataConfig(
            mixture="glue_sst2_v002",
            vocabulary=SentencePieceVocabulary(path="runs/words.model"),
            inputs_length=128,
            targets_length=32,
            cache_dir="runs/data",
        ),
        train=TrainConfig(num_train_steps=600, batch_size=16, eval_every_steps=0),
        init=WarmStart(path="runs/small_pretraining"),
        optimizer=AdamW(learning_rate=5e-3, rms_scaled=True, schedule=Linear(warmup_steps=60)),
        decoding=DecodingConfig(max_length=32),
        evaluation=EvaluationConfig(every_steps=200, batch_size=128),
        checkpoints=CheckpointConfig(save_every_steps=200, keep_newest=1),
    )
