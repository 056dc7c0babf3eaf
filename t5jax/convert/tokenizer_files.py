"""The files of a SentencePiece vocabulary as transformers' tokenizer classes read them."""

import base64
import json
from typing import Any

from t5jax.data.vocabularies import HuggingFaceVocabulary, SentencePieceVocabulary
from t5jax.data.vocabularies.added_tokens import AddedToken
from t5jax.data.vocabularies.base import sentinel_index
from t5jax.data.vocabularies.model_file import (
    Piece,
    PieceType,
    charsmap_of,
    has_dummy_prefix,
    is_unigram,
    keeps_spaces,
    read_pieces,
    split_record,
)
from t5jax.data.vocabularies.tokenizer_json import ending_with
from t5jax.errors import DataError
from t5jax.types import EOS_ID, PAD_ID

_ROLES = ("pad_token", "eos_token", "unk_token")
_T5 = (PAD_ID, EOS_ID, 2)
Files = dict[str, bytes]


def sentencepiece_files(vocabulary: SentencePieceVocabulary) -> tuple[dict[str, Any], Files]:
    """(settings for tokenizer_config.json, the other files by name).

    For transformers 5's T5Tokenizer the unknown piece is id 2, and every piece of text behind an
    added token begins as a text does. A unigram model of which that is not true gets a
    tokenizer.json, which says its own, and so does a BPE model (Llama's).
    """
    model, record = split_record(vocabulary.file_bytes())
    special = vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id
    if record is None and special == _T5:
        extra_ids = vocabulary.extra_ids
        return {"tokenizer_class": "T5Tokenizer", "extra_ids": extra_ids}, {"spiece.model": model}
    tokens = _tokens(vocabulary, model)
    settings: dict[str, Any] = {
        **special_contents(vocabulary),
        "extra_ids": vocabulary.num_sentinels if record is not None else vocabulary.extra_ids,
        "legacy": vocabulary.prefix_after_tokens,
        "added_tokens_decoder": {str(t.id): _flags(t) for t in tokens},
        "additional_special_tokens": [
            t.content for t in tokens if t.special and t.id not in special
        ],
    }
    added = {t.content: t.id for t in tokens if t.id not in special}
    files = {"added_tokens.json": json.dumps(added, indent=2).encode()} if added else {}
    if not is_unigram(model):
        return _bpe_files(vocabulary, settings, {"tokenizer.model": model, **files})
    files = {"spiece.model": model, **files}
    if special == _T5 and vocabulary.prefix_after_tokens:
        return settings | {"tokenizer_class": "T5Tokenizer"}, files
    files["tokenizer.json"] = json.dumps(unigram_json(vocabulary)).encode()
    return settings | {"tokenizer_class": "PreTrainedTokenizerFast"}, files


def special_contents(vocabulary: SentencePieceVocabulary | HuggingFaceVocabulary) -> dict[str, str]:
    """`pad_token` and its like of a vocabulary, by the contents of its own ids."""
    special = vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id
    return dict(zip(_ROLES, map(vocabulary.content, special), strict=True))


def _flags(token: AddedToken) -> dict[str, Any]:
    names = ("content", "lstrip", "rstrip", "single_word", "normalized", "special")
    return {name: getattr(token, name) for name in names}


def _tokens(vocabulary: SentencePieceVocabulary, model: bytes) -> list[AddedToken]:
    """Added tokens, sentinels and the special ones, by id."""
    found = {token.id: token for token in vocabulary.added_tokens}
    in_file = vocabulary.sentinels_in_file
    if not in_file and vocabulary.sentinel_ids[:1] != (len(read_pieces(model)) - 1,):
        for index, number in enumerate(vocabulary.sentinel_ids):
            found[number] = AddedToken(content=f"<extra_id_{index}>", id=number, special=True)
    for number in (vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id):
        found[number] = AddedToken(content=vocabulary.content(number), id=number, special=True)
    return [found[number] for number in sorted(found)]


