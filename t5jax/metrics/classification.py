"""Accuracy, F1 and Matthews correlation of class labels.

Labels are class ids or strings. A prediction that names no class is any other value (T5's
postprocessors give -1) and is wrong.

Shapes: N examples, C classes.
"""

import functools
from collections.abc import Hashable, Sequence
from typing import Literal, get_args

import numpy as np

from t5jax.errors import ConfigError, DataError
from t5jax.metrics.arguments import check_choice, checked_arguments
from t5jax.metrics.sums import SumMetric, percentages

Average = Literal["macro", "weighted", "micro"]
_MOST_LABELS = 1000


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


@checked_arguments
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


@checked_arguments
def mean_multiclass_f1(num_classes: int | Sequence[Hashable]) -> SumMetric:
    """Unweighted mean over the classes of the F1 of each, in percent, under the name
    `mean_<number>class_f1`: classes 0 .. num_classes - 1, or those of a list of names.

    A class that is neither a target nor predicted has F1 0 and counts (as in scikit-learn). A
    prediction of no class is a false negative of its target's class. Raises DataError for a target
    outside the classes.
    """
    if isinstance(num_classes, bool | float | str) or num_classes is None:
        raise ConfigError(f"num_classes={num_classes!r}: a number of classes, or a list of them")
    classes = range(num_classes) if isinstance(num_classes, int) else num_classes
    classes = _checked_classes("mean_multiclass_f1", classes)
    return _f1_over_classes(f"mean_{len(classes)}class_f1", classes, "macro")


@checked_arguments
def multiclass_f1(
    classes: Sequence[Hashable] | None = None, *, average: Average = "macro"
) -> SumMetric:
    """F1 over named classes, in percent, under the name `<average>_f1`, as scikit-learn's.

    `average` is "macro" (the mean over classes), "weighted" (by their numbers of targets) or
    "micro" (of all counts added up). With `classes` None they are those that occur among targets
    and predictions: give a list where the model's texts may be anything, because every wrong text
    would be a class of F1 0. A class that does not occur counts as 0; a prediction of no class is a
    false negative of its target's. Raises DataError for a target outside the classes.
    """
    check_choice("multiclass_f1", "average", average, get_args(Average))
    if classes is not None:
        classes = _checked_classes("multiclass_f1", classes)
    return _f1_over_classes(f"{average}_f1", classes, average)


def _f1_over_classes(name: str, classes: tuple | None, average: Average) -> SumMetric:
    return SumMetric(
        names=(name,),
        statistics=functools.partial(_class_counts, classes=classes),
        score=_AVERAGES[average],
        of_classes=True,
    )


def _checked_classes(metric: str, classes: Sequence[Hashable]) -> tuple:
    names = tuple(classes) if not isinstance(classes, str) else ()
    if len(names) < 2 or len(set(names)) < len(names):
        raise ConfigError(f"{metric}: F1 over {classes!r} needs two classes or more, none twice")
    return names


def _class_counts(targets: Sequence, predictions: Sequence, *, classes: tuple | None) -> np.ndarray:
    """float64 [N, 3 C]: right and of class c, target is c, prediction is c."""
    check_same_kind(targets, predictions)
    if classes is None:
        classes = _all_labels(targets, predictions)
    _check_known(targets, classes)
    target_NC = _one_hot(targets, classes)
    predicted_NC = _one_hot(predictions, classes)
    return np.concatenate([target_NC * predicted_NC, target_NC, predicted_NC], axis=1)


def _f1_of_classes(sums_K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float64 [C] each: the F1 of a class, 0 for one that does not occur; its targets."""
    right_C, target_C, predicted_C = sums_K.reshape(3, -1)
    return 2.0 * right_C / np.maximum(target_C + predicted_C, 1.0), target_C


def _mean_f1(sums_K: np.ndarray) -> tuple[float]:
    return (100.0 * _f1_of_classes(sums_K)[0].mean(),)


def _weighted_f1(sums_K: np.ndarray) -> tuple[float]:
    f1_C, target_C = _f1_of_classes(sums_K)
    return (100.0 * (f1_C @ target_C) / max(target_C.sum(), 1.0),)


def _micro_f1(sums_K: np.ndarray) -> tuple[float]:
    right, target, predicted = sums_K.reshape(3, -1).sum(axis=1)
    return (200.0 * right / max(target + predicted, 1.0),)


_AVERAGES = {"macro": _mean_f1, "weighted": _weighted_f1, "micro": _micro_f1}


def _all_labels(targets: Sequence, predictions: Sequence) -> tuple:
    """Every label that occurs, in order; a prediction of no class is a label too."""
    labels = tuple(dict.fromkeys([*targets, *predictions]))
    if len(labels) > _MOST_LABELS:
        raise DataError(
            f"{len(labels)} different labels among targets and predictions: the task's postprocess "
            "must give one value, such as -1, for every text that names no class"
        )
    return labels


def _matthews_counts(targets: Sequence, predictions: Sequence) -> np.ndarray:
    """float64 [N, 3 C] over every label that occurs."""
    check_same_kind(targets, predictions)
    classes = _all_labels(targets, predictions)
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
    one_hot_NC = np.zeros((len(labels), len(classes)))
    for row, label in zip(one_hot_NC, labels, strict=True):
        if label in classes:
            row[classes.index(label)] = 1.0
    return one_hot_NC


def _check_known(targets: Sequence, classes: tuple) -> None:
    for i, target in enumerate(targets):
        if target not in classes:
            raise DataError(
                f"target {i} is {target!r}, none of the classes {classes}: a split without labels "
                "(-1) cannot be scored"
            )
