"""Writing the tokens of one shard of a tokenised store."""

import hashlib
import pathlib
from typing import BinaryIO

import numpy as np

from t5jax.data.atomic_files import write_file
from t5jax.data.store.reader import ENDS_DTYPE, FeatureInfo
from t5jax.data.store.spelling import SpellingCounter
from t5jax.data.vocabularies import Vocabulary
from t5jax.errors import DataError

_FLUSH_TOKENS = 1 << 20


class FeatureWriter:
    """Tokens of one feature of a shard: `STEM.tokens`, and `STEM.ends` when it is finished.

    They are written a million at a time: that costs nothing, and fits anywhere.
    """

    def __init__(self, stem: pathlib.Path, dtype: np.dtype, file: BinaryIO, vocabulary: Vocabulary):
        self._stem, self._dtype, self._file = stem, dtype, file
        self._pad_id, self._eos_id = vocabulary.pad_id, vocabulary.eos_id
        self._largest_id = np.iinfo(dtype).max
        self._speller, self._feature = SpellingCounter(vocabulary), stem.suffix[1:]
        self.ends: list[int] = []
        self._tokens = self._characters = self._utf8_bytes = 0
        self._waiting: list[np.ndarray] = []
        self._num_waiting = 0
        self._digest = hashlib.sha256()

    def add(self, ids: np.ndarray, text: str | np.ndarray, place: str) -> None:
        """One document, of `text` or the ids of a task that tokenises itself, which may have EOS.
        Raises DataError for ids of padding, and for EOS in text, naming the place."""
        if len(ids) and ids.max() > self._largest_id:
            raise DataError(f"{place} has id {ids.max()}, which is not in the vocabulary")
        # One by one: numpy.isin takes five times as long, of short texts a sixth of the build.
        for reserved in (self._pad_id, self._eos_id) if isinstance(text, str) else (self._pad_id,):
            if np.count_nonzero(ids == reserved):
                raise DataError(
                    f"{place} encodes to id {reserved}, which is reserved for padding or EOS; the "
                    "vocabulary is not T5-compatible"
                )
        self._waiting.append(ids)
        self._num_waiting += len(ids)
        self._tokens += len(ids)
        self.ends.append(self._tokens)
        self._speller.add({self._feature: text}, {self._feature: ids})
        if isinstance(text, str):
            self._characters += len(text)
            self._utf8_bytes += len(text.encode("utf-8", "surrogatepass"))
        if self._num_waiting >= _FLUSH_TOKENS:
            self.flush()

    def flush(self) -> None:
        """Writes what waits."""
        if self._waiting:
            data = np.concatenate(self._waiting).astype(self._dtype).tobytes()
            self._digest.update(data)
            self._file.write(data)
            self._waiting, self._num_waiting = [], 0

    def finish(self) -> FeatureInfo:
        """Writes the documents' ends; all tokens have to be flushed."""
        assert not self._waiting
        ends = np.asarray(self.ends, ENDS_DTYPE).tobytes()
        write_file(self._stem.with_name(f"{self._stem.name}.ends"), ends, shared=True)
        return FeatureInfo(
            tokens=self._tokens,
            characters=self._characters,
            utf8_bytes=self._utf8_bytes,
            tokens_sha256=self._digest.hexdigest(),
            ends_sha256=hashlib.sha256(ends).hexdigest(),
            spelling=self._speller.of(self._feature).to_dict(),
        )
