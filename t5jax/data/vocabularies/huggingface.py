"""Hugging Face's tokenizer.json, with T5's ids.

The file is read by the `tokenizers` package, with two changes. Padding, EOS and sentinels are no
words of a document, so `<pad>` in a text is spelled like any other. And in a unigram model the
sentinels are pieces that begin with the word mark, as in T5's own vocabulary, so that the same file
gives the same ids as SentencePiece ("<extra_id_0>." is two ids, not three).
"""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from t5jax.data.vocabularies.base import (
    SENTINEL,
    UNK_ID,
    Vocabulary,
    check_sentinels_on_top,
    separate_sentinels,
    without_lone_surrogates,
)
from t5jax.data.vocabularies.files import local_file
from t5jax.errors import ConfigError, DataError
from t5jax.home import expand_home
from t5jax.types import EOS_ID, PAD_ID

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_RESERVED = {"<pad>": PAD_ID, "</s>": EOS_ID, "<unk>": UNK_ID}
# Holds spaces and a code point that is no character: no tokeniser finds it in a text.
_NEVER_FOUND = "\U0010ffff reserved {} \U0010ffff"
_UNKNOWN = " ⁇ "  # how SentencePiece shows an unknown piece; never found either


@dataclasses.dataclass(kw_only=True, slots=True)
class HuggingFaceVocabulary(Vocabulary):
    """A tokenizer.json (unigram or BPE) whose special tokens are where T5 has them.

    `extra_ids` is how many sentinels the file must hold; None takes those that it has. Raises
    ConfigError when `tokenizers` is not installed, DataError when the file is missing or damaged,
    when <pad>, </s>, <unk> are not 0, 1, 2, or the sentinels not downwards from the top.
    """

    kind: ClassVar[str] = "huggingface"
    file_name: ClassVar[str] = "tokenizer.json"

    path: str
    extra_ids: int | None = None

    def __post_init__(self) -> None:
        self.path = expand_home(self.path)

    @property
    def vocab_size(self) -> int:
        return self._file().vocab_size

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(b"tokenizer.json:" + self._file().file_bytes).hexdigest()

    @property
    def num_sentinels(self) -> int:
        """Those of the file."""
        return self._file().num_sentinels

    def file_bytes(self) -> bytes:
        return self._file().file_bytes

    def encode(self, text: str, *, sentinels: bool = True) -> np.ndarray:
        file = self._file()
        if not text.isascii():
            text = without_lone_surrogates(text)
        if not (sentinels and "<extra_id_" in text):
            return _ids(file.plain, text)
        if file.with_sentinels is not None:
            return _ids(file.with_sentinels, separate_sentinels(text))
        return self._encode_around_sentinels(file, text)

    def decode(self, ids: Iterable[int]) -> str:
        file = self._file()
        ids = np.asarray(ids, np.int64)
        ids = np.where((ids < 0) | (ids >= file.vocab_size), UNK_ID, ids)
        kept = ids[(ids != PAD_ID) & (ids != EOS_ID)].tolist()
        return (file.with_sentinels or file.plain).decode(kept, skip_special_tokens=False)

    def _encode_around_sentinels(self, file: "_TokenizerFile", text: str) -> np.ndarray:
        parts, position = [], 0
        for match in SENTINEL.finditer(text):
            if int(match[1]) < file.num_sentinels:
                parts += [_ids(file.plain, text[position : match.start()])]
                parts += [np.array([self.sentinel_id(int(match[1]))], np.int32)]
                position = match.end()
        return np.concatenate([*parts, _ids(file.plain, text[position:])])

    def _file(self) -> "_TokenizerFile":
        local = local_file(self.path)
        try:
            stat = os.stat(local)
        except OSError as error:
            raise DataError(
                f"vocabulary {self.path!r} cannot be read from {os.getcwd()} ({error.strerror}); "
                "give the path of a tokenizer.json"
            ) from error
        file = _load(local, stat.st_mtime_ns, stat.st_size)
        if self.extra_ids is not None and self.extra_ids != file.num_sentinels:
            raise DataError(
                f"vocabulary {self.path!r} has {file.num_sentinels} sentinels, not extra_ids="
                f"{self.extra_ids}; leave extra_ids out"
            )
        return file


