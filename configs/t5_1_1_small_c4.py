"""T5 1.1 small on C4, 77 million parameters: its own recipe, 1 000 000 steps of 2048 rows.

Command:   t5jax cache configs/t5_1_1_small_c4.py
           t5jax train configs/t5_1_1_small_c4.py
Hardware:  laid out for 8 GPUs of 80 GB in one machine: 256 rows each, in 2 microbatches
Predicted: h100:1x8: MFU 33 %, 12.5 of 85.5 GB, 0.95 days (data 8, microbatches 2)
           by t5jax plan, not measured: docs/plans.md
Data:      C4 and T5's vocabulary, where `c4_json` in t5jax/recipes.py says
Result:    not yet run
"""

from t5jax.config import RunConfig
from t5jax.model.config import t5_1_1_small
from t5jax.recipes import t5_1_1_pretraining


def config() -> RunConfig:
    return t5_1_1_pretraining(
        "runs/t5_1_1_small_c4",
        t5_1_1_small(unroll_layers="all"),
        num_microbatches=2,
    )
