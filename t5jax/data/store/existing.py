"""Comparing an existing store with the task that asks for it."""

import hashlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any

from t5jax.data.atomic_files import json_bytes
from t5jax.data.records import counted
from t5jax.data.store import version_2
from t5jax.data.store.documents import DocumentSource
from t5jax.data.store.reader import CacheInfo
from t5jax.data.vocabularies import Vocabulary
from t5jax.errors import DataError


def refuse_other_store(
    info: CacheInfo,
    directory: pathlib.Path,
    texts: DocumentSource,
    split: str,
    vocabulary: Vocabulary,
) -> None:
    """Raises DataError for a store of something else: it is replaced only when that is asked
    for (--overwrite)."""
    for what, existing, requested in (
        ("vocabulary", info.vocabulary["fingerprint"], vocabulary.fingerprint),
        ("source or code of its task", *comparable_identities(info, texts)),
        ("list of shards", [shard.source for shard in info.shards], texts.shards(split)),
    ):
        if existing != requested:
            raise DataError(
                f"{directory} holds a tokenised store with another {what} "
                f"({_difference(existing, requested)}); delete it, overwrite it (--overwrite), or "
                "use another directory"
            )


def comparable_identities(info: CacheInfo, texts: DocumentSource) -> tuple[Any, Any]:
    """Identities of the texts of a store and of those here, as far as they can be compared."""
    here = json.loads(json_bytes(texts.identity()))
    if info.format_version == version_2.FORMAT_VERSION:
        return version_2.comparable(info.source, here)
    return info.source, here


def message_for_0_1(info: CacheInfo, texts: DocumentSource) -> str:
    """The message for a store of t5jax 0.1 that is kept."""
    changed = sum(
        shard.source_fingerprint != source_fingerprint(info.source, texts, info.split, shard.source)
        for shard in info.shards
    )
    edited = f"; {counted(changed, 'shard')} of its source changed since" if changed else ""
    return (
        "was made by t5jax 0.1 with the same settings and is kept; the code of its task cannot be "
        f"compared{edited} (--overwrite makes it anew)"
    )


def source_fingerprint(
    identity: dict[str, Any], texts: DocumentSource, split: str, shard: str
) -> str:
    """sha256 (hex) of everything that decides the documents of a shard."""
    content = f"{split}\0{shard}\0{texts.shard_fingerprint(split, shard)}"
    return hashlib.sha256(json_bytes(identity) + content.encode()).hexdigest()


def code_without_source(identity: Any, place: str = "") -> Iterator[str]:
    """Functions of an identity that are known by their names alone, and what to do about it."""
    if isinstance(identity, dict):
        if "note" in identity:
            yield f"{place.rstrip('.')}: {identity.get('function')} has {identity['note']}"
        for key, value in identity.items():
            yield from code_without_source(value, f"{place}{key}.")
    elif isinstance(identity, list):
        for number, value in enumerate(identity):
            yield from code_without_source(value, f"{place}{number}.")


def _difference(found: Any, wanted: Any, name: str = "") -> str:
    """Where two records differ: `source.train_files: [...], now [...]`."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = [key for key in {**found, **wanted} if found.get(key) != wanted.get(key)]
        parts = [_difference(found.get(key), wanted.get(key), f"{name}{key}.") for key in keys]
        return "; ".join(parts)
    return f"{name.rstrip('.')}{': ' if name else ''}{_shorten(found)}, now {_shorten(wanted)}"


def _shorten(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 100 else f"{text[:100]}…"
