"""T5 1.1 base on C4, 248 million parameters: its own recipe, 1 000 000 steps of 2048 rows.

Command:   t5jax cache configs/t5_1_1_base_c4.py
           t5jax train configs/t5_1_1_base_c4.py
Hardware:  laid out for 8 GPUs of 80 GB in one machine: 256 rows each, in 4 microbatches
Predicted: h100:1x8: MFU 44 %, 18.5 of 85.5 GB, 2.9 days (data 8, microbatches 4)
           v5e:4x4: MFU 42 %, 11.7 of 16.9 GB, 7.7 days (data 16, microbatches 4)
           by t5jax plan, not measured: docs/plans.md
Data:      C4 and T5's vocabulary, where `c4_json` in t5jax/recipes.py says
Result:    not yet run. Known of it: T5 1.1's authors report 1.942 nats per target token on held-out
           C4 after 2^16 steps (as nanoT5's README quotes them)
"""

from t5jax.config import RunConfig
from t5jax.model.config import t5_1_1_base
from t5jax.recipes import t5_1_1_pretraining


def config() -> RunConfig:
    return t5_1_1_pretraining(
        "runs/t5_1_1_base_c4",
        t5_1_1_base(unroll_layers="all"),
        num_microbatches=4,
    )
