"""Fixtures of a small run: see `tests/small_run.py`."""

from tests.small_run import quick_compilation, tiny, tiny_text  # noqa: F401
