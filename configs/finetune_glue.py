"""GLUE with T5 1.1 base, every parameter trained: the paper's fine-tuning.

Command:   t5jax cache configs/finetune_glue.py
           t5jax train configs/finetune_glue.py --init.path RUN
Hardware:  laid out for 8 GPUs of 80 GB: 16 rows each
Data:      GLUE from TFDS and T5's vocabulary, where `t5_mixture` in t5jax/recipes.py says
Result:    not yet run. Paper, T5 1.0 base (table 10): GLUE 83.28
"""

from t5jax.config import RunConfig
from t5jax.model.config import t5_1_1_base
from t5jax.recipes import t5_finetuning, t5_mixture


def config() -> RunConfig:
    return t5_finetuning(
        "runs/finetune_glue",
        t5_1_1_base(dropout_rate=0.1, unroll_layers="all"),
        t5_mixture("glue_v002_proportional", targets_length=84),
        pretrained="runs/t5_1_1_base_c4",
    )
