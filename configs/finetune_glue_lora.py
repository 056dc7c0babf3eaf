"""GLUE with T5 1.1 base, LoRA of rank 8 on queries and values (Hu et al. 2021, arXiv:2106.09685).

Command:   t5jax train configs/finetune_glue_lora.py --init.path RUN
           t5jax merge runs/finetune_glue_lora runs/merged
Hardware:  as configs/finetune_glue.py, whose store it shares
Result:    not yet run; no published figure for T5. Rate and steps are a first guess
"""

from configs.finetune_glue import config as finetune_glue
from t5jax.config import RunConfig
from t5jax.training.optimizers import AdamW
from t5jax.training.peft import LoRA
from t5jax.training.schedules import Linear


def config() -> RunConfig:
    run = finetune_glue()
    run.workdir = "runs/finetune_glue_lora"
    run.train.num_train_steps = 50_000
    run.finetuning = LoRA(rank=8, alpha=16.0)
    run.optimizer = AdamW(learning_rate=1e-3, schedule=Linear(warmup_steps=500))
    return run
