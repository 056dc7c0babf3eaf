"""RunConfig: the sections of a run, and what must hold between them."""

import dataclasses
import math
import os
import re
from typing import Literal

import numpy as np
import optax

from t5jax.checkpoints import CheckpointConfig
from t5jax.config.field_types import check_finite
from t5jax.data.config import DataConfig
from t5jax.data.registry.resolve import check_mixture
from t5jax.decoding.config import DecodingConfig
from t5jax.errors import ConfigError
from t5jax.evaluation.config import EvaluationConfig
from t5jax.model.config import T5Config
from t5jax.paths import run_folder
from t5jax.runtime import RuntimeConfig
from t5jax.sharding import MeshConfig
from t5jax.tracking import TrackingConfig
from t5jax.training.losses import CrossEntropy, Loss
from t5jax.training.optimizers import Adafactor, Optimizer, build_transformation
from t5jax.training.peft import AllParameters, Strategy

# What an evaluation says that can be compared between steps.
EVALUATION_METRICS = ("loss", "text_loss", "accuracy", "perplexity", "text_perplexity")


@dataclasses.dataclass(kw_only=True, slots=True)
class TrainConfig:
    """How long, on how much at a time, and how often to look."""

    num_train_steps: int
    batch_size: int = 128  # rows of the global batch, over all hosts and devices
    # Gradient accumulation: parts that a batch is worked through in; "auto": as memory allows.
    num_microbatches: int | Literal["auto"] = "auto"
    seed: int = 0  # of initial parameters and dropout; the data has its own
    eval_every_steps: int = 1000  # 0: never
    num_eval_rows: int | None = None  # None: the whole validation split
    max_bad_steps: int = 10  # in a row, before the run stops

    @property
    def microbatch_size(self) -> int:
        """Rows of the global batch that are worked through at a time; all where "auto" is left."""
        return self.batch_size // (1 if self.num_microbatches == "auto" else self.num_microbatches)

    def __post_init__(self) -> None:
        for name in ("num_train_steps", "batch_size", "num_microbatches", "max_bad_steps"):
            value = getattr(self, name)
            if value != "auto" and value < 1:
                raise ConfigError(f"train.{name} = {value}: must be at least 1")
        if self.num_train_steps > np.iinfo(np.int32).max:
            raise ConfigError(f"train.num_train_steps = {self.num_train_steps}: at most 2^31 - 1")
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"train.seed = {self.seed}: from 0 to 2^32 - 1")
        if self.eval_every_steps < 0:
            raise ConfigError(f"train.eval_every_steps = {self.eval_every_steps}: 0 means never")
        if self.num_eval_rows is not None and self.num_eval_rows < 1:
            raise ConfigError(f"train.num_eval_rows = {self.num_eval_rows}: at least 1, or None")


@dataclasses.dataclass(kw_only=True, slots=True)
class WarmStart:
    """Where a new run takes its parameters from; once it has saved, it goes on from its own."""

    path: str | None = None  # workdir of another run; None: fresh parameters
    step: int | None = None  # None: the newest good checkpoint
    optimizer: Literal["reset", "keep"] = "reset"  # keep: moments and counts; schedules go on
    keep_step: bool = False  # steps are counted on from the other run's; needs optimizer="keep"

    def __post_init__(self) -> None:
        self.path = run_folder(self.path, "init.path")
        set_here = self.step is not None or self.optimizer != "reset" or self.keep_step
        if self.path is None and set_here:
            raise ConfigError(
                "init.step, init.optimizer and init.keep_step have no effect without init.path: "
                "name the workdir of the run to begin with"
            )
        if self.step is not None and self.step < 0:
            raise ConfigError(f"init.step = {self.step}: 0 or more, or None for the newest")
        if self.optimizer not in ("reset", "keep"):
            raise ConfigError(f"init.optimizer = {self.optimizer!r}: choose 'reset' or 'keep'")
        if self.keep_step and self.optimizer == "reset":
            raise ConfigError(
                "init.keep_step = True with init.optimizer = 'reset': the learning rate follows "
                "the optimizer's count, which would begin at 0; keep both, or neither"
            )


