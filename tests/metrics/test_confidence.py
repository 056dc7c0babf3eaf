"""Intervals against closed forms, SciPy and slow resampling; what stays together, what repeats."""

import math
import time

import numpy as np
import pytest
import scipy.stats

from t5jax.errors import ConfigError, DataError
from t5jax.metrics.classification import accuracy, f1, matthews_corrcoef, mean_multiclass_f1
from t5jax.metrics.confidence import (
    Estimate,
    paired_difference,
    wilson_interval,
    with_confidence,
)
from t5jax.metrics.grouped import group_exact_match, multirc_f1, record
from t5jax.metrics.question_answering import squad
from t5jax.metrics.regression import pearson_corrcoef, spearman_corrcoef
from t5jax.metrics.sums import SumMetric, percentages
from t5jax.metrics.translation import bleu

mean_of_predictions = SumMetric(
    names=("mean",),
    statistics=lambda targets, predictions: np.stack([predictions, np.ones(len(predictions))], 1),
    score=percentages,
)


def by_calling(metric):
    """The same metric as a plain function, which declares no units."""
    return lambda targets, predictions: metric(targets, predictions)


def binary(count, seed, right=0.8):
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, 2, count)
    predictions = np.where(generator.random(count) < right, targets, 1 - targets)
    return targets.tolist(), predictions.tolist()


@pytest.mark.parametrize(
    ("right", "total", "wilson"),
    [  # Newcombe 1998, table I, method 3
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ],
)
def test_wilsons_interval_as_published(right, total, wilson):
    assert wilson_interval(right, total) == pytest.approx(wilson, abs=6e-5)
    others = [wilson_interval(right, total, level=level) for level in (0.9, 0.99)]
    assert others[0][1] < wilson_interval(right, total)[1] < others[1][1]
    low, high = wilson_interval(total - right, total)
    assert (1 - high, 1 - low) == pytest.approx(wilson, abs=6e-5)


