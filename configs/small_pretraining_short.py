"""The first part of configs/small_pretraining.py: short texts, to learn to look at the inputs.

Command:   t5jax vocab train configs/small_pretraining_short.py --num-pieces 7900 FLAGS
           t5jax cache configs/small_pretraining_short.py FLAGS; t5jax train the same;
           FLAGS: --data.train-files "DATA/*.jsonl.gz" --data.validation-files "DATA/c4-val*.gz"
Hardware:  one CPU core, 20 minutes
Result:    docs/transfer.md
"""

from configs.small_pretraining import config as config_of_long_texts
from t5jax.config import RunConfig, WarmStart
from t5jax.data.registry import add_mixture
from t5jax.data.tasks import Custom, Mixture
from t5jax.training.schedules import Constant

# Copying is learnt from few positions in 500 steps, from 128 of them not at all: docs/transfer.md.
RATES = {"jsonl:span_3_15_u_u": 0.5, "jsonl:bert_style": 0.5}
add_mixture(Mixture(name="small_pretraining_short", tasks=tuple(RATES), rate=Custom(weights=RATES)))


def config() -> RunConfig:
    run = config_of_long_texts()
    run.workdir = "runs/small_pretraining_short"
    run.init = WarmStart()
    run.data.mixture = "small_pretraining_short"
    run.data.modules = ("configs.small_pretraining_short",)
    run.data.inputs_length, run.data.targets_length = 32, 36
    run.train.num_train_steps, run.train.batch_size, run.train.num_eval_rows = 800, 64, 256
    run.optimizer.learning_rate = 2e-2
    run.optimizer.schedule = Constant(warmup_steps=100)
    return run
