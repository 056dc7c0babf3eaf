"""Any data set that TensorFlow Datasets prepared, read from its files; never generated here.

Asked for a data set that is not prepared, TFDS would download it, or start a Beam job (C4: 7 TB of
Common Crawl). So only what lies in the prepared directory is read, local or `gs://`: its two
descriptions, and its records by this package's own readers. TFDS decodes the features. TensorFlow
is not needed.
"""

import dataclasses
import functools
import importlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from t5jax.data.records import BadRecord, Record, Row, counted
from t5jax.data.sources.array_record import array_records
from t5jax.data.sources.files import file_exists, file_fingerprint, folder_names, open_raw
from t5jax.data.sources.tfrecord import framed_records
from t5jax.errors import ConfigError, DataError
from t5jax.paths import expand

DEFAULT_DATA_DIR = (
    "~/tensorflow_datasets"  # TFDS's own default; the variable TFDS_DATA_DIR replaces it
)
_MAX_RECORD_BYTES = 1 << 31  # a protocol buffer holds no more
_DEFAULT_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"


@dataclasses.dataclass(kw_only=True, slots=True)
class Tfds:
    """A prepared TFDS data set by its name, `c4/en`, `glue/cola`, `squad`; a shard is one file.

    `version=None` takes the newest version that is prepared. `data_dir=None` means the variable
    TFDS_DATA_DIR, or TFDS's default directory. Bytes are decoded as UTF-8, features within
    features are dicts and lists, class labels are ints.

    Files in formats `tfrecord` and `array_record` are read. C4's configs are `c4/en`,
    `c4/en.noclean`, `c4/realnewslike`, `c4/webtextlike` and `c4/multilingual`, whose splits are
    languages (`de`, `de-validation`).
    """

    VERSION: ClassVar[int] = 1

    name: str
    data_dir: str | None = None
    version: str | None = None

    def splits(self) -> tuple[str, ...]:
        """Splits of the prepared data set. Raises DataError when it is not prepared."""
        return tuple(self._prepared().splits)

    def shards(self, split: str) -> list[str]:
        """Paths of the files of a split. Raises DataError for an unknown split or an unprepared
        data set."""
        return list(self._split(split))

    def records(self, split: str, shard: str) -> Iterator[Record]:
        """Rows of one file. Raises DamagedFile when it is corrupt, DataError when it has another
        number of records than `dataset_info.json` says."""
        lengths = self._split(split)
        if shard not in lengths:
            raise DataError(f"{shard} is not a file of the {split} split of {self.name}")
        prepared = self._prepared()
        features = prepared.features()
        count = 0
        for place, data in prepared.serialised(shard):
            count += 1
            if isinstance(data, BadRecord):
                yield data
            else:
                yield _decoded(features, data, place)
        if count != lengths[shard]:
            raise DataError(
                f"{shard}: {counted(count, 'record')}, but dataset_info.json says {lengths[shard]}"
            )

    def num_records(self, split: str) -> int:
        """Records of a split, as `dataset_info.json` says. Raises as `shards`."""
        return sum(self._split(split).values())

    def shard_fingerprint(self, split: str, shard: str) -> str:
        """The data set's version and what changes with the file: a cached copy of its tokens is
        made again when they change."""
        return f"{self._prepared().folder}: {file_fingerprint(shard)}"

    def _split(self, split: str) -> dict[str, int]:
        splits = self._prepared().splits
        if split not in splits:
            raise DataError(f"no split {split!r} in {self.name}: choose one of {sorted(splits)}")
        return splits[split]

    def _prepared(self) -> "_Prepared":
        root = self.data_dir or os.environ.get("TFDS_DATA_DIR") or DEFAULT_DATA_DIR
        folder = f"{expand(root).rstrip('/')}/{self.name}"
        version = self.version or _newest_version(folder)
        if version is None or not _is_prepared(f"{folder}/{version}"):
            raise DataError(_not_prepared(self.name, version, folder))
        info = f"{folder}/{version}/dataset_info.json"
        return _read_info(f"{folder}/{version}", file_fingerprint(info))


