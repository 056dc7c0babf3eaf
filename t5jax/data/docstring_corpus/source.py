"""The embedded corpus as a source: prose of the docstrings of the installed Python packages.

It needs no download: every environment that can run t5jax holds megabytes of sentences that people
wrote to explain things. Files are read and lexed, never imported. Train and validation are disjoint
by package, and no paragraph is in the corpus twice.
"""

import dataclasses
import functools
import hashlib
import os
import pathlib
import re
import sysconfig
import tokenize
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import ClassVar

from t5jax.data.docstring_corpus.prose import prose
from t5jax.data.docstring_corpus.python_strings import documentation_strings
from t5jax.data.records import Record, Row
from t5jax.errors import DataError

STANDARD_LIBRARY = "python"  # counts as one package
VALIDATION_SHARE = 0.065
# Of one package: a large one alone would make validation about one thing.
_LARGEST_VALIDATION_SHARE = 0.02
_SHARD = "all"

# Tests and copies of other packages: their strings are not documentation, or are documentation of
# something else.
_SKIPPED_FOLDERS = {
    "test",
    "tests",
    "testing",
    "_testing",
    "testdata",
    "_vendor",
    "vendor",
    "vendored",
    "_vendored",
    "externals",
    "third_party",
    "lib2to3",
    "idlelib",
    "site-packages",
    "dist-packages",
    "__pycache__",
}
_NOT_A_PACKAGE = re.compile(r".*\.(dist-info|egg-info|data|libs)\Z")
_WHITE_OR_MARK = re.compile(r"[\W_]+")


@dataclasses.dataclass(kw_only=True, slots=True)
class Docstrings:
    """Documentation strings of the standard library and of every installed package, as prose.

    A document is the prose of one documentation string, its paragraphs on lines of their own. At
    most `target_bytes` of UTF-8 text are taken (less where less is installed), from files in an
    order that mixes all packages; documents of fewer than `min_words` words are left out. `roots`
    replaces the environment's folders of packages.

    One pass finds the whole corpus, because a paragraph may occur in any two packages. So a split
    is one shard, and the pass (seconds) is remembered by the process.
    """

    VERSION: ClassVar[int] = 1

    target_bytes: int = 25_000_000
    min_words: int = 10
    roots: tuple[str, ...] = ()

    def __post_init__(self):
        if self.target_bytes <= 0 or self.min_words < 0:
            raise DataError(
                f"target_bytes={self.target_bytes} and min_words={self.min_words}: must be positive"
            )

    def splits(self) -> tuple[str, ...]:
        """`train` and `validation`."""
        return ("train", "validation")

    def shards(self, split: str) -> list[str]:
        """One shard a split. Raises DataError for an unknown split."""
        if split not in self.splits():
            raise DataError(
                f"no split {split!r} in the embedded corpus: choose one of {list(self.splits())}"
            )
        return [_SHARD]

    def records(self, split: str, shard: str) -> Iterator[Record]:
        """The documents of a split, in column `text`. Raises DataError when the environment holds
        no documentation."""
        if shard not in self.shards(split):
            raise DataError(f"the embedded corpus has one shard, {_SHARD!r}, not {shard!r}")
        corpus = _corpus(self.target_bytes, self.min_words, self._folders())
        for number, text in enumerate(corpus[split]):
            yield Row({"text": text}, f"embedded corpus, {split}, document {number}")

    def shard_fingerprint(self, split: str, shard: str) -> str:
        """sha256 over names and sizes of all source files: changes when a package is installed or
        changed."""
        digest = hashlib.sha256()
        for package, files in sorted(python_files(self._folders()).items()):
            digest.update("".join(f"{package}\0{f.name}\0{f.size}\n" for f in files).encode())
        return digest.hexdigest()

    def _folders(self) -> tuple[str, ...]:
        return self.roots or _installed_roots()


def _installed_roots() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple(dict.fromkeys(paths[key] for key in ("stdlib", "purelib", "platlib")))


