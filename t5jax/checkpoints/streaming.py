"""Streaming save and restore: a step in blocks, for states larger than memory.

What is on disk is what `saving` writes: Orbax's directory, whose `state` is a TensorStore database
(OCDBT) with a zarr array for every leaf. Here the blocks go to TensorStore directly; Orbax adds the
description of the tree.
"""

import contextlib
import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts
from etils import epath

from t5jax.checkpoints import record as records
from t5jax.checkpoints.blocks import BLOCK_BYTES, BlockArray, Region
from t5jax.checkpoints.fingerprint import Fingerprint, RunningFingerprint
from t5jax.checkpoints.record import DamagedError, Record
from t5jax.checkpoints.restoring import STATE, Log, absolute, brief, nested
from t5jax.errors import CheckpointError, writing

_log: Log = logging.getLogger(__name__).warning


def save_streamed(
    directory: str | os.PathLike[str],
    step: int,
    arrays: Mapping[str, BlockArray],
    content: dict[str, Any],
    progress: Callable[[str], None] = lambda path: None,
) -> None:
    """Writes one step of a new run: leaves by path, in the order in which they are read.

    The step appears in one piece or not at all. For one process and local directories.

    Args:
      content: what `Checkpoints.save` calls the record.
      progress: is told the path of every leaf that is written.

    Raises:
      CheckpointError: the directory holds steps already.
    """
    directory = absolute(directory)
    if records.committed_steps(directory):
        raise CheckpointError(f"{directory} holds a run already; choose another directory")
    unfinished = directory / f"{step}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    writer = _Writer(progress)
    registry = ocp.type_handlers.create_type_handler_registry((_Leaf, writer))
    leaves = {path: _Leaf(path, array) for path, array in arrays.items() if array.size}
    with _quiet():
        handler = ocp.PyTreeCheckpointHandler(type_handler_registry=registry)
        with ocp.Checkpointer(handler) as checkpointer:
            checkpointer.save(unfinished / STATE, args=ocp.args.PyTreeSave(nested(leaves)))
    saved = {
        path: records.SavedLeaf(
            shape=array.shape,
            dtype=array.dtype.name,
            fingerprint=writer.fingerprints.get(path, [0, 0]),
        )
        for path, array in arrays.items()
    }
    record = Record(step=step, content=content, metrics={}, leaves=saved)
    (unfinished / records.ITEM).mkdir()
    encoded = json.dumps(records.encode_record(record))
    with writing(unfinished / records.ITEM / records.FILE):
        (unfinished / records.ITEM / records.FILE).write_text(encoded)
    _to_disk(unfinished)
    unfinished.rename(directory / str(step))


class StoredStep:
    """The arrays of a step in a directory, read lazily, and its record. Raises DamagedError when an
    array is not as its record says."""

    def __init__(self, directory: epath.Path, record: Record):
        self.record = record
        self._state = directory / str(record.step) / STATE
        self._open: tuple[str, ts.TensorStore] | None = None

    def arrays(self, prefix: str) -> dict[str, BlockArray]:
        """The leaves below `prefix/`, under the rest of their paths."""
        return {
            path.removeprefix(f"{prefix}/"): StoredArray(self, path, leaf)
            for path, leaf in self.record.leaves.items()
            if path.startswith(f"{prefix}/")
        }

    def verify(self, prefix: str) -> None:
        """Reads every leaf below `prefix/` once; raises DamagedError for one that has changed."""
        for path, array in self.arrays(prefix).items():
            running = RunningFingerprint(array.shape)
            for region in array.regions():
                running.add(array.read(region), [part.start for part in region])
            if running.result() != self.record.leaves[f"{prefix}/{path}"].fingerprint:
                raise DamagedError(f"the data of {prefix}/{path} have changed since the save")

    def read(self, path: str, region: Region) -> np.ndarray:
        try:
            return self._opened(path)[region].read().result()
        except ValueError as error:  # what TensorStore raises for anything it cannot read
            raise DamagedError(f"{path} cannot be read: {brief(error)}") from error

    def chunks(self, path: str) -> tuple[int, ...]:
        try:
            return _chunk(self._opened(path))
        except ValueError as error:
            raise DamagedError(f"{path} cannot be read: {brief(error)}") from error

    def _opened(self, path: str) -> ts.TensorStore:
        """Only the last array stays open. A chunk is read as a whole, and training writes large
        ones that hold all layers: these are kept, so that no layer reads them again."""
        if self._open is None or self._open[0] != path:
            self._open = None
            spec = _spec(self._state, path)
            array = ts.open(spec, read=True).result()
            nbytes = math.prod(_chunk(array)) * array.dtype.numpy_dtype.itemsize
            if nbytes > BLOCK_BYTES:
                whole = math.prod(array.shape) * array.dtype.numpy_dtype.itemsize
                limits = {"cache_pool": {"total_bytes_limit": whole + BLOCK_BYTES}}
                array = ts.open(spec, read=True, context=ts.Context(limits)).result()
            self._open = path, array
        return self._open[1]


