"""The settings beside a tokeniser's file in a Hugging Face directory.

`tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json` say which tokens were
added with which ids, which of them are padding, EOS and unknown, and how text is prepared. Every
key is used, known to change no id, or refused by name.
"""

import dataclasses
import functools
import json
import os
import pathlib
import time
from collections.abc import Mapping
from typing import Any

from t5jax.data.vocabularies.added_tokens import AddedToken, check_added_tokens
from t5jax.errors import DataError

SETTINGS, SPECIAL_TOKENS = "tokenizer_config.json", "special_tokens_map.json"
ADDED_TOKENS, TOKENIZER, MODEL_CONFIG = "added_tokens.json", "tokenizer.json", "config.json"
BYTE_LEVEL_BPE = ("vocab.json", "merges.txt")
_FILES = (SETTINGS, SPECIAL_TOKENS, ADDED_TOKENS, TOKENIZER, MODEL_CONFIG, *BYTE_LEVEL_BPE)

_LISTS = ("additional_special_tokens", "extra_special_tokens")
# Keys that say something about ids and are read here or by the vocabularies.
_USED = {
    "added_tokens_decoder", "extra_ids", "legacy", "add_prefix_space",
    "tokenizer_class", "add_bos_token", "add_eos_token", "unk_id", *_LISTS,
}  # fmt: skip
# How files are found, texts are cut, padded, shown or wrapped into chats: no id of a text changes.
_HARMLESS = {
    "auto_map", "backend", "chat_template", "clean_up_tokenization_spaces", "device_map", "errors",
    "from_slow", "fix_mistral_regex", "is_local", "local_files_only", "max_len", "max_length",
    "model_input_names", "model_max_length", "model_specific_special_tokens", "model_type",
    "name_or_path", "pad_to_multiple_of", "pad_token_type_id", "padding", "padding_side",
    "processor_class", "return_token_type_ids", "spaces_between_special_tokens",
    "special_tokens_map_file", "split_special_tokens", "stride", "tokenizer_file",
    "tokenizer_type", "torch_dtype", "transformers_version", "trim_offsets", "truncation",
    "truncation_side", "truncation_strategy", "use_default_system_prompt", "use_fast", "vocab_file",
    "merges_file", "sp_model_file", "spm_file", "init_inputs", "trust_remote_code", "token",
    "cache_dir", "revision", "subfolder", "_commit_hash", "additional_special_tokens_ids",
    "verbose", "vocab_size", "vocab", "merges", "special_tokens_pattern",
    "pad_token_id", "eos_token_id", "unk_token_id", "bos_token_id",
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerSettings:
    """What the files beside the tokeniser say. `special` are contents by role (pad, eos, unk, bos,
    ...), `listed` the special tokens that are named without ids, `pad_token_id` and `num_rows` the
    model's."""

    folder: pathlib.Path
    tokens: tuple[AddedToken, ...] = ()
    special: Mapping[str, str] = dataclasses.field(default_factory=dict)
    listed: tuple[str, ...] = ()
    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    pad_token_id: int | None = None
    num_rows: int | None = None

    @property
    def tokenizer_class(self) -> str:
        """Without the "Fast" of its name; "" where none is named."""
        return str(self.values.get("tokenizer_class") or "").removesuffix("Fast")

    @property
    def bos_added(self) -> str | None:
        """The token that the source's tokenizer puts before every text, if it does."""
        bos = self.special.get("bos")
        return bos if self.values.get("add_bos_token") and bos else None


def stamps(folder: str) -> tuple[tuple[str, int, int], ...]:
    """What changes when a file beside a tokeniser does, looked at once a second: it is asked for
    with every text."""
    return _stamps_at(folder, int(time.monotonic()))


@functools.lru_cache(maxsize=32)
def _stamps_at(folder: str, second: int) -> tuple[tuple[str, int, int], ...]:
    found = []
    for name in _FILES:
        try:
            stat = os.stat(os.path.join(folder, name))
        except OSError:
            continue
        found.append((name, stat.st_mtime_ns, stat.st_size))
    return tuple(found)


def read_settings(folder: pathlib.Path, *, with_tokenizer_json: bool = False) -> TokenizerSettings:
    """The settings of a directory; without files, none. The added tokens of its tokenizer.json are
    among its tokens if `with_tokenizer_json`.

    Raises DataError for a file that is no JSON, for files that contradict each other, and for a
    setting which changes ids and is not supported.
    """
    settings, special = _json(folder / SETTINGS), _json(folder / SPECIAL_TOKENS)
    _check_keys(settings, folder / SETTINGS)
    tokens = _added_tokens(folder, settings, special, with_tokenizer_json)
    check_added_tokens(tokens, str(folder))
    _check_roles(_special(special), _special(settings), folder)
    model = _json(folder / MODEL_CONFIG)
    return TokenizerSettings(
        folder=folder,
        tokens=tokens,
        special={**_special(special), **_special(settings)},
        listed=tuple(_listed(settings) | _listed(special)),
        values=settings,
        pad_token_id=_integer(model.get("pad_token_id")),
        num_rows=_integer(model.get("vocab_size")),
    )


def content_of(token: Any) -> str:
    """Of a token that a file gives as text, or as `{"content": …}`."""
    return str(token["content"]) if isinstance(token, dict) else str(token)


def _json(file: pathlib.Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{file} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{file} holds no settings, but a {type(content).__name__}")
    return content


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _check_roles(one: Mapping[str, str], other: Mapping[str, str], folder: pathlib.Path) -> None:
    """DataError where two files give padding, EOS or the unknown piece to different tokens."""
    for role in ("pad", "eos", "unk"):
        if role in one and other.get(role, one[role]) != one[role]:
            raise DataError(
                f"{folder}: {role}_token is {one[role]!r} in {SPECIAL_TOKENS} and {other[role]!r} "
                f"in {SETTINGS}; write the right one into both"
            )


def _check_keys(settings: Mapping[str, Any], file: pathlib.Path) -> None:
    for key, value in settings.items():
        if key == "extra_ids" and value is not None and (_integer(value) is None or value < 0):
            raise DataError(f"{file}: extra_ids is {value!r}; write the number of sentinels")
        if key in _USED or key in _HARMLESS or key.endswith(("_token", "_tokens")):
            continue
        if key == "sp_model_kwargs":
            value = {name: x for name, x in (value or {}).items() if x not in (False, 0, None)}
        if value not in (None, False, "", [], {}):
            raise DataError(
                f"{file}: {key} = {value!r} may change the ids of a text, and t5jax does not know "
                "how; take it out of the file if it changes nothing"
            )


def _special(settings: Mapping[str, Any]) -> dict[str, str]:
    """Role -> content, of `pad_token` and its like."""
    return {
        key.removesuffix("_token"): content_of(value)
        for key, value in settings.items()
        if key.endswith("_token") and isinstance(value, str | dict) and not key.startswith("add_")
    }


def _listed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Content -> entry, of the lists of special tokens (in transformers 5 also a dict of roles)."""
    found = {}
    for name in _LISTS:
        entries = settings.get(name) or ()
        for entry in entries.values() if isinstance(entries, dict) else entries:
            found[content_of(entry)] = entry
    return found


def _added_tokens(
    folder: pathlib.Path, settings: Mapping[str, Any], special: Mapping[str, Any], from_json: bool
) -> tuple[AddedToken, ...]:
    """By id. A token that several files give is that of the first: tokenizer_config.json,
    added_tokens.json, tokenizer.json."""
    found: dict[tuple[int, str], AddedToken] = {}
    try:
        for number, entry in (settings.get("added_tokens_decoder") or {}).items():
            token = AddedToken.from_record(content_of(entry), int(number), entry)
            found[token.id, token.content] = token
        flags = _listed(special) | {content_of(v): v for v in special.values() if _is_token(v)}
        for content, number in _json(folder / ADDED_TOKENS).items():
            entry = flags.get(content)
            record = entry if isinstance(entry, dict) else {"special": entry is not None}
            token = AddedToken.from_record(content, int(number), record)
            found.setdefault((token.id, content), token)
        entries = _json(folder / TOKENIZER).get("added_tokens") or [] if from_json else []
        for entry in entries:
            token = AddedToken.from_record(entry["content"], int(entry["id"]), entry)
            found.setdefault((token.id, token.content), token)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{folder}: the added tokens cannot be read: {error!r}") from error
    return tuple(found[key] for key in sorted(found))


def _is_token(value: Any) -> bool:
    return isinstance(value, dict) and "content" in value