@dataclasses.dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of Python source."""

    path: str
    name: str  # relative to its root: the same on every machine
    size: int


def python_files(roots: Iterable[str]) -> dict[str, list[SourceFile]]:
    """Source files by package (top-level name without leading underscores), without tests and
    vendored copies."""
    standard_library = sysconfig.get_paths()["stdlib"]
    files: dict[str, list[SourceFile]] = defaultdict(list)
    for root in roots:
        for folder, folders, names in os.walk(root):
            folders[:] = sorted(
                f for f in folders if f not in _SKIPPED_FOLDERS and not _NOT_A_PACKAGE.match(f)
            )
            for name in sorted(names):
                path = os.path.join(folder, name)
                if (
                    not name.endswith(".py")
                    or name.startswith("test_")
                    or name.endswith("_test.py")
                ):
                    continue
                relative = pathlib.PurePath(os.path.relpath(path, root))
                top = relative.parts[0].removesuffix(".py").lstrip("_")
                package = STANDARD_LIBRARY if root == standard_library else top
                files[package].append(SourceFile(path, relative.as_posix(), os.stat(path).st_size))
    return files


def installed_files() -> dict[str, list[SourceFile]]:
    """Source files of the standard library and of every installed package, as `python_files`."""
    return python_files(_installed_roots())


def validation_packages(sizes: dict[str, int]) -> set[str]:
    """Packages of about VALIDATION_SHARE of all bytes, chosen by the hash of their names; at least
    one.

    Raises DataError when there are fewer than two packages to divide.
    """
    if len(sizes) < 2:
        raise DataError(
            f"found {len(sizes)} packages ({sorted(sizes)}): train and validation need one each"
        )
    total = sum(sizes.values())
    chosen: set[str] = set()
    room = VALIDATION_SHARE * total
    for package in sorted(sizes, key=_stable_hash):
        if sizes[package] <= min(room, _LARGEST_VALIDATION_SHARE * total):
            chosen.add(package)
            room -= sizes[package]
    return chosen or {min(sizes, key=lambda package: (sizes[package], package))}


@functools.lru_cache(maxsize=1)
def _corpus(target_bytes: int, min_words: int, roots: tuple[str, ...]) -> dict[str, list[str]]:
    """The documents of both splits; what validation shares with train is left out of validation."""
    packages = python_files(roots)
    held_out = validation_packages(
        {name: sum(f.size for f in files) for name, files in packages.items()}
    )
    seen: set[bytes] = set()
    corpus = {}
    for split, share in (("train", 1 - VALIDATION_SHARE), ("validation", VALIDATION_SHARE)):
        files = [
            f
            for name, own in packages.items()
            if (name in held_out) == (split == "validation")
            for f in own
        ]
        files.sort(key=lambda f: _stable_hash(f.name))
        corpus[split] = list(_documents(files, round(share * target_bytes), min_words, seen))
        if not corpus[split]:
            raise DataError(f"no English documentation strings for {split} under {list(roots)}")
    return corpus


def _documents(
    files: Iterable[SourceFile], budget: int, min_words: int, seen: set[bytes]
) -> Iterator[str]:
    """Documents of the files until their bytes exceed the budget; `seen` holds the paragraphs used
    so far."""
    used = 0
    for file in files:
        for docstring in documentation_strings(source_text(file.path)):
            paragraphs = [text for text in prose(docstring) if _is_new(text, seen)]
            text = "\n".join(paragraphs)
            if text and len(text.split()) >= min_words:
                yield text
                used += len(text.encode())
        if used >= budget:
            return


def _is_new(paragraph: str, seen: set[bytes]) -> bool:
    """Whether a paragraph, letters and digits alone, was not met before; it is met now."""
    key = hashlib.blake2b(
        _WHITE_OR_MARK.sub(" ", paragraph.lower()).encode(), digest_size=8
    ).digest()
    if key in seen:
        return False
    seen.add(key)
    return True


def source_text(path: str) -> str:
    """A file's text; empty when it is in no encoding that Python accepts (such files exist to test
    that)."""
    raw = pathlib.Path(path).read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        try:
            with tokenize.open(path) as file:
                return file.read()
        except (SyntaxError, UnicodeDecodeError):
            return ""


def _stable_hash(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()
