"""Sentences and parameters of documentation strings as files of rows: the quickstart's text.

    python -m t5jax.data.docstring_corpus.rows DIRECTORY

writes, in DIRECTORY/train and DIRECTORY/validation, JSON lines in a mixed order:

sentences.jsonl   text, package
packages.jsonl    the same, of CLASSES only, as many of each as of the rarest one
types.jsonl       text (the first sentence of a parameter's description), type

Nothing is downloaded or imported: the source files of PACKAGES are read. A whole file is of train
or of validation, by the hash of its name. A text is once in a file of rows, and of one split alone,
letter case and marks aside.
"""

import concurrent.futures
import contextlib
import functools
import hashlib
import json
import multiprocessing
import os
import pathlib
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping

from t5jax.data.docstring_corpus.parameters import documented_parameters
from t5jax.data.docstring_corpus.prose import prose, strip_markup
from t5jax.data.docstring_corpus.python_strings import documentation_strings
from t5jax.data.docstring_corpus.source import SourceFile, installed_files, source_text
from t5jax.data.sources.sentences import split_sentences
from t5jax.errors import DataError

Columns = dict[str, str]

PACKAGES = (  # that every installation has
    *("jax", "keras", "matplotlib", "nltk", "numpy", "optax", "python", "scipy", "tensorflow"),
)
CLASSES = ("matplotlib", "nltk", "python", "scipy", "tensorflow")
VALIDATION_SHARE = 0.08
_TYPES = {  # as documentation strings begin them
    "array": ("array", "array_like", "array-like", "ndarray", "numpy.ndarray"),
    "bool": ("bool", "boolean"),
    "callable": ("callable", "function"),
    "float": ("float",),
    "int": ("int", "integer"),
    "str": ("str", "string"),
}
_NAMES = {written: name for name, forms in _TYPES.items() for written in forms}
_FIRST_NAME = re.compile(r"[`~:]*([\w.-]+)")
_WORDS = range(4, 25)  # of a sentence


def collect_rows(
    packages: Mapping[str, Iterable[SourceFile]], num_processes: int = 1
) -> dict[str, list[Columns]]:
    """`split/kind` -> rows, of kinds `sentences`, `packages` and `types`; the same with any number
    of processes, of which more than one are spawned."""
    rows: dict[str, list[Columns]] = defaultdict(list)
    split_of: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    files = [(package, file) for package, own in packages.items() for file in own]
    with _mapping(num_processes) as map_files:
        for (_, file), found in zip(files, map_files(_rows_of_file, files), strict=True):
            split = "validation" if share_of(file.name) < VALIDATION_SHARE else "train"
            for kind, row, text in found:
                if split_of.setdefault(text, split) == split and (kind, text) not in seen:
                    seen.add((kind, text))
                    rows[f"{split}/{kind}"].append(row)
    for own in rows.values():
        own.sort(key=lambda row: share_of(row["text"]))
    balanced = {
        f"{split}/packages": _balanced(rows[f"{split}/sentences"])
        for split in ("train", "validation")
    }
    return {**rows, **balanced}


def write(directory: str) -> None:
    """Writes the rows of PACKAGES. Raises DataError naming what is not installed."""
    installed = installed_files()
    missing = [name for name in PACKAGES if name not in installed]
    if missing:
        raise DataError(f"not installed: {', '.join(missing)}; install them, or change PACKAGES")
    packages = {name: installed[name] for name in PACKAGES}
    for name, rows in collect_rows(packages, num_processes=os.cpu_count() or 1).items():
        path = pathlib.Path(directory, f"{name}.jsonl")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        print(f"{path}: {len(rows):,} rows")


@contextlib.contextmanager
def _mapping(num_processes: int) -> Iterator[Callable]:
    """`map`, or that of a pool of processes."""
    if num_processes == 1:
        yield map
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(num_processes, mp_context=context) as pool:
        yield functools.partial(pool.map, chunksize=64)


def share_of(text: str) -> float:
    """A number in [0, 1) that follows from the text alone, evenly spread."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


def _rows_of_file(of_package: tuple[str, SourceFile]) -> list[tuple[str, Columns, str]]:
    """(kind, row, its text without letter case and marks) of a file of a package."""
    package, file = of_package
    return [
        (kind, row, " ".join(re.findall(r"\w+", row["text"].lower())))
        for kind, row in _rows_of(source_text(file.path), package)
    ]


def _rows_of(source: str, package: str) -> Iterator[tuple[str, Columns]]:
    """(kind, row) of all documentation strings of a source text."""
    for docstring in documentation_strings(source):
        for paragraph in prose(docstring):
            for text in split_sentences(paragraph):
                if len(text.split()) in _WORDS:
                    yield "sentences", {"text": text, "package": package}
        for entry in documented_parameters(docstring):
            text = next(iter(split_sentences(strip_markup(entry.description))), "")
            kind = type_name(entry.type)
            if kind and len(text.split()) in _WORDS:
                yield "types", {"text": text, "type": kind}


def type_name(written: str) -> str | None:
    """One of six types, by the first name in what is written: `int, optional` is an int.

    None for other types, and for what begins with a shape or with choices.
    """
    first = _FIRST_NAME.match(written)
    return _NAMES.get(first[1].lower()) if first else None


def _balanced(rows: list[Columns]) -> list[Columns]:
    """The first rows of each of CLASSES, mixed, so that any part of them is balanced."""
    least = min(Counter(row["package"] for row in rows)[name] for name in CLASSES)
    taken: Counter[str] = Counter()
    kept = []
    for row in rows:
        if row["package"] in CLASSES and taken[row["package"]] < least:
            taken[row["package"]] += 1
            kept.append(row)
    return sorted(kept, key=lambda row: share_of(f"{row['package']} {row['text']}"))


if __name__ == "__main__":
    write(*sys.argv[1:])
