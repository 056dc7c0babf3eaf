"""Vocabulary files: local paths, published names, and URLs that are downloaded once.

T5's own files lie in a public bucket. A run reads them from a copy below `~/.cache/t5jax`, which is
made at first use and not looked at again: delete it to fetch a file anew.
"""

import dataclasses
import hashlib
import os
import pathlib

from t5jax.data.atomic_files import write_file
from t5jax.errors import ConfigError, DataError
from t5jax.paths import expand

VARIABLE = "T5JAX_VOCABULARY"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """A SentencePiece file that models were published with, and the sentinels that come on top."""

    url: str
    extra_ids: int


# As in the tasks that trained the models; mT5's file holds its sentinels.
PUBLISHED = {
    "t5": Published(url="gs://t5-data/vocabs/cc_all.32000/sentencepiece.model", extra_ids=100),
    "mt5": Published(
        url="gs://t5-data/vocabs/mc4.250000.100extra/sentencepiece.model", extra_ids=0
    ),
    "umt5": Published(url="gs://t5-data/vocabs/umt5.256000/sentencepiece.model", extra_ids=300),
}


def is_local(path: str) -> bool:
    """Whether it is a plain path: no published name and no URL."""
    return path not in PUBLISHED and "://" not in path


def local_file(path: str) -> str:
    """A local path with the vocabulary's bytes; plain paths come back as they are.

    A name of `PUBLISHED` stands for its URL. The variable T5JAX_VOCABULARY goes before fetching:
    `FILE` is T5's own (the name "t5"), `NAME=FILE,URL=FILE` any others. Raises ConfigError where
    a URL's file system is not installed, DataError where the file cannot be had.
    """
    if is_local(path):
        return path
    url = PUBLISHED[path].url if path in PUBLISHED else path
    return known_copy(url) or str(_fetched(url))


def known_copy(url: str) -> str | None:
    """The local file that stands for a URL, where the variable names one or it was fetched before.
    Raises ConfigError for a file of the variable that is not there."""
    given = _given_files().get(url)
    if given:
        return given
    return str(_copy_of(url)) if _copy_of(url).is_file() else None


def how_to_name(url: str) -> str:
    """What to write to give a local copy of a URL."""
    return f"{VARIABLE}={_name_of(url)}=FILE"


def _given_files() -> dict[str, str]:
    """URL -> local file, as the variable says."""
    found = {}
    for entry in filter(None, os.environ.get(VARIABLE, "").split(",")):
        name, _, file = entry.rpartition("=")
        name, file = name or "t5", expand(file)
        if not os.path.isfile(file):
            raise ConfigError(f"{VARIABLE} names {file!r} for {name}, which is not a file")
        found[PUBLISHED[name].url if name in PUBLISHED else name] = file
    return found


def _copy_of(url: str) -> pathlib.Path:
    """Where the copy of a URL lies once it was fetched."""
    folder = pathlib.Path.home() / ".cache/t5jax/vocabularies"
    return folder / hashlib.sha256(url.encode()).hexdigest()[:32] / url.rpartition("/")[2]


def _fetched(url: str) -> pathlib.Path:
    target, data = _copy_of(url), _read(url)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_file(target, data, shared=True)
    return target


def _read(url: str) -> bytes:
    otherwise = (
        "or get the file by other means and give its path (data.vocabulary.path, or the variable "
        f"{how_to_name(url)})"
    )
    try:
        import fsspec
        from fsspec.core import url_to_fs

        file_system, path = url_to_fs(url)
    except (ImportError, ValueError) as error:  # ValueError: a protocol that nobody knows
        raise ConfigError(
            f"vocabulary {url}: {error}; install what reads it (pip install fsspec, gcsfs for "
            f"gs://, s3fs for s3://, aiohttp for https://), {otherwise}"
        ) from error
    del fsspec
    try:
        return file_system.cat_file(path)
    except Exception as error:  # every file system has errors of its own
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise DataError(
            f"vocabulary {url} cannot be read ({reason}): check the address and the network, "
            f"{otherwise}"
        ) from error


def _name_of(url: str) -> str:
    return next((name for name, file in PUBLISHED.items() if file.url == url), url)
