"""Paths as users write them: `~`, `file://`, URLs of other machines, relative ones from another
folder than was meant, and files where a folder is needed."""

import errno
import fnmatch
import os
import pathlib
import re
import urllib.parse
from collections.abc import Iterable
from typing import Any

from t5jax.errors import ConfigError

_STORES = {"gs": "gs", "gcs": "gs", "s3": "s3", "s3a": "s3", "s3n": "s3"}
# Of a bucket's name what Cloud Storage allows; of folders what gcsfs, TensorStore and Orbax take as
# it is written.
_FOLDER_IN_BUCKET = re.compile(
    r"gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9](/(?!\.\.?(/|$))[A-Za-z0-9._+=@,-]+)+/?"
)
_DIRECTORY = "give a directory (a disk, or a bucket mounted as one)"


def expand(path: Any, name: str = "") -> Any:
    """A path on this machine as the operating system knows it: the home folder for `~` or `~user`
    at its beginning, the path of a `file://` URL. Any other path, a URL and None as they are.

    A shell expands `~` for words that begin with it only (not for `--workdir=~/run`), and nobody
    does for a config file. A folder of that name is `./~`. In a URL `%20` is a space, unless there
    is a file of the literal name. Raises ConfigError, with the setting `name`, for a file of
    another machine.
    """
    if not isinstance(path, str):
        return path
    if path.startswith("~"):
        return os.path.expanduser(path)
    if path.lower().startswith("file:/"):
        return _of_file_url(path, name)
    return path


def scheme_of(path: Any) -> str:
    """`gs` of `gs://bucket/run`, in lower case; "" for a path on this machine. What begins with a
    name of two letters or more and `:/` is a URL (`C:/x` and `a:x` are names of files)."""
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/", path) if isinstance(path, str) else None
    return found[1].lower() if found else ""


def run_folder(path: Any, name: str = "") -> Any:
    """The folder of a run as `expand` gives it, where a run can lie: on a disk, or in a bucket of
    Cloud Storage.

    Raises ConfigError for any other URL and for ""; it names the setting `name` (none for an
    argument, which the command line names).
    """
    path = expand(path, name)
    if path == "":
        raise ConfigError(f"{_named(path, name)}: name the workdir of a run")
    scheme = scheme_of(path)
    if _STORES.get(scheme) == "s3":
        raise ConfigError(
            f"{_named(path, name)}: Orbax, which writes and reads checkpoints, does not take "
            f"{scheme}:// (tried with 0.12.8): a run cannot lie there, its data can; {_DIRECTORY}"
        )
    if scheme and not path.startswith("gs://"):
        raise _unknown(path, name, _DIRECTORY)
    return path


def check_written_run(workdir: str | os.PathLike[str], name: str = "workdir") -> None:
    """Raises ConfigError for a workdir that no run can be written into: a URL other than of a
    folder in a bucket of Cloud Storage, and a folder whose arrays would be lost (measured:
    TensorStore writes `a\\b` to `a/b`, Orbax looks for the arrays of `a[1]` in `a1`; both say that
    they were saved)."""
    path = os.fspath(workdir)
    if scheme_of(path):
        _check_in_bucket(path, name, "a run in a bucket is written to gs://BUCKET/FOLDER")
        return
    for part in pathlib.Path(os.path.abspath(workdir)).parts:
        if "\\" in part or not fnmatch.fnmatchcase(part, part):
            raise ConfigError(
                f"{_named(path, name)}: arrays that are saved below a folder named "
                f"{part!r} are lost, because TensorStore takes \\ for / and Orbax [...] for a "
                "pattern; give a folder with another name"
            )


def written_path(path: Any, name: str = "") -> Any:
    """A folder or file that is written on a disk or in a bucket of Cloud Storage, as `expand` gives
    it. Raises ConfigError for any other URL; `name` as in `run_folder`."""
    path = expand(path, name)
    scheme = scheme_of(path)
    if scheme and path.startswith("gs://"):
        _check_in_bucket(path, name, "what is written in a bucket is gs://BUCKET/FOLDER")
    elif scheme:
        what = f"{scheme}:// is not known"
        if scheme in _STORES:
            what = f"{scheme}:// is not written to"
        advice = "give a folder or file of a disk, or gs://BUCKET/FOLDER"
        raise ConfigError(f"{_named(path, name)}: {what}; {advice}")
    return path


