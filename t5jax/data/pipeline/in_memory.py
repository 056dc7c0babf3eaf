"""A split tokenised into memory, for evaluation without a tokenised store."""

import logging
from collections.abc import Callable, Mapping

import numpy as np

from t5jax.data.objectives import lengths_of
from t5jax.data.records import Rejected
from t5jax.data.registry.resolve import ResolvedMixture
from t5jax.data.registry.resolved_task import ResolvedTask
from t5jax.data.registry.texts import task_documents
from t5jax.data.store.documents import encoded_documents
from t5jax.data.store.reader import TokenStream
from t5jax.errors import DataError

_log = logging.getLogger("t5jax")
_MEMORY_TOKENS = 1 << 27


def read_in_memory(
    task: ResolvedTask, mixture: ResolvedMixture, split: str, num_rows: int | None
) -> dict[str, TokenStream]:
    """The documents of a split, tokenised, until they fill `num_rows` rows (None: all of them).

    Raises DataError when they are too many to hold.
    """
    data = mixture.data
    texts, rejected = task_documents(task.defined, data), Rejected()
    enough = _enough_for(task, mixture, num_rows)
    documents: list[dict[str, np.ndarray]] = []
    sizes = _Sizes(mixture)
    for ids in encoded_documents(texts, split, rejected, data.vocabulary):
        documents.append(ids)
        sizes.add(ids)
        if enough(sizes):
            break
        if sizes.held > _MEMORY_TOKENS:
            raise DataError(
                f"split {split!r} of {task.name} has more than {_MEMORY_TOKENS:,} tokens: too many "
                "to hold in memory; ask for fewer rows (train.num_eval_rows, or --num-rows), or "
                "make a store with t5jax cache"
            )
    if rejected.places:
        _log.warning("%s of %s: %s", split, task.name, rejected)
    return {name: TokenStream.of_documents([d[name] for d in documents]) for name in texts.features}


class _Sizes:
    """Of the documents read so far: how many, and tokens by feature as rows can show them."""

    def __init__(self, mixture: ResolvedMixture):
        data = mixture.data
        self._limits = {"inputs": data.inputs_length, "targets": data.targets_length or 0}
        self.documents = self.held = 0
        self.shown: dict[str, int] = {"text": 0, "inputs": 0, "targets": 0}

    def add(self, ids: Mapping[str, np.ndarray]) -> None:
        self.documents += 1
        for name, tokens in ids.items():
            self.held += len(tokens)
            self.shown[name] += min(len(tokens), self._limits.get(name, len(tokens)))


def _enough_for(
    task: ResolvedTask, mixture: ResolvedMixture, num_rows: int | None
) -> Callable[[_Sizes], bool]:
    """Whether the documents fill `num_rows` rows (None: never, all are wanted)."""
    data, rows = mixture.data, mixture.row_format
    if num_rows is None:
        return lambda sizes: False
    if task.objective is not None:
        room = data.inputs_length - len(task.prefix_ids)
        raw = lengths_of(task.objective, room, rows.targets_length).raw
        return lambda sizes: sizes.shown["text"] >= num_rows * raw
    if not data.pack:
        return lambda sizes: sizes.documents >= num_rows
    if rows.joined_length is not None:
        joined = rows.joined_length
        return lambda sizes: sizes.shown["inputs"] + sizes.shown["targets"] >= num_rows * joined
    return lambda sizes: (
        sizes.shown["inputs"] >= num_rows * rows.inputs_length
        or sizes.shown["targets"] >= num_rows * rows.targets_length
    )
