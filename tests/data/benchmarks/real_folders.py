"""Folders of real data as tasks look for it: links, and files made of other files."""

import os
import pathlib

import pyarrow
import pyarrow.parquet

from t5jax.data.sources import JsonLines
from t5jax.data.sources.tfrecord import framed_records
from tests.data.benchmarks.real_runs import LINKS, MADE, PREPARED
from tests.data.prepared_sets import write_prepared


def link_data_sets(real_data: pathlib.Path, root: pathlib.Path) -> None:
    """What `data.datasets_dir` names."""
    for link, target in LINKS.items():
        (root / link).parent.mkdir(parents=True, exist_ok=True)
        os.symlink(real_data / target, root / link)


def write_texts(real_data: pathlib.Path, root: pathlib.Path) -> None:
    """The folder of real data with the files of MADE, and prepared sets below `tfds`."""
    from array_record.python.array_record_module import ArrayRecordWriter

    for name in ("text", "glue"):
        os.symlink(real_data / name, root / name)
    (root / "made").mkdir()
    for made, source in MADE.items():
        if made.endswith(".parquet"):
            rows = JsonLines(train_files=(str(real_data / source),))
            (shard,) = rows.shards("train")
            table = pyarrow.Table.from_pylist([dict(row) for row in rows.records("train", shard)])
            pyarrow.parquet.write_table(table, root / made)
        else:
            writer = ArrayRecordWriter(str(root / made), "group_size:1")
            for _, record in framed_records(str(real_data / source), 1 << 24):
                writer.write(record)
            writer.close()
    columns = ("content-length", "content-type", "text", "timestamp", "url")
    for name, source in PREPARED.items():
        (path,) = write_prepared(root / "tfds", name, columns, "train", [125])
        os.symlink(real_data / source, path)


def text_settings(root: pathlib.Path, required: tuple[str, ...], settings: dict) -> dict:
    """Fields of DataConfig of a run of TEXT_RUNS, below a folder of `write_texts`."""
    found = {
        key: tuple(f"{root}/{path}" for path in value) if key.endswith("_files") else value
        for key, value in settings.items()
    }
    if "train_files" in required:
        return {"train_files": (f"{root}/text/books/*.gz",)} | found
    return found | {"tfds_data_dir": str(root / "tfds")}
