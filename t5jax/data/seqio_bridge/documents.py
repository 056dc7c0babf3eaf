"""The documents and examples of a task registered with seqio, to tokenise or stream."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from t5jax.data.modules import load_modules
from t5jax.data.records import Rejected
from t5jax.data.rng import derive_seed
from t5jax.data.tasks.identity import identity_of
from t5jax.data.tensorflow_import import import_seqio, import_tensorflow
from t5jax.errors import DataError

_ONLY_SHARD = "all"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SeqioDocuments:
    """What a registered task tokenises, through its own source and steps; one shard a split.

    With an objective {"text": string}, otherwise {"inputs", "targets"}: ids without EOS. With
    `lengths` (of inputs and targets, for a task that cannot be cached) the ids that all its steps
    make of them, EOS included, with random numbers of (`seed`, `epoch`).
    """

    name: str
    modules: tuple[str, ...]
    has_objective: bool
    lengths: tuple[int, int | None] | None = None
    seed: int = 0
    epoch: int = 0

    @property
    def features(self) -> tuple[str, ...]:
        return ("text",) if self.has_objective else ("inputs", "targets")

    def identity(self) -> dict[str, Any]:
        """The settings, the type of the task's source and the identities of its steps."""
        task = self._task()
        steps = [identity_of(step) for step in task.preprocessors]
        return {**dataclasses.asdict(self), "source": type(task.source).__name__, "steps": steps}

    def of_epoch(self, epoch: int) -> "SeqioDocuments":
        """The examples that the task's steps make in an epoch; others only without a store."""
        return dataclasses.replace(self, epoch=epoch) if self.lengths else self

    def splits(self) -> tuple[str, ...]:
        """Splits of the task's source."""
        return tuple(self._task().source.splits)

    def shards(self, split: str) -> list[str]:
        """One shard. Raises DataError for an unknown split."""
        if split not in self.splits():
            raise DataError(
                f"task {self.name} has no split {split!r}: choose one of {list(self.splits())}"
            )
        return [_ONLY_SHARD]

    def shard_fingerprint(self, split: str, shard: str) -> str:
        return ""  # a seqio source does not say when its files change

    def documents(
        self, split: str, shard: str, rejected: Rejected | None = None
    ) -> Iterator[dict[str, str | np.ndarray]]:
        """What the steps before the cache leave, or all steps. Raises DataError for anything but
        the features."""
        if shard not in self.shards(split):
            raise DataError(f"task {self.name} has one shard, {_ONLY_SHARD!r}, not {shard!r}")
        tensorflow, task = import_tensorflow(), self._task()
        dataset = self._all_steps(task, split) if self.lengths else self._cached_steps(task, split)
        self._check_spec(dataset.element_spec, tensorflow)
        number = 0
        try:
            for example in dataset.as_numpy_iterator():
                yield self._document(example)
                number += 1
        except UnicodeDecodeError as error:
            raise DataError(
                f"task {self.name}, {split} example {number}: not valid UTF-8: {error}"
            ) from error
        except tensorflow.errors.OpError as error:
            raise DataError(
                f"task {self.name}, {split}, after example {number}: {error.message}"
            ) from error

    def _cached_steps(self, task: Any, split: str) -> Any:
        from t5jax.data.seqio_bridge.tasks import cached_steps

        seqio, dataset = import_seqio(), task.source.get_dataset(split, shuffle=False)
        with seqio.map_seed_manager(0):  # steps with random numbers give the same text every time
            for step in cached_steps(task):
                dataset = seqio.add_kwargs_to_transform(step, output_features=task.output_features)(
                    dataset
                )
        return dataset

    def _all_steps(self, task: Any, split: str) -> Any:
        assert self.lengths is not None
        try:
            return task.get_dataset(
                dict(zip(("inputs", "targets"), self.lengths, strict=True)),
                split,
                use_cached=False,
                shuffle=False,
                seed=derive_seed(self.seed, f"epoch/{self.epoch}") % (1 << 31),
            )
        except ValueError as error:  # what seqio raises for a task with wrong features
            raise DataError(f"task {self.name}: {error}") from error

    def _document(self, example: dict[str, Any]) -> dict[str, str | np.ndarray]:
        if self.has_objective:
            return {"text": example["targets"].decode("utf-8")}
        return {name: example[name].astype(np.int32) for name in ("inputs", "targets")}

    def _check_spec(self, spec: Any, tensorflow: Any) -> None:
        if self.has_objective:
            if spec.get("targets") != tensorflow.TensorSpec([], tensorflow.string):
                raise DataError(
                    f"task {self.name}: the steps before tokenize must leave one string under "
                    "'targets'"
                )
            return
        for name in ("inputs", "targets"):
            found = spec.get(name)
            if found is None or not found.dtype.is_integer or found.shape.rank != 1:
                raise DataError(
                    f"task {self.name}: its steps leave {name} = {found}; a row of token ids is "
                    "expected"
                )

    def _task(self) -> Any:
        load_modules(self.modules)
        from t5jax.data.seqio_bridge.tasks import seqio_task

        return seqio_task(self.name)
