"""A small T5 that learns to fill in blanks of English technical prose, from no download at all.

Command:   make quickstart, or t5jax cache --new-vocabulary 1000 and t5jax train with this file
Hardware:  2 CPU cores
Data:      the documentation strings of the Python packages installed beside t5jax
Result:    loss on text tokens well below their unigram entropy; docs/benchmarks.md has the figures
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
        workdir="runs/quickstart",
        model=T5Config(
            vocab_size=1152,  # 1000 pieces, 100 sentinels, up to a multiple of 128
            emb_dim=128,
            num_heads=4,
            head_dim=32,
            mlp_dim=256,
            num_encoder_layers=2,
            num_decoder_layers=2,
            dtype="float32",
            unroll_layers="all",
        ),
        data=DataConfig(
            mixture="docstrings_span_corruption",
            vocabulary=SentencePieceVocabulary(path="runs/data/quickstart.model"),
            inputs_length=64,
            cache_dir="runs/data",
        ),
        train=TrainConfig(
            num_train_steps=1500,
            batch_size=32,
            eval_every_steps=500,
            num_eval_rows=1024,
        ),
        optimizer=AdamW(learning_rate=5e-2, rms_scaled=True, schedule=Cosine(warmup_steps=50)),
        checkpoints=CheckpointConfig(save_every_steps=500),
    )
