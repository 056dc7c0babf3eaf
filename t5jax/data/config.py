"""The data section of a run: which task or mixture, from which files, with which vocabulary and
lengths."""

import dataclasses
import difflib
from collections.abc import Sequence

import numpy as np

from t5jax.data import objectives, registry
from t5jax.data.modules import load_entry_points, load_modules
from t5jax.data.objectives import Objective
from t5jax.data.records import BadRecordPolicy
from t5jax.data.tasks.mixture import Mixture
from t5jax.data.tasks.task import Described, Task
from t5jax.data.vocabularies import (
    ByteVocabulary,
    HuggingFaceVocabulary,
    SentencePieceVocabulary,
)
from t5jax.errors import ConfigError

_SETTINGS = (  # fields that some tasks read and others do not
    "train_files",
    "validation_files",
    "test_files",
    "text_column",
    "tfds_data_dir",
    "datasets_dir",
    "huggingface_dataset",
)


@dataclasses.dataclass(kw_only=True, slots=True)
class DataConfig:
    """What a run reads. Lengths are in tokens and count EOS."""

    mixture: str  # a task or mixture of `t5jax tasks`, or one that a module of `modules` registers
    modules: tuple[str, ...] = ()  # Python modules (dotted names) that register tasks
    train_files: tuple[str, ...] = ()  # paths, glob patterns or URLs (gs://, s3://)
    validation_files: tuple[str, ...] = ()
    test_files: tuple[str, ...] = ()
    text_column: str = "text"  # of JSON lines, TSV and parquet files
    tfds_data_dir: str | None = None  # None: the variable TFDS_DATA_DIR, or TFDS's default
    datasets_dir: str | None = None  # GLUE, SuperGLUE, SQuAD, ... as local files; None: TFDS
    huggingface_dataset: str | None = None  # name on the hub, or a folder
    vocabulary: SentencePieceVocabulary | ByteVocabulary | HuggingFaceVocabulary
    objective: str | None = None  # instead of the text tasks' own: "prefix_lm", or with arguments
    inputs_length: int = 512
    targets_length: int | None = None  # None: what the objective makes of inputs_length
    pack: bool = True  # several examples in a row, where a task has examples
    loss_on_targets_only: bool = True  # of a model that reads inputs and targets in one row
    max_text_tokens: int | None = None  # of each text task: its first ones, repeated exactly
    cache_dir: str | None  # where the tokenised text is kept; None: tokenised while training reads
    on_bad_record: str = "error"  # or "skip": leave it out and count it
    max_bad_fraction: float = 0.001  # of a file's records that may be left out
    seed: int = 0  # of the order of the data and of the noise

    def check(self) -> None:
        """Raises ConfigError for a setting that is missing, out of range or without effect.

        Files are not opened: whether they are there, the source says when the cache is built.
        """
        self.check_values()
        found = registry.find_builtin(self.mixture)
        if found is None:
            if not self.modules and self.mixture not in registry.own_names():
                self._check_known()
            return  # the rest is checked when the modules are imported: `check_tasks`
        if self.modules:
            raise ConfigError(
                f"data.modules={self.modules} has no effect: {self.mixture} comes with t5jax; "
                "leave it empty"
            )
        self.check_tasks(registry.tasks_of(self.mixture, self))

    def check_tasks(self, tasks: list[Task]) -> None:
        """Raises ConfigError for what does not fit the tasks of the mixture."""
        self.check_required(tasks)
        read = {name for task in tasks for name in task.settings}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in _SETTINGS and field.name not in read and value != field.default:
                raise ConfigError(
                    f"data.{field.name}={value!r} has no effect on {self.mixture}: leave it out, "
                    "or take another task"
                )
        texts = [task for task in tasks if task.objective is not None]
        for name in ("objective", "max_text_tokens"):
            if getattr(self, name) is not None and not texts:
                raise ConfigError(
                    f"data.{name}={getattr(self, name)!r} has no effect on {self.mixture}, which "
                    "has no task of plain text: leave it out"
                )
        if not self.pack and len(texts) == len(tasks):
            raise ConfigError(f"data.pack=False has no effect on {self.mixture}: leave it out")
        self.check_lengths(tasks)

    def check_required(self, tasks: Sequence[Task]) -> None:
        """Raises ConfigError for a setting that a task cannot be read without."""
        for task in tasks:
            for name in task.required:
                if not getattr(self, name):
                    raise ConfigError(f"data.{name} is empty: {task.name} needs it")

    def check_lengths(self, tasks: Sequence[Described]) -> None:
        """Raises ConfigError when a row of a text task does not fit the lengths or sentinels, and
        when nothing says how long the targets are."""
        targets_length = self.targets_length_for(tasks)
        for task in tasks:
            objective = self.objective_for(task)
            if objective is not None:
                objective.check(
                    inputs_length=self.inputs_length - len(self.prefix_ids(task)),
                    targets_length=targets_length,
                    num_sentinels=self.vocabulary.num_sentinels,
                )

    def objective_for(self, task: Described) -> Objective | None:
        """The objective of a text task: the config's, or the task's own; None for examples."""
        if task.objective is None or self.objective is None:
            return task.objective
        return objectives.parse(self.objective)

    def prefix_ids(self, task: Described) -> np.ndarray:
        """int32 ids that stand in front of every row's inputs."""
        return self.vocabulary.encode(task.prefix) if task.prefix else np.zeros(0, np.int32)

    def targets_length_for(self, tasks: Sequence[Described]) -> int:
        """`targets_length`, or the most that the text tasks' objectives make of `inputs_length`."""
        if self.targets_length is not None:
            return self.targets_length
        found = [self.objective_for(task) for task in tasks]
        if None in found:
            names = [task.name for task, o in zip(tasks, found, strict=True) if o is None]
            raise ConfigError(
                f"data.targets_length is not set, and {', '.join(names[:5])} has examples of its "
                "own: say how many tokens targets may have (T5: 84 for GLUE, 62 for SuperGLUE, 97 "
                "for SQuAD, 512 for translation and summaries)"
            )
        lengths = [
            o.lengths(self.inputs_length - len(self.prefix_ids(task))).targets
            for task, o in zip(tasks, found, strict=True)
            if o is not None
        ]
        return max(lengths)

    def _check_known(self) -> None:
        """Raises ConfigError when neither t5jax nor an installed package has the mixture."""
        near = difflib.get_close_matches(self.mixture, registry.builtin_names(), n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        load_entry_points()
        if self.mixture not in (*registry.own_names(), *registry.seqio_names()):
            raise ConfigError(
                f"data.mixture={self.mixture!r} is not a task or mixture of t5jax{hint}; `t5jax "
                "tasks` lists them; for one of your own name the module that registers it in "
                "data.modules"
            )

    def check_values(self) -> None:
        """Raises ConfigError for a value that is out of range, whatever is read with it."""
        registry.check_task_name(self.mixture)
        for name in ("train_files", "validation_files", "test_files", "modules"):
            if isinstance(getattr(self, name), str):
                raise ConfigError(
                    f"data.{name}={getattr(self, name)!r}: a tuple of strings is expected"
                )
        if self.cache_dir is not None and not self.cache_dir:
            raise ConfigError(
                "data.cache_dir is empty: name a folder for the tokenised text, or None to "
                "tokenise while training reads"
            )
        if self.seed < 0:
            raise ConfigError(f"data.seed={self.seed}: give 0 or more")
        for name in ("inputs_length", "targets_length", "max_text_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"data.{name}={value}: give 1 or more")
        BadRecordPolicy(policy=self.on_bad_record, max_fraction=self.max_bad_fraction)
        if self.objective is not None:
            objectives.parse(self.objective)


def tasks_of(data: DataConfig) -> list[Task]:
    """The tasks of the config's mixture, checked. TensorFlow is imported for a user's seqio task
    only. Raises ConfigError for an unknown one, for what does not fit, and for a module that other
    processes would not find."""
    load_modules(data.modules)
    tasks = registry.tasks_of(data.mixture, data)
    data.check_tasks(tasks)
    return tasks


def mixture_of(data: DataConfig) -> Mixture | None:
    """The config's mixture; None when it names a single task."""
    found = registry.find(data.mixture, data)
    return found if isinstance(found, Mixture) else None
