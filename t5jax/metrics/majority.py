"""The majority-class baseline: what a metric gives to always naming the most frequent target."""

from collections import Counter
from collections.abc import Hashable, Sequence

from t5jax.metrics.sums import SumMetric
from t5jax.metrics.units import Metric


def majority_baseline(metric: Metric, targets: Sequence) -> dict[str, float]:
    """{name: value} of the baseline on these targets, by their own frequencies (of equally frequent
    ones the first); {} for a metric whose targets are not classes."""
    if not isinstance(metric, SumMetric) or not metric.of_classes:
        return {}
    if not all(isinstance(target, Hashable) for target in targets):  # lists, dicts, arrays
        return {}
    ((most_frequent, _),) = Counter(targets).most_common(1)
    return metric(targets, [most_frequent] * len(targets))