def local_path(path: Any, name: str = "", reason: str = "local files are needed here") -> Any:
    """A path that only a file system can serve, as `expand` gives it. Raises ConfigError for a URL;
    `name` as in `run_folder`."""
    path = expand(path, name)
    if scheme := scheme_of(path):
        raise ConfigError(f"{_named(path, name)}: {scheme}:// is no disk, and {reason}")
    return path


def refuse_file_in_the_way(folder: str | os.PathLike[str]) -> None:
    """Raises NotADirectoryError (exit 73), naming it, for a file or a link to nothing where
    `folder`, or one above it, is to be made or written into."""
    if scheme_of(os.fspath(folder)):
        return
    place = os.path.join(os.getcwd(), folder).rstrip("/") or "/"
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    if os.path.isdir(place):
        return
    if os.path.islink(place) and not os.path.exists(place):
        reason = f"a link to {os.readlink(place)}, which is not there"
        raise NotADirectoryError(errno.ENOTDIR, reason, place)
    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), place)


def seen_from(path: str) -> str:
    """`; seen from FOLDER` for a relative path: what it is relative to; else ""."""
    if not path or scheme_of(path) or os.path.isabs(expand(path)):
        return ""
    return f"; seen from {pathlib.Path.cwd()}"


def found_elsewhere(path: str, folders: Iterable[str | pathlib.Path] = ()) -> str | None:
    """The absolute path that a relative one would be from a folder above this one, or from (or
    above) one of `folders`; None where nothing is there either."""
    if not seen_from(path):
        return None
    here = pathlib.Path.cwd()
    for folder in (here, *(pathlib.Path(os.path.abspath(folder)) for folder in folders)):
        for base in (folder, *folder.parents):
            found = base / path
            if base != here and len(base.parts) > 1 and _is_there(found):
                return str(found)
    return None


def started_elsewhere(path: str, folders: Iterable[str | pathlib.Path] = ()) -> str:
    """`; it exists in FOLDER: …` where a relative path exists from another folder; else ""."""
    found = found_elsewhere(path, folders)
    if found is None:
        return ""
    base = found.removesuffix(path).rstrip("/") or "/"
    return (
        f"; it exists from another folder than this one, {pathlib.Path.cwd()}: start t5jax in "
        f"{base}, or give {found}"
    )


def _of_file_url(url: str, name: str) -> str:
    """The path of `file:///a`, `file://localhost/a` or `file:/a`."""
    rest = url[len("file:") :]
    host = ""
    if rest.startswith("//"):
        host, slash, rest = rest[2:].partition("/")
        rest = slash + rest
    if host.lower() not in ("", "localhost") or not rest:
        raise ConfigError(
            f"{_named(url, name)}: of the host {host!r}, and only files of this machine are read "
            f"and written; three slashes begin their URLs: file:///{host}{rest}"
        )
    return rest if os.path.lexists(rest) else urllib.parse.unquote(rest)


def _check_in_bucket(path: str, name: str, rule: str) -> None:
    if not _FOLDER_IN_BUCKET.fullmatch(path):
        raise ConfigError(
            f"{_named(path, name)}: {rule}, where BUCKET has 3 letters or more, and FOLDER "
            "letters, digits and . _ - + = @ , alone"
        )


def _named(path: str, name: str) -> str:
    return f"{name} = {path!r}" if name else repr(path)


def _unknown(path: str, name: str, advice: str) -> ConfigError:
    scheme = scheme_of(path)
    what = f"{scheme}:// is not known"
    if scheme in _STORES:
        what = f"the URL of a bucket is {_STORES[scheme]}://BUCKET/…"
    own = f"for a file or folder of that very name, ./{path}"
    return ConfigError(f"{_named(path, name)}: {what}; {advice}, or {own}")


def _is_there(path: pathlib.Path) -> bool:
    """Whether a path is there, or for a pattern something that it names."""
    try:
        if not set("*?[") & set(path.name):
            return path.exists()
        return next(path.parent.glob(path.name), None) is not None
    except (OSError, ValueError):  # a name that is too long, or no name
        return False
