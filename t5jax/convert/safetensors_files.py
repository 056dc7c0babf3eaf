"""The safetensors format: eight bytes with the length of a JSON header, the header, the arrays.

Read and written here a block at a time, which the library of that name does not do.
"""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Callable, Mapping

import ml_dtypes
import numpy as np

from t5jax.checkpoints import BlockArray
from t5jax.convert.raw_files import RawArray
from t5jax.errors import CheckpointError

ONE_FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
_MOST_HEADER_BYTES = 100_000_000  # the library's limit

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
        return dict(read_file(directory / ONE_FILE))
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


def read_file(path: pathlib.Path) -> dict[str, RawArray]:
    """The arrays of one file, by name."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(size - 8, _MOST_HEADER_BYTES):
                raise CheckpointError(
                    f"{path} is cut short or not a safetensors file: its header would have "
                    f"{length} bytes, the file has {size}"
                )
            header = json.loads(file.read(length))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; fetch it again") from None
    except ValueError as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} is not a safetensors file: {error}") from error
    header.pop("__metadata__", None)
    first, room = 8 + length, size - 8 - length
    return {name: _array(path, name, entry, first, room) for name, entry in header.items()}


def _array(path: pathlib.Path, name: str, entry: dict, first: int, room: int) -> RawArray:
    try:
        code, shape, (start, stop) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: the header's entry for {name} is damaged") from error
    if code not in _DTYPES:
        known = ", ".join(_DTYPES)
        raise CheckpointError(f"{path}: {name} has type {code}, which is not one of {known}")
    dtype = _DTYPES[code]
    if stop > room:
        raise CheckpointError(
            f"{path} is cut short: {name} would end at byte {first + stop}, the file has "
            f"{first + room}; fetch it again"
        )
    if start < 0 or stop - start != math.prod(shape) * dtype.itemsize:
        raise CheckpointError(
            f"{path}: {name} has {stop - start} bytes, which are not {code}{list(shape)}"
        )
    return RawArray(path, [(first + start, stop - start)], shape, dtype)


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
        (directory / file.name).write_bytes(file.encoded())
    for name, array in tensors.items():
        file = places[name]
        first = len(file.encoded()) + file.header[name]["data_offsets"][0]
        with open(directory / file.name, "r+b", buffering=0) as out:
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
