"""configs/small_finetuning.py with adapters of width 64 and layer norms trained; docs/transfer.md.

Command:   as configs/small_finetuning.py
Hardware:  as configs/small_finetuning.py
Result:    docs/transfer.md
"""

from configs.small_finetuning import config as finetuning
from t5jax.config import RunConfig
from t5jax.training.optimizers import AdamW
from t5jax.training.peft import Adapters
from t5jax.training.schedules import Linear


def config() -> RunConfig:
    run = finetuning()
    run.workdir = "runs/small_finetuning_adapters"
    run.model.adapter_dim = 64
    run.finetuning = Adapters()
    # Steps relative to a weight would be minute for one that begins at 0.
    run.optimizer = AdamW(learning_rate=2e-3, schedule=Linear(warmup_steps=40))
    return run
