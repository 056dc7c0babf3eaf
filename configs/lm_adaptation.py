"""T5 1.1 base trained on as a prefix language model for 100 000 steps, as T5's LM-adapted models.

Command:   t5jax cache configs/lm_adaptation.py
           t5jax train configs/lm_adaptation.py --init.path RUN
Hardware:  as configs/t5_1_1_base_c4.py, whose run it goes on from: steps 1 000 000 to 1 100 000
Data:      C4 and T5's vocabulary, where `c4_json` in t5jax/recipes.py says; the store is shared
Result:    not yet run; Lester et al. 2021 (arXiv:2104.08691) show what it does for prompt tuning
"""

from configs.t5_1_1_base_c4 import config as pretraining
from t5jax.config import RunConfig, WarmStart


def config() -> RunConfig:
    run = pretraining()
    run.workdir = "runs/lm_adaptation"
    run.data.mixture = "c4_json:prefix_lm"
    run.train.num_train_steps += 100_000
    # Moments, learning rate and count of steps go on.
    run.init = WarmStart(path="runs/t5_1_1_base_c4", optimizer="keep", keep_step=True)
    return run
