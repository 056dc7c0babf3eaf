"""RunConfig: everything a run is, as Python; how it is read, overridden, printed and checked.

A config file defines `config() -> RunConfig`. Command-line flags `--section.field value` change its
values, never its structure. The effective config is plain text, one `section.field = value` a line,
saved with the run and in every checkpoint, and reads back into the same RunConfig.
"""

import ast
import contextlib
import dataclasses
import difflib
import importlib.util
import math
import os
import pathlib
import re
import sys
import traceback
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import optax

from t5jax.checkpoints import CheckpointConfig
from t5jax.data.config import DataConfig
from t5jax.data.conversion import converter_for
from t5jax.data.tasks import registry
from t5jax.decoding.config import DecodingConfig
from t5jax.errors import ConfigError
from t5jax.evaluation.config import EvaluationConfig
from t5jax.model.config import T5Config
from t5jax.reporting import ReportingConfig
from t5jax.runtime import ExitCode, RuntimeConfig
from t5jax.sharding import MeshConfig
from t5jax.training.finetuning import AllParameters, Strategy
from t5jax.training.losses import CrossEntropy
from t5jax.training.optimizers import Adafactor, Optimizer

# What an evaluation says that can be compared between steps.
EVALUATION_METRICS = ("loss", "text_loss", "accuracy", "perplexity", "text_perplexity")


