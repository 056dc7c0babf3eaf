"""A tokenizer.json with everything that belongs to it: added tokens and special ids of the files
beside it, or the vocab.json and merges.txt of a byte-level BPE, as one record.

Which tokens are padding, EOS and unknown stands in a tokenizer.json itself: padding in its
`padding`, EOS at the end of its `post_processor`'s template, unknown in its model. Where it does
not, the files beside it say so, or T5's names do (`<pad>`, `</s>`, `<unk>`), and the record that a
run keeps a copy of has it in those places.
"""

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from t5jax.data.vocabularies.added_tokens import AddedToken, check_added_tokens
from t5jax.data.vocabularies.base import sentinel_index
from t5jax.data.vocabularies.tokenizer_settings import (
    BYTE_LEVEL_BPE,
    TOKENIZER,
    TokenizerSettings,
    read_settings,
)
from t5jax.errors import DataError

_NAMES = {"pad": "<pad>", "eos": "</s>", "unk": "<unk>"}
# Classes of transformers whose vocab.json and merges.txt are RoBERTa's byte-level BPE.
_BYTE_LEVEL_CLASSES = ("", "RobertaTokenizer", "GPT2Tokenizer", "BartTokenizer", "LEDTokenizer")
_ROBERTA = {**_NAMES, "bos": "<s>", "cls": "<s>", "sep": "</s>", "mask": "<mask>"}

Record = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class TokenizerRecord:
    """`file_bytes` are the record as one tokenizer.json; `ids` every content's id."""

    file_bytes: bytes
    record: Record
    ids: Mapping[str, int]
    pad_id: int
    eos_id: int
    unk_id: int

    @property
    def num_sentinels(self) -> int:
        return sum(sentinel_index(content) is not None for content in self.ids)

    @property
    def special_ids(self) -> tuple[int, int, int]:
        return self.pad_id, self.eos_id, self.unk_id


def is_tokenizer_directory(folder: pathlib.Path) -> bool:
    """Whether a directory holds a tokenizer.json, or a vocab.json with merges.txt."""
    return (folder / TOKENIZER).is_file() or all((folder / n).is_file() for n in BYTE_LEVEL_BPE)


def read_tokenizer(path: pathlib.Path) -> TokenizerRecord:
    """Of a tokenizer.json, or of a directory. Raises DataError for files that contradict each
    other, ask for what is not supported, or name no EOS or padding; ValueError, KeyError, TypeError
    or OSError for one that is no tokenizer.json."""
    folder = path if path.is_dir() else path.parent
    settings = read_settings(folder)
    file = folder / TOKENIZER if path.is_dir() else path
    if file.is_file() or not path.is_dir():
        original = file.read_bytes()
        record = json.loads(original)
        record["model"].setdefault("type", "BPE" if "merges" in record["model"] else "Unigram")
    else:
        original, record = None, _byte_level_bpe(folder, settings)
    changed = _add_tokens(record, settings.tokens, str(path))
    ids = _ids(record)
    special = _special_ids(record, ids, settings, str(path))
    changed |= _write_special(record, ids, special)
    if original is None or changed:
        original = json.dumps(record, ensure_ascii=False).encode()
    if isinstance(record["model"]["vocab"], list) and record["model"].get("unk_id") is None:
        # `tokenizers` raises for a text that needs it; the record of a run is the file's own.
        record["model"]["unk_id"] = special[2] if special[2] < len(record["model"]["vocab"]) else 0
    return TokenizerRecord(original, record, ids, *special)


def added_tokens(record: Record) -> list[AddedToken]:
    """The record's, in its order."""
    return [
        AddedToken.from_record(entry["content"], int(entry["id"]), entry)
        for entry in record.get("added_tokens") or ()
    ]


def model_vocabulary(record: Record) -> dict[str, int]:
    """Content -> id of the model's own pieces."""
    vocab = record["model"]["vocab"]
    if isinstance(vocab, dict):
        return dict(vocab)
    return {piece[0]: number for number, piece in enumerate(vocab)}


