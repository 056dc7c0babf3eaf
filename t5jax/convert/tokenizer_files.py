"""The files of a SentencePiece vocabulary as transformers' tokenizer classes read them."""

import base64
import json
from typing import Any

from t5jax.data.vocabularies import HuggingFaceVocabulary, SentencePieceVocabulary
from t5jax.data.vocabularies.added_tokens import AddedToken
from t5jax.data.vocabularies.model_file import (
    is_unigram,
    normalization_of,
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

    transformers' T5Tokenizer takes the unknown piece to be id 2: a unigram model with other special
    ids gets a tokenizer.json, which says its own. A BPE model is Llama's, `tokenizer.model`.
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
        settings |= {"tokenizer_class": "LlamaTokenizer", "add_bos_token": False}
        return settings, {"tokenizer.model": model, **files}
    files = {"spiece.model": model, **files}
    if special == _T5:
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
    charsmap, has_prefix = normalization_of(model)
    pieces = [[piece.text, piece.score] for piece in read_pieces(model)]
    behind = [token.id for token in tokens if token.id >= len(pieces)]
    if behind != list(range(len(pieces), len(pieces) + len(behind))):
        raise DataError(
            f"vocabulary {vocabulary.path!r}: its added tokens leave gaps between their ids, which "
            "a tokenizer.json cannot have"
        )
    mark = {
        "type": "Metaspace", "replacement": "▁",
        "prepend_scheme": _scheme(vocabulary, has_prefix), "split": True,
    }  # fmt: skip
    normalizer = None
    if charsmap:
        text = base64.b64encode(charsmap).decode()
        normalizer = {"type": "Precompiled", "precompiled_charsmap": text}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": token.id, **_flags(token)} for token in tokens],
        "normalizer": normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, mark]},
        "post_processor": ending_with(vocabulary.content(vocabulary.eos_id), vocabulary.eos_id),
        "decoder": mark,
        "model": {
            "type": "Unigram", "unk_id": vocabulary.unk_id, "vocab": pieces, "byte_fallback": False,
        },
    }  # fmt: skip


def _scheme(vocabulary: SentencePieceVocabulary, has_prefix: bool) -> str:
    if not has_prefix:
        return "never"
    return "always" if vocabulary.prefix_after_tokens else "first"
