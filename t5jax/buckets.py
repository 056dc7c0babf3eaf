"""The folder of a run in a bucket of Cloud Storage (`gs://`): its files, copies of folders, errors.

Checkpoints go to a bucket directly (Orbax and TensorStore write objects). Every other file of a run
is appended to or replaced, which objects cannot be: it is written in a folder of this machine, and
uploaded as a whole object at every save and at least once a minute. TensorFlow is not used for it.
"""

import atexit
import contextlib
import errno
import functools
import importlib.util
import logging
import os
import pathlib
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

from t5jax.errors import ConfigError, DataError, message_of
from t5jax.paths import run_folder, scheme_of

COMMITTED = "commit_success.txt"  # Orbax writes it last into a step in a bucket
SECONDS_BETWEEN_UPLOADS = 60.0
APPEND_FROM_BYTES = 1 << 20  # a smaller object is written anew
_APPENDED = ("metrics.jsonl", "events.out.tfevents.")  # beginnings of names
_ELSEWHERE = (
    "checkpoints",
    "checkpoints_set_aside",
    "wandb",
)  # folders that are no part of a run's files
_UNFINISHED = (".tmp", ".part")  # endings of names
_FAILURES = ("gcsfs", "aiohttp", "google", "requests", "urllib3")  # whose errors are the store's
_log = logging.getLogger(__name__).warning

# gcsfs logs the traceback of each request that failed for good, and then raises the error.
logging.getLogger("gcsfs").addFilter(
    lambda line: not line.exc_info or bool(os.environ.get("T5JAX_DEBUG"))
)


class BucketError(OSError):
    """A bucket that cannot be written to or read from now, in one line (exit code 73)."""


