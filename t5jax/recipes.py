"""Published recipes of pre-training and fine-tuning as functions of a model.

`configs/` has a file per run. Their arguments are what devices decide: mesh, microbatches, and the
model with its unrolling and rematerialisation.
"""

from typing import Literal

from t5jax.buckets import check_readable
from t5jax.checkpoints import CheckpointConfig, checkpoint_directory, explain, latest_record
from t5jax.config import RunConfig, TrainConfig, WarmStart, from_record
from t5jax.data.config import DataConfig
from t5jax.data.vocabularies import SentencePieceVocabulary
from t5jax.errors import ConfigError
from t5jax.model.config import T5Config
from t5jax.paths import run_folder
from t5jax.sharding import MeshConfig
from t5jax.tracking import TrackingConfig
from t5jax.training.losses import CrossEntropy
from t5jax.training.optimizers import Adafactor, AdamW, Optimizer
from t5jax.training.peft import AllParameters, Strategy
from t5jax.training.schedules import Constant, Cosine, Rsqrt


def c4_json() -> DataConfig:
    """Data of C4 (en) with T5's vocabulary: 568 tokens of text a row, 512 inputs, 114 targets.

    The files are AllenAI's, en/c4-train.*.json.gz and en/c4-validation.*.json.gz, under data/c4,
    and T5's spiece.model under data/t5; --data.train-files, --data.validation-files and
    --data.vocabulary.path name other places. All runs on C4 share one tokenised store, so that
    `t5jax cache` has to run for one of them only. C4 as TFDS prepared it:
    --data.mixture c4_v220_span_corruption --data.train-files --data.validation-files
    --data.tfds-data-dir DIR (the two file lists empty).
    """
    return DataConfig(
        mixture="c4_json_span_corruption",
        train_files=("data/c4/en/c4-train.*.json.gz",),
        validation_files=("data/c4/en/c4-validation.*.json.gz",),
        vocabulary=SentencePieceVocabulary(path="data/t5/spiece.model"),
        inputs_length=512,
        cache_dir="data/cache",
    )


def t5_1_1_pretraining(
    workdir: str,
    model: T5Config,
    *,
    mesh: MeshConfig | None = None,
    num_microbatches: int | Literal["auto"] = "auto",
) -> RunConfig:
    """T5 1.1 pre-training as published: a million steps of 2048 rows, 10^12 tokens of text.

    Adafactor with rate 1/sqrt(max(step, 10 000)), no dropout, z-loss 1e-4, bfloat16 activations
    (Raffel et al. 2020, sections 3.1.2 and 3.7; the released T5 1.1 configurations).
    """
    return RunConfig(
        workdir=workdir,
        model=model,
        data=c4_json(),
        train=TrainConfig(
            num_train_steps=1_000_000,
            batch_size=2048,
            num_microbatches=num_microbatches,
            eval_every_steps=10_000,
            num_eval_rows=16_384,
        ),
        loss=CrossEntropy(z_loss=1e-4),
        optimizer=Adafactor(learning_rate=1.0, schedule=Rsqrt(warmup_steps=10_000)),
        mesh=mesh or MeshConfig(),
        checkpoints=CheckpointConfig(save_every_steps=1000, keep_every_steps=100_000),
        tracking=TrackingConfig(log_every_steps=10),
    )


def nanot5_pretraining(
    workdir: str,
    model: T5Config,
    *,
    mesh: MeshConfig | None = None,
    num_microbatches: int | Literal["auto"] = "auto",
) -> RunConfig:
    """nanoT5 pre-training: 65 536 steps of 128 rows, Nawrot 2023 (arXiv:2309.02373).

    AdamW with updates scaled by the RMS of the parameters, rate 2e-2, warm-up of 10 000 steps from
    half of it, then cosine decay to 1e-5; plain cross-entropy, no dropout. Published for base only.
    Differs from nanoT5 in the initialisation (T5X's) and in how C4 is cut into rows (T5's).
    """
    return RunConfig(
        workdir=workdir,
        model=model,
        data=c4_json(),
        train=TrainConfig(
            num_train_steps=65_536,
            batch_size=128,
            num_microbatches=num_microbatches,
            eval_every_steps=4096,
            num_eval_rows=8192,
        ),
        loss=CrossEntropy(z_loss=0.0),
        optimizer=AdamW(
            learning_rate=2e-2,
            schedule=Cosine(warmup_steps=10_000, initial_fraction=0.5, final_fraction=5e-4),
            beta1=0.9,
            beta2=0.999,
            eps=1e-6,
            weight_decay=0.0,
            rms_scaled=True,
            global_norm_clip=1.0,
        ),
        mesh=mesh or MeshConfig(),
        checkpoints=CheckpointConfig(save_every_steps=1024, keep_every_steps=16_384),
        tracking=TrackingConfig(log_every_steps=10),
    )


