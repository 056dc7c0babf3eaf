"""Values of a section's fields against what they are declared as."""

import dataclasses
import math
import types
import typing
from typing import Any

from t5jax.errors import ConfigError


def check_types(section: Any, prefix: str = "") -> None:
    """Raises ConfigError for a value that is not of its field's declared type.

    Python itself would only notice where the value is used.
    """
    hints = typing.get_type_hints(type(section))
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        check_type(f"{prefix}{field.name}", value, hints[field.name])
        if dataclasses.is_dataclass(value):
            check_types(value, f"{prefix}{field.name}.")


def check_type(name: str, value: Any, hint: Any) -> None:
    """The same for one value of a field that is declared with `hint`."""
    if not _fits(value, hint):
        raise ConfigError(
            f"{name} = {value!r}: a {type(value).__name__}, but the field is declared as "
            f"{getattr(hint, '__name__', hint)}"
        )


def check_finite(section: Any, prefix: str = "") -> None:
    """Raises ConfigError for a number that is infinite or not a number."""
    for field in dataclasses.fields(section):
        name, value = f"{prefix}{field.name}", getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            check_finite(value, f"{name}.")
        elif isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{name} = {value}: must be a finite number")


def _fits(value: Any, hint: Any) -> bool:
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in options)
    if origin is typing.Literal:
        return value in options
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, options[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(item, options[1]) for item in value.values())
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, int | float if hint is float else hint)