def in_bucket(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a `gs://` URL."""
    return scheme_of(os.fspath(path)) == "gs"


def check_driver(path: str | os.PathLike[str]) -> None:
    """Raises ConfigError for a `gs://` URL where gcsfs is not installed; imports nothing."""
    if not in_bucket(path):
        return
    _leave_out_tensorflow()
    if importlib.util.find_spec("gcsfs") is None:
        raise ConfigError(
            f"{os.fspath(path)}: gs:// needs gcsfs, which is not installed: "
            "`pip install 't5jax[gcs]'`"
        )


def _leave_out_tensorflow() -> None:
    """etils, which Orbax opens small files with, otherwise imports TensorFlow for gs:// (9 seconds)
    and reads through it. It looks at the variable once a process: if it already has, it is made to
    look again."""
    if "EPATH_USE_TF" in os.environ:
        return
    os.environ["EPATH_USE_TF"] = "false"
    decided = getattr(sys.modules.get("etils.epath.gpath"), "_is_tf_installed", None)
    if decided is not None and hasattr(decided, "cache_clear"):
        decided.cache_clear()


@functools.cache
def file_system() -> Any:
    """gcsfs, as etils opens it for Orbax: one object for both.

    It keeps no listings: what other programs write (TensorStore, other hosts) would not be seen.
    """
    import fsspec
    import fsspec.config

    for protocol in ("gs", "gcs"):
        fsspec.config.conf.setdefault(protocol, {}).setdefault("use_listings_cache", False)
    return fsspec.filesystem("gcs", finalize_on_close=True)


@contextlib.contextmanager
def bucket_errors(url: str | os.PathLike[str]) -> Iterator[None]:
    """What gcsfs raises in the block becomes a BucketError that names the URL; on a path of a disk
    nothing is changed. FileNotFoundError passes: it says that the object is not there."""
    if not in_bucket(url):
        yield
        return
    check_driver(url)
    file_system()
    try:
        yield
    except (FileNotFoundError, BucketError, ConfigError, DataError):
        raise
    except Exception as error:
        if not is_of_store(error):
            raise
        number = errno.EACCES if _is_refusal(error) else errno.EIO
        raise BucketError(number, _reason(error), os.fspath(url)) from error


def is_of_store(error: BaseException) -> bool:
    """Whether an error says that a bucket cannot be read now, and nothing about the object: it is
    of the store's libraries, a time-out, or an OSError of gcsfs, which has no number."""
    if isinstance(error, FileNotFoundError):
        return False
    root = type(error).__module__.partition(".")[0]
    if root in _FAILURES or isinstance(error, (BucketError, TimeoutError)):
        return True
    return isinstance(error, OSError) and error.errno is None


def check_readable(url: str | os.PathLike[str]) -> None:
    """Raises DataError (exit 65) for a bucket that cannot be read: no permission, no network, no
    credentials. On a disk, and where nothing is there, it does nothing."""
    if in_bucket(url):
        with reading(url):
            file_system().exists(os.fspath(url).rstrip("/"))


@contextlib.contextmanager
def reading(url: str | os.PathLike[str] | None) -> Iterator[None]:
    """As `bucket_errors`, around what only reads: what the store raises becomes a DataError (exit
    65). None: nothing is changed."""
    try:
        with bucket_errors(url or ""):
            yield
    except BucketError as error:
        raise DataError(
            f"{error.filename} cannot be read: {error.strerror}; check the credentials (gcloud "
            "auth application-default login), the permission and the network"
        ) from error


def make_folder(url: str) -> None:
    """Checks that a bucket can be written to; it has no folders to be made. Raises BucketError."""
    with writing_object(url):
        file_system().pipe_file(f"{url.rstrip('/')}/.writable", b"")
        file_system().rm_file(f"{url.rstrip('/')}/.writable")


@contextlib.contextmanager
def writing_object(url: str) -> Iterator[None]:
    """As `bucket_errors`, around what writes an object: what is not found then is the bucket."""
    try:
        with bucket_errors(url):
            yield
    except FileNotFoundError as error:
        bucket = url.split("/")[2]
        raise BucketError(errno.ENXIO, f"there is no bucket {bucket!r}", url) from error


def upload_folder(folder: pathlib.Path, url: str, *, last: str) -> None:
    """Writes the files below a folder of this machine as objects below a URL: `commit_success.txt`
    into every step of a run's checkpoints, and those named `last` when all others are there. Raises
    BucketError."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    names = sorted(name for name, path in files.items() if path.is_file())
    steps = {"/".join(x[:2]) for x in (name.split("/") for name in names) if x[0] == _ELSEWHERE[0]}
    with bucket_errors(url):
        for name in sorted(names, key=lambda name: name.rpartition("/")[2] == last):
            file_system().put_file(os.fspath(files[name]), f"{url}/{name}")
        for step in sorted(steps):  # as Orbax does where it writes to a bucket itself
            text = f"Checkpoint commit was successful to {url}/{step}"
            file_system().pipe_file(f"{url}/{step}/{COMMITTED}", text.encode())


def copy_folder(source: str, target: str) -> None:
    """Copies the objects below a URL within the store; `commit_success.txt` last, so that an
    interrupted copy is no checkpoint. Raises BucketError."""
    with bucket_errors(target):
        for name in sorted(objects_below(source), key=lambda name: name.endswith(COMMITTED)):
            file_system().cp_file(f"{source}/{name}", f"{target}/{name}")


def delete_folder(url: str) -> None:
    """Deletes the objects below a URL, `commit_success.txt` first. Raises BucketError."""
    with bucket_errors(url):
        for name in sorted(objects_below(url), key=lambda name: not name.endswith(COMMITTED)):
            with contextlib.suppress(FileNotFoundError):
                file_system().rm_file(f"{url}/{name}")


class RunFiles:
    """The files of a run but for its checkpoints, in `folder`, which is on a disk of this machine.

    For a workdir on a disk that is the workdir, and the other methods do nothing. For one in a
    bucket it is a temporary folder of this process, whose files are fetched when they are asked for
    and uploaded when they have changed. `appended` names a file whose new lines alone are sent.
    """

    def __init__(self, workdir: str | os.PathLike[str], appended: str | None = None):
        """Raises ConfigError for a URL that no run can lie at."""
        self._appended = _APPENDED if appended is None else (*_APPENDED, appended)
        self.url = os.fspath(workdir).rstrip("/") if in_bucket(workdir) else None
        self.folder = pathlib.Path(run_folder(os.fspath(workdir), "workdir"))
        if self.url is not None:
            check_driver(self.url)
            parent = tempfile.mkdtemp(prefix="t5jax-run-")
            atexit.register(shutil.rmtree, parent, ignore_errors=True)
            self.folder = pathlib.Path(parent) / self.url.rpartition("/")[2]
            self.folder.mkdir()
        self._stored: dict[str, tuple[int, int]] = {}  # name -> size, time of the file as uploaded
        self._sizes: dict[str, int] = {}  # name -> bytes of the object
        self._lock = threading.Lock()
        self._uploaded = time.monotonic()
        self._thread: threading.Thread | None = None

    def fetch(self, name: str | pathlib.Path) -> None:
        """The file or folder of that name, or path in `folder`, is as in the bucket. Raises
        BucketError."""
        if self.url is None:
            return
        name = (self.folder / name).relative_to(self.folder).as_posix()
        with self._lock, bucket_errors(self.url):
            place = self.folder / name
            if place.is_dir():
                shutil.rmtree(place)
            place.unlink(missing_ok=True)
            found = {f"{name}/{rest}" for rest in objects_below(f"{self.url}/{name}")}
            with contextlib.suppress(FileNotFoundError):
                if not found and file_system().isfile(f"{self.url}/{name}"):
                    found = {name}
            for one in found:
                if ".." not in one.split("/"):
                    self._fetch_file(one)

    def shown(self, path: pathlib.Path) -> str:
        """A path as a user knows it: its URL where it lies in the bucket."""
        if self.url is None or not path.is_relative_to(self.folder):
            return str(path)
        return f"{self.url}/{path.relative_to(self.folder).as_posix()}"

    def upload(self) -> None:
        """Objects are as the files of this process are now: what changed is written, what was
        deleted is deleted. Raises BucketError."""
        if self.url is None:
            return
        with self._lock, bucket_errors(self.url):
            names = set(self._names())
            for name in sorted(names):
                self._upload_file(name)
            for name in self._stored.keys() - names:
                with contextlib.suppress(FileNotFoundError):
                    file_system().rm_file(f"{self.url}/{name}")
                del self._stored[name]
            self._uploaded = time.monotonic()

    def upload_in_time(self) -> None:
        """Starts an upload beside the caller where the last one is a minute old. A failure is only
        a warning: the next upload of all tries again."""
        if self.url is None or time.monotonic() - self._uploaded < SECONDS_BETWEEN_UPLOADS:
            return
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._try_upload, daemon=True)
            self._thread.start()

    def _try_upload(self) -> None:
        try:
            self.upload()
        except OSError as error:
            self._uploaded = time.monotonic()
            _log("%s: not uploaded now (%s)", self.url, message_of(error))

    def _names(self) -> Iterator[str]:
        for path in self.folder.rglob("*"):
            name = path.relative_to(self.folder).as_posix()
            unfinished = name.endswith(_UNFINISHED) or ".tmp-" in path.name
            if path.is_file() and name.split("/")[0] not in _ELSEWHERE and not unfinished:
                yield name

    def _fetch_file(self, name: str) -> None:
        path = self.folder / name
        data = file_system().cat_file(f"{self.url}/{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self._stored[name], self._sizes[name] = _version(path), len(data)

    def _upload_file(self, name: str) -> None:
        path, url = self.folder / name, f"{self.url}/{name}"
        version = _version(path)
        if self._stored.get(name) == version:
            return
        before, appended = self._sizes.get(name, 0), path.name.startswith(self._appended)
        with open(path, "rb") as file:
            only_rest = appended and APPEND_FROM_BYTES <= before <= version[0]
            file.seek(before if only_rest else 0)
            data = file.read(version[0] - file.tell())
        if appended and path.suffix == ".jsonl":  # whole lines
            data = data[: data.rfind(b"\n") + 1]
        if not only_rest or not _append(url, before, data):
            if only_rest:
                data = path.read_bytes()[: before + len(data)]
            file_system().pipe_file(url, data)
            before = 0
        self._stored[name], self._sizes[name] = version, before + len(data)


@functools.cache
def _run_files(workdir: str) -> RunFiles:
    return RunFiles(workdir)


def run_files(workdir: str | os.PathLike[str]) -> RunFiles:
    """The files of a run; within a process always the same object for a workdir in a bucket."""
    return _run_files(os.fspath(workdir).rstrip("/")) if in_bucket(workdir) else RunFiles(workdir)


def _append(url: str, before: int, data: bytes) -> bool:
    """Makes an object of `before` bytes longer within the store, which composes it of two; returns
    whether it has the right size then (it was another one, or a repeated request counted twice)."""
    part, store = f"{url}.part", file_system()
    store.pipe_file(part, data)
    store.merge(url, [url, part])
    store.rm_file(part)
    return store.info(url)["size"] == before + len(data)


def objects_below(url: str) -> list[str]:
    """Names of the objects below a URL, relative to it; none where there is no such bucket."""
    start = url.removeprefix("gs://").rstrip("/") + "/"
    try:
        found = file_system().find(start)
    except FileNotFoundError:
        return []
    return [x.removeprefix(start) for x in found if x.startswith(start) and x[-1] != "/"]


def _version(path: pathlib.Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _is_refusal(error: BaseException) -> bool:
    text = str(error)
    return str(getattr(error, "code", "")) in ("401", "403") or "Forbidden" in text


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {message_of(error)}"