def paper_pretraining(
    workdir: str,
    model: T5Config,
    *,
    objective: str = "iid_denoising",
    inputs_length: int = 512,
    mesh: MeshConfig | None = None,
    num_microbatches: int | Literal["auto"] = "auto",
) -> RunConfig:
    """Pre-training of the T5 paper's baseline study: 2^19 steps of 128 rows, 2^35 tokens.

    Adafactor with rate 1/sqrt(max(step, 10 000)), z-loss 1e-4, dropout of the model (Raffel et al.
    2020, section 3.1.2). Table 2 compares architectures with this recipe, each with a denoising
    objective and with one of language modelling: --data.objective prefix_lm, or for a decoder_only
    model --data.objective lm --data.targets-length 512.
    """
    data = c4_json()
    data.objective, data.inputs_length = objective, inputs_length
    return RunConfig(
        workdir=workdir,
        model=model,
        data=data,
        train=TrainConfig(
            num_train_steps=2**19,
            batch_size=128,
            num_microbatches=num_microbatches,
            eval_every_steps=8192,
            num_eval_rows=8192,
        ),
        loss=CrossEntropy(z_loss=1e-4),
        optimizer=Adafactor(learning_rate=1.0, schedule=Rsqrt(warmup_steps=10_000)),
        mesh=mesh or MeshConfig(),
        checkpoints=CheckpointConfig(save_every_steps=4096, keep_every_steps=65_536),
        tracking=TrackingConfig(log_every_steps=10),
    )


def t5_mixture(mixture: str, *, inputs_length: int = 512, targets_length: int) -> DataConfig:
    """Data of a task or mixture of T5's, from TFDS, with T5's vocabulary; --data.datasets-dir reads
    the original files instead."""
    return DataConfig(
        mixture=mixture,
        vocabulary=SentencePieceVocabulary(path="data/t5/spiece.model"),
        inputs_length=inputs_length,
        targets_length=targets_length,
        cache_dir="data/cache",
    )


def t5_finetuning(
    workdir: str,
    model: T5Config,
    data: DataConfig,
    *,
    pretrained: str,
    finetuning: Strategy | None = None,
    optimizer: Optimizer | None = None,
    mesh: MeshConfig | None = None,
    num_microbatches: int | Literal["auto"] = "auto",
) -> RunConfig:
    """T5 fine-tuning: 2^18 steps of 128 rows, Adafactor at a constant 1e-3, the best of the
    checkpoints made every 5000 steps (Raffel et al. 2020, section 3.1.3).

    The paper's models have dropout 0.1. `pretrained` is the workdir of another run, converted or
    trained, whose model and vocabulary `saved_config` returns.
    """
    return RunConfig(
        workdir=workdir,
        model=model,
        data=data,
        train=TrainConfig(
            num_train_steps=2**18,
            batch_size=128,
            num_microbatches=num_microbatches,
            eval_every_steps=5000,
        ),
        init=WarmStart(path=pretrained),
        finetuning=finetuning or AllParameters(),
        loss=CrossEntropy(z_loss=1e-4),
        optimizer=optimizer or Adafactor(learning_rate=1e-3, schedule=Constant()),
        mesh=mesh or MeshConfig(),
        checkpoints=CheckpointConfig(save_every_steps=5000, keep_best=1),
        tracking=TrackingConfig(log_every_steps=10),
    )


def saved_config(workdir: str) -> RunConfig:
    """The config in a run's newest checkpoint.

    A run that is initialised from another (`init.path`) must have its model and vocabulary:
    `saved_config("runs/flan").model` and `.data.vocabulary`. Raises ConfigError when there is no
    checkpoint, DataError for a bucket that cannot be read.
    """
    workdir = run_folder(workdir, "workdir")
    directory = checkpoint_directory(workdir)
    check_readable(directory)
    if not directory.is_dir():
        otherwise = (
            "name the workdir of a run, or make one of another program's model with t5jax convert "
            f"MODEL {workdir}"
        )
        raise ConfigError(explain(workdir, otherwise))
    return from_record(latest_record(directory).content, workdir)
