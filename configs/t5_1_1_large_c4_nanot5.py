"""T5 1.1 large on C4, 783 million parameters: nanoT5's recipe, 65 536 steps of 128 rows.

Command:   t5jax cache configs/t5_1_1_large_c4_nanot5.py
           t5jax train configs/t5_1_1_large_c4_nanot5.py
Hardware:  laid out for 8 GPUs of 80 GB in one machine: 16 rows each
Predicted: h100:1x8: MFU 32 %, 20.0 of 85.5 GB, 0.06 days (data 8, microbatches 1)
           by t5jax plan, not measured: docs/plans.md
Data:      C4 and T5's vocabulary, where `c4_json` in t5jax/recipes.py says
Result:    not yet run, and nothing is published for this size
"""

from t5jax.config import RunConfig
from t5jax.model.config import t5_1_1_large
from t5jax.recipes import nanot5_pretraining


def config() -> RunConfig:
    return nanot5_pretraining(
        "runs/t5_1_1_large_c4_nanot5",
        t5_1_1_large(remat="dots"),
    )
