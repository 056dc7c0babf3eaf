"""Parameters of which few belong to the fast tests, all others to the slow ones."""

from collections.abc import Iterable, Sequence
from typing import Any

import pytest


def slow_but(few: Sequence[Any], values: Iterable[Any]) -> list[Any]:
    """The values for `parametrize`; tuples are those of several arguments."""
    values = list(values)
    assert all(value in values for value in few), few
    arguments = lambda value: value if isinstance(value, tuple) else (value,)
    return [
        pytest.param(*arguments(value), marks=() if value in few else pytest.mark.slow)
        for value in values
    ]
