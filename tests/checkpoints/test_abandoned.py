"""Messages about abandoned reads and writes are dropped, all others stay."""

import asyncio
import logging
import sys
import types

import pytest

from t5jax.checkpoints.abandoned import silence_abandoned_operations


@pytest.mark.parametrize(
    ("message", "seen"),
    [
        ('OUT_OF_RANGE: Error writing "params.x/0" in OCDBT database at local file "/a/b"', False),
        ("the loss is NaN", True),
    ],
)
def test_a_future_that_nobody_asks(message, seen, caplog):
    silence_abandoned_operations()

    async def abandon():
        future = asyncio.get_running_loop().create_future()
        future.set_exception(ValueError(message))
        del future

    with caplog.at_level(logging.ERROR, logger="asyncio"):
        asyncio.run(abandon())
    assert (message in caplog.text) == seen


@pytest.mark.parametrize(
    ("error", "seen"),
    [(RuntimeError("Event loop is closed"), False), (RuntimeError("out of memory"), True)],
)
def test_what_a_closed_loop_no_longer_takes(error, seen, monkeypatch):
    heard = []
    monkeypatch.setattr(sys, "unraisablehook", heard.append)
    silence_abandoned_operations()
    silence_abandoned_operations()  # a second module of the package asks for the same
    sys.unraisablehook(types.SimpleNamespace(exc_value=error))
    assert bool(heard) == seen
