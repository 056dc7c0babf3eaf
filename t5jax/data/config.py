"""The data section of a run: which task, from which files, with which vocabulary and lengths."""

import dataclasses
import difflib

from t5jax.data.objectives import SpanCorruption
from t5jax.data.sources import Source
from t5jax.data.tasks.builtin import BUILTIN_TASKS, check_task_name
from t5jax.data.vocabularies import ByteVocabulary, SentencePieceVocabulary
from t5jax.errors import ConfigError


@dataclasses.dataclass(kw_only=True, slots=True)
class DataConfig:
    """What a run reads. Lengths are in tokens and count EOS."""

    mixture: str  # a task of `t5jax tasks`, or one that a module of `modules` registers with seqio
    modules: tuple[str, ...] = ()  # Python modules (dotted names) that register tasks
    train_files: tuple[str, ...] = ()  # paths or glob patterns
    validation_files: tuple[str, ...] = ()
    text_column: str = "text"  # of JSON lines and parquet files
    tfds_data_dir: str | None = None  # None: the variable TFDS_DATA_DIR, or TFDS's default
    vocabulary: SentencePieceVocabulary | ByteVocabulary
    inputs_length: int = 512
    targets_length: int | None = None  # None: what the objective makes of inputs_length
    cache_dir: str  # where the tokenised text is kept
    seed: int = 0  # of the order of the data and of the noise

    def check(self) -> None:
        """Raises ConfigError for a setting that is missing, out of range or without effect.

        Files are not opened: whether they are there, the source says when the cache is built.
        """
        check_task_name(self.mixture)
        task = BUILTIN_TASKS.get(self.mixture)
        if task is None and not self.modules:
            raise ConfigError(
                f"data.mixture={self.mixture!r} is not a task of "
                f"t5jax{_did_you_mean(self.mixture)}; `t5jax tasks` "
                "lists them; for a task of your own name the module that registers it in "
                "data.modules"
            )
        if task is not None and self.modules:
            raise ConfigError(
                f"data.modules={self.modules} has no effect: {self.mixture} is a task of t5jax; "
                "leave it empty"
            )
        for name in task.required if task else ():
            if not getattr(self, name):
                raise ConfigError(f"data.{name} is empty: {self.mixture} needs it")
        self._check_effect(task.settings if task else ())
        for name in ("train_files", "validation_files", "modules"):
            if isinstance(getattr(self, name), str):
                raise ConfigError(
                    f"data.{name}={getattr(self, name)!r}: a tuple of strings is expected"
                )
        if not self.cache_dir:
            raise ConfigError("data.cache_dir is empty: name a folder for the tokenised text")
        if self.seed < 0:
            raise ConfigError(f"data.seed={self.seed}: give 0 or more")
        if task is not None:
            self.check_lengths(task.objective)

    def check_lengths(self, objective: SpanCorruption) -> None:
        """Raises ConfigError when a row of the objective does not fit the lengths or the
        sentinels."""
        objective.check(
            inputs_length=self.inputs_length,
            targets_length=self.targets_length_for(objective),
            num_sentinels=self.vocabulary.num_sentinels,
        )

    def targets_length_for(self, objective: SpanCorruption) -> int:
        """`targets_length`, or what the objective makes of `inputs_length`."""
        if self.targets_length is not None:
            return self.targets_length
        return objective.lengths(self.inputs_length).targets

    def _check_effect(self, read: tuple[str, ...]) -> None:
        source_settings = {name for task in BUILTIN_TASKS.values() for name in task.settings}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in source_settings and field.name not in read and value != field.default:
                raise ConfigError(
                    f"data.{field.name}={value!r} has no effect on {self.mixture}: leave it out, "
                    "or take another task"
                )


def source_of(data: DataConfig) -> Source:
    """The documents of the config's task. TensorFlow is imported for a user's own task only.

    Raises ConfigError for an unknown task and for one that cannot be cached.
    """
    task = BUILTIN_TASKS.get(data.mixture)
    return task.source(data) if task else _registered(data)[0]


def objective_of(data: DataConfig) -> SpanCorruption:
    """The objective of the config's task. TensorFlow is imported for a user's own task only."""
    task = BUILTIN_TASKS.get(data.mixture)
    return task.objective if task else _registered(data)[1]


def _registered(data: DataConfig) -> tuple[Source, SpanCorruption]:
    from t5jax.data.tasks import registry

    registry.load_modules(data.modules)
    source, objective, vocabulary = registry.task_source(data.mixture, modules=data.modules)
    if vocabulary.fingerprint != data.vocabulary.fingerprint:
        raise ConfigError(
            f"data.vocabulary={data.vocabulary} is not the one of task {data.mixture}, "
            f"{vocabulary}: they must agree"
        )
    data.check_lengths(objective)
    return source, objective


def _did_you_mean(name: str) -> str:
    near = difflib.get_close_matches(name, BUILTIN_TASKS, n=1)
    return f" (did you mean {near[0]}?)" if near else ""
