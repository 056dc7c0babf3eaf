"""Conversion between a Hugging Face directory's tokenizer files and our vocabularies."""

import json
import pathlib
import re
from typing import Any

from t5jax.data.vocabularies import (
    DEFAULT_SENTINELS,
    ByteVocabulary,
    HuggingFaceVocabulary,
    SentencePieceVocabulary,
    Vocabulary,
    named_vocabulary,
)
from t5jax.data.vocabularies.model_file import PieceType, read_pieces
from t5jax.errors import ConfigError, DataError

SENTENCE_PIECE, TOKENIZER, SETTINGS = "spiece.model", "tokenizer.json", "tokenizer_config.json"
_NAMES = ("t5", "mt5", "umt5", "byt5")
_SENTINEL = re.compile(r"<extra_id_\d+>")
_SPECIAL_TOKENS = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}


def read_vocabulary(directory: pathlib.Path) -> Vocabulary | None:
    """The vocabulary of a Hugging Face directory; None when it holds none."""
    config = _settings(directory)
    if config.get("tokenizer_class") == "ByT5Tokenizer":
        # transformers has 125 extra ids above the bytes; ByT5's sentinels are the top bytes.
        return ByteVocabulary()
    if (directory / SENTENCE_PIECE).is_file():
        return _sentence_piece(directory / SENTENCE_PIECE, _extra_ids(config))
    if (directory / TOKENIZER).is_file():
        return HuggingFaceVocabulary(path=str(directory / TOKENIZER))
    return None


def vocabulary_by_name(path: str, extra_ids: int | None) -> Vocabulary:
    """The vocabulary of --vocabulary: a file, or t5, mt5, umt5, byt5.

    Raises ConfigError when it is neither, DataError when the file is no vocabulary.
    """
    if path in _NAMES:
        if extra_ids is not None and path != "byt5":
            raise ConfigError(f"--extra-ids {extra_ids}: {path} defines its own; leave it out")
        return ByteVocabulary(extra_ids=extra_ids or 0) if path == "byt5" else (
            named_vocabulary(path)
        )  # fmt: skip
    if not pathlib.Path(path).is_file():
        raise ConfigError(
            f"--vocabulary {path}: there is no such file; give one, or one of {', '.join(_NAMES)}"
        )
    if path.endswith(".json"):
        return HuggingFaceVocabulary(path=path, extra_ids=extra_ids)
    return _sentence_piece(pathlib.Path(path), extra_ids)


def _sentence_piece(path: pathlib.Path, extra_ids: int | None) -> SentencePieceVocabulary:
    """With sentinels added to those of the file, unless it holds some (mT5)."""
    bare = SentencePieceVocabulary(path=str(path), extra_ids=0)
    if bare.sentinels_in_file:
        return bare
    given = DEFAULT_SENTINELS if extra_ids is None else extra_ids
    return SentencePieceVocabulary(path=str(path), extra_ids=given)


def _extra_ids(config: dict[str, Any]) -> int | None:
    """The number of sentinels in the tokenizer's config, if it has one."""
    if config.get("extra_ids"):
        return int(config["extra_ids"])
    listed = config.get("additional_special_tokens") or config.get("extra_special_tokens") or ()
    return sum(bool(_SENTINEL.fullmatch(str(token))) for token in listed) or None


def _settings(directory: pathlib.Path) -> dict[str, Any]:
    file = directory / SETTINGS
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{file} is not JSON: {error}") from error
    return content if isinstance(content, dict) else {}


# ---- writing


def write_tokenizer(vocabulary: Vocabulary, directory: pathlib.Path) -> list[str]:
    """Writes files from which transformers' AutoTokenizer makes a tokenizer with the same ids;
    returns their names."""
    settings: dict[str, Any] = {**_SPECIAL_TOKENS}
    written = [SETTINGS]
    match vocabulary:
        case ByteVocabulary():
            settings |= {"tokenizer_class": "ByT5Tokenizer", **_byte_sentinels(vocabulary)}
        case SentencePieceVocabulary():
            (directory / SENTENCE_PIECE).write_bytes(vocabulary.file_bytes())
            settings |= {"tokenizer_class": "T5Tokenizer", "extra_ids": vocabulary.extra_ids}
            written.append(SENTENCE_PIECE)
        case HuggingFaceVocabulary():
            (directory / TOKENIZER).write_bytes(vocabulary.file_bytes())
            settings |= {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "additional_special_tokens": _sentinels(vocabulary.num_sentinels),
            }
            written.append(TOKENIZER)
    (directory / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return written


def user_defined_pieces(vocabulary: Vocabulary) -> list[str]:
    """User-defined pieces (`t5jax vocab extend`), which SentencePiece always matches, and the
    tokenizer that transformers 5 makes of the same file only where they are the likeliest."""
    if not isinstance(vocabulary, SentencePieceVocabulary):
        return []
    own = [p for p in read_pieces(vocabulary.file_bytes()) if p.type == PieceType.USER_DEFINED]
    return [piece.text for piece in own if not _SENTINEL.search(piece.text)]


def _sentinels(count: int) -> list[str]:
    return [f"<extra_id_{index}>" for index in range(count)]


def _byte_sentinels(vocabulary: ByteVocabulary) -> dict[str, Any]:
    """transformers numbers extra tokens upwards from the bytes, t5jax downwards from the top.

    Without extra ids our sentinels share the bytes' ids, which transformers cannot express: its
    tokenizer gets 125 extra ids, as ByT5 was released.
    """
    if not vocabulary.extra_ids:
        return {"extra_ids": 125}
    names = _sentinels(vocabulary.extra_ids)
    return {"extra_ids": len(names), "additional_special_tokens": names[::-1]}
