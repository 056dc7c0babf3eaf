"""Settings of metrics, refused when a metric is made: long before anything is scored."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

from t5jax.errors import ConfigError

_P = ParamSpec("_P")
_T = TypeVar("_T")


def checked_arguments(make: Callable[_P, _T]) -> Callable[_P, _T]:
    """The function that makes a metric; arguments that it does not take are a ConfigError."""
    signature = inspect.signature(make)

    @functools.wraps(make)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            name, takes = make.__name__.removeprefix("_make_"), ", ".join(signature.parameters)
            raise ConfigError(f"{name}: {error}; it takes {takes}") from error
        return make(*args, **kwargs)

    return call


def check_choice(metric: str, name: str, value: Any, choices: Sequence[str]) -> None:
    """Raises ConfigError for a setting that is none of the choices."""
    if not isinstance(value, str) or value not in choices:
        raise ConfigError(f"{metric}({name}={value!r}): one of {', '.join(map(repr, choices))}")


def check_flag(metric: str, name: str, value: Any) -> None:
    """Raises ConfigError for a setting that is neither True nor False."""
    if not isinstance(value, bool):
        raise ConfigError(f"{metric}({name}={value!r}): True or False")
