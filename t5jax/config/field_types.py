"""The fields of sections: one walk over all of them, and values against declared types."""

import dataclasses
import inspect
import math
import types
import typing
from collections.abc import Iterator
from typing import Any

from t5jax.errors import ConfigError


def walk(value: Any, hint: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(dotted name, value, declared type) of a value and of all that it holds: a section's fields,
    and the sections of a tuple by their number."""
    yield name, value, hint
    below = f"{name}." if name else ""
    if is_section(value):
        hints = typing.get_type_hints(type(value))
        for field in dataclasses.fields(value):
            if field.init:
                yield from walk(getattr(value, field.name), hints[field.name], below + field.name)
    elif is_section_list(hint) and isinstance(value, tuple):
        for number, item in enumerate(value):
            yield from walk(item, typing.get_args(hint)[0], f"{below}{number}")


def is_section(value: Any) -> bool:
    """Whether a value has fields of its own."""
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def is_section_list(hint: Any) -> bool:
    """Whether a field is a tuple of what a user's module may define."""
    return typing.get_origin(hint) is tuple and any(
        map(_is_protocol, _options(typing.get_args(hint)[0]))
    )


def sections_of(hint: Any) -> list[Any]:
    """t5jax's own classes for a field, the default's first."""
    return [option for option in _options(hint) if dataclasses.is_dataclass(option)]


def check_types(section: Any) -> None:
    """Raises ConfigError for a value that is not of its field's declared type.

    Python itself would only notice where the value is used.
    """
    for name, value, hint in walk(section, type(section)):
        check_type(name, value, hint)


def check_type(name: str, value: Any, hint: Any) -> None:
    """The same for one value of a field that is declared with `hint`."""
    if not _fits(value, hint):
        names = (getattr(x, "__name__", str(x)) for x in _options(hint))
        declared = " or ".join("None" if name == "NoneType" else name for name in names)
        raise ConfigError(
            f"{name} = {value!r}: a {type(value).__name__}, but the field is declared as {declared}"
        )
    is_custom = any(map(_is_protocol, _options(hint)))
    if is_custom and not is_section(value) and not inspect.isfunction(value):
        raise ConfigError(
            f"{name} = {value!r}: make {type(value).__name__} a dataclass, whose fields a saved "
            "config can hold"
        )


def check_finite(section: Any) -> None:
    """Raises ConfigError for a number that is infinite or not a number."""
    for name, value, _ in walk(section, type(section)):
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{name} = {value}: must be a finite number")


def _options(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the one type."""
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)


def _is_protocol(hint: Any) -> bool:
    return getattr(hint, "_is_protocol", False)


def _fits(value: Any, hint: Any) -> bool:
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in options)
    if origin is typing.Literal:
        return value in options
    if origin is tuple and options[1:] == (...,):
        return isinstance(value, tuple) and all(_fits(item, options[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(item, options[1]) for item in value.values())
    if hint is Any or origin is not None:  # a user's class may declare more than is checked here
        return hint is Any or isinstance(value, origin)
    if isinstance(value, bool):
        return hint is bool
    if isinstance(value, type):  # a class has its methods, but is not yet a thing
        return False
    return isinstance(value, int | float if hint is float else hint)
