"""The interface of a vocabulary: encode and decode, special ids, sentinels, its file."""

import abc
import re
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np

from t5jax.errors import DataError
from t5jax.types import EOS_ID, PAD_ID

UNK_ID = 2
DEFAULT_SENTINELS = 100  # what T5 reserves, and what is reused where none were added

SENTINEL = re.compile(r"<extra_id_(\d+)>")
_GLUED_SENTINEL = re.compile(r"(?<=\S)(?=<extra_id_\d+>)")


class Vocabulary(abc.ABC):
    """Text to token ids and back. Ids are int32 everywhere."""

    __slots__ = ()

    kind: ClassVar[str]  # what a store records; `vocabulary_from_dict` knows the class by it
    file_name: ClassVar[str | None]  # of the copy that a store keeps; None: there is no file

    extra_ids: int | None

    @property
    def pad_id(self) -> int:
        """Id of padding: 0 in T5's vocabularies. No other token has it, but where a model was
        trained so (padding with the unknown piece)."""
        return PAD_ID

    @property
    def eos_id(self) -> int:
        """Id of the end of a sequence: 1 in T5's vocabularies."""
        return EOS_ID

    @property
    def unk_id(self) -> int:
        """Id of what the vocabulary cannot spell: 2 in T5's vocabularies."""
        return UNK_ID

    @property
    @abc.abstractmethod
    def vocab_size(self) -> int:
        """Number of ids, sentinels included."""

    @property
    @abc.abstractmethod
    def fingerprint(self) -> str:
        """sha256 (hex) of everything that decides which id a text gets."""

    @abc.abstractmethod
    def file_bytes(self) -> bytes | None:
        """The vocabulary's file as it is (what a store keeps a copy of); None without one."""

    @abc.abstractmethod
    def encode(self, text: str, *, sentinels: bool = True) -> np.ndarray:
        """int32 ids of the text, without EOS.

        A literal `<extra_id_0>` becomes the sentinel's id; with `sentinels=False` (raw documents,
        in which the objective alone may place sentinels) it is text like any other. A literal
        `<pad>` or `</s>` is always text.
        """

    @abc.abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """Text of the ids.

        Padding is dropped, EOS shows nothing and ends nothing, sentinels appear as `<extra_id_0>`,
        ids beyond the vocabulary (a model's spare rows) as the unknown piece.
        """

    @property
    def num_sentinels(self) -> int:
        """Without ids of their own the sentinels reuse the top 100 (ByT5)."""
        return self.extra_ids or DEFAULT_SENTINELS

    @property
    def sentinel_ids(self) -> tuple[int, ...]:
        """The id of each sentinel, `<extra_id_0>` first: T5's are the top ids, downwards. In a
        vocabulary of others they stand anywhere."""
        return tuple(range(self.vocab_size - 1, self.vocab_size - 1 - self.num_sentinels, -1))

    @property
    def first_sentinel_id(self) -> int:
        """The lowest sentinel id. Other tokens may stand above it: ask `is_sentinel`."""
        return min(self.sentinel_ids)

    def sentinel_id(self, index: int) -> int:
        """The id of `<extra_id_{index}>`. Raises DataError where there is none."""
        if not 0 <= index < self.num_sentinels:
            raise DataError(
                f"sentinel {index} does not exist: the vocabulary has {self.num_sentinels}"
            )
        return self.sentinel_ids[index]

    def is_sentinel(self, ids: np.ndarray) -> np.ndarray:
        """bool, same shape."""
        return np.isin(ids, self.sentinel_ids)

    def is_text(self, ids: np.ndarray) -> np.ndarray:
        """bool, same shape: an id of the vocabulary that is neither padding nor EOS nor a sentinel
        (the unknown piece is text, and so are tokens that a user added).

        Where sentinels reuse ids (`ByteVocabulary()`), the bytes they share count as sentinels.
        """
        ids = np.asarray(ids)
        special = [self.pad_id, self.eos_id, *self.sentinel_ids]
        return ~np.isin(ids, special) & (ids < self.vocab_size)

    def to_dict(self) -> dict[str, Any]:
        """JSON that, with `file_bytes`, says which vocabulary this is (`vocabulary_from_dict`)."""
        return {
            "kind": self.kind,
            "extra_ids": self.extra_ids,
            "vocab_size": self.vocab_size,
            "fingerprint": self.fingerprint,
        }


def check_sentinels_on_top(sentinel_ids: dict[int, int], vocab_size: int, path: str) -> None:
    """DataError unless sentinel i of a file (`{i: id}`) is the i-th id from the top, without gaps.

    Anywhere else, the `<extra_id_0>` of a text and that of an objective would be different ids.
    """
    for index in range(len(sentinel_ids)):
        found, expected = sentinel_ids.get(index), vocab_size - 1 - index
        if found != expected:
            where = "is missing" if found is None else f"has id {found}"
            raise DataError(
                f"vocabulary {path!r}: of {len(sentinel_ids)} sentinels <extra_id_{index}> {where}"
                f", T5 needs it at {expected} (of {vocab_size} ids, downwards); take a "
                "file without sentinels, or with them as T5's"
            )


def separate_sentinels(text: str) -> str:
    """A space before each sentinel that has none: its piece begins with the word mark, as seqio's
    does, and would not be found in "jel<extra_id_0>"."""
    return _GLUED_SENTINEL.sub(" ", text)


def without_lone_surrogates(text: str) -> str:
    """JSON may hold half a surrogate pair (`"\\ud800"`), which UTF-8 cannot; it becomes U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
