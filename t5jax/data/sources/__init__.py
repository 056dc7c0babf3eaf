"""Sources: readers of data sets and files. Each is a small picklable dataclass with the protocol
of `t5jax.data.records.Source`: splits, shards, records.

files.py         files of a config, local or remote, gzip and zstd; patterns.py: which they are
remote.py        remote stores (fsspec); zstd.py: zstd streams; text_lines.py: lines of a file
lines.py         JsonLines (AllenAI's C4 and mC4), TextFiles, Tsv (CSV too)
parquet.py       Parquet
tfrecord.py      TfRecord: files of tf.train.Example, without TensorFlow; crc32c.py: their checksum
array_record.py  ArrayRecord
tfds.py          Tfds: any data set that TensorFlow Datasets prepared, without TensorFlow
huggingface.py   HuggingFace: the hub's data sets, where `datasets` is installed
cleaning.py      Cleaned: another source's text by C4's rules, with counts of what each rule dropped
split_names.py   SplitNames: another source's splits under other names
"""

from t5jax.data.sources.array_record import ArrayRecord
from t5jax.data.sources.cleaning import Cleaned, Cleaner, CleaningCounts, CleaningRules
from t5jax.data.sources.huggingface import HuggingFace
from t5jax.data.sources.lines import JsonLines, TextFiles, Tsv
from t5jax.data.sources.parquet import Parquet
from t5jax.data.sources.split_names import SplitNames
from t5jax.data.sources.tfds import Tfds
from t5jax.data.sources.tfrecord import TfRecord

__all__ = [
    "ArrayRecord",
    "Cleaned",
    "Cleaner",
    "CleaningCounts",
    "CleaningRules",
    "HuggingFace",
    "JsonLines",
    "Parquet",
    "SplitNames",
    "TextFiles",
    "TfRecord",
    "Tfds",
    "Tsv",
]
