"""What an example holds beside its inputs and targets (answers, idx, groups), as one string.

A tf.data set has one type for each feature, and examples of Python have any: so they travel as
JSON, in which what JSON has no form for is marked (`{"__tuple__": [...]}`).
"""

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from t5jax.errors import DataError


def columns_to_text(columns: Mapping[str, Any]) -> str:
    """JSON of which `columns_from_text` makes equal values. Raises DataError naming a column of
    another type than str, int, float, bool, None, bytes, array, and lists, tuples, sets and dicts
    of them."""
    return json.dumps({name: _plain(value, name) for name, value in columns.items()})


def columns_from_text(text: str) -> dict[str, Any]:
    """Inverse of `columns_to_text`."""
    return {name: _restored(value) for name, value in json.loads(text).items()}


def _plain(value: Any, column: str) -> Any:
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, np.generic):
        return _plain(value.item(), column)
    if isinstance(value, list):
        return [_plain(item, column) for item in value]
    if isinstance(value, tuple):
        return {"__tuple__": [_plain(item, column) for item in value]}
    if isinstance(value, set | frozenset):
        return {"__set__": [_plain(item, column) for item in value]}
    if isinstance(value, bytes):
        return {"__bytes__": base64.b64encode(value).decode()}
    if isinstance(value, np.ndarray):
        return {"__array__": [str(value.dtype), _plain(value.tolist(), column)]}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and not key.startswith("__") for key in value):
            return {key: _plain(item, column) for key, item in value.items()}
        pairs = [[_plain(x, column) for x in pair] for pair in value.items()]
        return {"__dict__": pairs}
    raise DataError(
        f"column {column!r} of an example is {type(value).__name__}, which cannot be written into "
        "a tf.data set: make it of strings, numbers, bytes, lists, tuples, sets and dicts"
    )


def _restored(value: Any) -> Any:
    if isinstance(value, list):
        return [_restored(item) for item in value]
    if not isinstance(value, dict):
        return value
    kind = next(iter(value), "")
    content: Any = value.get(kind)
    if kind == "__bytes__":
        return base64.b64decode(content)
    if kind == "__array__":
        return np.array(_restored(content[1]), content[0])
    if kind in ("__tuple__", "__set__"):
        items = [_restored(item) for item in content]
        return tuple(items) if kind == "__tuple__" else set(items)
    if kind == "__dict__":
        return {_restored(key): _restored(item) for key, item in content}
    return {key: _restored(item) for key, item in value.items()}
