"""Which files paths and glob patterns name, and that each is named once.

A name that is there as it stands is that file, whatever characters it has (`data[1].jsonl`); only
else, and where it is not there, `*`, `?` and `[...]` are a pattern.

Two spellings are one file when they lead to it: `./a`, an absolute path, `~`, `file://`, a symbolic
or a hard link; of URLs, when they are equal after normalisation (RFC 3986, section 6.2).
"""

import glob
import os
import posixpath
import re
import urllib.parse
from collections.abc import Hashable, Iterable, Mapping

from t5jax.data.records import Source
from t5jax.data.sources.remote import file_system, remote_errors
from t5jax.errors import DataError, missing_file
from t5jax.paths import expand

_LOCAL = ("file", "local")
_SAME_SCHEME = {"gcs": "gs", "s3a": "s3", "s3n": "s3"}
_CASE_OF_HOST_COUNTS = ("memory",)  # what looks like a host there is a folder
_DEFAULT_PORTS = {"http": 80, "https": 443, "ftp": 21}  # the schemes whose paths are %-encoded


def expand_patterns(patterns: Iterable[str]) -> list[str]:
    """Paths that the patterns name, in the order of the patterns, sorted within each.

    Raises DataError when one names nothing or two name the same file.
    """
    paths: list[str] = []
    for pattern in patterns:
        found = _matches_of(pattern)
        if not found:
            raise _not_found(pattern)
        paths += found
    refuse_repeated_files(paths)
    return paths


def _matches_of(pattern: str) -> list[str]:
    local = expand(pattern)
    if "://" in local:
        return _remote_matches(pattern)
    found = _local_matches(local)
    if local == pattern or pattern.startswith("~"):
        return found
    return [f"file://{os.path.abspath(path)}" for path in found]  # as fsspec names them in stores


def _not_found(pattern: str) -> ValueError:
    if not pattern.strip():
        return DataError("a file's name is empty")
    there = expand(pattern)
    if os.path.isdir(there):
        return DataError(f"{pattern} is a folder; name its files: {os.path.join(pattern, '*')}")
    if os.path.islink(there) and not os.path.exists(there):
        return DataError(f"{pattern} is a link to {os.readlink(there)}, which is not there")
    if os.path.exists(there):
        return DataError(
            f"{pattern} is no regular file (a pipe or a device); write it to a file first"
        )
    return missing_file(pattern, f"{pattern}: no such file (or the pattern matches none)")


def refuse_repeated_files(paths: Iterable[str]) -> None:
    """Raises DataError when two of the paths lead to one file, with both spellings."""
    seen: dict[Hashable, str] = {}
    for path in paths:
        keys = _identities(path)
        other = next((seen[key] for key in keys if key in seen), None)
        if other == path:
            raise DataError(f"{path} is named twice")
        if other is not None:
            raise DataError(f"{other} and {path} are the same file: its rows would be read twice")
        seen |= dict.fromkeys(keys, path)


def refuse_shared_files(of_splits: Mapping[str, Iterable[str]], split: str) -> None:
    """Raises DataError when a file of `split` is one of another split, under whatever name. Splits
    are named as in the message: `train_files`."""
    own = {key: path for path in of_splits[split] for key in _identities(path)}
    others = [(name, path) for name in of_splits if name != split for path in of_splits[name]]
    for other, path in others:
        same = next((own[key] for key in _identities(path) if key in own), None)
        if same == path:
            raise DataError(f"{path} is named in both {split} and {other}")
        if same is not None:
            raise DataError(
                f"{same} of {split} and {path} of {other} are the same file: a file belongs to one "
                "split"
            )


def check_shards_of_splits(source: Source, split: str) -> list[str]:
    """The shards of a split of any source, where they are names of files checked as those of
    `Files`: a file is read once, and in one split. A source that gives one name in several splits
    may read different rows for each, and is believed."""
    shards = source.shards(split)
    files = [name for name in shards if "://" in name or os.path.isfile(name)]
    refuse_repeated_files(files)
    if files:
        others = {name: source.shards(name) for name in source.splits() if name != split}
        differing = {name: set(found).difference(files) for name, found in others.items()}
        refuse_shared_files({**differing, split: files}, split)
    return shards


def _local_matches(pattern: str) -> list[str]:
    if not glob.has_magic(pattern):
        return [pattern] if os.path.isfile(pattern) else []
    as_pattern, named = _matches(pattern), _escape_what_exists(pattern)
    if named == pattern:
        return as_pattern
    as_it_stands = _matches(named)
    if as_pattern and not set(as_it_stands) <= set(as_pattern):
        raise DataError(
            f"{pattern}: is the name of {as_it_stands[0]} and, as a pattern, names "
            f"{as_pattern[0]} too; write `[[]` for a bracket of a name, `[*]` and `[?]` likewise"
        )
    return as_pattern or as_it_stands


def _escape_what_exists(pattern: str) -> str:
    """The pattern with each part that exists under its own name as that name."""
    escaped, parts = "", re.split(f"({re.escape(os.sep)}+)", pattern)
    for part in parts:
        there = glob.has_magic(part) and os.path.lexists(_glob_unescaped(escaped) + part)
        escaped += glob.escape(part) if there else part
    return escaped


def _glob_unescaped(pattern: str) -> str:
    """The inverse of `glob.escape`."""
    return re.sub(r"\[([*?[])\]", r"\1", pattern)


def _matches(pattern: str) -> list[str]:
    return [path for path in sorted(glob.glob(pattern, recursive=True)) if os.path.isfile(path)]


def _remote_matches(pattern: str) -> list[str]:
    system, path = file_system(pattern)
    with remote_errors(pattern):
        names = [path]
        if glob.has_magic(path) and not system.isfile(path):
            names = sorted(system.glob(path))
        return [system.unstrip_protocol(name) for name in names if system.isfile(name)]


# ---- one file, whatever its spelling


def _identities(path: str) -> list[Hashable]:
    """Keys of a file: two spellings lead to the same one when they share a key."""
    scheme, separator, rest = path.partition("://")
    if separator and scheme.lower() not in _LOCAL:
        return [normalised_url(path)]
    local = expand(rest if separator else path)
    keys: list[Hashable] = [os.path.realpath(local)]
    try:
        stat = os.stat(local)
    except OSError:  # gone, or a shard's name that is no path
        return keys
    # Some network file systems have no lasting numbers: there the path has to do.
    return [*keys, (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)]


def normalised_url(url: str) -> str:
    """A URL as all its spellings have in common: case of scheme and host, default port, doubled
    slashes and, where the scheme has them, percent-encoding and dot segments."""
    scheme, _, rest = url.partition("://")
    scheme = _SAME_SCHEME.get(scheme.lower(), scheme.lower())
    host, slash, path = rest.partition("/")
    if scheme in _CASE_OF_HOST_COUNTS:
        return f"{scheme}://" + re.sub("/{2,}", "/", rest).strip("/")
    host = host.lower()
    if scheme in _DEFAULT_PORTS:
        path, mark, query = path.partition("#")[0].partition("?")
        host = host.removesuffix(f":{_DEFAULT_PORTS[scheme]}").removesuffix(":")
        path = posixpath.normpath("/" + urllib.parse.unquote(path)).lstrip("/")
        path += mark + query if query else ""
    return f"{scheme}://{host}{slash}" + re.sub("/{2,}", "/", path.lstrip("/"))
