"""Where the record of a lease is kept: a file on a disk that hosts may share, or an object of a
bucket. Both make a record that is not there and delete one that is unchanged, or say that they did
not: of several that try at once one succeeds.
"""

import contextlib
import datetime
import email.utils
import errno
import glob
import json
import os
import pathlib
import secrets
from typing import Any, NamedTuple, Protocol

from t5jax.buckets import bucket_errors, file_system, in_bucket, writing_object
from t5jax.errors import writing

# The body of an upload: name and content of an object.
_PARTS = (
    b"--=record=\nContent-Type: application/json\n\n%b\n"
    b"--=record=\nContent-Type: application/octet-stream\n\n%b\n--=record=--"
)


class Seen(NamedTuple):
    """A record as it was read."""

    token: str  # which one it was, for `delete` and `rewrite`
    data: bytes
    age: float  # seconds since it was written, by the clock of the store


class Place(Protocol):
    """A place for one record. All raise OSError where the store cannot be read or written."""

    def read(self) -> Seen | None:
        """None: there is none."""
        ...

    def create(self, data: bytes) -> str | None:
        """The token of the new record; None where one is there."""
        ...

    def rewrite(self, token: str, data: bytes) -> str | None:
        """The new token; None where that record is no longer there, or another one is."""
        ...

    def delete(self, token: str) -> bool:
        """Whether that record was there and is deleted."""
        ...


def place_of(path: str) -> Place:
    """The place for the record of a lease at a path or `gs://` URL."""
    return _Object(path) if in_bucket(path) else _File(pathlib.Path(path))


def paths_beginning(path: str) -> list[str]:
    """Those that begin so, in the same folder, and are there."""
    if not in_bucket(path):
        return sorted(glob.glob(f"{glob.escape(path)}*"))
    folder, _, prefix = path.rpartition("/")
    with bucket_errors(path):
        return sorted(f"gs://{name}" for name in file_system().find(folder, prefix=prefix))


class _File:
    """On a disk; its token is the record's id. It is read by opening it, which NFS answers as the
    server knows it, and never by its status alone, which NFS keeps for a minute."""

    def __init__(self, path: pathlib.Path):
        self._path = path

    def read(self) -> Seen | None:
        try:
            with open(self._path, "rb") as file:
                data, written = file.read(), os.fstat(file.fileno()).st_mtime
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ESTALE):
                raise
            return None
        return Seen(_id_of(data), data, self._now() - written)

    def create(self, data: bytes) -> str | None:
        try:
            number = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return None
        try:
            with writing(self._path):
                os.write(number, data)
        except OSError:
            self._path.unlink(missing_ok=True)
            raise
        finally:
            os.close(number)
        return _id_of(data)

    def rewrite(self, token: str, data: bytes) -> str | None:
        """In place: what another makes under the name meanwhile is another file."""
        try:
            with open(self._path, "r+b", buffering=0) as file:
                if _id_of(file.read()) != token:
                    return None
                file.seek(0)
                file.write(data)
        except FileNotFoundError:
            return None
        return token

    def delete(self, token: str) -> bool:
        aside = self._another_name()
        try:
            os.rename(self._path, aside)
        except FileNotFoundError:
            return False
        found = _id_of(aside.read_bytes()) == token
        if not found:  # another's by now: it gets its name back
            with contextlib.suppress(OSError):  # else it makes its record again (`lease.py`)
                os.link(aside, self._path)
        aside.unlink(missing_ok=True)
        return found

    def _now(self) -> float:
        """Of the clock by which the disk dates its files: of a server for a disk that is shared."""
        probe = self._another_name()
        try:
            with open(probe, "xb", buffering=0) as file:
                file.write(b"\n")
                return os.fstat(file.fileno()).st_mtime
        finally:
            probe.unlink(missing_ok=True)

    def _another_name(self) -> pathlib.Path:
        return self._path.with_name(f".lease-{secrets.token_hex(6)}")


class _Object:
    """In a bucket; its token is the object's generation, which the store compares by itself
    (`ifGenerationMatch`; 0: there is none)."""

    def __init__(self, url: str):
        self._url = url
        self._bucket, _, self._key = url.removeprefix("gs://").partition("/")

    def read(self) -> Seen | None:
        while True:
            try:
                with bucket_errors(self._url):
                    headers, text = self._call("GET")
            except FileNotFoundError:
                return None
            about = json.loads(text)
            with bucket_errors(self._url), contextlib.suppress(FileNotFoundError):  # changed since
                _, data = self._call("GET", alt="media", generation=about["generation"])
                break
        written = datetime.datetime.fromisoformat(about["updated"])
        now = email.utils.parsedate_to_datetime(headers["Date"])
        return Seen(about["generation"], data, (now - written).total_seconds())

    def create(self, data: bytes) -> str | None:
        return self.rewrite("0", data)

    def rewrite(self, token: str, data: bytes) -> str | None:
        with writing_object(self._url), contextlib.suppress(FileExistsError):  # it has another
            store = file_system()
            place = store.base.replace("/storage/v1/", "/upload/storage/v1/") + "b/{}/o"
            name = json.dumps({"name": self._key}).encode()
            kind = {"Content-Type": 'multipart/related; boundary="=record="'}
            about = store.call(
                "POST", place, self._bucket, uploadType="multipart", ifGenerationMatch=token,
                headers=kind, data=_PARTS % (name, data), json_out=True,
            )  # fmt: skip
            return about["generation"]
        # gcsfs repeats a request whose answer was lost: then this very record is there already.
        seen = self.read()
        return seen.token if seen is not None and seen.data == data else None

    def delete(self, token: str) -> bool:
        """Not every store compares the generation of what it deletes: nobody else can change the
        object once this process has."""
        last = self.rewrite(token, b"")
        if last is None:
            return False
        changed = (FileExistsError, FileNotFoundError)
        with bucket_errors(self._url), contextlib.suppress(*changed):
            self._call("DELETE", ifGenerationMatch=last)
        return True

    def _call(self, method: str, **parameters: str) -> Any:
        """(headers, content) of the answer about the object."""
        return file_system().call(method, "b/{}/o/{}", self._bucket, self._key, **parameters)


def _id_of(data: bytes) -> str:
    """A record's id; of one that is not whole, its text."""
    try:
        return str(json.loads(data)["id"])
    except (ValueError, KeyError, TypeError):
        return data.decode(errors="replace")
