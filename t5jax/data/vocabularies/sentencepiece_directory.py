"""A Hugging Face directory's SentencePiece model with the tokens that its other files add."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import sentencepiece

from t5jax.data.vocabularies.added_tokens import AddedToken, Additions, check_added_tokens
from t5jax.data.vocabularies.base import (
    DEFAULT_SENTINELS,
    SENTINEL,
    check_special_ids,
    sentinel_index,
)
from t5jax.data.vocabularies.tokenizer_settings import TokenizerSettings, read_settings
from t5jax.errors import DataError

MODEL_NAMES = ("spiece.model", "tokenizer.model", "sentencepiece.model")
_ROLES = ("pad", "eos", "unk")
_NUMBERED = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
_DEFAULTS = {"pad": "<pad>", "eos": "</s>", "unk": "<unk>"}
# Classes of transformers that number sentinels themselves, 100 unless `extra_ids` says otherwise.
_WITH_SENTINELS = ("", "T5Tokenizer", "MT5Tokenizer", "PreTrainedTokenizer", "TokenizersBackend")

# Those whose ids are the model's own; others move them (XLM-RoBERTa's by one, mBART's).
_CLASSES = (
    *_WITH_SENTINELS, "LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer",
)  # fmt: skip

Processor = sentencepiece.SentencePieceProcessor


def model_file_in(folder: pathlib.Path) -> pathlib.Path | None:
    """The SentencePiece model of a directory, if it holds one."""
    return next((folder / name for name in MODEL_NAMES if (folder / name).is_file()), None)


def additions_beside(folder: pathlib.Path, processor: Processor, path: str) -> Additions:
    """The tokens, sentinels and special ids of a directory's model.

    Raises DataError when its files contradict each other or the model, name a token without an id,
    or ask for another treatment of texts than the model's.
    """
    settings = read_settings(folder, with_tokenizer_json=True)
    _check_settings(settings, path)
    size = processor.get_piece_size()
    given = tuple(map(_sentinel_by_name, settings.tokens))
    tokens = (*given, *_implied_sentinels(settings, processor))
    tokens = (*tokens, *_unnumbered(settings, tokens, processor))
    check_added_tokens(tokens, path)
    for token in tokens:
        _check_piece(token, processor, path)
    ids = {token.content: token.id for token in tokens}
    special = _special_ids(settings, ids, processor, path)
    check_special_ids(*special, max([size, *(token.id + 1 for token in tokens)]), path)
    return Additions(
        # Found in the text as it is written, whatever the flag says; a sentinel is a piece, which
        # takes the space before it. Padding, EOS and unknown that
        # the model has itself are no additions.
        tokens=tuple(
            AddedToken(content=token.content, id=token.id, special=True)
            if SENTINEL.fullmatch(token.content)
            else dataclasses.replace(token, normalized=False)
            for token in tokens
            if token.id >= size or token.id not in special
        ),
        pad_id=special[0],
        eos_id=special[1],
        unk_id=special[2],
        prefix_after_tokens=settings.values.get("legacy") is not False,
    )


def plain_sentinels(additions: Additions, processor: Processor) -> int | None:
    """`extra_ids` where the additions are nothing but T5's sentinels on top of the model (0: those
    of the model itself), so that the model's file says it all; else None."""
    special = additions.pad_id, additions.eos_id, additions.unk_id
    if additions.own or special != special_ids_of(processor) or not additions.sentinels:
        return None
    size, sentinels = processor.get_piece_size(), additions.sentinels
    if all(number < size for number in sentinels.values()):
        return 0
    on_top = {index: size + len(sentinels) - 1 - index for index in range(len(sentinels))}
    return len(sentinels) if sentinels == on_top else None


def special_ids_of(processor: Processor) -> tuple[int, int, int]:
    """(pad, eos, unk) of a model, -1 for what it has not."""
    return processor.pad_id(), processor.eos_id(), processor.unk_id()


def _check_settings(settings: TokenizerSettings, path: str) -> None:
    if settings.tokenizer_class not in _CLASSES:
        raise DataError(
            f"vocabulary {path!r}: how tokenizer_class {settings.tokenizer_class!r} numbers the "
            "pieces of its SentencePiece model is not known (known: "
            f"{', '.join(filter(None, _CLASSES))}); save its fast tokenizer alone, whose "
            "tokenizer.json is read"
        )
    if settings.values.get("add_prefix_space") is False:
        raise DataError(
            f"vocabulary {path!r}: tokenizer_config.json has add_prefix_space = False, which takes "
            "the space before a text from the SentencePiece model; that is not supported"
        )


def _sentinel_by_name(token: AddedToken) -> AddedToken:
    """A sentinel by its name, where a file gives its piece (`▁<extra_id_0>`)."""
    index = sentinel_index(token.content)
    if index is None:
        return token
    return dataclasses.replace(token, content=f"<extra_id_{index}>")


