"""Labelled data sets, read from a benchmark's own download or TFDS's prepared copy.

Both give rows of the same columns, those of TFDS, so that a task is written once: text columns by
name, `label` as TFDS's class number (-1 where there is none), `idx`.
"""

import dataclasses
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from t5jax.data.config import DataConfig
from t5jax.data.records import BadColumn, BadRecord, Record, Row, Source
from t5jax.data.sources import JsonLines, Parquet, TextFiles, Tfds, Tsv
from t5jax.data.sources.files import folder_names
from t5jax.data.tasks.task import ExampleTask
from t5jax.errors import ConfigError, DataError
from t5jax.paths import expand

SETTINGS = ("datasets_dir", "tfds_data_dir")  # what a data set's source reads of DataConfig

_STEMS = {"train": ("train",), "validation": ("validation", "dev", "val"), "test": ("test",)}
_FILE = re.compile(r"(?P<stem>.+?)\.(?P<kind>jsonl|json|tsv|csv|parquet)(\.gz|\.zst)?")
_SHARD = re.compile(r"[-_.]\d+-of-\d+")
# A source's formats know three splits, a benchmark may have others: each file is read as this one.
_READ_AS = "train"

# (row of a file, its number in the file from 0) -> rows of TFDS's columns; raises BadColumn.
Adapt = Callable[[Row, int], Iterable[Row]]


