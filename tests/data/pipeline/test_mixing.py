"""Which task a row is of: counts, evenness, phases, and a seek that equals counting."""

import numpy as np
import pytest

from t5jax.data.pipeline.example_rows import ExampleRows
from t5jax.data.pipeline.mixing import PERIOD, Mixing, Phase, rates_of_rows
from t5jax.errors import ConfigError
from tests.data.number_stores import VOCABULARY, random_examples, stream_of

RATES = [(1.0,), (3.0, 1.0), (0.2, 0.0, 5.0), (1e6, 3.7, 40.0, 911.0), (1.0,) * 7]


def mixing_of(*phases):
    names = [f"task{number}" for number in range(len(phases[0][1]))]
    return Mixing([Phase(first, rates) for first, rates in phases], names)


def shares_of(mixing):
    return np.array(list(mixing.shares(0).values()))


def counted(tasks, start=None):
    """Number of each row within its task, by counting one after the other."""
    count = {} if start is None else dict(start)
    within = []
    for task in tasks.tolist():
        within.append(count.get(task, 0))
        count[task] = within[-1] + 1
    return np.array(within)


@pytest.mark.parametrize("rates", RATES)
def test_counts_over_a_period_are_exact(rates):
    mixing = mixing_of((0, rates))
    share = np.array(rates) / sum(rates)
    has = shares_of(mixing)
    assert has.sum() == pytest.approx(1.0, abs=1e-12)
    assert np.abs(has - share).max() <= 1 / PERIOD
    for first in (0, 12_345, 7 * PERIOD - 3):
        tasks, _ = mixing(np.arange(first, first + PERIOD))
        counts = np.bincount(tasks, minlength=len(rates))
        assert np.abs(counts - has * PERIOD).max() < 1 + 1e-6
        common = has > 128 / PERIOD
        assert counts[common].tolist() == (has * PERIOD)[common].tolist()


