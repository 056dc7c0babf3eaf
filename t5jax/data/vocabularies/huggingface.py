"""Hugging Face's tokenizer.json, and RoBERTa's vocab.json with merges.txt.

The file is read by the `tokenizers` package, with three changes. Padding, EOS and the unknown piece
are no words of a document, so `<pad>` in a text is spelled like any other; all other added tokens
are found as the file says. In a unigram model the sentinels are pieces that begin with the word
mark, as in T5's own vocabulary, so that the same file gives the same ids as SentencePiece
("<extra_id_0>." is two ids, not three); where the file's treatment of texts leaves no such piece
(pre-tokenisers that cut at punctuation or drop spaces), they are added tokens as the file says. And
an added token of which normalisation makes another text (a newline, which becomes a space) is found
in the text as it is written: `tokenizers` would find it in every space.
"""

import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Iterable
from stat import S_ISDIR
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from t5jax.data.vocabularies.added_tokens import AddedToken
from t5jax.data.vocabularies.base import (
    check_round_trips,
    check_special_ids,
    sentinel_index,
    sentinel_table,
    separate_sentinels,
    without_lone_surrogates,
)
from t5jax.data.vocabularies.file_vocabulary import FileVocabulary
from t5jax.data.vocabularies.files import local_file
from t5jax.data.vocabularies.tokenizer_json import (
    TokenizerRecord,
    added_tokens,
    read_tokenizer,
)
from t5jax.data.vocabularies.tokenizer_settings import stamps
from t5jax.data.vocabularies.tokenizer_variants import Variant, full_tokenizer, with_pieces, without
from t5jax.errors import ConfigError, DataError, is_failure

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclasses.dataclass(kw_only=True, slots=True)
class HuggingFaceVocabulary(FileVocabulary):
    """A tokenizer.json (unigram or BPE), with its own special ids, sentinels and added tokens.

    `path` is the file, or a directory with it or with the vocab.json and merges.txt of a byte-level
    BPE. Padding, EOS and unknown are those that the file or those beside it name, else `<pad>`,
    `</s>`, `<unk>`. `extra_ids` is how many sentinels there must be (0: none, as MADLAD's); None
    takes those that there are.

    Raises ConfigError when `tokenizers` is not installed, DataError when the file is missing or
    damaged, when it has no sentinels or not all of them, or when the files of a directory
    contradict each other.
    """

    kind: ClassVar[str] = "huggingface"
    file_name: ClassVar[str] = "tokenizer.json"

    path: str
    extra_ids: int | None = None

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(b"tokenizer.json:" + self._file().file_bytes).hexdigest()

    @property
    def sentinels_are_pieces(self) -> bool:
        """Whether a sentinel takes the space before it, as T5's (a unigram file's); else it is
        found as the file's flags say."""
        return self._file().separate

    def content(self, number: int) -> str:
        """The token of an id as the file writes it (`<pad>`, `▁the`)."""
        return self._file().contents[number]

    def encode(self, text: str, *, sentinels: bool = True) -> np.ndarray:
        file = self._file()
        if not text.isascii():
            text = without_lone_surrogates(text)
        if not (sentinels and "<extra_id_" in text):
            return file.plain.encode(text)
        if file.separate:
            text = separate_sentinels(text)
        if text.startswith("<extra_id_"):
            text = file.before_first + text
        return file.with_sentinels.encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        file = self._file()
        pad_id, eos_id, unk_id = file.special_ids
        ids = np.asarray(ids, np.int64)
        ids = np.where((ids < 0) | (ids >= file.vocab_size), unk_id, ids)
        return file.shown.decode(ids[(ids != pad_id) & (ids != eos_id)])

    def _file(self) -> "_TokenizerFile":
        local = local_file(self.path)
        try:
            stat = os.stat(local)
        except OSError as error:
            raise DataError(
                f"vocabulary {self.path!r} cannot be read from {os.getcwd()} ({error.strerror}); "
                "give the path of a tokenizer.json"
            ) from error
        folder = local if S_ISDIR(stat.st_mode) else os.path.dirname(local)
        file = _load(local, stat.st_mtime_ns, stat.st_size, stamps(folder))
        if not file.sentinel_ids and self.extra_ids is None:
            raise DataError(
                f"vocabulary {self.path!r} has no sentinels <extra_id_0>, <extra_id_1>, …; add "
                "them, as T5's tokenizers have them, or set extra_ids=0 for a model without them"
            )
        if self.extra_ids is not None and self.extra_ids != len(file.sentinel_ids):
            raise DataError(
                f"vocabulary {self.path!r} has {len(file.sentinel_ids)} sentinels, not extra_ids="
                f"{self.extra_ids}; leave extra_ids out"
            )
        return file


@dataclasses.dataclass(frozen=True, slots=True)
class _TokenizerFile:
    file_bytes: bytes
    plain: Variant
    with_sentinels: Variant
    shown: Variant  # decodes
    separate: bool  # sentinels are pieces that begin with the word mark
    before_first: str  # what a text that begins with a sentinel needs before it
    vocab_size: int
    special_ids: tuple[int, int, int]  # padding, EOS, unknown
    sentinel_ids: tuple[int, ...]
    own_tokens: tuple[AddedToken, ...]
    contents: dict[int, str]


