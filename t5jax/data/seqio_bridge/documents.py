"""The documents and examples of a task registered with seqio, to tokenise or stream."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from t5jax.data.modules import load_modules
from t5jax.data.records import BadRecordPolicy, Rejected
from t5jax.data.rng import derive_seed
from t5jax.data.tasks.identity import identity_of
from t5jax.data.tensorflow_import import import_tensorflow
from t5jax.data.vocabularies.seqio_files import take_for
from t5jax.errors import DataError, foreign_code

_ONLY_SHARD = "all"
_FEATURES = ("inputs", "targets")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SeqioDocuments:
    """What a registered task tokenises, through its own source and steps; one shard a split.

    With an objective {"text": string}, otherwise the ids of {"inputs", "targets"} (or of targets
    alone): what the steps before the store leave. With `whole` (a task that cannot be cached) the
    ids that all its steps make, EOS included, trimmed to `lengths`, with random numbers of (`seed`,
    `epoch`). `lengths` (of inputs and targets) are the run's, where the steps look at them.
    `vocabulary_copies` are local files read for a vocabulary's URL, as in the process before.
    """

    name: str
    modules: tuple[str, ...]
    has_objective: bool
    lengths: tuple[int, int | None] | None = None
    seed: int = 0
    epoch: int = 0
    whole: bool = False
    has_inputs: bool = True
    vocabulary_copies: tuple[tuple[str, str], ...] = ()
    policy: BadRecordPolicy = dataclasses.field(default_factory=BadRecordPolicy)

    @property
    def features(self) -> tuple[str, ...]:
        if self.has_objective:
            return ("text",)
        return _FEATURES if self.has_inputs else _FEATURES[1:]

    def identity(self) -> dict[str, Any]:
        """The settings, the type of the task's source and the identities of its steps."""
        task = self._task()
        settings = dataclasses.asdict(self)
        # Seen in steps and vocabulary, and no part of what the texts are.
        for name in ("whole", "has_inputs", "vocabulary_copies", "policy"):
            del settings[name]
        steps = [identity_of(step) for step in task.preprocessors]
        return {**settings, "source": type(task.source).__name__, "steps": steps}

    def of_epoch(self, epoch: int) -> "SeqioDocuments":
        """The examples that the task's steps make in an epoch; others only without a store."""
        return dataclasses.replace(self, epoch=epoch) if self.whole else self

    def splits(self) -> tuple[str, ...]:
        """Splits of the task's source."""
        from t5jax.data.seqio_bridge.tasks import splits_of

        return splits_of(self._task())

    def shards(self, split: str) -> list[str]:
        """One shard. Raises DataError for an unknown split, and for one that shares records with
        another."""
        if split not in self.splits():
            raise DataError(
                f"task {self.name} has no split {split!r}: choose one of {list(self.splits())}"
            )
        from t5jax.data.seqio_bridge.shared_files import refuse_shared_records

        with foreign_code(f"the source of task {self.name}"):
            refuse_shared_records(self._task(), split)
        return [_ONLY_SHARD]

    def shard_fingerprint(self, split: str, shard: str) -> str:
        # A seqio source does not say when its files change; what was left out under another policy
        # has to be looked at again.
        return "" if self.policy.policy == "error" else str(self.policy)

    def documents(
        self, split: str, shard: str, rejected: Rejected | None = None
    ) -> Iterator[dict[str, str | np.ndarray]]:
        """What the steps before the store leave, or all steps. Raises DataError for anything but
        the features."""
        if shard != _ONLY_SHARD:
            raise DataError(f"task {self.name} has one shard, {_ONLY_SHARD!r}, not {shard!r}")
        from t5jax.data.seqio_bridge import datasets

        rejected = Rejected() if rejected is None else rejected
        examples = datasets.examples_of(
            lambda: self._dataset(split), self._task(), split, self.policy, rejected
        )
        for number, example in enumerate(examples):
            try:
                document = self._document(example, f"task {self.name}, {split} example {number}")
            except DataError as error:
                if self.policy.policy == "error":
                    raise
                rejected.add(*str(error).split(": ", 1))
            else:
                yield document

    def _dataset(self, split: str) -> Any:
        from t5jax.data.seqio_bridge import datasets, steps

        task, limits = self._task(), self._limits()
        if self.whole:
            seed = derive_seed(self.seed, f"epoch/{self.epoch}") % (1 << 31)
            dataset = datasets.whole_dataset(task, split, limits, seed)
        else:
            stored = steps.divided_steps(task).stored
            dataset = datasets.stored_dataset(task, stored, split, limits)
        if self.has_objective:
            self._check_text(dataset.element_spec)
        else:
            datasets.check_rows_of_ids(dataset.element_spec, task)
        datasets.warn_of_ignored(task, dataset)
        return dataset

    def _document(self, example: dict[str, Any], place: str) -> dict[str, str | np.ndarray]:
        if self.has_objective:
            try:
                return {"text": example["targets"].decode("utf-8")}
            except UnicodeDecodeError as error:
                raise DataError(f"{place}: not valid UTF-8: {error}") from error
        from t5jax.data.seqio_bridge import datasets

        limits = (self._limits() or {}) if self.whole else {}
        ids = {name: example[name][: limits.get(name)] for name in self.features}
        for name, row in ids.items():
            datasets.check_ids(row, name, self._task(), place)
        return {name: row.astype(np.int32) for name, row in ids.items()}

    def _limits(self) -> dict[str, int | None] | None:
        return dict(zip(_FEATURES, self.lengths, strict=True)) if self.lengths else None

    def _check_text(self, spec: Any) -> None:
        tensorflow = import_tensorflow()
        if spec.get("targets") != tensorflow.TensorSpec([], tensorflow.string):
            raise DataError(
                f"task {self.name}: the steps before tokenize must leave one string under 'targets'"
            )

    def _task(self) -> Any:
        for url, file in self.vocabulary_copies:
            take_for(url, file)
        load_modules(self.modules)
        from t5jax.data.seqio_bridge.tasks import seqio_task

        return seqio_task(self.name, self.modules)
