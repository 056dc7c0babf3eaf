"""T5 1.1 base on C4, 248 million parameters: nanoT5's recipe, 65 536 steps of 128 rows.

Command:   t5jax cache configs/t5_1_1_base_c4_nanot5.py
           t5jax train configs/t5_1_1_base_c4_nanot5.py
Hardware:  laid out for 1 GPU of 80 GB: 128 rows in 2 microbatches; with N of them 128 / N each
Predicted: h100:1x1: MFU 43 %, 20.5 of 85.5 GB, 0.10 days (one device, microbatches 2)
           by t5jax plan, not measured: docs/plans.md
Data:      C4 and T5's vocabulary, where `c4_json` in t5jax/recipes.py says
Result:    not yet run here. nanoT5 reports 1.953 nats per target token on held-out C4, after 10.2
           hours on one A100 (its README; 1.995 with Adafactor and 1/sqrt(step)). To compare:
           t5jax evaluate runs/t5_1_1_base_c4_nanot5 --num-rows 64000
"""

from t5jax.config import RunConfig
from t5jax.model.config import t5_1_1_base
from t5jax.recipes import nanot5_pretraining


def config() -> RunConfig:
    return nanot5_pretraining(
        "runs/t5_1_1_base_c4_nanot5",
        t5_1_1_base(unroll_layers="all"),
        num_microbatches=2,
    )