@functools.lru_cache(maxsize=8)
def _load(path: str, mtime_ns: int, size: int, beside: tuple) -> _TokenizerFile:
    try:
        import tokenizers
    except ImportError as error:
        raise ConfigError(
            f"data.vocabulary: reading {path} needs the package tokenizers: pip install tokenizers"
        ) from error
    del tokenizers
    try:
        found = read_tokenizer(pathlib.Path(path))
        full = full_tokenizer(found.record)
        model_type = found.record["model"]["type"]
    except (DataError, ConfigError):
        raise
    except BaseException as error:  # the package raises plain Exception, and its panics are none
        if not is_failure(error):
            raise
        raise DataError(f"vocabulary {path!r} is not a tokenizer.json: {error}") from error
    if model_type not in ("Unigram", "BPE"):
        raise DataError(f"vocabulary {path!r} is a {model_type} model: Unigram and BPE are read")
    if dropout := found.record["model"].get("dropout"):
        raise DataError(
            f"vocabulary {path!r}: its model has dropout = {dropout}, with which a text gets other "
            "ids every time; set it to null in the file"
        )
    vocab_size = max(found.ids.values()) + 1
    check_special_ids(*found.special_ids, vocab_size, path)
    _check_numbers(found, full, path)
    sentinels = _sentinels(found)
    plain, with_sentinels, shown, separate, lead = _variants(found, full, sentinels, model_type)
    special = {*found.special_ids, *sentinels.values()}
    own_tokens = tuple(t for t in added_tokens(found.record) if t.id not in special)
    check_round_trips({t.content: t.id for t in own_tokens}, plain.encode, shown.decode, path)
    names = {f"<extra_id_{i}>": number for i, number in sentinels.items()}
    check_round_trips(names, lambda text: with_sentinels.encode(lead + text), shown.decode, path)
    return _TokenizerFile(
        file_bytes=found.file_bytes,
        plain=plain,
        with_sentinels=with_sentinels,
        shown=shown,
        separate=separate,
        before_first=lead,
        vocab_size=vocab_size,
        special_ids=found.special_ids,
        sentinel_ids=sentinel_table(sentinels, path),
        own_tokens=own_tokens,
        contents={number: content for content, number in found.ids.items()},
    )


def _check_numbers(found: TokenizerRecord, full: "Tokenizer", path: str) -> None:
    """`tokenizers` numbers added tokens by their order, whatever id the file gives them."""
    for token in added_tokens(found.record):
        number = full.token_to_id(token.content)
        if number != token.id:
            raise DataError(
                f"vocabulary {path!r}: its added token {token.content!r} says it has id {token.id},"
                f" and `tokenizers` reads {number}; save the tokenizer again"
            )


def _sentinels(found: TokenizerRecord) -> dict[int, int]:
    """Sentinel -> id."""
    sentinels = {}
    for content, number in found.ids.items():
        if "<extra_id_" in content and (index := sentinel_index(content)) is not None:
            sentinels[index] = number
    return sentinels


def _variants(
    found: TokenizerRecord, full: "Tokenizer", sentinels: dict[int, int], model_type: str
) -> tuple[Variant, Variant, Variant, bool, str]:
    """(for documents, for texts with sentinels, for decoding; whether sentinels begin with the word
    mark, what a text that begins with one needs before it)."""
    record, special = found.record, set(found.special_ids)
    if model_type == "Unigram" and not sentinels:
        pieces = with_pieces(found, sentinels)
        return pieces, pieces, pieces, False, ""
    if model_type == "Unigram" and not _follow_flags(found, sentinels):
        pieces = with_pieces(found, sentinels)
        lead = _lead(pieces, sentinels.get(0))
        if lead is not None:
            plain = with_pieces(found, sentinels, hidden=True)
            return plain, pieces, pieces, True, lead
    plain = without(record, special | set(sentinels.values()))
    return plain, without(record, special), Variant(full), False, ""


def _follow_flags(found: TokenizerRecord, sentinels: dict[int, int]) -> bool:
    """Whether the file finds its sentinels in a way that no piece of a model has: with the space
    behind them, or not beside letters."""
    ids = set(sentinels.values())
    return any(t.rstrip or t.single_word for t in added_tokens(found.record) if t.id in ids)


def _lead(pieces: Variant, first: int | None) -> str | None:
    """What a text that begins with the first sentinel needs before it, so that the sentinel's piece
    is found; None where the file's treatment of texts finds no such piece, there or in the middle.
    """
    if first not in pieces.encode("a <extra_id_0> a").tolist():
        return None
    for lead in ("", " "):  # some files spell what begins a text without the word mark
        if pieces.encode(f"{lead}<extra_id_0>").tolist() == [first]:
            return lead
    return None