def _ids(record: Record) -> dict[str, int]:
    return model_vocabulary(record) | {t.content: t.id for t in added_tokens(record)}


def _add_tokens(record: Record, tokens: Iterable[AddedToken], path: str) -> bool:
    """Puts the tokens of the files beside it into the record; whether there were any new ones."""
    present = added_tokens(record)
    check_added_tokens([*present, *(t for t in tokens if not _same(t, present))], path)
    new = [token for token in tokens if not _same(token, present)]
    pieces = model_vocabulary(record)
    size = max(pieces.values(), default=-1) + 1
    for token in [*present, *new]:
        known = pieces.get(token.content)
        if known != token.id and (known is not None or token.id < size):
            raise DataError(
                f"vocabulary {path!r}: the added token {token.content!r} has id {token.id}, its "
                f"model has {size} pieces and {'it at ' + str(known) if known else 'not this one'};"
                " the files are of two tokenizers"
            )
    entries = [*(record.get("added_tokens") or ()), *map(dataclasses.asdict, new)]
    record["added_tokens"] = sorted(entries, key=lambda entry: entry["id"])
    behind = [entry["id"] for entry in record["added_tokens"] if entry["id"] >= size]
    if behind != list(range(size, size + len(behind))):
        raise DataError(
            f"vocabulary {path!r}: behind the model's {size} pieces added tokens have ids "
            f"{behind[:3]} … {behind[-1]} with gaps, which `tokenizers` numbers differently"
        )
    return bool(new)


def _same(token: AddedToken, present: Iterable[AddedToken]) -> bool:
    return any(p.content == token.content and p.id == token.id for p in present)


# ---- special ids


def _special_ids(
    record: Record, ids: Mapping[str, int], settings: TokenizerSettings, path: str
) -> tuple[int, int, int]:
    found: dict[str, int | None] = {}
    for role, in_record in _contents(record).items():
        named = settings.special.get(role)
        if named is not None and named not in ids:
            raise DataError(
                f"vocabulary {path!r}: {role}_token is {named!r}, which has no id; name one of its "
                "tokens in tokenizer_config.json"
            )
        candidates = [named, in_record, _NAMES[role]]
        if role == "unk":  # the model says itself which of its pieces is the unknown one
            candidates = [in_record, named, _NAMES[role]]
        numbers = [ids[content] for content in candidates if content in ids]
        if role == "unk":
            # transformers 5's T5Tokenizer writes 2 whatever the unknown piece is (EOS: MADLAD's).
            numbers = [number for number in numbers if number != found["eos"]] or numbers
        found[role] = next(iter(numbers), None)
    if found["pad"] is None:
        found["pad"] = settings.pad_token_id
    if found["unk"] is None:
        found["unk"] = found["pad"]  # of a model that spells every byte nothing is unknown
    pad_id, eos_id, unk_id = (found[role] for role in _NAMES)
    if pad_id is None or eos_id is None or unk_id is None:
        raise DataError(
            f"vocabulary {path!r} has (pad, eos, unk) = {(pad_id, eos_id, unk_id)}, T5 needs each "
            "of them: name pad_token and eos_token in the tokenizer_config.json beside it"
        )
    return pad_id, eos_id, unk_id


def _contents(record: Record) -> dict[str, str | None]:
    """Role -> content, as a lone tokenizer.json says it."""
    model, padding = record["model"], record.get("padding") or {}
    unk = model.get("unk_token")
    if isinstance(model["vocab"], list) and model.get("unk_id") is not None:
        unk = model["vocab"][model["unk_id"]][0]
    return {"pad": padding.get("pad_token"), "eos": _last(record.get("post_processor")), "unk": unk}


