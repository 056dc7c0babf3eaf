"""An encoder of BERT base's shape with T5's blocks, predicting masked tokens of C4.

Command:   t5jax train configs/t5_base_encoder_only_c4.py, after `t5jax cache` with the same file
Hardware:  laid out for 8 devices of 16 rows each; not yet run on C4
Predicted: h100:1x8: MFU 37 %, 3.4 of 85.5 GB, 0.10 days (data 8, microbatches 1)
           by t5jax plan, not measured: docs/plans.md
Result:    to come
"""

from t5jax.config import RunConfig
from t5jax.model.config import t5_base_encoder_only
from t5jax.recipes import paper_pretraining


def config() -> RunConfig:
    return paper_pretraining(
        "runs/t5_base_encoder_only_c4", t5_base_encoder_only(), objective="bert_style"
    )
