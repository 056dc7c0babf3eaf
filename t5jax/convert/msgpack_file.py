"""Index of a Flax msgpack file: the offset, shape and dtype of each array, without reading it.

The format is msgpack's maps, strings and numbers, with arrays as an extension of type 1 (and NumPy
scalars of type 3) whose payload is itself msgpack: [shape, name of the dtype, bytes]. An array of
more than a gigabyte is a map that holds its pieces.
"""

import math
import pathlib
import struct
from typing import Any, BinaryIO

from t5jax.convert.raw_files import RawArray, dtype_named
from t5jax.errors import CheckpointError

_CHUNKED = "__msgpack_chunked_array__"
_NUMBERS = {
    0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q",
    0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q",
}  # fmt: skip
_NAMED = {0xC0: None, 0xC2: False, 0xC3: True}
# First byte -> (what it is, struct of its length).
_SIZED = {
    0xC4: ("bytes", ">B"), 0xC5: ("bytes", ">H"), 0xC6: ("bytes", ">I"),
    0xC7: ("extension", ">B"), 0xC8: ("extension", ">H"), 0xC9: ("extension", ">I"),
    0xD9: ("text", ">B"), 0xDA: ("text", ">H"), 0xDB: ("text", ">I"),
    0xDC: ("list", ">H"), 0xDD: ("list", ">I"), 0xDE: ("map", ">H"), 0xDF: ("map", ">I"),
}  # fmt: skip


def read_msgpack(path: pathlib.Path) -> dict[str, Any]:
    """The tree of a file: dicts with arrays (RawArray), numbers, texts, None.

    Raises CheckpointError when the file is truncated or of another format.
    """
    try:
        with open(path, "rb") as file:
            tree = _Parser(path, file).value()
    except (struct.error, UnicodeDecodeError, ValueError, TypeError, IndexError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{path} is not a Flax msgpack file, or is truncated ({error}); download it again"
        ) from error
    if not isinstance(tree, dict):
        raise CheckpointError(f"{path} is not a Flax msgpack file: it holds no tree")
    return tree


def flatten_tree(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves by path; the description of an external array (`driver`, …) is a leaf."""
    flat = {}
    for name, value in tree.items():
        if isinstance(value, dict) and "kvstore" not in value:
            flat |= flatten_tree(value, f"{prefix}{name}/")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


class _Parser:
    def __init__(self, path: pathlib.Path, file: BinaryIO):
        self._path, self._file = path, file
        self._size = path.stat().st_size

    def value(self) -> Any:
        kind, content = self._head()
        if kind == "number":
            return content
        if kind == "list":
            return [self.value() for _ in range(content)]
        if kind == "map":
            tree = {}
            for _ in range(content):
                key = self.value()
                tree[str(key)] = self.value()
            return _unchunked(tree) if _CHUNKED in tree else tree
        if kind == "text":
            return self._take(content).decode()
        if kind == "bytes":
            return self._take(content)
        return self._extension(content)

    def _head(self) -> tuple[str, Any]:
        """("number", value), or (kind of the following item, its length)."""
        first = self._take(1)[0]
        if first <= 0x7F or first >= 0xE0:
            return "number", first if first <= 0x7F else first - 256
        if first <= 0x8F:
            return "map", first & 0x0F
        if first <= 0x9F:
            return "list", first & 0x0F
        if first <= 0xBF:
            return "text", first & 0x1F
        if first in _NAMED:
            return "number", _NAMED[first]
        if first in _NUMBERS:
            return "number", self._unpack(_NUMBERS[first])
        if first in _SIZED:
            kind, length = _SIZED[first]
            return kind, self._unpack(length)
        if 0xD4 <= first <= 0xD8:
            return "extension", 1 << (first - 0xD4)
        raise CheckpointError(f"{self._path}: byte {first:#x} begins nothing of msgpack")

    def _extension(self, length: int) -> Any:
        (code,) = struct.unpack(">b", self._take(1))
        end = self._file.tell() + length
        if code not in (1, 3):
            self._file.seek(end)
            return None
        kind, count = self._head()
        if kind != "list" or count != 3:
            raise CheckpointError(f"{self._path}: an array is not [shape, dtype, bytes]")
        shape, dtype = tuple(self.value()), dtype_named(self.value())
        kind, nbytes = self._head()
        offset = self._file.tell()
        if kind != "bytes" or offset + nbytes != end:
            raise CheckpointError(f"{self._path}: an array is not [shape, dtype, bytes]")
        if nbytes != math.prod(shape) * dtype.itemsize:
            raise CheckpointError(f"{self._path}: {nbytes} bytes are not {dtype}{list(shape)}")
        if end > self._size:
            raise CheckpointError(
                f"{self._path} is truncated at byte {self._size}; download it again"
            )
        self._file.seek(end)
        return RawArray(self._path, [(offset, nbytes)], shape, dtype)

    def _unpack(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _take(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) != count:
            raise CheckpointError(
                f"{self._path} is truncated at byte {self._size}; download it again"
            )
        return data


def _unchunked(tree: dict[str, Any]) -> RawArray:
    in_order = lambda entries: [entries[str(i)] for i in range(len(entries))]
    pieces, shape = in_order(tree["chunks"]), tuple(in_order(tree["shape"]))
    extents = [extent for piece in pieces for extent in piece.extents]
    return RawArray(pieces[0].path, extents, shape, pieces[0].dtype)