@dataclasses.dataclass(frozen=True, slots=True)
class _Prepared:
    """What `dataset_info.json` says: the number of records of every file, by split."""

    folder: str
    file_format: str
    splits: dict[str, dict[str, int]]

    def serialised(self, path: str) -> Iterator[tuple[str, bytes | BadRecord]]:
        if self.file_format == "array_record":
            return iter(array_records(path))
        return framed_records(path, _MAX_RECORD_BYTES)

    def features(self) -> Any:
        """TFDS's description of the records, which decodes them."""
        tfds = _import_tfds()
        path = f"{self.folder}/features.json"
        try:
            with open_raw(path) as file:
                return tfds.features.FeatureConnector.from_json(json.loads(file.read()))
        except (ValueError, KeyError, ImportError, AttributeError) as error:
            raise DataError(f"{path}: features that cannot be read: {error}") from error


@functools.lru_cache(maxsize=16)
def _read_info(folder: str, fingerprint: str) -> _Prepared:
    """Remembered until the file changes: multilingual C4 describes 200 splits of thousands of
    files."""
    del fingerprint  # of the file; only the memory's key
    path = f"{folder}/dataset_info.json"
    with open_raw(path) as file:
        content = file.read()
    try:
        info = json.loads(content)
        file_format = info.get("fileFormat") or "tfrecord"
        splits = {
            split["name"]: _split_files(folder, info["name"], file_format, split)
            for split in info["splits"]
        }
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: not a description that TFDS wrote ({type(error).__name__}: {error}); "
            "copy the data set again"
        ) from error
    if file_format not in ("tfrecord", "array_record"):
        raise DataError(
            f"{path}: files are in format {file_format!r}; tfrecord and array_record are read: "
            "prepare it with `tfds build --file_format=array_record`"
        )
    return _Prepared(folder, file_format, splits)


def _split_files(folder: str, name: str, file_format: str, split: dict[str, Any]) -> dict[str, int]:
    """Number of records by path; TFDS's naming module spells the paths."""
    naming = _import_tfds().core.naming
    template = naming.ShardedFileTemplate(
        template=split.get("filepathTemplate") or _DEFAULT_TEMPLATE,
        data_dir="/",  # only the names within the folder are asked for
        dataset_name=name,
        split=split["name"],
        filetype_suffix=file_format,
    )
    lengths = [int(length) for length in split["shardLengths"]]
    return {
        f"{folder}/{template.relative_filepath(shard_index=i, num_shards=len(lengths))}": length
        for i, length in enumerate(lengths)
    }


def _decoded(features: Any, data: bytes, place: str) -> Record:
    try:
        columns = features.deserialize_example_np(data)
    except (ValueError, KeyError, TypeError, IndexError, RuntimeError) as error:
        return BadRecord(place, f"does not decode as the data set's features: {error}")
    try:
        return Row(_plain(columns), place)
    except UnicodeDecodeError as error:
        return BadRecord(place, f"not valid UTF-8: {error}")


def _plain(value: Any) -> Any:
    """NumPy's values as Python's, bytes as strings, at any depth."""
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
        return _plain(value) if isinstance(value, bytes | list) else value
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _newest_version(folder: str) -> str | None:
    """The highest x.y.z under a data set's folder that is prepared; None when there is none."""
    prepared = [
        name
        for name in folder_names(folder)
        if all(part.isdigit() for part in name.split(".")) and _is_prepared(f"{folder}/{name}")
    ]
    return max(prepared, key=lambda name: [int(part) for part in name.split(".")], default=None)


def _is_prepared(directory: str) -> bool:
    # TFDS writes this file last, when all records are there.
    return file_exists(f"{directory}/dataset_info.json")


def _not_prepared(name: str, version: str | None, folder: str) -> str:
    requested = name + (f":{version}" if version else "")
    message = (
        f"{requested} is not prepared under {folder}. Name the directory that holds it with "
        "data.tfds_data_dir (local, or gs://bucket/folder) or the variable TFDS_DATA_DIR; or "
        f"prepare it: tfds build {requested}; a task that `t5jax tasks NAME` shows to read "
        "data.datasets_dir reads downloaded files there"
    )
    if pathlib.PurePosixPath(name).parts[:1] == ("c4",):
        message += (
            " (a Beam job over 7 TB; AllenAI's JSON lines hold the same text: mixture "
            "c4_json_span_corruption, data.train_files='…/c4-train.*.json.gz')"
        )
    return message


def _import_tfds() -> Any:
    """TFDS without TensorFlow, which it imports only where it is used."""
    try:
        return importlib.import_module("tensorflow_datasets")
    except ImportError as error:
        raise ConfigError(
            f"TFDS data sets need tensorflow-datasets ({error}): `pip install t5jax` brings it"
        ) from error
