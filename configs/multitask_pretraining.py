"""T5 1.1 base on C4 and all of T5's tasks at once, to be fine-tuned (the paper's section 3.5.3).

Command:   t5jax cache configs/multitask_pretraining.py
           t5jax train configs/multitask_pretraining.py
           t5jax train configs/finetune_glue.py --init.path runs/multitask_pretraining
Hardware:  as configs/t5_1_1_base_c4.py
Predicted: h100:1x8: MFU 26 %, 4.1 of 85.5 GB, 0.29 days (data 8, microbatches 4)
           by t5jax plan, not measured: docs/plans.md
Data:      C4, GLUE, SuperGLUE, SQuAD, CNN/DailyMail and WMT from TFDS; T5's vocabulary
Result:    not yet run. Paper, T5 1.0 base (table 12), after fine-tuning: GLUE 83.11, 83.28 when
           pre-trained on C4 alone
"""

from t5jax.config import RunConfig
from t5jax.model.config import t5_1_1_base
from t5jax.recipes import t5_1_1_pretraining, t5_mixture


def config() -> RunConfig:
    run = t5_1_1_pretraining(
        "runs/multitask_pretraining",
        t5_1_1_base(unroll_layers="all"),
        num_microbatches=4,
    )
    # Examples-proportional with at most 2^19 of a task, the paper's choice for this.
    run.data = t5_mixture("all_proportional_k19", targets_length=512)
    run.train.num_train_steps, run.train.batch_size = 2**19, 128  # the paper's baseline
    return run