@dataclasses.dataclass(frozen=True, slots=True)
class _TokenizerFile:
    file_bytes: bytes
    plain: "Tokenizer"
    with_sentinels: "Tokenizer | None"  # None: sentinels are cut out before (BPE)
    vocab_size: int
    num_sentinels: int


@functools.lru_cache(maxsize=8)
def _load(path: str, mtime_ns: int, size: int) -> _TokenizerFile:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ConfigError(
            f"data.vocabulary: reading {path} needs the package tokenizers: pip install tokenizers"
        ) from error
    try:
        file_bytes = pathlib.Path(path).read_bytes()
        record = json.loads(file_bytes)
        tokenizer = Tokenizer.from_str(file_bytes.decode())
        model_type = record["model"].get("type", "Unigram")
    except Exception as error:  # the package raises plain Exception
        raise DataError(f"vocabulary {path!r} is not a tokenizer.json: {error}") from error
    vocab_size = tokenizer.get_vocab_size()
    sentinels = _check_ids(tokenizer, vocab_size, path)
    if model_type == "Unigram":
        plain = _for_text(record, sentinels, _NEVER_FOUND.format)
        with_sentinels = _for_text(record, sentinels, "▁<extra_id_{}>".format)
    elif model_type == "BPE":
        # A special token is no product of merges, so setting it aside is all that is needed.
        plain, with_sentinels = tokenizer, None
        plain.encode_special_tokens = True
        plain.no_padding()
        plain.no_truncation()
    else:
        raise DataError(f"vocabulary {path!r} is a {model_type} model: Unigram and BPE are read")
    return _TokenizerFile(file_bytes, plain, with_sentinels, vocab_size, len(sentinels))


def _check_ids(tokenizer: "Tokenizer", vocab_size: int, path: str) -> dict[int, int]:
    """Sentinel -> id. Raises DataError when a special token is not where T5 has it."""
    found = tuple(map(tokenizer.token_to_id, _RESERVED))
    if found != (PAD_ID, EOS_ID, UNK_ID):
        raise DataError(
            f"vocabulary {path!r} has (<pad>, </s>, <unk>) = {found}, T5 needs (0, 1, 2); take a "
            "T5 tokenizer, or train one with `t5jax vocab train`"
        )
    sentinels = {}
    for token, number in tokenizer.get_vocab().items():
        if match := SENTINEL.fullmatch(token.removeprefix("▁")):
            sentinels[int(match[1])] = number
    if not sentinels:
        raise DataError(
            f"vocabulary {path!r} has no sentinels <extra_id_0>, <extra_id_1>, …; add them to it "
            "(downwards from the top id), as T5's tokenizers have them"
        )
    check_sentinels_on_top(sentinels, vocab_size, path)
    return sentinels


def _for_text(record: dict[str, Any], sentinels: dict[int, int], sentinel_name) -> "Tokenizer":
    """The tokeniser of a unigram file without its special tokens, and with the sentinels renamed.

    Their scores, 0, are above every piece's (logarithms of probabilities), so that a sentinel whose
    name is in the text is always taken.
    """
    from tokenizers import Tokenizer

    record = json.loads(json.dumps(record))
    pieces = record["model"]["vocab"]
    pieces[PAD_ID][0], pieces[EOS_ID][0] = map(_NEVER_FOUND.format, ("pad", "eos"))
    pieces[UNK_ID][0] = _UNKNOWN
    for index, number in sorted(sentinels.items(), key=lambda item: item[1]):
        pieces[number : number + 1] = [[sentinel_name(index), 0.0]]
    special = {*_RESERVED.values(), *sentinels.values()}
    record["added_tokens"] = [t for t in record["added_tokens"] if t["id"] not in special]
    record |= {"post_processor": None, "truncation": None, "padding": None}
    return Tokenizer.from_str(json.dumps(record))


def _ids(tokenizer: "Tokenizer", text: str) -> np.ndarray:
    return np.array(tokenizer.encode(text, add_special_tokens=False).ids, np.int32)
