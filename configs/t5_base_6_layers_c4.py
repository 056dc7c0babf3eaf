"""T5 1.0 base with 6 + 6 layers, as much work as a language model of 12, denoising C4 (table 2).

Command:   t5jax train configs/t5_base_6_layers_c4.py, after `t5jax cache` with the same file
Hardware:  laid out for 8 devices of 16 rows each; not yet run on C4
Predicted: h100:1x8: MFU 34 %, 3.0 of 85.5 GB, 0.08 days (data 8, microbatches 1)
           by t5jax plan, not measured: docs/plans.md
Result:    the paper's GLUE average after fine-tuning is 80.88; own figures to come
"""

from t5jax.config import RunConfig
from t5jax.model.config import t5_base_6_layers
from t5jax.recipes import paper_pretraining


def config() -> RunConfig:
    return paper_pretraining("runs/t5_base_6_layers_c4", t5_base_6_layers())
