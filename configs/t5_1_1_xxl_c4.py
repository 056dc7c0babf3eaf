"""T5 1.1 xxl on C4, 11 billion parameters: its own recipe, 1 000 000 steps of 2048 rows.

Command:   t5jax cache configs/t5_1_1_xxl_c4.py
           sbatch --nodes=16 --gpus-per-node=8 launch/slurm/train.sbatch configs/t5_1_1_xxl_c4.py
           (or another launcher of launch/: the same `t5jax train` on every machine)
Hardware:  laid out for 16 machines of 8 GPUs of 80 GB: parameters shared within one, 16 rows each
Data:      C4 and T5's vocabulary, where `c4_json` in t5jax/recipes.py says
Result:    not yet run
"""

from t5jax.config import RunConfig
from t5jax.model.config import t5_1_1_xxl
from t5jax.recipes import t5_1_1_pretraining
from t5jax.sharding import MeshConfig


def config() -> RunConfig:
    return t5_1_1_pretraining(
        "runs/t5_1_1_xxl_c4",
        t5_1_1_xxl(remat="dots"),
        mesh=MeshConfig(fsdp=8),
    )