def _last(processor: Record | None) -> str | None:
    """The token with which a post-processor ends a text: the first behind it (a language's token
    may follow)."""
    match processor:
        case {"type": "TemplateProcessing", "single": [*_, {"SpecialToken": _}] as parts}:
            behind = itertools.takewhile(lambda part: "SpecialToken" in part, reversed(parts))
            return str(list(behind)[-1]["SpecialToken"]["id"])
        case {"type": "RobertaProcessing" | "BertProcessing", "sep": [str(token), int()]}:
            return token
        case {"type": "Sequence", "processors": [*processors]}:
            return next(filter(None, map(_last, reversed(processors))), None)
    return None


def _write_special(record: Record, ids: Mapping[str, int], special: tuple[int, int, int]) -> bool:
    """Says in the record which the special ids are, where it says otherwise; whether it did."""
    told = {
        role: ids.get(content or "", ids.get(_NAMES[role]))
        for role, content in _contents(record).items()
    }
    contents = {number: content for content, number in ids.items()}
    pad_id, eos_id, unk_id = special
    changed = False
    if told["pad"] != pad_id:
        record["padding"] = {
            "strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None,
            "pad_id": pad_id, "pad_type_id": 0, "pad_token": contents[pad_id],
        }  # fmt: skip
        changed = True
    if told["eos"] != eos_id:
        record["post_processor"] = ending_with(contents[eos_id], eos_id)
        changed = True
    if (pad_id if told["unk"] is None else told["unk"]) != unk_id:
        key, value = (
            ("unk_id", unk_id)
            if isinstance(record["model"]["vocab"], list)
            else ("unk_token", contents[unk_id])
        )
        record["model"][key] = value
        changed = True
    return changed


def ending_with(token: str, number: int) -> Record:
    """A post-processor that puts the token behind every text."""
    text = {"Sequence": {"id": "A", "type_id": 0}}
    end = {"SpecialToken": {"id": token, "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [text, end],
        "pair": [text, {"Sequence": {"id": "B", "type_id": 0}}, end],
        "special_tokens": {token: {"id": token, "ids": [number], "tokens": [token]}},
    }


# ---- vocab.json and merges.txt


def _byte_level_bpe(folder: pathlib.Path, settings: TokenizerSettings) -> Record:
    """RoBERTa's tokeniser as a tokenizer.json's record."""
    if settings.tokenizer_class not in _BYTE_LEVEL_CLASSES:
        raise DataError(
            f"{folder}: tokenizer_class {settings.tokenizer_class!r} with vocab.json and "
            "merges.txt is not supported (known: "
            f"{', '.join(filter(None, _BYTE_LEVEL_CLASSES))}); save the fast tokenizer, whose"
            "  tokenizer.json is read"
        )
    vocab = json.loads((folder / BYTE_LEVEL_BPE[0]).read_text(encoding="utf-8"))
    lines = (folder / BYTE_LEVEL_BPE[1]).read_text(encoding="utf-8").split("\n")
    merges = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    prefix = bool(settings.values.get("add_prefix_space"))
    byte_level = {"type": "ByteLevel", "trim_offsets": True, "use_regex": True}
    names = {**_ROBERTA, **settings.special}
    known = {token.content for token in settings.tokens}
    unlisted = {c: role for role, c in names.items() if c in vocab and c not in known}
    unlisted |= {c: "" for c in settings.listed if c in vocab and c not in known}
    for content in settings.listed:
        if content not in vocab and content not in known:
            raise DataError(f"{folder}: the special token {content!r} is listed without an id")
    unk = names["unk"]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            # RoBERTa's mask takes the space before it.
            dataclasses.asdict(
                AddedToken(content=c, id=vocab[c], lstrip=role == "mask", special=True)
            )
            for c, role in sorted(unlisted.items(), key=lambda item: vocab[item[0]])
        ],
        "normalizer": None,
        "pre_tokenizer": {**byte_level, "add_prefix_space": prefix},
        "post_processor": None,
        "decoder": {**byte_level, "add_prefix_space": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": unk if unk in vocab else None,
            "continuing_subword_prefix": "", "end_of_word_suffix": "", "fuse_unk": False,
            "byte_fallback": False, "ignore_merges": False, "vocab": vocab, "merges": merges,
        },
    }  # fmt: skip
