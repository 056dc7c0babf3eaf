"""Fine-tunes the model of configs/small_pretraining.py on one of T5's tasks; docs/transfer.md.

Command:   t5jax cache configs/small_finetuning.py FLAGS, then t5jax train with the same;
           FLAGS: --data.mixture glue_sst2_v002 --data.datasets-dir DATA
           --data.vocabulary.path words.model --init.path runs/small_pretraining
Hardware:  2 CPU cores, a few minutes a task; benchmarks/transfer.py runs all of them
Result:    docs/transfer.md
"""

from configs.small_pretraining import model
from t5jax.checkpoints import CheckpointConfig
from t5jax.config import RunConfig, TrainConfig, WarmStart
from t5jax.data.config import DataConfig
from t5jax.data.vocabularies import SentencePieceVocabulary
from t5jax.decoding import DecodingConfig
from t5jax.evaluation.config import EvaluationConfig
from t5jax.training.optimizers import AdamW
from t5jax.training.schedules import Linear


def config() -> RunConfig:
    return RunConfig(
        workdir="runs/small_finetuning",
        model=model(dropout_rate=0.1),
        data=DataConfig(
            mixture="glue_sst2_v002",
            vocabulary=SentencePieceVocabulary(path="runs/words.model"),
            inputs_length=128,
            targets_length=32,
            cache_dir="runs/data",
        ),
        train=TrainConfig(num_train_steps=400, batch_size=16, eval_every_steps=0),
        init=WarmStart(path="runs/small_pretraining"),
        optimizer=AdamW(learning_rate=5e-3, rms_scaled=True, schedule=Linear(warmup_steps=40)),
        decoding=DecodingConfig(max_length=32),
        evaluation=EvaluationConfig(every_steps=100, batch_size=128),
        checkpoints=CheckpointConfig(save_every_steps=400, keep_newest=1),
    )