@pytest.mark.parametrize("rates", RATES)
def test_any_window_has_its_share(rates):
    """Never further than two rows from the share, wherever a window begins and ends."""
    mixing = mixing_of((0, rates))
    tasks, _ = mixing(np.arange(PERIOD + PERIOD // 3))
    share = shares_of(mixing)
    rng = np.random.default_rng(0)
    for task in range(len(rates)):
        ends = np.concatenate([[0], np.cumsum(tasks == task)])
        starts = rng.integers(0, len(tasks), 20_000)
        stops = np.minimum(starts + rng.integers(1, 3000, 20_000), len(tasks))
        error = ends[stops] - ends[starts] - (stops - starts) * share[task]
        assert np.abs(error).max() < 2.1


@pytest.mark.parametrize("rates", RATES)
def test_seeking_equals_counting(rates):
    mixing = mixing_of((0, rates))
    tasks, within = mixing(np.arange(2 * PERIOD // 5))
    np.testing.assert_array_equal(within, counted(tasks))
    rows = np.random.default_rng(1).integers(0, len(tasks), 777)
    for some in (rows, rows[:1], rows[:0]):
        got = mixing(some)
        np.testing.assert_array_equal(got[0], tasks[some])
        np.testing.assert_array_equal(got[1], within[some])
    far = np.arange(10**6 * PERIOD, 10**6 * PERIOD + 500)
    got = mixing(far)
    before = shares_of(mixing) * (10**6 * PERIOD)
    seen = [got[1][got[0] == task] for task in range(len(rates))]
    for task, numbers in enumerate(seen):
        np.testing.assert_array_equal(np.diff(numbers), 1)
        if len(numbers):
            assert abs(numbers[0] - before[task]) < 2


def test_tasks_that_are_too_rare_for_a_pattern_come_at_their_rates():
    """As CB (250 examples) beside 365 million documents, and rarer still together."""
    rates = (1e6, 1.1, 0.0, 2.3, 3.9, 250.0)
    mixing = mixing_of((0, rates))
    share = np.array(rates) / sum(rates)
    assert shares_of(mixing) == pytest.approx(share, rel=0.1)
    rare = share[[1, 3, 4]] / share[[1, 3, 4]].sum()
    found = shares_of(mixing)[[1, 3, 4]]
    assert found / found.sum() == pytest.approx(rare, rel=1e-4)
    tasks, within = mixing(np.arange(7 * PERIOD))
    counts = np.bincount(tasks, minlength=6)
    assert counts == pytest.approx(shares_of(mixing) * 7 * PERIOD, abs=1.1)
    assert counts[1] > 6
    for task in range(6):
        np.testing.assert_array_equal(within[tasks == task], np.arange(counts[task]))


def test_phases_follow_each_other_without_a_gap():
    """A task's rows are 0, 1, 2, ... across every border, also where it pauses or begins late."""
    firsts = [0, 1, 4099, 4100, 9001, 13_007]
    rates = [(1, 1, 1), (0, 5, 1), (1, 0, 0), (0, 0, 3), (4, 0.5, 0), (2, 2, 9)]
    mixing = mixing_of(*zip(firsts, rates, strict=True))
    rows = np.arange(20_011)
    tasks, within = mixing(rows)
    np.testing.assert_array_equal(within, counted(tasks))
    for number, (first, rate) in enumerate(zip(firsts, rates, strict=True)):
        last = firsts[number + 1] if number + 1 < len(firsts) else len(rows)
        found = np.bincount(tasks[first:last], minlength=3)
        want = (last - first) * np.array(rate) / sum(rate)
        assert np.abs(found - want).max() < 2.1
        assert not found[np.array(rate) == 0].any()
        assert list(mixing.shares(first).values()) == pytest.approx(
            np.array(rate) / sum(rate), abs=2e-6
        )
    shuffled = np.random.default_rng(0).permutation(rows)
    for one, other in zip(mixing(shuffled), (tasks, within), strict=True):
        np.testing.assert_array_equal(one, other[shuffled])


def test_phases_longer_than_a_period():
    mixing = mixing_of((0, (2.0, 1.0)), (2 * PERIOD + 77, (1.0, 9.0)))
    border = 2 * PERIOD + 77
    tasks, within = mixing(np.arange(border + 1000))
    for task in (0, 1):
        np.testing.assert_array_equal(within[tasks == task], np.arange((tasks == task).sum()))


def test_examples_come_at_their_rates_where_rows_are_packed():
    """A packed task puts several examples in a row: its rows must be rarer by that factor."""
    sizes = {"short": (211, 3, 2), "long": (83, 20, 9), "unpacked": (97, 9, 5)}
    rows = {}
    for name, (count, inputs, targets) in sizes.items():
        pairs = random_examples(count, inputs, targets, seed=count)
        rows[name] = ExampleRows(
            {
                "inputs": stream_of([[x for x, _ in pairs]]),
                "targets": stream_of([[y for _, y in pairs]]),
            },
            inputs_length=24,
            targets_length=13,
            vocab_size=VOCABULARY.vocab_size,
            seed=1,
            pack=name != "unpacked",
        )
    per_row = {name: r.examples_per_row for name, r in rows.items()}
    assert per_row["unpacked"] == 1 < per_row["long"] < per_row["short"] / 2
    wanted = {"short": 5.0, "long": 2.0, "unpacked": 1.0}
    mixing = Mixing([Phase(0, rates_of_rows(wanted, per_row))], list(wanted))
    tasks, within = mixing(np.arange(30_011))
    counts = []
    for number, name in enumerate(wanted):
        got = rows[name].read(within[tasks == number])
        counts.append(
            (tasks == number).sum()
            if got.targets_segments is None
            else int(got.targets_segments.max(axis=1).sum())
        )
    assert np.array(counts) / sum(counts) == pytest.approx(np.array([5, 2, 1]) / 8, rel=5e-3)


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ((0.0, 0.0), "not all 0"),
        ((1.0, -1.0), "none negative"),
        ((1.0, float("nan")), "finite"),
        ((1.0, float("inf")), "finite"),
        ((1.0, 1e-8), "task1 would get less than one row in 1048576"),
    ],
)
def test_rates_that_cannot_be(rates, message):
    with pytest.raises(ConfigError, match=message):
        mixing_of((0, rates))


def test_phases_out_of_order():
    with pytest.raises(ConfigError, match=r"rates change at rows \[0, 9, 9\]"):
        mixing_of((0, (1.0,)), (9, (1.0,)), (9, (2.0,)))


def test_identity_is_of_the_pattern():
    assert mixing_of((0, (3.0, 1.0))).identity() == mixing_of((0, (6.0, 2.0))).identity()
    assert mixing_of((0, (3.0, 1.0))).identity() != mixing_of((0, (1.0, 3.0))).identity()
