"""Files that appear under their names whole and on disk, or not at all; in a bucket, objects."""

import contextlib
import json
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from t5jax.buckets import bucket_errors, file_system, in_bucket
from t5jax.errors import writing


@contextlib.contextmanager
def new_file(path: pathlib.Path, *, shared: bool = False) -> Iterator[BinaryIO]:
    """A file to write. `shared`: other processes, of this host or another, may write it at the same
    time, so each does that beside it on its own; otherwise what a kill left half written is written
    over by the next try. For a path in a bucket it is a temporary file of this machine, which is
    uploaded when it is whole; raises BucketError where it cannot be.
    """
    if in_bucket(path):
        with _new_object(path) as file:
            yield file
        return
    own = f".tmp-{os.urandom(6).hex()}"  # processes of containers have the same number and host
    temporary = path.with_name(f"{path.name}{own if shared else '.tmp'}")
    try:
        with writing(path), open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        if shared:  # nobody would ever write over it
            temporary.unlink(missing_ok=True)
        raise
    temporary.replace(path)


@contextlib.contextmanager
def _new_object(path: pathlib.Path) -> Iterator[BinaryIO]:
    with tempfile.NamedTemporaryFile(prefix="t5jax-") as file:
        with writing(file.name):
            yield file  # pyright: ignore[reportReturnType]
            file.flush()
        with bucket_errors(path):  # which compares what arrived with what was sent
            file_system().put_file(file.name, os.fspath(path), consistency="md5")


def write_file(path: pathlib.Path, data: bytes, *, shared: bool = False) -> None:
    """A whole file at once."""
    with new_file(path, shared=shared) as file:
        file.write(data)


def write_json_file(path: pathlib.Path, record: dict[str, Any], *, shared: bool = False) -> None:
    """The record as JSON; what JSON does not know becomes its `str`."""
    write_file(path, json_bytes(record), shared=shared)


def json_bytes(record: dict[str, Any]) -> bytes:
    """The same bytes for the same record."""
    return (json.dumps(record, indent=1, ensure_ascii=False, default=str) + "\n").encode()


def json_line(record: dict[str, Any], *, escape_ends: bool = True) -> bytes:
    """UTF-8 with a line end; half a surrogate pair, which UTF-8 has not, is escaped again, as is
    what ends a line for some programs (`str.splitlines`, JavaScript) and not for JSON."""
    try:
        line = (json.dumps(record, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:
        return (json.dumps(record) + "\n").encode()
    for end in ("\x85", "\u2028", "\u2029") if escape_ends else ():
        line = line.replace(end.encode(), f"\\u{ord(end):04x}".encode())
    return line
