"""Tokenisers made from a tokenizer.json: without some of its tokens, with sentinels as pieces.

`tokenizers` numbers added tokens behind the model's pieces in their order, so one that is left out
moves the others: a variant maps its ids to those of the file.
"""

import functools
import json
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np

from t5jax.data.vocabularies.tokenizer_json import Record, TokenizerRecord, added_tokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Holds spaces and a code point that is no character: no tokeniser finds it in a text.
_NEVER_FOUND = "\U0010ffff reserved {} \U0010ffff"
_UNKNOWN = " ⁇ "  # how SentencePiece shows an unknown piece; never found either


class Variant:
    """A tokeniser, and the file's id of each of its ids (None: the same)."""

    def __init__(self, tokenizer: "Tokenizer", outside: Mapping[int, int] | None = None):
        self._tokenizer = tokenizer
        self._outside = None
        if outside and any(inner != outer for inner, outer in outside.items()):
            self._outside = np.arange(tokenizer.get_vocab_size() + 1, dtype=np.int32)
            for inner, outer in outside.items():
                self._outside[inner] = outer

    def encode(self, text: str) -> np.ndarray:
        """int32 ids."""
        ids = np.array(self._tokenizer.encode(text, add_special_tokens=False).ids, np.int32)
        return ids if self._outside is None else self._outside[ids]

    def decode(self, ids: np.ndarray) -> str:
        """The text of ids of the file."""
        found: list[int] = ids.tolist()
        if self._outside is not None:
            found = [self._inside.get(token, token) for token in found]
        return self._tokenizer.decode(found, skip_special_tokens=False)

    @functools.cached_property
    def _inside(self) -> dict[int, int]:
        assert self._outside is not None
        return {outer: inner for inner, outer in enumerate(self._outside[:-1].tolist())}


def full_tokenizer(record: Record) -> "Tokenizer":
    """The file's own tokeniser, but for tokens that normalisation would change: see `_readable`."""
    return _tokenizer(_readable(record))


def without(record: Record, left_out: Collection[int]) -> Variant:
    """The tokeniser to which the tokens with these ids are text like any other."""
    record = _readable(record)
    record["added_tokens"] = [t for t in record["added_tokens"] if t["id"] not in left_out]
    record["model"] = _unnamed(record["model"], left_out)
    tokenizer = _tokenizer(record)
    return Variant(tokenizer, _numbers(tokenizer, record))


def with_pieces(
    found: TokenizerRecord, sentinels: Mapping[int, int], *, hidden: bool = False
) -> Variant:
    """The tokeniser of a unigram file without its special tokens, and with the sentinels as pieces
    that begin with the word mark; `hidden`: as pieces that are never found.

    Their scores, 0, are above every piece's (logarithms of probabilities), so that a sentinel whose
    name is in the text is always taken.
    """
    name = (_NEVER_FOUND if hidden else "▁<extra_id_{}>").format
    record = _readable(found.record)
    pieces = record["model"]["vocab"]
    size = len(pieces)
    for number, text in zip(
        found.special_ids, (name_of("pad"), name_of("eos"), _UNKNOWN), strict=True
    ):
        if number < size:
            pieces[number] = [text, pieces[number][1]]
    outside = {}
    for index, number in sentinels.items():
        if number < size:
            pieces[number] = [name(index), 0.0]
        else:
            outside[len(pieces)] = number
            pieces.append([name(index), 0.0])
    special = {*found.special_ids, *sentinels.values()}
    record["added_tokens"] = [t for t in record["added_tokens"] if t["id"] not in special]
    tokenizer = _tokenizer(record)
    return Variant(tokenizer, outside | _numbers(tokenizer, record))


def name_of(role: str) -> str:
    """A piece that no text holds."""
    return _NEVER_FOUND.format(role)


def _unnamed(model: Record, left_out: Collection[int]) -> Record:
    """The model that finds none of these pieces in a text. A BPE model makes its pieces of merges,
    of which no special token is one, unless it looks a word up first (`ignore_merges`)."""
    vocab = model["vocab"]
    if isinstance(vocab, list):
        pieces = [
            [name_of(str(number)), score] if number in left_out else [piece, score]
            for number, (piece, score) in enumerate(vocab)
        ]
        return {**model, "vocab": pieces}
    if not model.get("ignore_merges"):
        return model
    names = {c: name_of(str(number)) for c, number in vocab.items() if number in left_out}
    unk = model.get("unk_token")
    named = {names.get(content, content): number for content, number in vocab.items()}
    return {**model, "vocab": named, "unk_token": names.get(unk, unk)}


def _numbers(tokenizer: "Tokenizer", record: Record) -> dict[int, int]:
    """The tokeniser's id of each added token -> the file's."""
    found = {}
    for token in added_tokens(record):
        number = tokenizer.token_to_id(token.content)
        assert number is not None, token
        found[number] = token.id
    return found


def _readable(record: Record) -> Record:
    """A copy without what pads and cuts texts, or puts tokens around them; an added token that
    normalisation would make another text is found in the text as it is written."""
    model = record["model"]
    if isinstance(model["vocab"], list):  # the pieces are renamed in one variant alone
        model = {**model, "vocab": list(model["vocab"])}
    outside = {"post_processor": None, "truncation": None, "padding": None}
    entries = [dict(entry) for entry in record["added_tokens"]]
    changed = changed_by_normalization(record)
    for entry in entries:
        if entry["content"] in changed:
            entry["normalized"] = False
    return {**record, **outside, "model": model, "added_tokens": entries}


def changed_by_normalization(record: Record) -> set[str]:
    """The added tokens of which normalisation makes another text (a newline becomes a space, "①" a
    1): looked for after it, they would be found wherever that text stands. One that changes in case
    or by word marks alone remains itself, and is found as the file's flag says."""
    if record.get("normalizer") is None:
        return set()
    nothing = {"type": "WordLevel", "vocab": {"<unk>": 0}, "unk_token": "<unk>"}
    changes = {"model": nothing, "added_tokens": [], "post_processor": None}
    normalizer = _tokenizer({**record, **changes}).normalizer
    contents = [entry["content"] for entry in record["added_tokens"]]
    return {c for c in contents if _bare(normalizer.normalize_str(c)) != _bare(c) or not _bare(c)}


def _bare(content: str) -> str:
    return content.replace("▁", "").replace(" ", "").casefold()


def _tokenizer(record: Record) -> "Tokenizer":
    from tokenizers import Tokenizer

    return Tokenizer.from_str(json.dumps(record))
