"""Accuracy, F1 and Matthews against hand counts, other formulas and scikit-learn's."""

import gzip

import numpy as np
import pytest

from t5jax.errors import ConfigError, DataError
from t5jax.metrics.classification import (
    accuracy,
    binary_f1,
    f1,
    matthews_corrcoef,
    mean_multiclass_f1,
    multiclass_f1,
)
from t5jax.metrics.confidence import with_confidence


def labels(classes, count, seed):
    return np.random.default_rng(seed).integers(0, classes, count).tolist()


def test_accuracy_counts_equal_labels_of_any_kind():
    assert accuracy([1, 0, 2, 1, 1, 0, 0], [1, 0, 1, 1, -1, 0, 1]) == {
        "accuracy": pytest.approx(100 * 4 / 7)
    }
    assert accuracy(["x", "y", "z"], ["x", "Y", "z"])["accuracy"] == pytest.approx(200 / 3)
    assert accuracy([True, False], [1, 1])["accuracy"] == 50.0


def test_text_is_not_compared_with_ids():
    for metric in (accuracy, f1, matthews_corrcoef, mean_multiclass_f1(2)):
        with pytest.raises(DataError, match="cannot be compared"):
            metric([1, 0], ["True", "False"])


def test_f1_by_hand_with_invalid_predictions_as_the_wrong_class():
    targets = [1, 1, 1, 1, 0, 0, 0, 0, 0]
    predictions = [1, 1, 0, -1, 0, 0, 1, -1, 7]
    # TP 2; FN: the 0 and the -1 under target 1; FP: the 1, the -1 and the 7 under target 0.
    assert f1(targets, predictions)["f1"] == pytest.approx(100 * 2 * 2 / (2 * 2 + 2 + 3))
    assert f1([0, 0], [0, 0]) == {"f1": 0.0}
    assert f1([1, 1, 0], [1, 1, 0]) == {"f1": 100.0}


def test_f1_of_another_class():
    targets, predictions = ["no", "yes", "no", "no"], ["no", "no", "yes", "maybe"]
    metric = binary_f1(positive="no", negative="yes")
    assert metric(targets, predictions)["f1"] == pytest.approx(100 * 2 / (2 + 1 + 2))


def test_unlabelled_targets_are_refused():
    with pytest.raises(DataError, match=r"target 1 is -1, none of the classes \(1, 0\)"):
        f1([1, -1], [1, 1])
    with pytest.raises(DataError, match=r"target 0 is 3, none of the classes \(0, 1, 2\)"):
        mean_multiclass_f1(3)([3, 1], [1, 1])
    with pytest.raises(ConfigError):
        mean_multiclass_f1(1)
    with pytest.raises(ConfigError):
        binary_f1(positive=0)


def naive_f1(targets, predictions, c):
    t = {i for i, x in enumerate(targets) if x == c}
    p = {i for i, x in enumerate(predictions) if x == c}
    if not t & p:
        return 0.0
    precision, recall = len(t & p) / len(p), len(t & p) / len(t)
    return 2 / (1 / precision + 1 / recall)


@pytest.mark.parametrize(("classes", "count"), [(2, 31), (3, 57), (5, 23)])
def test_macro_f1_is_the_mean_of_one_against_the_rest(classes, count):
    targets = labels(classes, count, 1)
    predictions = [x - 1 for x in labels(classes + 1, count, 2)]  # -1 is no class
    expected = 100 * np.mean([naive_f1(targets, predictions, c) for c in range(classes)])
    scores = mean_multiclass_f1(classes)(targets, predictions)
    assert scores == {f"mean_{classes}class_f1": pytest.approx(expected, rel=1e-12)}
    assert 0 < expected < 100


NAMES = ("yes", "no", "maybe")


def named_labels(count, seed):
    targets = [NAMES[x] for x in labels(2, count, seed)]  # never "maybe"
    predictions = [(*NAMES, "a rambling text")[x] for x in labels(4, count, seed + 1)]
    return targets, predictions


def test_f1_over_named_classes():
    targets, predictions = named_labels(41, 21)
    f1_C = [naive_f1(targets, predictions, name) for name in NAMES]
    expected = {"mean_3class_f1": pytest.approx(100 * np.mean(f1_C))}
    assert mean_multiclass_f1(NAMES)(targets, predictions) == expected
    assert f1_C[2] == 0
    macro = multiclass_f1(NAMES)(targets, predictions)
    assert macro == {"macro_f1": expected["mean_3class_f1"]}
    shares = [targets.count(name) / 41 for name in NAMES]
    weighted = multiclass_f1(NAMES, average="weighted")(targets, predictions)
    assert weighted == {"weighted_f1": pytest.approx(100 * np.dot(shares, f1_C))}
    right = sum(t == p for t, p in zip(targets, predictions, strict=True))
    named = sum(p in NAMES for p in predictions)
    micro = multiclass_f1(NAMES, average="micro")(targets, predictions)
    assert micro == {"micro_f1": pytest.approx(100 * 2 * right / (41 + named))}


def test_without_a_list_the_classes_are_those_that_occur():
    targets, predictions = named_labels(41, 21)
    occurring = sorted({*targets, *predictions})
    assert len(occurring) == 4
    expected = 100 * np.mean([naive_f1(targets, predictions, name) for name in occurring])
    assert multiclass_f1()(targets, predictions) == {"macro_f1": pytest.approx(expected)}
    estimate = with_confidence(multiclass_f1(), targets, predictions, samples=100)["macro_f1"]
    assert estimate.low < estimate.value < estimate.high


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: multiclass_f1(NAMES, average="mean"), "average='mean'.*: one of 'macro', 'weig"),
        (lambda: multiclass_f1(("yes",)), "two classes or more"),
        (lambda: multiclass_f1("yes"), "two classes or more"),
        (lambda: multiclass_f1(("yes", "yes")), "none twice"),
        (lambda: multiclass_f1(NAMES, averge="macro"), "unexpected keyword argument 'averge'"),
        (lambda: mean_multiclass_f1(True), "a number of classes, or a list"),
        (lambda: mean_multiclass_f1(classes=3), "it takes num_classes"),
        (lambda: binary_f1(positiv=1), "it takes positive, negative"),
    ],
)
def test_settings_are_refused_when_the_metric_is_made(make, words):
    with pytest.raises(ConfigError, match=words):
        make()


