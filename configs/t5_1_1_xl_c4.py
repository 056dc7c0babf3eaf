"""T5 1.1 xl on C4, 2.8 billion parameters: its own recipe, 1 000 000 steps of 2048 rows.

Command:   t5jax cache configs/t5_1_1_xl_c4.py
           sbatch --nodes=8 --gpus-per-node=8 launch/slurm/train.sbatch configs/t5_1_1_xl_c4.py
           (or another launcher of launch/: the same `t5jax train` on every machine)
Hardware:  laid out for 8 machines of 8 GPUs of 80 GB: parameters shared within one, 32 rows each
Predicted: v5p:4x4x8: MFU 45 %, 17.8 of 102.8 GB, 4.8 days (data 16 x fsdp 8, microbatches 1)
           by t5jax plan, not measured: docs/plans.md
Data:      C4 and T5's vocabulary, where `c4_json` in t5jax/recipes.py says
Result:    not yet run
"""

from t5jax.config import RunConfig
from t5jax.model.config import t5_1_1_xl
from t5jax.recipes import t5_1_1_pretraining
from t5jax.sharding import MeshConfig


def config() -> RunConfig:
    return t5_1_1_pretraining(
        "runs/t5_1_1_xl_c4",
        t5_1_1_xl(remat="dots"),
        mesh=MeshConfig(fsdp=8),
    )