@dataclasses.dataclass(kw_only=True, slots=True)
class RunConfig:
    """One run: the sections, each owned by its room."""

    workdir: str  # checkpoints, metrics and plots; shared by all hosts
    model: T5Config
    data: DataConfig
    train: TrainConfig
    init: WarmStart = dataclasses.field(default_factory=WarmStart)
    finetuning: Strategy = dataclasses.field(default_factory=AllParameters)
    loss: Loss = dataclasses.field(default_factory=CrossEntropy)
    optimizer: Optimizer = dataclasses.field(default_factory=Adafactor)
    decoding: DecodingConfig = dataclasses.field(default_factory=DecodingConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    checkpoints: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    tracking: TrackingConfig = dataclasses.field(default_factory=TrackingConfig)
    runtime: RuntimeConfig = dataclasses.field(default_factory=RuntimeConfig)

    def __post_init__(self) -> None:
        self.workdir = run_folder(self.workdir, "workdir")

    def check(self, *, of_mixture: bool = True) -> None:
        """What concerns one section, or several, and needs no device. Raises ConfigError.

        Without `of_mixture`, settings of the data may be those of other tasks than the mixture's:
        a saved run can be asked about any.
        """
        check_finite(self)
        if of_mixture:
            check_mixture(self.data, self.model.architecture)
        else:
            self.data.check()
        self.mesh.check()
        self.build_optimizer()
        num_microbatches = self.train.num_microbatches
        if num_microbatches != "auto" and self.train.batch_size % num_microbatches:
            raise ConfigError(
                f"train.batch_size = {self.train.batch_size} does not divide into "
                f"train.num_microbatches = {num_microbatches} equal parts"
            )
        self._check_effect()
        self.finetuning.check(self.model)
        if self.finetuning.needs_pretrained and self.init.path is None:
            raise ConfigError(
                f"finetuning: {type(self.finetuning).__name__}, but init.path = None: name the "
                "workdir of the run whose parameters it begins with"
            )
        if self.init.path is not None and _same_place(self.init.path, self.workdir):
            raise ConfigError(
                f"init.path = {self.init.path!r} is the run's own workdir: a run resumes what its "
                "workdir holds by itself; give the new run another workdir"
            )

    def build_optimizer(self) -> optax.GradientTransformation:
        """That of the parameters that train. Raises ConfigError."""
        num_steps = self.train.num_train_steps
        tx = build_transformation(self.optimizer, num_steps)
        return self.finetuning.wrap_optimizer(tx, num_steps)

    def _check_effect(self) -> None:
        """Settings that have no effect: those that need evaluations, without them, and steps to
        keep that never come."""
        every, checkpoints = self.train.eval_every_steps, self.checkpoints
        if not every and self.train.num_eval_rows is not None:
            raise ConfigError(
                f"train.num_eval_rows = {self.train.num_eval_rows} has no effect, because "
                "train.eval_every_steps = 0 means never: change one of them"
            )
        late = [step for step in checkpoints.keep_steps if step > self.train.num_train_steps]
        if late:
            raise ConfigError(
                f"checkpoints.keep_steps: {late} come after the last of train.num_train_steps = "
                f"{self.train.num_train_steps}: leave them out"
            )
        if not checkpoints.keep_best:
            return
        field = "train.eval_every_steps"
        if re.fullmatch(r"validation/.+/.+", checkpoints.best_metric):  # of a task's answers
            field, every = "evaluation.every_steps", self.evaluation.every_steps
        elif checkpoints.best_metric not in [f"validation/{x}" for x in EVALUATION_METRICS]:
            raise ConfigError(
                f"checkpoints.best_metric = {checkpoints.best_metric!r} is not a metric of the "
                "evaluations; validation/TASK/METRIC, or one of "
                + ", ".join(f"validation/{name}" for name in EVALUATION_METRICS)
            )
        if not every:
            raise ConfigError(
                f"checkpoints.keep_best = {checkpoints.keep_best} by {checkpoints.best_metric} "
                f"needs evaluations: set {field}"
            )
        if checkpoints.save_every_steps % every:
            raise ConfigError(
                f"checkpoints.keep_best = {checkpoints.keep_best}: a step is saved every "
                f"checkpoints.save_every_steps = {checkpoints.save_every_steps} and has no metric "
                f"unless {field} = {every} divides that"
            )

    def check_mesh(self, num_devices: int, *, trains: bool = True) -> None:
        """What depends on the number of devices; `trains`: of the train step's batch, too. Raises
        ConfigError with the numbers."""
        data, fsdp, tensor = self.mesh.shape(num_devices)
        sizes = {"data": data, "fsdp": fsdp, "tensor": tensor}
        for axis, size in sizes.items():
            if size > 1 and not any(axis in axes for axes in self.mesh.logical_axis_rules.values()):
                raise ConfigError(
                    f"mesh.{axis} = {size}: nothing is divided along it, so {size} devices would "
                    f"do the same work; name {axis!r} in mesh.batch or another rule of the mesh"
                )
        replicas = 1
        for axis in self.mesh.batch:
            replicas *= sizes[axis]
        rows = self.train.microbatch_size
        if trains and rows % replicas:
            raise ConfigError(
                f"train.batch_size = {self.train.batch_size} in {self.train.batch_size // rows} "
                f"microbatches gives {rows} rows, which do not divide among {replicas} replicas "
                f"(mesh {data}x{fsdp}x{tensor} over {num_devices} devices); change "
                "train.batch_size, train.num_microbatches or the mesh"
            )
        per_vector = math.prod(sizes[axis] for axis in self.mesh.activation_embed)
        if self.model.emb_dim % per_vector:
            raise ConfigError(
                f"model.emb_dim = {self.model.emb_dim} does not divide among {per_vector} devices; "
                "change mesh.activation_embed or the mesh's shape"
            )
        per_heads = 1
        for axis in self.mesh.heads:
            per_heads *= sizes[axis]
        if self.model.num_heads % per_heads:
            raise ConfigError(
                f"model.num_heads = {self.model.num_heads} does not divide among {per_heads} "
                f"devices; change mesh.tensor = {tensor} or mesh.heads"
            )


def _same_place(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)
