"""T5 1.1 large on C4, 783 million parameters: its own recipe, 1 000 000 steps of 2048 rows.

Command:   t5jax cache configs/t5_1_1_large_c4.py
           sbatch --nodes=4 --gpus-per-node=8 launch/slurm/train.sbatch configs/t5_1_1_large_c4.py
           (or another launcher of launch/: the same `t5jax train` on every machine)
Hardware:  laid out for 4 machines of 8 GPUs of 80 GB: 64 rows each
Predicted: h100:4x8: MFU 46 %, 36.3 of 85.5 GB, 2.4 days (data 32, microbatches 1)
           v5e:4x8: MFU 33 %, 16.0 of 16.9 GB, 16.7 days (data 32, microbatches 8)
           by t5jax plan, not measured: docs/plans.md
Data:      C4 and T5's vocabulary, where `c4_json` in t5jax/recipes.py says
Result:    not yet run
"""

from t5jax.config import RunConfig
from t5jax.model.config import t5_1_1_large
from t5jax.recipes import t5_1_1_pretraining


def config() -> RunConfig:
    return t5_1_1_pretraining(
        "runs/t5_1_1_large_c4",
        t5_1_1_large(remat="dots"),
    )