def test_a_target_outside_the_named_classes_is_refused():
    with pytest.raises(DataError, match=r"target 1 is 'Yes', none of the classes \('yes', 'no', "):
        mean_multiclass_f1(NAMES)(["yes", "Yes"], ["yes", "no"])


def test_matthews_of_names_is_that_of_their_numbers():
    targets, predictions = named_labels(47, 31)
    numbers = {name: i for i, name in enumerate({*targets, *predictions})}
    by_number = [[numbers[x] for x in side] for side in (targets, predictions)]
    value = matthews_corrcoef(targets, predictions)["matthews_corrcoef"]
    assert value == pytest.approx(gorodkin(*by_number), rel=1e-10)
    with pytest.raises(DataError, match="1201 different labels among targets and predictions"):
        matthews_corrcoef(["yes"] * 1200, [f"text {i}" for i in range(1200)])


def test_macro_f1_counts_a_class_that_never_occurs_as_zero():
    assert mean_multiclass_f1(3)([0, 1, 1], [0, 1, 1])["mean_3class_f1"] == pytest.approx(200 / 3)


def test_matthews_of_two_classes_is_pearson_of_the_labels():
    targets, predictions = labels(2, 41, 3), labels(2, 41, 4)
    predictions[:20] = targets[:20]
    expected = 100 * np.corrcoef(targets, predictions)[0, 1]
    assert matthews_corrcoef(targets, predictions)["matthews_corrcoef"] == pytest.approx(expected)


def gorodkin(targets, predictions):
    """Equation 8 of Gorodkin 2004, term by term."""
    classes = sorted({*targets, *predictions})
    C = np.array(
        [
            [
                sum(t == a and p == b for t, p in zip(targets, predictions, strict=True))
                for b in classes
            ]
            for a in classes
        ],
        float,
    )
    n = range(len(classes))
    top = sum(C[k, k] * C[m, j] - C[j, k] * C[k, m] for k in n for j in n for m in n)
    rows = sum(C[k].sum() * sum(C[j].sum() for j in n if j != k) for k in n)
    columns = sum(C[:, k].sum() * sum(C[:, j].sum() for j in n if j != k) for k in n)
    return 100 * top / np.sqrt(rows) / np.sqrt(columns)


@pytest.mark.parametrize("invalid", [0, 9])
def test_matthews_of_many_classes(invalid):
    targets, predictions = labels(4, 53, 5), labels(4, 53, 6)
    predictions[:30] = targets[:30]
    predictions[10 : 10 + invalid] = [-1] * invalid
    value = matthews_corrcoef(targets, predictions)["matthews_corrcoef"]
    assert value == pytest.approx(gorodkin(targets, predictions), rel=1e-10)
    assert 20 < value < 90


def test_matthews_of_a_constant_side_is_zero_and_of_opposites_minus_100():
    assert matthews_corrcoef([0, 1, 1, 0, 1], [1] * 5) == {"matthews_corrcoef": 0.0}
    assert matthews_corrcoef([1] * 5, [0, 1, 1, 0, 1]) == {"matthews_corrcoef": 0.0}
    assert matthews_corrcoef([1] * 3, [1] * 3) == {"matthews_corrcoef": 0.0}
    assert matthews_corrcoef([0, 1, 1], [1, 0, 0])["matthews_corrcoef"] == pytest.approx(-100)


def test_equal_to_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    targets, predictions = labels(3, 71, 7), [x - 1 for x in labels(4, 71, 8)]
    macro = sklearn.f1_score(targets, predictions, labels=range(3), average="macro")
    ours = mean_multiclass_f1(3)(targets, predictions)["mean_3class_f1"]
    assert ours == pytest.approx(100 * macro)
    for average in ("macro", "weighted", "micro"):
        for classes in (None, (0, 1, 2), (0, 1, 2, 5)):
            expected = sklearn.f1_score(targets, predictions, labels=classes, average=average)
            (ours,) = multiclass_f1(classes, average=average)(targets, predictions).values()
            assert ours == pytest.approx(100 * expected)
    matthews = sklearn.matthews_corrcoef(targets, predictions)
    ours = matthews_corrcoef(targets, predictions)["matthews_corrcoef"]
    assert ours == pytest.approx(100 * matthews)


def test_baselines_on_the_real_cola(real_data):
    with gzip.open(real_data / "glue/CoLA/validation.tsv.gz", "rt", encoding="utf-8") as file:
        targets = [int(line.split("\t")[1]) for line in file]
    assert len(targets) == 939
    share = np.mean(targets)
    assert 0.6 < share < 0.8
    assert matthews_corrcoef(targets, targets)["matthews_corrcoef"] == pytest.approx(100)
    assert accuracy(targets, [1] * 939)["accuracy"] == pytest.approx(100 * share)
    assert matthews_corrcoef(targets, [1] * 939) == {"matthews_corrcoef": 0.0}
    # Recall is 1 and precision the share.
    assert f1(targets, [1] * 939)["f1"] == pytest.approx(100 * 2 * share / (1 + share))
