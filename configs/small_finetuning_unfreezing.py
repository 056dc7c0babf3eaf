"""configs/small_finetuning.py unfrozen layer by layer from the top; docs/transfer.md.

Command:   as configs/small_finetuning.py
Hardware:  as configs/small_finetuning.py
Result:    docs/transfer.md
"""

from configs.small_finetuning import config as finetuning
from t5jax.config import RunConfig
from t5jax.training.peft import GradualUnfreezing


def config() -> RunConfig:
    run = finetuning()
    run.workdir = "runs/small_finetuning_unfreezing"
    run.finetuning = GradualUnfreezing()  # three layers: three episodes
    return run
