"""Batches made ahead: in their order, no further than asked, failures at their step."""

import threading
import time
import traceback

import numpy as np
import pytest

from t5jax.data.pipeline.prefetch import Prefetcher
from t5jax.errors import ConfigError, DataError


def test_prefetcher_gives_every_step_in_turn():
    with Prefetcher(lambda step: {"step": np.array([step])}, first_step=4, end_step=9) as batches:
        for step in range(4, 9):
            assert batches.step == step
            assert next(batches)["step"] == [step]
        assert batches.step == 9
        for _ in range(2):
            with pytest.raises(StopIteration):
                next(batches)


def test_prefetcher_stays_within_its_depth():
    produced, enough = [], threading.Event()

    def produce(step):
        produced.append(step)
        if len(produced) >= 3:
            enough.set()
        return {}

    batches = Prefetcher(produce, depth=3)
    assert enough.wait(10)
    time.sleep(0.05)
    assert produced == [0, 1, 2]
    next(batches)
    time.sleep(0.05)
    assert produced == [0, 1, 2, 3]
    batches.close()
    assert not batches._thread.is_alive()
    with pytest.raises(RuntimeError, match="closed"):
        next(batches)


def test_prefetcher_raises_at_the_right_step_with_the_traceback():
    def the_place_that_failed(step):
        raise DataError(f"step {step} is damaged")

    def produce(step):
        return {"step": step} if step < 12 else the_place_that_failed(step)

    batches = Prefetcher(produce, first_step=10, depth=8)
    assert [next(batches)["step"] for _ in range(2)] == [10, 11]
    for _ in range(2):
        with pytest.raises(DataError, match="step 12 is damaged") as caught:
            next(batches)
        frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert "the_place_that_failed" in frames
    assert batches.step == 12
    batches.close()


def test_prefetcher_wakes_a_waiting_consumer_when_closed():
    release = threading.Event()
    batches = Prefetcher(lambda step: {"waited": release.wait(20)})
    closer = threading.Timer(0.05, lambda: (release.set(), batches.close()))
    closer.start()
    outcome = []
    try:
        outcome.append(next(batches))
    except RuntimeError as error:
        outcome.append(error)
    closer.join()
    assert len(outcome) == 1
    assert not batches._thread.is_alive()


def test_prefetcher_depth():
    with pytest.raises(ConfigError, match="depth=0"):
        Prefetcher(lambda step: {}, depth=0)
