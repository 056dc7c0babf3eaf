"""The interface of a vocabulary: encode and decode, special ids, sentinels, its file."""

import abc
import re
from collections.abc import Callable, Iterable, Mapping
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
        return min(self.sentinel_ids, default=self.vocab_size)

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


def sentinel_index(piece: str) -> int | None:
    """i if the piece is sentinel i, with or without the word mark in front."""
    found = SENTINEL.fullmatch(piece.removeprefix("▁"))
    return int(found[1]) if found else None


def sentinel_table(sentinel_ids: Mapping[int, int], path: str) -> tuple[int, ...]:
    """The ids of a file's sentinels (`{i: id}`) in order. Raises DataError where one is missing:
    an objective numbers them without gaps."""
    for index in range(len(sentinel_ids)):
        if index not in sentinel_ids:
            raise DataError(
                f"vocabulary {path!r}: of {len(sentinel_ids)} sentinels <extra_id_{index}> is "
                "missing; take a file without sentinels, or with all of them"
            )
    return tuple(sentinel_ids[index] for index in range(len(sentinel_ids)))


def check_round_trips(
    tokens: Mapping[str, int],
    encode: Callable[[str], np.ndarray],
    decode: Callable[[np.ndarray], str],
    path: str,
) -> None:
    """DataError for an added token or a sentinel that does not encode to its id, or whose id does
    not decode to it."""
    for content, number in tokens.items():
        ids, text = encode(content), decode(np.array([number], np.int64))
        # A word mark may stand before it, and `tokenizers` shows it as it is after normalisation.
        same = text.replace("▁", " ").strip().casefold() == (
            content.replace("▁", " ").strip().casefold()
        )
        if number not in ids.tolist() or len(ids) > 2 or not same:
            raise DataError(
                f"vocabulary {path!r}: the token {content!r} with id {number} encodes to "
                f"{ids.tolist()} and decodes to {text!r}; its files are damaged, or made for "
                "another program"
            )


def check_special_ids(pad_id: int, eos_id: int, unk_id: int, vocab_size: int, path: str) -> None:
    """DataError unless the special ids are ids, and EOS is neither padding nor unknown."""
    for name, number in (("pad", pad_id), ("eos", eos_id), ("unk", unk_id)):
        if not 0 <= number < vocab_size:
            raise DataError(f"vocabulary {path!r}: {name} has id {number} of {vocab_size} ids")
    if eos_id in (pad_id, unk_id):
        other = "padding" if eos_id == pad_id else "the unknown piece"
        raise DataError(
            f"vocabulary {path!r}: the end of a sequence and {other} have one id, {eos_id}; a "
            "model could not learn where a text ends: give padding a token of its own (pad_token)"
        )


def separate_sentinels(text: str) -> str:
    """A space before each sentinel that has none: its piece begins with the word mark, as seqio's
    does, and would not be found in "jel<extra_id_0>"."""
    return _GLUED_SENTINEL.sub(" ", text)


def without_lone_surrogates(text: str) -> str:
    """JSON may hold half a surrogate pair (`"\\ud800"`), which UTF-8 cannot; it becomes U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
