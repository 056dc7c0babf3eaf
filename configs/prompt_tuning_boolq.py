"""BoolQ with a soft prompt of 100 vectors before an LM-adapted T5 1.1 base; nothing else trains.

Command:   t5jax cache configs/prompt_tuning_boolq.py
           t5jax train configs/prompt_tuning_boolq.py --init.path RUN
Hardware:  1 GPU of 80 GB
Data:      SuperGLUE's BoolQ from TFDS and T5's vocabulary, where t5jax/recipes.py says
Result:    not yet run. Settings of Lester et al. 2021 (arXiv:2104.08691)
"""

from t5jax.checkpoints import CheckpointConfig
from t5jax.config import RunConfig
from t5jax.model.config import t5_1_1_base
from t5jax.recipes import t5_finetuning, t5_mixture
from t5jax.training.optimizers import Adafactor
from t5jax.training.peft import PromptTuning
from t5jax.training.schedules import Constant


def config() -> RunConfig:
    run = t5_finetuning(
        "runs/prompt_tuning_boolq",
        t5_1_1_base(prompt_length=100, unroll_layers="all"),
        t5_mixture("super_glue_boolq_v102", targets_length=8),
        pretrained="runs/lm_adaptation",
        finetuning=PromptTuning(),
        optimizer=Adafactor(
            learning_rate=0.3,
            schedule=Constant(),
            multiply_by_parameter_scale=False,
            weight_decay=1e-5,
        ),
    )
    run.data.pack = False  # a prompt stands in front of every input
    run.train.num_train_steps, run.train.batch_size = 30_000, 32
    run.train.eval_every_steps = 1000
    run.checkpoints = CheckpointConfig(save_every_steps=1000, keep_best=1)
    return run
