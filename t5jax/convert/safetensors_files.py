"""The safetensors format: read with the library of that name, written a block at a time, for which
the library wants all arrays in memory at once.
"""

import contextlib
import dataclasses
import json
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import safetensors

from t5jax.checkpoints import BLOCK_BYTES, BlockArray, Region
from t5jax.errors import CheckpointError, writing

ONE_FILE, INDEX = "model.safetensors", "model.safetensors.index.json"

_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}


def read_directory(directory: pathlib.Path) -> dict[str, BlockArray]:
    """The arrays of model.safetensors, or of the shards that its index names.

    Raises CheckpointError for files that are missing, cut short or not what they claim to be.
    """
    if (directory / ONE_FILE).is_file():
        return read_file(directory / ONE_FILE)
    index = directory / INDEX
    try:
        weight_map = json.loads(index.read_text())["weight_map"]
        files = {shard: read_file(directory / shard) for shard in sorted(set(weight_map.values()))}
    except (ValueError, KeyError, AttributeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{index} is not an index of safetensors files: {error}") from error
    missing = [name for name, shard in weight_map.items() if name not in files[shard]]
    if missing:
        raise CheckpointError(
            f"{index} says that {missing[0]} is in {weight_map[missing[0]]}, but it is not "
            f"({len(missing)} arrays are missing): the files do not belong together; fetch them "
            "again"
        )
    return {name: files[shard][name] for name, shard in weight_map.items()}


def read_file(path: pathlib.Path) -> dict[str, BlockArray]:
    """The arrays of one file, by name."""
    with _opened(path) as file:
        parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        return {
            name: _Tensor(path, name, tuple(part.get_shape()), part.get_dtype())
            for name, part in parts.items()
        }


class _Tensor(BlockArray):
    """An array of a file, which is opened for every band of rows: the pages of the mapping that
    were read count as this process's memory until it is closed (of a matrix of 195 MB all 195;
    with `backend="pread"` the library reads the whole matrix for every band)."""

    def __init__(self, path: pathlib.Path, name: str, shape: tuple[int, ...], code: str):
        if code not in _DTYPES:
            known = ", ".join(_DTYPES)
            raise CheckpointError(f"{path}: {name} has type {code}, which is not one of {known}")
        self._path, self._name, self.shape, self.dtype = path, name, shape, _DTYPES[code]
        self.cut_axes = tuple(range(len(shape)))

    def read(self, region: Region) -> np.ndarray:
        if not self.shape:
            with _opened(self._path) as file:
                return file.get_tensor(self._name)
        block = np.empty([part.stop - part.start for part in region], self.dtype)
        rows, *rest = region
        step = max(1, BLOCK_BYTES * self.shape[0] // max(1, self.nbytes))
        for start in range(rows.start, rows.stop, step):
            band = slice(start, min(start + step, rows.stop))
            with _opened(self._path) as file:
                part = file.get_slice(self._name)[(band, *rest)]
            block[band.start - rows.start : band.stop - rows.start] = part
        return block


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[Any]:
    """The library's reader. Raises CheckpointError for a file that is missing or, by its header and
    its size, not what was written."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            yield file
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; fetch it again") from None
    except safetensors.SafetensorError as error:
        raise CheckpointError(
            f"{path} is cut short, damaged or not a safetensors file ({error}); fetch it again"
        ) from error


# ---- writing


@dataclasses.dataclass
class _File:
    """One file to write: where each of its arrays goes."""

    name: str
    header: dict[str, dict]
    nbytes: int = 0

    def add(self, name: str, array: BlockArray) -> None:
        start, self.nbytes = self.nbytes, self.nbytes + array.nbytes
        self.header[name] = {
            "dtype": _CODES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [start, self.nbytes],
        }

    def encoded(self) -> bytes:
        """Length and header, padded so that the arrays begin at a multiple of eight bytes."""
        text = json.dumps({"__metadata__": {"format": "pt"}, **self.header}).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text


def write_directory(
    directory: pathlib.Path,
    tensors: Mapping[str, BlockArray],
    max_shard_bytes: int,
    progress: Callable[[str], None] = lambda name: None,
) -> list[str]:
    """model.safetensors, or shards of at most `max_shard_bytes` (unless one array is larger) and
    their index. The arrays are read in the order of `tensors`. Returns the files' names."""
    files = _shards(tensors, max_shard_bytes)
    places = {name: file for file in files for name in file.header}
    for file in files:
        with writing(directory / file.name):
            (directory / file.name).write_bytes(file.encoded())
    for name, array in tensors.items():
        file = places[name]
        first = len(file.encoded()) + file.header[name]["data_offsets"][0]
        place = directory / file.name
        with writing(place), open(place, "r+b", buffering=0) as out:
            _write_array(out, first, array)
        progress(name)
    if len(files) > 1:
        index = {
            "metadata": {"total_size": sum(file.nbytes for file in files)},
            "weight_map": {name: places[name].name for name in sorted(places)},
        }
        (directory / INDEX).write_text(json.dumps(index, indent=2) + "\n")
    return [file.name for file in files]


def _shards(tensors: Mapping[str, BlockArray], max_shard_bytes: int) -> list[_File]:
    files = [_File("", {})]
    for name, array in tensors.items():
        if files[-1].header and files[-1].nbytes + array.nbytes > max_shard_bytes:
            files.append(_File("", {}))
        files[-1].add(name, array)
    for number, file in enumerate(files, 1):
        of_many = f"model-{number:05}-of-{len(files):05}.safetensors"
        file.name = of_many if len(files) > 1 else ONE_FILE
    return files


def _write_array(out, first: int, array: BlockArray) -> None:
    """In the blocks that are cheap to read: bands of whole rows, which are one stretch of the file,
    or parts of rows."""
    row = math.prod(array.shape[1:]) * array.dtype.itemsize
    for region in array.regions():
        block = np.asarray(array.read(region), order="C")
        if block.shape[1:] == array.shape[1:]:
            start = region[0].start if region else 0
            _write_bytes(out, first + start * row, block)
            continue
        rows, columns = region
        before = first + columns.start * array.dtype.itemsize
        for number, part in zip(range(rows.start, rows.stop), block, strict=True):
            _write_bytes(out, before + number * row, part)


def _write_bytes(out, offset: int, block: np.ndarray) -> None:
    data = block.reshape(-1).view(np.uint8)
    out.seek(offset)
    while len(data):
        data = data[out.write(data) :]
