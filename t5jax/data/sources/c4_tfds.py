"""C4 as TensorFlow Datasets prepared it (`c4/en` and its other configs), read from files; never
generated here.

Asked for a data set that is not prepared, TFDS would start a Beam job over 7 TB of Common Crawl. So
the builder is made from the prepared directory alone: no download, no Beam, any version that lies
there, `gs://` too.
"""

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

from t5jax.data.tf_runtime import import_tensorflow, import_tfds
from t5jax.errors import DataError

DEFAULT_DATA_DIR = (
    "~/tensorflow_datasets"  # TFDS's own default; the variable TFDS_DATA_DIR replaces it
)


@dataclasses.dataclass(kw_only=True, slots=True)
class C4Tfds:
    """The prepared TFDS data set `c4/{config}`; a shard is one file of it.

    `version=None` takes the newest version that is prepared. `data_dir=None` means the variable
    TFDS_DATA_DIR, or TFDS's default directory.
    """

    config: str = "en"
    data_dir: str | None = None
    version: str | None = None

    def splits(self) -> tuple[str, ...]:
        """Splits of the prepared data set. Raises DataError when it is not prepared."""
        return tuple(self._builder().info.splits)

    def shards(self, split: str) -> list[str]:
        """Paths of the files of a split. Raises DataError for an unknown split or an unprepared
        data set."""
        return [os.fspath(path) for path in self._split_info(split).filepaths]

    def documents(self, split: str, shard: str) -> Iterator[str]:
        """Texts of one file. Raises DataError when it is corrupt, or shorter than
        `dataset_info.json` says."""
        tensorflow, tfds = import_tensorflow(), import_tfds()
        shards = self.shards(split)
        if shard not in shards:
            raise DataError(f"{shard} is not a file of the {split} split")
        builder = self._builder()
        rows = builder.as_dataset(
            split=f"{split}[{shards.index(shard)}shard]",
            shuffle_files=False,
            decoders=tfds.decode.PartialDecoding({"text": True}),
        )
        expected = builder.info.splits[split].shard_lengths[shards.index(shard)]
        count = 0
        try:
            for row in rows.as_numpy_iterator():
                count += 1
                yield row["text"].decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{shard}, record {count}: not valid UTF-8: {error}") from error
        except tensorflow.errors.OpError as error:
            raise DataError(f"{shard}, after record {count}: {error.message}") from error
        if count != expected:
            raise DataError(f"{shard}: {count} records, but dataset_info.json says {expected}")

    def shard_fingerprint(self, split: str, shard: str) -> str:
        """Size of a file and the data set's full name: a cached copy of its tokens is made again
        when they change."""
        size = import_tensorflow().io.gfile.stat(shard).length
        return f"{self._builder().info.full_name}, {size} bytes"

    def _split_info(self, split: str) -> Any:
        splits = self._builder().info.splits
        if split not in splits:
            raise DataError(
                f"no split {split!r} in c4/{self.config}: choose one of {sorted(splits)}"
            )
        return splits[split]

    def _builder(self) -> Any:
        root = self.data_dir or os.environ.get("TFDS_DATA_DIR") or DEFAULT_DATA_DIR
        folder = os.path.join(os.path.expanduser(root), "c4", self.config)
        version = self.version or _newest_version(folder)
        if version is None or not _is_prepared(os.path.join(folder, version)):
            raise DataError(_not_prepared(self.config, version, folder))
        return import_tfds().builder_from_directory(os.path.join(folder, version))


def _newest_version(folder: str) -> str | None:
    """The highest x.y.z under a data set's folder that is prepared; None when there is none."""
    gfile = import_tensorflow().io.gfile
    if not gfile.exists(folder):
        return None
    names = [name.rstrip("/") for name in gfile.listdir(folder)]
    prepared = [
        name
        for name in names
        if all(part.isdigit() for part in name.split("."))
        and _is_prepared(os.path.join(folder, name))
    ]
    return max(prepared, key=lambda name: [int(part) for part in name.split(".")], default=None)


def _is_prepared(directory: str) -> bool:
    # TFDS writes this file last, when all records are there.
    return import_tensorflow().io.gfile.exists(os.path.join(directory, "dataset_info.json"))


def _not_prepared(config: str, version: str | None, folder: str) -> str:
    wanted = f"c4/{config}" + (f":{version}" if version else "")
    return (
        f"{wanted} is not prepared under {folder}. Name the directory that holds it with "
        "data.tfds_data_dir (local, or gs://bucket/folder) or the variable TFDS_DATA_DIR; or take "
        "C4 as AllenAI's JSON lines (mixture c4_json_span_corruption, "
        "data.train_files='…/c4-train.*.json.gz'); or prepare it, a Beam job over 7 TB: "
        f"tfds build {wanted}"
    )
