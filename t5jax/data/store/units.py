"""The unit of work of building a store: one shard of the source becomes one shard of the store.

Whatever builds a store (one process, a pool, the parts of an array job, a cluster) maps
`build_unit` over a choice of `store_units`. Units and their arguments are picklable; a unit that is
built twice, or by two at once, is the same files again; its record, written last, makes it count as
finished.
"""

import concurrent.futures
import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from t5jax.data.atomic_files import new_file, write_json_file
from t5jax.data.records import Rejected
from t5jax.data.store.directories import file_size, file_sizes, in_bucket, read_file
from t5jax.data.store.documents import DocumentSource, encoded_shard
from t5jax.data.store.existing import source_fingerprint
from t5jax.data.store.reader import ShardInfo, shard_info
from t5jax.data.store.writer import FeatureWriter
from t5jax.data.vocabularies import Vocabulary
from t5jax.errors import DataError

_REQUESTS = 32  # under way to a bucket


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Unit:
    """One shard of the store to be: its name, what it is made of, and what a finished one says."""

    directory: pathlib.Path
    name: str
    source: str
    source_fingerprint: str
    vocabulary_fingerprint: str
    dtype: np.dtype


def store_units(
    texts: DocumentSource, split: str, directory: pathlib.Path, vocabulary: Vocabulary
) -> list[Unit]:
    """The units of one split, in the order of its shards. Raises DataError when there are none."""
    names = texts.shards(split)
    if not names:
        raise DataError(f"split {split!r} of {texts.identity()} has no shards: no file matches")
    if repeated := {name for name in names if names.count(name) > 1}:
        raise DataError(f"split {split!r} names shards twice: {sorted(repeated)[:5]}")
    description = texts.identity()
    return [
        Unit(
            directory=directory,
            name=f"shard-{number:05d}",
            source=name,
            source_fingerprint=source_fingerprint(description, texts, split, name),
            vocabulary_fingerprint=vocabulary.fingerprint,
            dtype=np.dtype("<u2" if vocabulary.vocab_size <= 1 << 16 else "<u4"),
        )
        for number, name in enumerate(names)
    ]


def build_unit(
    unit: Unit, *, texts: DocumentSource, split: str, vocabulary: Vocabulary
) -> ShardInfo:
    """Writes one shard, its .json record last. Another process, of this host or another, may write
    the same one: every file appears whole, with equal bytes."""
    rejected = Rejected()
    with contextlib.ExitStack() as files:
        writers = {
            name: FeatureWriter(
                unit.directory / f"{unit.name}.{name}",
                unit.dtype,
                files.enter_context(
                    new_file(unit.directory / f"{unit.name}.{name}.tokens", shared=True)
                ),
                vocabulary,
            )
            for name in texts.features
        }
        documents = encoded_shard(texts, split, unit.source, rejected, vocabulary)
        for number, (document, ids) in enumerate(documents):
            for name, writer in writers.items():
                writer.add(ids[name], document[name], f"{unit.source}: document {number}")
        for writer in writers.values():
            writer.flush()
    features = {name: writer.finish() for name, writer in writers.items()}
    info = ShardInfo(
        name=unit.name,
        source=unit.source,
        source_fingerprint=unit.source_fingerprint,
        vocabulary_fingerprint=unit.vocabulary_fingerprint,
        documents=len(next(iter(writers.values())).ends),
        features=features,
        rejected=dataclasses.asdict(rejected),
    )
    record = dataclasses.asdict(info)
    write_json_file(unit.directory / f"{unit.name}.json", record, shared=True)
    return info


def finished_unit(unit: Unit, sizes: Mapping[str, int] | None = None) -> ShardInfo | None:
    """The shard's record, if an earlier build completed it from the same source and vocabulary.
    `sizes` are those of all files of the directory, where they are known."""
    size_of = sizes.get if sizes is not None else lambda name: file_size(unit.directory / name)
    try:
        info = shard_info(json.loads(read_file(unit.directory / f"{unit.name}.json")))
        sizes_fit = all(size_of(name) == size for name, size, _ in info.files(unit.dtype))
    except (FileNotFoundError, json.JSONDecodeError, TypeError, KeyError):
        return None  # never finished, or written by another version: made again
    expected = (unit.source, unit.source_fingerprint, unit.vocabulary_fingerprint)
    found = (info.source, info.source_fingerprint, info.vocabulary_fingerprint)
    return info if expected == found and sizes_fit else None


def finished_units(units: Sequence[Unit]) -> list[ShardInfo | None]:
    """The same of several units of one store, in a bucket many at a time."""
    if not units or not in_bucket(units[0].directory):
        return [finished_unit(unit) for unit in units]
    sizes = file_sizes(units[0].directory)

    def look(unit: Unit) -> ShardInfo | None:
        return finished_unit(unit, sizes) if f"{unit.name}.json" in sizes else None

    with concurrent.futures.ThreadPoolExecutor(_REQUESTS) as pool:
        return list(pool.map(look, units))
