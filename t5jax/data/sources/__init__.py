"""Where text comes from. Every source is a small picklable dataclass with one protocol, `Source`.

files.py       JSON lines, plain text, parquet: local files named in the config
c4_tfds.py     C4 as TensorFlow Datasets prepared it (reads through TensorFlow)
docstrings.py  the embedded corpus: documentation strings of the installed Python packages
"""

from collections.abc import Iterator
from typing import Protocol

from t5jax.data.sources.c4_tfds import C4Tfds
from t5jax.data.sources.docstrings import Docstrings
from t5jax.data.sources.files import JsonLines, Parquet, TextFiles

__all__ = ["C4Tfds", "Docstrings", "JsonLines", "Parquet", "Source", "TextFiles"]


class Source(Protocol):
    """Documents of text, in shards that several processes or hosts can read at the same time.

    All methods are deterministic: the same source gives the same shards in the same order and the
    same documents in each, in every process. Anything wrong with the data raises `DataError`.
    """

    def splits(self) -> tuple[str, ...]:
        """Names of the splits that exist."""
        ...

    def shards(self, split: str) -> list[str]:
        """Names of the parts of a split; every document is in exactly one of them."""
        ...

    def documents(self, split: str, shard: str) -> Iterator[str]:
        """The texts of one shard, one string a document."""
        ...
