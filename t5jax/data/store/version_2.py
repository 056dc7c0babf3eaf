"""Tokenised stores of t5jax 0.1 (format version 2): the comparable part of their identities.

They know functions by their byte code, which every Python version compiles otherwise, and t5jax's
classes by modules that have moved since. What is left are the settings of sources.
"""

from typing import Any

FORMAT_VERSION = 2


def comparable(stored: Any, here: Any) -> tuple[Any, Any]:
    """Two descriptions of a task's texts, one of a store of 0.1 and one of now, without what
    cannot be compared: equal where every setting is."""
    if isinstance(stored, dict) and ("code" in stored or set(stored) == {"type"}):
        return None, None  # a function; an object of which 0.1 kept no more than its type
    if isinstance(stored, dict) and isinstance(here, dict):
        keys = [*stored, *(key for key in here if key not in stored)]
        # What 0.1 did not keep: versions, and the source text of a user's class.
        keys = [key for key in keys if key not in ("stated_version", "source_text", "type")]
        pairs = {key: comparable(stored.get(key), here.get(key)) for key in keys}
        pairs["type"] = (_class_name(stored.get("type")), _class_name(here.get("type")))
        return {k: old for k, (old, _) in pairs.items()}, {k: new for k, (_, new) in pairs.items()}
    if isinstance(stored, list) and isinstance(here, list) and len(stored) == len(here):
        pairs = [comparable(old, new) for old, new in zip(stored, here, strict=True)]
        return [old for old, _ in pairs], [new for _, new in pairs]
    return stored, here


def _class_name(type_name: Any) -> Any:
    return type_name.rpartition(".")[2] if isinstance(type_name, str) else type_name
