"""Multi-task pre-training without one task, on which it is fine-tuned (the paper's section 3.5.3).

Command:   t5jax cache configs/leave_one_out.py
           t5jax train configs/leave_one_out.py
           t5jax train configs/finetune_glue.py --init.path runs/leave_one_out
           Others: --data.mixture leave_one_out_squad_v010_allanswers (`t5jax tasks --filter
           leave_one_out` lists them), with the config that fine-tunes on that task
Hardware:  as configs/t5_1_1_base_c4.py
Data:      as configs/multitask_pretraining.py
Result:    not yet run
"""

from configs.multitask_pretraining import config as multitask_pretraining
from t5jax.config import RunConfig


def config() -> RunConfig:
    run = multitask_pretraining()
    run.workdir = "runs/leave_one_out"
    run.data.mixture = "leave_one_out_glue_v002_proportional"
    return run
