"""GLUE with T5 1.1 base, unfrozen layer by layer from the top (the paper's section 3.5.1).

Command:   t5jax train configs/finetune_glue_unfreezing.py --init.path RUN
Hardware:  as configs/finetune_glue.py, whose store it shares
Result:    not yet run. Paper, T5 1.0 base (table 10): GLUE 82.50, all parameters 83.28
"""

from configs.finetune_glue import config as finetune_glue
from t5jax.config import RunConfig
from t5jax.training.peft import GradualUnfreezing


def config() -> RunConfig:
    run = finetune_glue()
    run.workdir = "runs/finetune_glue_unfreezing"
    run.finetuning = GradualUnfreezing()  # twelve layers: twelve episodes, as in the paper
    return run