def test_shares_get_wilsons_interval_also_at_100_percent():
    estimate = with_confidence(accuracy, [1] * 37, [1] * 37)["accuracy"]
    low, high = wilson_interval(37, 37)
    assert estimate == Estimate(100.0, 100 * low, 100 * high)
    assert 88 < estimate.low < 95
    assert with_confidence(accuracy, [1], [1])["accuracy"].low < 25
    targets = [{"value": 1, "group": i // 3} for i in range(33)]
    predictions = [{"value": int(i % 6 != 0)} for i in range(33)]  # 6 of 11 groups are hit
    estimate = with_confidence(group_exact_match, targets, predictions)["exact_match"]
    low, high = wilson_interval(5, 11)
    assert estimate == Estimate(pytest.approx(500 / 11), 100 * low, 100 * high)


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_the_bootstrap_of_a_mean_has_its_standard_error(level):
    x = np.random.default_rng(4).exponential(size=431)
    estimate = with_confidence(mean_of_predictions, x, x, samples=4000, level=level)["mean"]
    z = scipy.stats.norm.ppf((1 + level) / 2)
    half = 100 * z * x.std() / math.sqrt(431)
    assert estimate.value == pytest.approx(100 * x.mean())
    assert estimate.high - estimate.value == pytest.approx(half, rel=0.12)
    assert estimate.value - estimate.low == pytest.approx(half, rel=0.12)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    # F1 of the positive class when targets are fair coins and 80 % are right is 80.
    hits = 0
    for seed in range(150):
        estimate = with_confidence(f1, *binary(157, seed), samples=300)["f1"]
        hits += estimate.low <= 80 <= estimate.high
    assert 0.88 <= hits / 150 <= 0.99


def squad_rows(count):
    targets, labels = binary(count, 6)
    texts = ["red barn", "old mill by the river"]
    return [[texts[t], "a " + texts[t]] for t in targets], [texts[p][: 9 + 3 * p] for p in labels]


def counted_lines(count):
    starts = np.random.default_rng(10).integers(0, 5, count)
    lines = [[" ".join(map(str, range(a, a + 11))) for a in starts * k] for k in (1, 2)]
    return lines[0], lines[1]


def test_the_fast_path_scores_the_same_resamples_as_calling_the_metric():
    classes = np.random.default_rng(8).integers(0, 3, (2, 61)).tolist()
    for metric, (targets, predictions) in (
        (f1, binary(59, 1)),
        (matthews_corrcoef, binary(43, 2)),
        (mean_multiclass_f1(3), classes),
        (squad, squad_rows(47)),
        (bleu, counted_lines(37)),
    ):
        name = metric.names[-1]
        fast = with_confidence(metric, targets, predictions, samples=120, seed=9)[name]
        rows, plain = range(len(targets)), by_calling(metric)
        slow = with_confidence(plain, targets, predictions, samples=120, seed=9, groups=rows)[name]
        assert fast == pytest.approx(slow, rel=1e-10)
        assert fast.low < fast.value < fast.high


def test_a_metric_that_declares_no_units_is_called_once_on_everything():
    calls = []

    def foreign(targets, predictions):
        calls.append((targets, predictions))
        return {"x": np.float32(1.5), "y": 3}

    targets, predictions = [{"row": i} for i in range(7)], list("abcdefg")
    estimates = with_confidence(foreign, targets, predictions)
    assert calls == [(targets, predictions)]
    assert calls[0][0] is targets
    np.testing.assert_equal(estimates, {"x": (1.5, np.nan, np.nan), "y": (3.0, np.nan, np.nan)})
    difference = paired_difference(foreign, targets, predictions, predictions[::-1])
    assert len(calls) == 3
    np.testing.assert_equal(difference["y"], (0.0, np.nan, np.nan))
    with pytest.raises(DataError, match=r"metric <lambda>: TypeError: it returned float 0\.5"):
        with_confidence(lambda targets, predictions: 0.5, targets, predictions)


class Median:
    """A metric of the user's whose statistics do not add up; its units are groups."""

    def __call__(self, targets, predictions):
        return self.aggregate(self.statistics(targets, predictions))

    def units(self, targets, predictions):
        return [target["group"] for target in targets]

    def statistics(self, targets, predictions):
        return np.array(predictions)[:, None]

    def aggregate(self, rows_M1):
        return {"median": np.median(rows_M1)}

    def notes(self, targets, predictions):
        return []


def test_a_metric_of_the_users_own_has_the_interval_of_its_units():
    groups = [i // 5 for i in range(55)]
    targets = [{"group": group} for group in groups]
    predictions = np.random.default_rng(2).normal(size=55) + groups
    found = with_confidence(Median(), targets, predictions, samples=130, seed=3)["median"]
    plain = by_calling(Median())
    slow = with_confidence(plain, targets, predictions, samples=130, seed=3, groups=groups)
    assert found == slow["median"]
    apart = with_confidence(plain, targets, predictions, samples=130, seed=3, groups=range(55))
    assert found.high - found.low > 1.3 * (apart["median"].high - apart["median"].low)


def test_no_samples_mean_no_intervals():
    targets, predictions = binary(31, 1)
    for metric in (accuracy, f1, pearson_corrcoef):
        ((name, estimate),) = with_confidence(metric, targets, predictions, samples=0).items()
        assert estimate.value == metric(targets, predictions)[name]
        assert math.isnan(estimate.low)
        assert math.isnan(estimate.high)


def test_groups_stay_together():
    # Four copies of an example say no more than one, whatever their number suggests.
    targets, predictions = binary(83, 3)
    once = with_confidence(f1, targets, predictions)["f1"]
    copies, answers = targets * 4, predictions * 4
    groups = [f"row {i}" for i in range(83)] * 4
    assert with_confidence(f1, copies, answers, groups=groups)["f1"] == pytest.approx(once)
    slow = with_confidence(by_calling(f1), copies, answers, groups=groups, samples=150)["f1"]
    assert slow == pytest.approx(with_confidence(f1, targets, predictions, samples=150)["f1"])
    apart = with_confidence(f1, copies, answers)["f1"]
    assert 1.6 < (once.high - once.low) / (apart.high - apart.low) < 2.5
    # MultiRC brings its own groups.
    of_questions = [{"value": t, "group": i % 83} for i, t in enumerate(copies)]
    values = [{"value": p} for p in answers]
    assert with_confidence(multirc_f1, of_questions, values)["f1"] == pytest.approx(once)
    # Given groups, a share of examples is no binomial any more: here every group is half right.
    halves = with_confidence(accuracy, [1, 1] * 21, [0, 1] * 21, groups=[i // 2 for i in range(42)])
    assert halves["accuracy"] == Estimate(50.0, 50.0, 50.0)
    grouped = with_confidence(accuracy, copies, answers, groups=groups)["accuracy"]
    free = with_confidence(accuracy, copies, answers)["accuracy"]
    assert 1.6 < (grouped.high - grouped.low) / (free.high - free.low) < 2.5


def test_repeated_queries_of_record_do_not_narrow_the_interval():
    answers, texts = squad_rows(41)
    once = [{"value": a, "group": i} for i, a in enumerate(answers)]
    values = [{"value": t} for t in texts]
    expected = with_confidence(record, once, values)
    assert with_confidence(record, once * 3, values * 3) == expected
    assert expected["f1"].low < expected["f1"].value < expected["f1"].high


@pytest.mark.slow
def test_correlations_are_resampled_as_pairs():
    generator = np.random.default_rng(5)
    x = generator.normal(size=211)
    y = x + generator.normal(size=211)
    for metric in (pearson_corrcoef, spearman_corrcoef):
        ((_, estimate),) = with_confidence(metric, x.tolist(), y.tolist()).items()
        assert estimate.low < estimate.value < estimate.high
    # Fisher's transform gives Pearson's interval.
    z = math.atanh(estimate_of(pearson_corrcoef, x, y).value / 100)
    bounds = [100 * math.tanh(z + sign * 1.96 / math.sqrt(208)) for sign in (-1, 1)]
    assert estimate_of(pearson_corrcoef, x, y)[1:] == pytest.approx(bounds, abs=2.5)


def estimate_of(metric, targets, predictions):
    (estimate,) = with_confidence(metric, targets.tolist(), predictions.tolist()).values()
    return estimate


def test_what_is_not_defined_has_no_interval():
    estimate = estimate_of(pearson_corrcoef, np.array([1.0, 2.0, 3.0]), np.array([-1.0] * 3))
    assert all(map(math.isnan, estimate))
    # Of three rows every ninth resample is constant; the others make the interval.
    estimate = estimate_of(pearson_corrcoef, np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 4.0]))
    assert not any(map(math.isnan, estimate))
    alone = with_confidence(f1, [1], [1])["f1"]
    assert alone.value == 100
    assert math.isnan(alone.low)
    assert math.isnan(alone.high)


def test_the_seed_decides():
    targets, predictions = binary(71, 7)
    first = with_confidence(f1, targets, predictions, seed=3)
    assert with_confidence(f1, targets, predictions, seed=3) == first
    assert with_confidence(f1, targets, predictions, seed=4) != first
    # Written down once: neither NumPy nor we may change the draws.
    assert with_confidence(f1, targets, predictions)["f1"] == pytest.approx(
        (77.77777777777777, 65.57235726399095, 87.50351123595506), rel=1e-12
    )


def test_intervals_are_those_of_before():
    """Written down with version 0.1, which called correlations again for every resample."""
    generator = np.random.default_rng(12)
    x = generator.normal(size=53)
    y = x + generator.normal(size=53)
    rows = [{"value": int(v > 0), "group": i // 3} for i, v in enumerate(x)]
    answers = [{"value": int(v > 0.2)} for v in y]
    for metric, targets, predictions, expected in (
        (pearson_corrcoef, x, y, (67.99557061167863, 50.635365247189654, 80.69927853884998)),
        (spearman_corrcoef, x, y, (59.941944847605235, 36.870134358370024, 75.69838843257835)),
        (multirc_f1, rows, answers, (70.83333333333333, 57.142857142857146, 86.66981132075472)),
    ):
        ((_, estimate),) = with_confidence(metric, targets, predictions, samples=200).items()
        assert estimate == pytest.approx(expected, rel=1e-12)


def test_paired_differences():
    targets, predictions = binary(307, 11)
    better = [
        t if i % 3 == 0 else p for i, (t, p) in enumerate(zip(targets, predictions, strict=True))
    ]
    paired = paired_difference(f1, targets, better, predictions)["f1"]
    assert paired.value == pytest.approx(f1(targets, better)["f1"] - f1(targets, predictions)["f1"])
    assert 0 < paired.low < paired.value < paired.high
    alone = [with_confidence(f1, targets, answers)["f1"] for answers in (better, predictions)]
    apart = math.hypot(*(one.high - one.low for one in alone))  # if their errors had no relation
    assert apart > 1.3 * (paired.high - paired.low)
    same = paired_difference(f1, targets, predictions, predictions)["f1"]
    assert same == Estimate(0.0, 0.0, 0.0)


def test_ten_thousand_answers_take_a_second_or_so():
    targets, predictions = squad_rows(10570)
    started = time.process_time()
    with_confidence(squad, targets, predictions)
    assert time.process_time() - started < 5


def test_bad_settings_are_refused():
    targets, predictions = [1, 0, 1], [1, 1, 1]
    for settings, words in (
        ({"level": 95}, "level=95"),
        ({"samples": 9}, "samples=9"),
        ({"seed": -1}, "seed=-1"),
    ):
        with pytest.raises(ConfigError, match=words):
            with_confidence(f1, targets, predictions, **settings)
        with pytest.raises(ConfigError, match=words):
            paired_difference(f1, targets, predictions, predictions, **settings)
    with pytest.raises(DataError, match="no examples"):
        with_confidence(f1, [], [])
    with pytest.raises(DataError, match="2 groups for 3 targets"):
        with_confidence(f1, targets, predictions, groups=[1, 2])
    with pytest.raises(DataError, match="3 targets but 2 predictions"):
        paired_difference(f1, targets, predictions, [1, 0])
    with pytest.raises(DataError, match="4 right of 3"):
        wilson_interval(4, 3)