def as_in_tfds(row: Row, number: int) -> Iterator[Row]:
    """Rows of files that have TFDS's columns already."""
    yield row


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """One data set: its name in TFDS, and how its official download lies on disk.

    Files are looked for below `data.datasets_dir`, in `folder` (the layout of the download) or in
    a folder of the TFDS name. A split is the file `<stem>.<format>`, with the first of the split's
    stems that is there; or all of `<stem>-00000-of-00004.<format>`; or the only
    `<stem>_<anything>.<format>`. Formats: jsonl, json, tsv, csv, parquet, each also .gz or .zst.
    """

    name: str
    folder: str
    adapt: Adapt
    stems: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=lambda: _STEMS)
    in_tfds: bool = True
    headerless: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    one_document: bool = False  # a .json file is one JSON document, not an object a line
    version: int | str = 1  # raised when `adapt` makes other rows of the same files

    def source(self, data: DataConfig) -> Source:
        """Files below `data.datasets_dir` where that is set, else TFDS below `data.tfds_data_dir`.

        Raises ConfigError for a data set that TFDS does not have when `datasets_dir` is empty.
        """
        if data.datasets_dir:
            return LocalFiles(name=self.name, root=data.datasets_dir, dataset=self)
        if not self.in_tfds:
            raise ConfigError(
                f"data.datasets_dir is empty: {self.name} is not in TFDS; name the folder that "
                f"holds {self.folder}/"
            )
        return Tfds(name=self.name, data_dir=data.tfds_data_dir)

    def task(self, **fields: Any) -> ExampleTask:
        """A task over its rows; `fields` are the others of `ExampleTask`."""
        return ExampleTask(source=self.source, settings=SETTINGS, required=self.required, **fields)

    @property
    def where(self) -> str:
        """Where `source` looks, for people."""
        folders = " or ".join(f"{name}/" for name in dict.fromkeys((self.folder, self.name)))
        files = f"{folders} below data.datasets_dir"
        return f"{files}; if that is not set, TFDS's {self.name}" if self.in_tfds else files

    @property
    def required(self) -> tuple[str, ...]:
        """The fields of DataConfig that must be set."""
        return () if self.in_tfds else ("datasets_dir",)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LocalFiles:
    """The files of a data set below a folder (local, or a URL that fsspec reads), as its rows."""

    name: str
    root: str
    # Not shown: it holds functions, and what a source shows of itself names a tokenised store.
    dataset: Dataset = dataclasses.field(repr=False)

    @property
    def VERSION(self) -> int | str:
        """The data set's, which decides the rows."""
        return self.dataset.version

    def splits(self) -> tuple[str, ...]:
        """The splits that have files. Raises DataError when the folder is not there."""
        names = folder_names(self._folder())
        return tuple(
            split for split, stems in self.dataset.stems.items() if files_of_split(names, stems)
        )

    def shards(self, split: str) -> list[str]:
        """Paths of the files of a split. Raises DataError for an unknown or empty split, and where
        several files could be meant."""
        if split not in self.dataset.stems:
            raise DataError(
                f"no split {split!r} in {self.name}: choose one of {list(self.dataset.stems)}"
            )
        folder = self._folder()
        names = folder_names(folder)
        found = files_of_split(names, self.dataset.stems[split])
        if not found:
            wanted = " or ".join(f"{stem}.*" for stem in self.dataset.stems[split])
            raise DataError(
                f"no file of the {split} split of {self.name} in {folder}: "
                f"{wanted} (jsonl, json, tsv, csv, parquet; .gz, .zst) is wanted, there are "
                f"{sorted(names)[:10]}"
            )
        return [f"{folder}/{name}" for name in found]

    def records(self, split: str, shard: str) -> Iterator[Record]:
        """The rows of a file in TFDS's columns; a record that lacks one becomes a BadRecord."""
        for number, record in enumerate(self._reader(split, shard).records(_READ_AS, shard)):
            if isinstance(record, BadRecord):
                yield record
                continue
            try:
                rows = list(self.dataset.adapt(record, number))
            except BadColumn as error:
                yield BadRecord(record.place, str(error))
            else:
                yield from rows

    def shard_fingerprint(self, split: str, shard: str) -> str:
        """What the file's own format says of it (size, time)."""
        return self._reader(split, shard).shard_fingerprint(_READ_AS, shard)

    def _reader(self, split: str, shard: str) -> JsonLines | Tsv | Parquet | TextFiles:
        match = _FILE.fullmatch(posixpath.basename(shard))
        if match is None:
            raise DataError(f"{shard} is not a file of {self.name}")
        kind, files = match["kind"], (shard,)
        if kind == "parquet":
            return Parquet(train_files=files)
        if kind in ("tsv", "csv"):
            columns = self.dataset.headerless.get(split, ())
            if kind == "csv":
                return Tsv(train_files=files, columns=columns, delimiter=",", quoting=True)
            return Tsv(train_files=files, columns=columns)
        if kind == "json" and self.dataset.one_document:
            return TextFiles(train_files=files, document="file")
        return JsonLines(train_files=files)

    def _folder(self) -> str:
        folders = self._folders()
        for folder in folders:
            if folder_names(folder):
                return folder
        raise DataError(
            f"{self.name} is not below data.datasets_dir={self.root!r}: "
            f"{' or '.join(folders)} is looked for. Put its files there, or leave "
            "data.datasets_dir empty to read TFDS"
        )

    def _folders(self) -> list[str]:
        root = expand(self.root)
        names = dict.fromkeys((self.dataset.folder, self.name))
        return [f"{root.rstrip('/')}/{name}" for name in names]


def files_of_split(names: Iterable[str], stems: tuple[str, ...]) -> list[str]:
    """The names of a split's files: the exact stem, else shards of it, else the only variant.

    Raises DataError where two files could be meant: reading both might repeat every example.
    """
    stem_of = {name: match["stem"] for name in sorted(names) if (match := _FILE.fullmatch(name))}
    for stem in stems:
        exact = [name for name, own in stem_of.items() if own == stem]
        if exact:
            return _only(exact)
    for stem in stems:
        rest = {name: own[len(stem) :] for name, own in stem_of.items() if own.startswith(stem)}
        shards = [name for name, suffix in rest.items() if _SHARD.fullmatch(suffix)]
        if shards:
            return shards
        variants = [name for name, suffix in rest.items() if suffix[:1] in ("_", "-", ".")]
        if variants:
            return _only(variants)
    return []


def _only(names: list[str]) -> list[str]:
    if len(names) > 1:
        raise DataError(f"which file is meant, {' or '.join(names)}? Leave one in the folder")
    return names
