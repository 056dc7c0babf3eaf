"""Accuracy, F1 and Matthews correlation of class labels.

Labels are class ids or strings. A prediction that names no class is any other value (T5's
postprocessors give -1) and is wrong.

Shapes: N examples, C classes.
"""

import functools
from collections.abc import Sequence

import numpy as np

from t5jax.errors import ConfigError, DataError
from t5jax.metrics.sums import SumMetric, percentages


def check_same_kind(targets: Sequence, predictions: Sequence) -> None:
    """Raises DataError when one side is text and the other class ids."""
    if isinstance(targets[0], str) != isinstance(predictions[0], str):
        raise DataError(
            f"target 0 is {targets[0]!r} and prediction 0 is {predictions[0]!r}: strings and class "
            "ids cannot be compared; the task's postprocess must return the same type for both"
        )


def _correct(targets: Sequence, predictions: Sequence) -> np.ndarray:
    check_same_kind(targets, predictions)
    return np.array([(t == p, 1) for t, p in zip(targets, predictions, strict=True)], np.float64)


accuracy = SumMetric(
    names=("accuracy",),
    statistics=_correct,
    score=percentages,
    shares=("accuracy",),
    of_classes=True,
)


def binary_f1(positive=1, negative=0) -> SumMetric:
    """F1 of the positive class, in percent: 200 TP / (2 TP + FP + FN), or 0 when that is 0 / 0.

    A prediction that is neither class counts as the wrong one: FN for a positive target, FP for a
    negative one (T5's `f1_score_with_invalid`). Raises DataError for a target of neither class.
    """
    if positive == negative:
        raise ConfigError(f"positive={positive!r}, negative={negative!r}: give two classes")
    statistics = functools.partial(binary_confusion, positive=positive, negative=negative)
    return SumMetric(names=("f1",), statistics=statistics, score=_f1_of_confusion, of_classes=True)


def binary_confusion(
    targets: Sequence, predictions: Sequence, *, positive=1, negative=0
) -> np.ndarray:
    """float64 [N, 3]: true positive, false positive, false negative."""
    check_same_kind(targets, predictions)
    _check_known(targets, (positive, negative))
    is_positive_N = np.array([t == positive for t in targets], bool)
    is_right_N = np.array([t == p for t, p in zip(targets, predictions, strict=True)], bool)
    is_wrong_N = ~is_right_N
    columns = (is_positive_N & is_right_N, ~is_positive_N & is_wrong_N, is_positive_N & is_wrong_N)
    return np.stack(columns, axis=1).astype(np.float64)


def _f1_of_confusion(sums_K: np.ndarray) -> tuple[float]:
    true_positive, false_positive, false_negative = sums_K
    touched = 2 * true_positive + false_positive + false_negative
    return (200.0 * true_positive / touched if touched else 0.0,)


f1 = binary_f1()


def mean_multiclass_f1(num_classes: int) -> SumMetric:
    """Unweighted mean over classes 0 .. num_classes - 1 of the F1 of each, in percent, under the
    name `mean_<num_classes>class_f1`.

    A class that is neither a target nor predicted has F1 0 and counts (as in scikit-learn). A
    prediction of no class is a false negative of its target's class. Raises DataError for a target
    outside the classes.
    """
    if num_classes < 2:
        raise ConfigError(f"num_classes={num_classes}: F1 over classes needs two or more")
    return SumMetric(
        names=(f"mean_{num_classes}class_f1",),
        statistics=functools.partial(_class_counts, classes=tuple(range(num_classes))),
        score=_mean_f1,
        of_classes=True,
    )


def _class_counts(targets: Sequence, predictions: Sequence, *, classes: tuple) -> np.ndarray:
    """float64 [N, 3 C]: right and of class c, target is c, prediction is c."""
    check_same_kind(targets, predictions)
    _check_known(targets, classes)
    target_NC = _one_hot(targets, classes)
    predicted_NC = _one_hot(predictions, classes)
    return np.concatenate([target_NC * predicted_NC, target_NC, predicted_NC], axis=1)


def _mean_f1(sums_K: np.ndarray) -> tuple[float]:
    right_C, target_C, predicted_C = sums_K.reshape(3, -1)
    f1_C = 2.0 * right_C / np.maximum(target_C + predicted_C, 1.0)
    return (100.0 * f1_C.mean(),)


def _matthews_counts(targets: Sequence, predictions: Sequence) -> np.ndarray:
    """float64 [N, 3 C] over every label that occurs; a prediction of no class is a label too."""
    check_same_kind(targets, predictions)
    classes = tuple(dict.fromkeys([*targets, *predictions]))
    target_NC = _one_hot(targets, classes)
    predicted_NC = _one_hot(predictions, classes)
    return np.concatenate([target_NC * predicted_NC, target_NC, predicted_NC], axis=1)


def _matthews(sums_K: np.ndarray) -> tuple[float]:
    right_C, target_C, predicted_C = sums_K.reshape(3, -1)
    total = target_C.sum()
    covariance = right_C.sum() * total - target_C @ predicted_C
    spread = (total**2 - predicted_C @ predicted_C) * (total**2 - target_C @ target_C)
    return (100.0 * covariance / np.sqrt(spread) if spread > 0 else 0.0,)


# 100 x the correlation R_K of Gorodkin, "Comparing two K-category assignments by a K-category
# correlation coefficient" (2004), for two classes Matthews' own; 0 where either side is constant
# and the ratio is 0 / 0 (as in scikit-learn, which T5 calls).
matthews_corrcoef = SumMetric(
    names=("matthews_corrcoef",), statistics=_matthews_counts, score=_matthews, of_classes=True
)


def _one_hot(labels: Sequence, classes: tuple) -> np.ndarray:
    return np.array([[label == c for c in classes] for label in labels], np.float64)


def _check_known(targets: Sequence, classes: tuple) -> None:
    for i, target in enumerate(targets):
        if target not in classes:
            raise DataError(
                f"target {i} is {target!r}, none of the classes {classes}: a split without labels "
                "(-1) cannot be scored"
            )
