"""What a bucket's rows cost, as a run logs it."""

import itertools

import numpy as np
import pytest

from t5jax.data.pipeline.loader import Loader
from t5jax.data.store.ranges import Traffic
from t5jax.run.loader_rates import LoaderRates, bucket_lines


class OfBucket(Loader):
    """Asks the bucket for three ranges of 50 bytes a batch, unless it lies on a disk."""

    traffic = Traffic()  # pyright: ignore

    def __init__(self, traffic):
        self.traffic = traffic

    def rows(self, step, row_indices=None):
        if self.traffic is not None:
            self.traffic.requests += 3
            self.traffic.num_bytes += 150
        return {"step": np.array([step])}


def test_what_batches_cost_since_the_last_line():
    clock = itertools.count(0.0, 0.5).__next__  # half a second a batch
    loader = OfBucket(Traffic(requests=7, num_bytes=1000))
    rates = LoaderRates(loader, clock)
    assert rates.metrics() == {}, "no batch was made"
    for step in range(4):
        assert rates.rows(step, [0, 1, 2])["step"] == step
    expected = {
        "data/requests_per_step": 3.0,
        "data/bytes_per_step": 150.0,
        "data/rows_per_second": pytest.approx(6.0),
    }
    assert rates.metrics() == expected
    assert rates.metrics() == {}
    loader.traffic.requests += 5  # of another loader of the process
    rates.rows(4, [0, 1, 2])
    assert rates.metrics() == {**expected, "data/requests_per_step": 8.0}


def test_a_store_on_a_disk_costs_nothing_to_tell():
    loader = OfBucket(None)
    rates = LoaderRates(loader)
    rates.rows(0, [0])
    assert rates.metrics() == {}
    assert bucket_lines(loader) == []
