"""GLUE with T5 1.1 base, adapters of width 128 and layer norms trained (the paper's section 3.5.1).

Command:   t5jax train configs/finetune_glue_adapters.py --init.path RUN
Hardware:  as configs/finetune_glue.py, whose store it shares
Result:    not yet run. Paper, T5 1.0 base (table 10): GLUE 80.52 with width 32, 81.51 with 128,
           81.54 with 512, all parameters 83.28
"""

from configs.finetune_glue import config as finetune_glue
from t5jax.config import RunConfig
from t5jax.training.optimizers import Adafactor
from t5jax.training.peft import Adapters
from t5jax.training.schedules import Constant


def config() -> RunConfig:
    run = finetune_glue()
    run.workdir = "runs/finetune_glue_adapters"
    run.model.adapter_dim = 128
    run.finetuning = Adapters()
    # Steps relative to a weight would be minute for one that begins at 0.
    run.optimizer = Adafactor(
        learning_rate=1e-3, schedule=Constant(), multiply_by_parameter_scale=False
    )
    return run
