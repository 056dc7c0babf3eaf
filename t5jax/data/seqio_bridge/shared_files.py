"""Whether two splits of a seqio source read the same records: files named twice, and slices of a
data set of TFDS that overlap (`train` and `train[:10%]`)."""

import math
from collections.abc import Iterator
from typing import Any

from t5jax.data.sources.patterns import refuse_shared_files
from t5jax.data.tensorflow_import import import_seqio
from t5jax.errors import DataError


def refuse_shared_records(task: Any, split: str) -> None:
    """Raises DataError when another split of the task's source has a record of this one. Sources
    that are neither files nor TFDS's are believed."""
    seqio, source = import_seqio(), task.source
    others = [name for name in source.splits if name != split]
    if isinstance(source, seqio.FileDataSource):
        refuse_shared_files({name: source.list_shards(name) for name in [split, *others]}, split)
    elif isinstance(source, seqio.TfdsDataSource):
        own = list(_ranges(source, split))
        for other in others:
            if any(_overlap(a, b) for a in own for b in _ranges(source, other)):
                raise DataError(
                    f"task {task.name}: its splits {split!r} and {other!r} are "
                    f"{_slice(source, split)} and {_slice(source, other)} of TFDS, which have "
                    "records in common; a record belongs to one split"
                )


def _ranges(source: Any, split: str) -> Iterator[tuple[str, int, float]]:
    """(file, first record, the one after the last) of what a split reads."""
    for part in source.tfds_dataset.files(split):
        yield part.filename, part.skip, math.inf if part.take < 0 else part.skip + part.take


def _overlap(a: tuple[str, int, float], b: tuple[str, int, float]) -> bool:
    return a[0] == b[0] and max(a[1], b[1]) < min(a[2], b[2])


def _slice(source: Any, split: str) -> str:
    return repr(source.tfds_dataset._map_split(split))