def unigram_json(vocabulary: SentencePieceVocabulary) -> dict[str, Any]:
    """The tokenizer.json that transformers makes of a unigram model and its added tokens.

    Raises DataError where their ids have gaps.
    """
    model, _ = split_record(vocabulary.file_bytes())
    tokens = _tokens(vocabulary, model)
    charsmap = charsmap_of(model)
    pieces = [[piece.text, piece.score] for piece in read_pieces(model)]
    _check_no_gaps(vocabulary, tokens, len(pieces))
    mark = {
        "type": "Metaspace", "replacement": "▁",
        "prepend_scheme": _scheme(vocabulary, has_dummy_prefix(model)), "split": True,
    }  # fmt: skip
    normalizers: list[dict[str, Any]] = []
    if charsmap:
        text = base64.b64encode(charsmap).decode()
        normalizers.append({"type": "Precompiled", "precompiled_charsmap": text})
    words: list[dict[str, Any]] = [{"type": "WhitespaceSplit"}]
    if not vocabulary.prefix_after_tokens:  # a space at a beginning remains
        normalizers += [
            {"type": "Strip", "strip_left": False, "strip_right": True},
            {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"},
        ]
        words = []
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": token.id, **_flags(token)} for token in tokens],
        "normalizer": {"type": "Sequence", "normalizers": normalizers} if normalizers else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*words, mark]},
        "post_processor": ending_with(vocabulary.content(vocabulary.eos_id), vocabulary.eos_id),
        "decoder": mark,
        "model": {
            "type": "Unigram", "unk_id": vocabulary.unk_id, "vocab": pieces, "byte_fallback": False,
        },
    }  # fmt: skip


def _check_no_gaps(
    vocabulary: SentencePieceVocabulary, tokens: list[AddedToken], size: int
) -> None:
    behind = [token.id for token in tokens if token.id >= size]
    if behind != list(range(size, size + len(behind))):
        raise DataError(
            f"vocabulary {vocabulary.path!r}: its added tokens leave gaps between their ids, which "
            "a tokenizer.json cannot have"
        )


def _scheme(vocabulary: SentencePieceVocabulary, has_prefix: bool) -> str:
    if not has_prefix:
        return "never"
    return "always" if vocabulary.prefix_after_tokens else "first"


# ---- BPE models of SentencePiece (Llama's)


def _bpe_files(
    vocabulary: SentencePieceVocabulary, settings: dict[str, Any], files: Files
) -> tuple[dict[str, Any], Files]:
    """With a tokenizer.json where the model keeps texts as they are; other models are left to
    transformers' own reading of them."""
    model = files["tokenizer.model"]
    if charsmap_of(model) or not keeps_spaces(model) or not has_dummy_prefix(model):
        return settings | {"tokenizer_class": "LlamaTokenizer", "add_bos_token": False}, files
    record = _bpe_json(vocabulary, model)
    files["tokenizer.json"] = json.dumps(record).encode()
    # What is listed by name alone would be added once more, without its flags.
    del settings["additional_special_tokens"]
    settings["added_tokens_decoder"] = {
        str(entry["id"]): {name: x for name, x in entry.items() if name != "id"}
        for entry in record["added_tokens"]
    }
    return settings | {"tokenizer_class": "PreTrainedTokenizerFast"}, files


def _bpe_json(vocabulary: SentencePieceVocabulary, model: bytes) -> dict[str, Any]:
    """The tokenizer.json that transformers makes of Llama's model, whose sentinels take the spaces
    beside them."""
    pieces, tokens = read_pieces(model), _tokens(vocabulary, model)
    _check_no_gaps(vocabulary, tokens, len(pieces))
    everywhere = vocabulary.prefix_after_tokens
    added = []
    for token in tokens:
        entry = {"id": token.id, **_flags(token)}
        if sentinel_index(token.content) is not None:
            entry |= {"lstrip": True, "rstrip": everywhere}
        added.append(entry)
    to_mark = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    prepended = [{"type": "Prepend", "prepend": "▁"}, to_mark]
    first = {
        "type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False,
    }  # fmt: skip
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": prepended} if everywhere else None,
        "pre_tokenizer": None if everywhere else first,
        "post_processor": ending_with(vocabulary.content(vocabulary.eos_id), vocabulary.eos_id),
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"}, {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE", "dropout": None, "unk_token": vocabulary.content(vocabulary.unk_id),
            "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": True,
            "byte_fallback": any(piece.type == PieceType.BYTE for piece in pieces),
            "ignore_merges": False, "merges": _merges(pieces),
            "vocab": {piece.text: number for number, piece in enumerate(pieces)},
        },
    }  # fmt: skip


def _merges(pieces: list[Piece]) -> list[list[str]]:
    """Every way to put a piece together from two others, the likeliest piece first."""
    ids = {piece.text: number for number, piece in enumerate(pieces)}
    found = []
    for piece in pieces:
        cuts = ((piece.text[:n], piece.text[n:]) for n in range(1, len(piece.text)))
        pairs = [pair for pair in cuts if pair[0] in ids and pair[1] in ids]
        pairs.sort(key=lambda pair: (ids[pair[0]], ids[pair[1]]))
        found += [(piece.score, *pair) for pair in pairs]
    found.sort(key=lambda merge: (-merge[0], -len(merge[1]), -len(merge[2])))
    return [[left, right] for _, left, right in found]
