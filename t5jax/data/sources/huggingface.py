"""Data sets of the Hugging Face hub, or of a folder, through the package `datasets`."""

import dataclasses
import functools
import importlib
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from t5jax.data.records import Record, Row
from t5jax.errors import ConfigError, DataError, message_of
from t5jax.paths import expand

_ROWS_A_SHARD = 50_000


@dataclasses.dataclass(kw_only=True, slots=True)
class HuggingFace:
    """A data set of the hub (`path="nyu-mll/glue", config="cola"`) or of a local folder, one that
    `save_to_disk` wrote included.

    A shard is 50,000 rows; with `streaming=True` nothing is stored first and a shard is a file of
    the data set. Columns come as `datasets` decodes them; class labels stay ints.
    Data sets that run code of their own are refused by `datasets`, and stay so.
    """

    VERSION: ClassVar[int] = 1

    path: str
    config: str | None = None
    revision: str | None = None
    streaming: bool = False
    # Those that are read; (): all. No part of what the texts are: `repr` decides that.
    columns: tuple[str, ...] = dataclasses.field(default=(), repr=False)

    def with_columns(self, columns: Sequence[str]) -> "HuggingFace":
        """The same rows with these columns alone; with those that were asked for, if any were."""
        return self if self.columns else dataclasses.replace(self, columns=tuple(columns))

    def splits(self) -> tuple[str, ...]:
        """Splits of the data set. Raises DataError when it cannot be loaded, ConfigError when
        `datasets` is not installed."""
        return tuple(str(split) for split in self._splits())

    def shards(self, split: str) -> list[str]:
        """Ranges of rows (`0-49999`), or numbers of files when streaming. Raises DataError for an
        unknown split or an empty one."""
        dataset = self._split(split)
        if self.streaming:
            return [str(i) for i in range(dataset.num_shards)]
        if not len(dataset):
            raise DataError(f"{self.path}: the {split} split holds no rows")
        firsts = range(0, len(dataset), _ROWS_A_SHARD)
        return [f"{i}-{min(i + _ROWS_A_SHARD, len(dataset)) - 1}" for i in firsts]

    def records(self, split: str, shard: str) -> Iterator[Record]:
        """Rows of one shard. Raises DataError when they cannot be read."""
        if shard not in self.shards(split):
            raise DataError(f"{self.path}: {shard!r} is no shard of the {split} split")
        dataset = self._split(split)
        if self.streaming:
            first, rows = 0, dataset.shard(num_shards=dataset.num_shards, index=int(shard))
            where = f"{self.path}, {split}, file {shard}"
        else:
            first, last = map(int, shard.split("-"))
            rows, where = dataset.select(range(first, last + 1)), f"{self.path}, {split}"
        number = first
        try:
            if self.columns:
                rows = rows.select_columns(list(self.columns))
            for columns in rows:
                yield Row(columns, f"{where}, row {number}")
                number += 1
        except Exception as error:  # of Arrow, of the file system, of the hub's client
            raise DataError(f"{where}, after row {number}: {message_of(error)}") from error

    def shard_fingerprint(self, split: str, shard: str) -> str:
        """`datasets`' own fingerprint of the split's content; when streaming, the revision."""
        return str(self.revision) if self.streaming else self._split(split)._fingerprint

    def _split(self, split: str) -> Any:
        splits = self._splits()
        if split not in splits:
            raise DataError(f"{self.path}: no split {split!r}; choose one of {sorted(splits)}")
        return splits[split]

    def _splits(self) -> Any:
        return _load(self.path, self.config, self.revision, self.streaming)


@functools.lru_cache(maxsize=4)
def _load(path: str, config: str | None, revision: str | None, streaming: bool) -> Any:
    """The splits by name; remembered, because each load asks the hub."""
    path = expand(path)
    datasets = _import_datasets()
    try:
        if (pathlib.Path(path) / "dataset_dict.json").is_file():
            return datasets.load_from_disk(path)
        if (pathlib.Path(path) / "state.json").is_file():
            return {"train": datasets.load_from_disk(path)}
        return datasets.load_dataset(path, config, revision=revision, streaming=streaming)
    except Exception as error:  # `datasets` and the hub's client raise classes of many packages
        name = f"{path} (config {config})" if config else path
        raise DataError(f"{name} cannot be loaded: {type(error).__name__}: {error}") from error


def _import_datasets() -> Any:
    try:
        return importlib.import_module("datasets")
    except ImportError as error:
        raise ConfigError(
            "Hugging Face data sets need the package datasets: `pip install datasets`"
        ) from error
