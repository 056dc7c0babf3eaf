"""Conversion between a Hugging Face directory's tokenizer files and our vocabularies."""

import json
import pathlib
import re
from typing import Any

from t5jax.convert.tokenizer_files import sentencepiece_files, special_contents
from t5jax.data.vocabularies import (
    DEFAULT_SENTINELS,
    ByteVocabulary,
    HuggingFaceVocabulary,
    SentencePieceVocabulary,
    Vocabulary,
    named_vocabulary,
)
from t5jax.data.vocabularies.model_file import PieceType, read_pieces, split_record
from t5jax.data.vocabularies.piece_encoder import processor_of
from t5jax.data.vocabularies.sentencepiece_directory import (
    additions_beside,
    model_file_in,
    plain_sentinels,
)
from t5jax.data.vocabularies.source_check import check_against_source
from t5jax.data.vocabularies.tokenizer_json import is_tokenizer_directory, read_tokenizer
from t5jax.data.vocabularies.tokenizer_settings import TokenizerSettings, read_settings
from t5jax.errors import ConfigError, DataError

SENTENCE_PIECE, TOKENIZER, SETTINGS = "spiece.model", "tokenizer.json", "tokenizer_config.json"
_NAMES = ("t5", "mt5", "umt5", "byt5")
_SENTINEL = re.compile(r"<extra_id_\d+>")
_SPECIAL_TOKENS = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}


def read_vocabulary(directory: pathlib.Path) -> Vocabulary | None:
    """The vocabulary of a Hugging Face directory, with its special ids and added tokens; None when
    it holds none. Raises DataError for what is not supported, for files that contradict each other,
    and where a text's ids are not the source's (`check_against_source`)."""
    vocabulary = _read(directory)
    if vocabulary is not None:
        check_against_source(vocabulary, directory)
    return vocabulary


def _read(directory: pathlib.Path) -> Vocabulary | None:
    settings = read_settings(directory)
    if settings.tokenizer_class == "ByT5Tokenizer":
        # transformers has 125 extra ids above the bytes; ByT5's sentinels are the top bytes.
        _check_bytes(settings)
        return ByteVocabulary()
    model = model_file_in(directory)
    if model is not None:
        processor = processor_of(split_record(model.read_bytes())[0], str(model))
        additions = additions_beside(directory, processor, str(directory))
        extra_ids = plain_sentinels(additions, processor)
        if extra_ids is not None:
            return SentencePieceVocabulary(path=str(model), extra_ids=extra_ids)
        return SentencePieceVocabulary(path=str(directory), extra_ids=len(additions.sentinels))
    if not is_tokenizer_directory(directory):
        return None
    path = directory / TOKENIZER if (directory / TOKENIZER).is_file() else directory
    named = settings.values or settings.special
    if named and not read_tokenizer(path).num_sentinels:  # as in MADLAD's; a bare file forgot them
        return HuggingFaceVocabulary(path=str(path), extra_ids=0)
    return HuggingFaceVocabulary(path=str(path))


def _check_bytes(settings: TokenizerSettings) -> None:
    """ByT5's ids are fixed: pad 0, eos 1, unk 2, bytes, and what transformers calls extra ids."""
    own = [
        token.content
        for token in settings.tokens
        if token.content not in _SPECIAL_TOKENS.values() and not _SENTINEL.fullmatch(token.content)
    ]
    if own:
        listed = ", ".join(map(repr, own[:5]))
        raise DataError(
            f"{settings.folder}: ByT5's tokenizer with added tokens ({listed}) is not supported: "
            "the vocabulary of bytes has no others"
        )


def tokenizer_notes(directory: pathlib.Path) -> list[str]:
    """What the source's tokenizer does to a text beside its ids, which t5jax does not do."""
    settings = read_settings(directory)
    classes = ("RobertaTokenizer", "BartTokenizer")
    bos = settings.bos_added
    if bos is None and settings.tokenizer_class in classes:
        bos = settings.special.get("bos", "<s>")
    if bos is None:
        return []
    return [
        f"the source's tokenizer puts {bos} before every text, t5jax does not: write it into the "
        f"inputs where the model was trained so ({bos} is a token of the vocabulary)"
    ]


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
    if pathlib.Path(path).is_dir() and (found := read_vocabulary(pathlib.Path(path))) is not None:
        return found
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
            more, files = sentencepiece_files(vocabulary)
            settings |= more
            for name, data in files.items():
                (directory / name).write_bytes(data)
                written.append(name)
        case HuggingFaceVocabulary():
            (directory / TOKENIZER).write_bytes(vocabulary.file_bytes())
            settings |= {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "additional_special_tokens": _listed_sentinels(vocabulary),
                **special_contents(vocabulary),
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


def _listed_sentinels(vocabulary: HuggingFaceVocabulary) -> list[str]:
    """The sentinels that the file itself has under their names. Those that are pieces with a word
    mark (mT5's `▁<extra_id_0>`) are not listed: transformers would add them once more, behind."""
    names = map(vocabulary.content, vocabulary.sentinel_ids)
    return [name for name in names if _SENTINEL.fullmatch(name)]


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
