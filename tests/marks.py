"""Parameters of which few belong to the fast tests or to CI, the others to slow or nightly ones."""

from collections.abc import Iterable, Sequence
from typing import Any

import pytest


def slow_but(few: Sequence[Any], values: Iterable[Any]) -> list[Any]:
    """The values for `parametrize`; tuples are those of several arguments."""
    return _marked_but(few, values, pytest.mark.slow)


def long_but(few: Sequence[Any], values: Iterable[Any]) -> list[Any]:
    """As `slow_but`, for tests of which CI runs few values, and the nightly job all."""
    return _marked_but(few, values, pytest.mark.long)


def _marked_but(few: Sequence[Any], values: Iterable[Any], mark: pytest.MarkDecorator) -> list[Any]:
    values = list(values)
    assert all(value in values for value in few), few
    arguments = lambda value: value if isinstance(value, tuple) else (value,)
    return [pytest.param(*arguments(value), marks=() if value in few else mark) for value in values]