def _implied_sentinels(settings: TokenizerSettings, processor: Processor) -> list[AddedToken]:
    """The sentinels on top of the model that T5's tokenizer class numbers without listing ids."""
    count = sum(sentinel_index(token.content) is not None for token in settings.tokens)
    if count:
        if settings.values.get("extra_ids") not in (None, 0, count):
            raise DataError(
                f"{settings.folder}: tokenizer_config.json has extra_ids = "
                f"{settings.values['extra_ids']}, its files number {count} sentinels; write "
                f"{count} into it"
            )
        return []
    in_file = _sentinels_in(processor)
    if in_file:
        return [AddedToken(content=f"<extra_id_{i}>", id=n) for i, n in in_file.items()]
    listed = sum(bool(SENTINEL.fullmatch(content)) for content in settings.listed)
    size, count = processor.get_piece_size(), settings.values.get("extra_ids")
    if listed or count is None:
        fits = settings.num_rows is None or size + DEFAULT_SENTINELS <= settings.num_rows
        default = settings.tokenizer_class in _WITH_SENTINELS and fits
        count = listed or (DEFAULT_SENTINELS if default else 0)
    count = int(count)
    return [
        AddedToken(content=f"<extra_id_{i}>", id=size + count - 1 - i, special=True)
        for i in range(count)
    ]


def _unnumbered(
    settings: TokenizerSettings, tokens: Sequence[AddedToken], processor: Processor
) -> list[AddedToken]:
    """Special tokens that are named without an id, which transformers numbers behind all others, in
    this order."""
    known = {token.content for token in tokens}
    last = max([processor.get_piece_size(), *(token.id + 1 for token in tokens)]) - 1
    named = [settings.special[role] for role in _NUMBERED if role in settings.special]
    found = {}
    for content in [*named, *settings.listed]:
        if content not in known and _piece_id(processor, content) is None:
            found.setdefault(content, last + 1 + len(found))
    return [AddedToken(content=c, id=number, special=True) for c, number in found.items()]


def _sentinels_in(processor: Processor) -> dict[int, int]:
    """Sentinel -> id, of those that are pieces of the model."""
    found = {}
    for number in range(processor.get_piece_size()):
        piece = processor.id_to_piece(number)
        if "<extra_id_" in piece and (index := sentinel_index(piece)) is not None:
            found[index] = number
    return found


def _check_piece(token: AddedToken, processor: Processor, path: str) -> None:
    """An added token inside the model's table is that piece; outside it, it is no piece."""
    size = processor.get_piece_size()
    if token.id < size:
        piece = processor.id_to_piece(token.id)
        if token.content not in (piece, piece.removeprefix("▁")):
            raise DataError(
                f"vocabulary {path!r}: the added token {token.content!r} has id {token.id}, where "
                f"the model has {piece!r}; the files are of two tokenizers"
            )
    elif (found := _piece_id(processor, token.content)) is not None:
        raise DataError(
            f"vocabulary {path!r}: the added token {token.content!r} has id {token.id}, in the "
            f"model it is {found}; the files are of two tokenizers"
        )


def _piece_id(processor: Processor, piece: str) -> int | None:
    found = processor.piece_to_id(piece)
    return found if processor.id_to_piece(found) == piece else None


def _special_ids(
    settings: TokenizerSettings, ids: Mapping[str, int], processor: Processor, path: str
) -> tuple[int, int, int]:
    own = dict(zip(_ROLES, special_ids_of(processor), strict=True))
    found = []
    for role in _ROLES:
        named = settings.special.get(role)
        number = _id_of(named, ids, processor) if named is not None else None
        if number is None and own[role] >= 0:
            number = own[role]
        elif number is None and named is None:
            number = _id_of(_DEFAULTS[role], ids, processor)
        if number is None and role == "pad" and named is None:
            number = _padding_without_token(settings, found_unk=own["unk"], processor=processor)
        if number is None:
            what = f"is {named!r}, which has no id" if named is not None else "is not named"
            raise DataError(
                f"vocabulary {path!r} has (pad, eos, unk) = {tuple(own.values())} in its model, "
                f"and {role}_token {what} in tokenizer_config.json: name it there, with its id in "
                "added_tokens_decoder"
            )
        found.append(number)
    return found[0], found[1], found[2]


def _id_of(content: str, ids: Mapping[str, int], processor: Processor) -> int | None:
    found = ids.get(content)
    return _piece_id(processor, content) if found is None else found


def _padding_without_token(
    settings: TokenizerSettings, found_unk: int, processor: Processor
) -> int | None:
    """The model's own padding id, or the unknown piece where bytes spell everything (Llama's)."""
    if settings.pad_token_id is not None:
        return settings.pad_token_id
    spelled = _piece_id(processor, "<0x00>") is not None and found_unk >= 0
    return found_unk if spelled else None