def _chunk(array: ts.TensorStore) -> tuple[int, ...]:
    """The shape of what is read and written as a whole."""
    found = array.chunk_layout.read_chunk.shape or ()
    return tuple(size or 1 for size in found)


class StoredArray(BlockArray):
    """One leaf of a stored step."""

    def __init__(self, step: StoredStep, path: str, leaf: records.SavedLeaf):
        self.shape, self.dtype = leaf.shape, np.dtype(leaf.dtype)
        self._step, self._path = step, path

    @property
    def cut_axes(self) -> tuple[int, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Those in which the chunks are cut, then the outer ones."""
        chunks = self._step.chunks(self._path) if self.size else ()
        order = sorted(range(len(chunks)), key=lambda axis: chunks[axis] == self.shape[axis])
        return tuple(order)

    def read(self, region: Region) -> np.ndarray:
        if not self.size:
            return np.zeros(self.shape, self.dtype)
        return self._step.read(self._path, region)


def open_step(
    directory: str | os.PathLike[str], prefix: str, step: int | None = None, log: Log = _log
) -> StoredStep:
    """The newest step whose leaves below `prefix/` verify, or `step`; one process.

    Raises:
      CheckpointError: no checkpoint there, or `step` is missing or damaged.
      NoUsableCheckpoint: there are steps, but all are damaged.
    """
    directory = absolute(directory)
    read = lambda step: _verified(directory, step, prefix)
    steps = records.committed_steps(directory)
    return records.newest_undamaged(directory, steps, step, read, log)


def _verified(directory: epath.Path, step: int, prefix: str) -> StoredStep:
    stored = StoredStep(directory, records.load_record(directory, step))
    stored.verify(prefix)
    return stored


class _Leaf:
    """A leaf of the tree that Orbax is given, in place of a jax array."""

    def __init__(self, path: str, array: BlockArray):
        self.path, self.array = path, array
        self.shape, self.dtype = array.shape, array.dtype


class _Writer(ocp.type_handlers.TypeHandler):
    """Writes arrays as Orbax would write jax arrays, except that it holds one block at a time."""

    def __init__(self, progress: Callable[[str], None]):
        self.fingerprints: dict[str, Fingerprint] = {}
        self._progress = progress

    def typestr(self) -> str:
        return "jax.Array"

    async def serialize(self, values: Sequence[_Leaf], infos, args=None) -> Sequence:
        for leaf, info in zip(values, infos, strict=True):
            await info.await_path_creation()
            # In a directory of the process, which Orbax merges into one database at the end.
            self._write(leaf, info.parent_dir / "ocdbt.process_0")
        return []

    async def metadata(self, infos):
        raise NotImplementedError("only writes")

    async def deserialize(self, infos, args=None):
        raise NotImplementedError("only writes")

    def _write(self, leaf: _Leaf, database: epath.Path) -> None:
        array = leaf.array
        spec = _spec(database, leaf.path) | {
            "dtype": array.dtype.name,
            # Orbax refuses to restore an array with a chunk that is not there.
            "store_data_equal_to_fill_value": True,
            "metadata": {
                "shape": list(array.shape),
                "chunks": list(array.block_shape()),
                "compressor": {"id": "zstd", "level": 1},
            },
        }
        stored = ts.open(spec, create=True, context=_WRITING).result()
        running = RunningFingerprint(array.shape)
        for region in array.regions():
            block = np.asarray(array.read(region), order="C")
            running.add(block, [part.start for part in region])
            stored[region].write(block).result()
        self.fingerprints[leaf.path] = running.result()
        self._progress(leaf.path)


def _spec(database: epath.Path, path: str) -> dict[str, Any]:
    name = path.replace("/", ".")
    base = str(database) if "://" in str(database) else f"file://{database}"
    return {
        "driver": "zarr",
        "kvstore": {"driver": "ocdbt", "base": f"{base}/", "path": f"{name}/"},
    }


# Every block would be waited for until it is on the disk; `_to_disk` does that once.
_WRITING = ts.Context({"file_io_sync": False})


def _to_disk(directory: epath.Path) -> None:
    for folder, _, names in os.walk(directory):
        for path in (folder, *(os.path.join(folder, name) for name in names)):
            number = os.open(path, os.O_RDONLY)
            os.fsync(number)
            os.close(number)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Orbax warns that the registry has no handler for jax.Array; there is none to save."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