@dataclasses.dataclass(kw_only=True, slots=True)
class TrainConfig:
    """How long, on how much at a time, and how often to look."""

    num_train_steps: int
    batch_size: int = 128  # rows of the global batch, over all hosts and devices
    num_microbatches: int = 1  # the batch is worked through in this many parts
    seed: int = 0  # of initial parameters and dropout; the data has its own
    eval_every_steps: int = 1000  # 0: never
    num_eval_rows: int | None = None  # None: the whole validation split
    max_bad_steps: int = 10  # in a row, before the run stops

    def __post_init__(self) -> None:
        for name in ("num_train_steps", "batch_size", "num_microbatches", "max_bad_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"train.{name} = {getattr(self, name)}: must be at least 1")
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
        set_here = self.step is not None or self.optimizer != "reset" or self.keep_step
        if self.path is None and set_here:
            raise ConfigError(
                "init.step, init.optimizer and init.keep_step have no effect without init.path: "
                "name the workdir of the run to begin with"
            )
        if self.path == "":
            raise ConfigError("init.path = '': name the workdir of a run, or None")
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
    loss: CrossEntropy = dataclasses.field(default_factory=CrossEntropy)
    optimizer: Optimizer = dataclasses.field(default_factory=Adafactor)
    decoding: DecodingConfig = dataclasses.field(default_factory=DecodingConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    checkpoints: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    reporting: ReportingConfig = dataclasses.field(default_factory=ReportingConfig)
    runtime: RuntimeConfig = dataclasses.field(default_factory=RuntimeConfig)

    def check(self) -> None:
        """What concerns one section, or several, and needs no device. Raises ConfigError."""
        check_finite(self)
        self.data.check()
        if registry.builtin(self.data.mixture) is not None:  # of others, when their data is opened
            tasks = registry.tasks_of(self.data.mixture, self.data)
            converter_for(self.model.architecture, tasks, self.data)
        self.mesh.check()
        self.build_optimizer()
        if self.train.batch_size % self.train.num_microbatches:
            raise ConfigError(
                f"train.batch_size = {self.train.batch_size} does not divide into "
                f"train.num_microbatches = {self.train.num_microbatches} equal parts"
            )
        self._check_evaluation()
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
        return self.finetuning.wrapped(self.optimizer.build(num_steps), num_steps)

    def _check_evaluation(self) -> None:
        """Settings that need evaluations have no effect without them."""
        every, checkpoints = self.train.eval_every_steps, self.checkpoints
        if not every and self.train.num_eval_rows is not None:
            raise ConfigError(
                f"train.num_eval_rows = {self.train.num_eval_rows} has no effect, because "
                "train.eval_every_steps = 0 means never: change one of them"
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

    def check_mesh(self, num_devices: int) -> None:
        """What depends on the number of devices. Raises ConfigError with the numbers."""
        data, fsdp, tensor = self.mesh.shape(num_devices)
        sizes = {"data": data, "fsdp": fsdp, "tensor": tensor}
        for axis, size in sizes.items():
            if size > 1 and not any(axis in axes for axes in self.mesh.rules.values()):
                raise ConfigError(
                    f"mesh.{axis} = {size}: nothing is divided along it, so {size} devices would "
                    f"do the same work; name {axis!r} in mesh.batch or another rule of the mesh"
                )
        replicas = 1
        for axis in self.mesh.batch:
            replicas *= sizes[axis]
        rows = self.train.batch_size // self.train.num_microbatches
        if rows % replicas:
            raise ConfigError(
                f"train.batch_size = {self.train.batch_size} in {self.train.num_microbatches} "
                f"microbatches gives {rows} rows, which do not divide among {replicas} replicas "
                f"(mesh {data}x{fsdp}x{tensor} over {num_devices} devices)"
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


# ---- reading a config file and the flags


def load(path: str, flags: list[str] | None = None) -> RunConfig:
    """Runs the config file, applies `--section.field value` flags, checks the result.

    Raises ConfigError (naming file, field, value and next step) on anything that does not fit.
    """
    config = _run_file(path)
    if not isinstance(config, RunConfig):
        raise ConfigError(f"{path}: config() returned {type(config).__name__}, not a RunConfig")
    check_types(config)
    config = override(config, flags or [], program=f"t5jax train {path}")
    config.check()
    return config


def _run_file(path: str) -> Any:
    """What `config()` of the file returns. Its mistakes become ConfigErrors with file and line."""
    file = pathlib.Path(path)
    if not file.is_file():
        near = difflib.get_close_matches(
            str(path), map(str, pathlib.Path().glob("configs/**/*.py"))
        )
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"there is no config file {path}{hint}")
    spec = importlib.util.spec_from_file_location(f"t5jax_config_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is not a Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # where the modules of data.modules are looked for, too
    with _mistakes_of(file):
        spec.loader.exec_module(module)
    if not callable(getattr(module, "config", None)):
        raise ConfigError(f"{path} defines no function `config() -> RunConfig`")
    with _mistakes_of(file):
        return module.config()


@contextlib.contextmanager
def _mistakes_of(file: pathlib.Path) -> Iterator[None]:
    """Whatever goes wrong in a config file is the user's to mend: where, what, and a suggestion."""
    try:
        yield
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [f for f in frames if pathlib.Path(f.filename).absolute() == file.absolute()]
        line = error.lineno if isinstance(error, SyntaxError) else own[-1].lineno if own else None
        place = str(file) if line is None else f"{file}, line {line}"
        what = str(error) if isinstance(error, ConfigError) else f"{type(error).__name__}: {error}"
        raise ConfigError(f"{place}: {what}{_did_you_mean(error)}") from error


def _did_you_mean(error: Exception) -> str:
    """For a section that was given a field which it does not have."""
    found = re.match(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
    sections = {cls.__name__: cls for cls in _sections(RunConfig)}
    if found is None or found[1] not in sections:
        return ""
    fields = [field.name for field in dataclasses.fields(sections[found[1]])]
    near = difflib.get_close_matches(found[2], fields, n=1)
    return f"; did you mean {near[0]}?" if near else f"; it has {', '.join(fields)}"


def _sections(hint: Any) -> Iterator[Any]:
    """The dataclasses that a config can be made of."""
    for cls in (hint, *typing.get_args(hint)):
        if dataclasses.is_dataclass(cls):
            yield cls
            for inner in typing.get_type_hints(cls).values():
                yield from _sections(inner)


def check_types(section: Any, prefix: str = "") -> None:
    """Raises ConfigError for a value that is not of its field's declared type.

    Python itself would only notice where the value is used.
    """
    hints = typing.get_type_hints(type(section))
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        check_type(f"{prefix}{field.name}", value, hints[field.name])
        if dataclasses.is_dataclass(value):
            check_types(value, f"{prefix}{field.name}.")


def check_type(name: str, value: Any, hint: Any) -> None:
    """The same for one value of a field that is declared with `hint`."""
    if not _fits(value, hint):
        raise ConfigError(
            f"{name} = {value!r}: a {type(value).__name__}, but the field is declared as "
            f"{getattr(hint, '__name__', hint)}"
        )


def check_finite(section: Any, prefix: str = "") -> None:
    """Raises ConfigError for a number that is infinite or not a number."""
    for field in dataclasses.fields(section):
        name, value = f"{prefix}{field.name}", getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            check_finite(value, f"{name}.")
        elif isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{name} = {value}: must be a finite number")


def _fits(value: Any, hint: Any) -> bool:
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in options)
    if origin is typing.Literal:
        return value in options
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, options[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(item, options[1]) for item in value.values())
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, int | float if hint is float else hint)


def override(config: RunConfig, flags: list[str], *, program: str) -> RunConfig:
    """The config with `--section.field value` applied.

    What does not fit is refused with a suggestion and an exit (SystemExit), as `--help` is.
    """
    import tyro

    keep_structure = (
        tyro.conf.AvoidSubcommands,  # an optimizer's fields can be set, not another optimizer
        tyro.conf.FlagConversionOff,  # booleans take True or False, like any other value
    )
    try:
        new = tyro.cli(RunConfig, default=config, args=flags, prog=program, config=keep_structure)
    except SystemExit as end:
        # tyro has said what is wrong; its own exit code is 2.
        raise SystemExit(ExitCode.CONFIG if end.code else 0) from None
    _refuse_words_for_empty(new)
    return new


def _refuse_words_for_empty(section: Any, prefix: str = "") -> None:
    """Raises ConfigError for a list whose only item is how somebody may spell an empty one."""
    for field in dataclasses.fields(section):
        name, value = f"{prefix}{field.name}", getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            _refuse_words_for_empty(value, f"{name}.")
        elif value in [(word,) for word in ("", "()", "[]", "None")]:
            flag = name.replace("_", "-")
            raise ConfigError(
                f"{name} = {value!r}: to empty a list give --{flag} with nothing after it"
            )


# ---- the effective config as text


def to_text(config: RunConfig) -> str:
    """One `section.field = value` a line, as declared; a union's class as `section: Class`."""
    lines = []

    def visit(prefix: str, value: Any, hint: Any) -> None:
        if not dataclasses.is_dataclass(value):
            lines.append(f"{prefix} = {value!r}")
            return
        if prefix and _is_union(hint):
            lines.append(f"{prefix}: {type(value).__name__}")
        hints = typing.get_type_hints(type(value))
        for field in dataclasses.fields(value):
            if field.init:
                name = f"{prefix}.{field.name}" if prefix else field.name
                visit(name, getattr(value, field.name), hints[field.name])

    visit("", config, RunConfig)
    return "\n".join(lines) + "\n"


def from_text(text: str) -> RunConfig:
    """Inverse of `to_text`. Raises ConfigError on a line that fits no field."""
    values, classes = {}, {}
    for number, line in enumerate(text.splitlines(), 1):
        if " = " in line:
            name, literal = line.split(" = ", 1)
            try:
                values[name] = ast.literal_eval(literal)
            except (ValueError, SyntaxError) as error:
                raise ConfigError(f"line {number} of a saved config: {line!r}: {error}") from error
        elif ": " in line:
            name, classes[name] = line.split(": ", 1)
        elif line.strip():
            raise ConfigError(f"line {number} of a saved config is not `field = value`: {line!r}")

    def build(prefix: str, hint: Any) -> Any:
        options: list[Any] = [
            h for h in typing.get_args(hint) or (hint,) if dataclasses.is_dataclass(h)
        ]
        if not options or prefix in values:
            return values.pop(prefix)
        name = classes.pop(prefix, options[0].__name__)
        cls = next((c for c in options if c.__name__ == name), None)
        if cls is None:
            raise ConfigError(
                f"a saved config says {prefix}: {name}, which does not exist (any more)"
            )
        hints, arguments = typing.get_type_hints(cls), {}
        for field in dataclasses.fields(cls):
            path = f"{prefix}.{field.name}" if prefix else field.name
            if any(key == path or key.startswith(f"{path}.") for key in (*values, *classes)):
                arguments[field.name] = build(path, hints[field.name])
        try:
            return cls(**arguments)
        except TypeError as error:
            raise ConfigError(f"a saved config does not fit: {error}") from error

    config = build("", RunConfig)
    if values:
        raise ConfigError(f"a saved config has unknown fields: {', '.join(sorted(values))}")
    return config


def _is_union(hint: Any) -> bool:
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return False
    return sum(dataclasses.is_dataclass(h) for h in typing.get_args(hint)) > 1
