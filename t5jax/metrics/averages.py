"""GLUE and SuperGLUE averages as T5 reports them: over a task's metrics, then over the tasks.

MNLI matched and mismatched are one entry; WNLI, AX and DPR are in neither average (T5's
`eval_utils`). Tasks have T5's names; a task with sentinels (`..._1_sentinel`) counts as the same
task without.
"""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from t5jax.errors import DataError

_Entries = Mapping[str, tuple[tuple[str, str], ...]]  # name -> (task, metric) that are averaged

GLUE: _Entries = {
    "CoLA": (("glue_cola_v002", "matthews_corrcoef"),),
    "SST-2": (("glue_sst2_v002", "accuracy"),),
    "MRPC": (("glue_mrpc_v002", "f1"), ("glue_mrpc_v002", "accuracy")),
    "STS-B": (("glue_stsb_v002", "pearson_corrcoef"), ("glue_stsb_v002", "spearman_corrcoef")),
    "QQP": (("glue_qqp_v002", "f1"), ("glue_qqp_v002", "accuracy")),
    "MNLI": (("glue_mnli_matched_v002", "accuracy"), ("glue_mnli_mismatched_v002", "accuracy")),
    "QNLI": (("glue_qnli_v002", "accuracy"),),
    "RTE": (("glue_rte_v002", "accuracy"),),
}
SUPERGLUE: _Entries = {
    "BoolQ": (("super_glue_boolq_v102", "accuracy"),),
    "CB": (("super_glue_cb_v102", "mean_3class_f1"), ("super_glue_cb_v102", "accuracy")),
    "COPA": (("super_glue_copa_v102", "accuracy"),),
    "MultiRC": (("super_glue_multirc_v102", "f1"), ("super_glue_multirc_v102", "exact_match")),
    "ReCoRD": (("super_glue_record_v102", "f1"), ("super_glue_record_v102", "em")),
    "RTE": (("super_glue_rte_v102", "accuracy"),),
    "WiC": (("super_glue_wic_v102", "accuracy"),),
    "WSC": (("super_glue_wsc_v102_simple_eval", "accuracy"),),
}


class Average(NamedTuple):
    """The mean of `entries` ({"CoLA": 51.0, ...}), and the names of those that are missing."""

    value: float
    entries: dict[str, float]
    missing: tuple[str, ...]


def glue_average(scores: Mapping[str, Mapping[str, float]], *, partial: bool = False) -> Average:
    """Average over the eight GLUE entries of {task: {metric: value}}; other tasks are ignored.

    `partial` averages the entries that are complete. Raises DataError, naming task and metric, when
    one is missing otherwise, and when none is there.
    """
    return _average("GLUE", GLUE, scores, partial)


def superglue_average(
    scores: Mapping[str, Mapping[str, float]], *, partial: bool = False
) -> Average:
    """Average over the eight SuperGLUE entries; otherwise as `glue_average`."""
    return _average("SuperGLUE", SUPERGLUE, scores, partial)


def _average(
    benchmark: str, required: _Entries, scores: Mapping[str, Mapping[str, float]], partial: bool
) -> Average:
    plain = _without_sentinels(scores)
    entries, missing, absent = {}, [], []
    for name, pairs in required.items():
        unscored = [f"{t}/{m}" for t, m in pairs if m not in plain.get(t, {})]
        if unscored:
            missing.append(name)
            absent += unscored
        else:
            entries[name] = math.fsum(plain[t][m] for t, m in pairs) / len(pairs)
    if not entries or (missing and not partial):
        advice = "score these" if not entries else "score these too, or ask for a partial average"
        raise DataError(f"{benchmark} average: no value for {', '.join(absent)}; {advice}")
    return Average(math.fsum(entries.values()) / len(entries), entries, tuple(missing))


def without_sentinel(task: str) -> str:
    """The name of the task without what says that its answers fill sentinels."""
    return re.sub(r"_\d+_sentinel", "", task)


def _without_sentinels(
    scores: Mapping[str, Mapping[str, float]],
) -> dict[str, Mapping[str, float]]:
    plain: dict[str, Mapping[str, float]] = {}
    for task, values in scores.items():
        name = without_sentinel(task)
        if name in plain:
            raise DataError(f"{name} was scored twice, with and without sentinels: give one")
        plain[name] = values
    return plain
