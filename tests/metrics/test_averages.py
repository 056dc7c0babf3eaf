"""Benchmark averages by hand and as published."""

import copy

import pytest

from t5jax.errors import DataError
from t5jax.metrics.averages import GLUE, SUPERGLUE, glue_average, superglue_average

# T5 1.1 base fine-tuned on SuperGLUE, validation; published with the average 69.47
# (EleutherAI/lm-evaluation-harness, pull request 769).
SUPERGLUE_SCORES = {
    "super_glue_boolq_v102": {"accuracy": 78.47},
    "super_glue_cb_v102": {"mean_3class_f1": 83.93, "accuracy": 87.5},
    "super_glue_copa_v102": {"accuracy": 50.0},
    "super_glue_multirc_v102": {"f1": 73.81, "exact_match": 33.26},
    "super_glue_record_v102": {"em": 70.09, "f1": 71.34},
    "super_glue_rte_v102": {"accuracy": 78.7},
    "super_glue_wic_v102": {"accuracy": 63.64},
    "super_glue_wsc_v102_simple_eval": {"accuracy": 75.0},
}
GLUE_SCORES = {
    "glue_cola_v002": {"matthews_corrcoef": 10.0},
    "glue_sst2_v002": {"accuracy": 20.0},
    "glue_mrpc_v002": {"f1": 20.0, "accuracy": 40.0},
    "glue_stsb_v002": {"pearson_corrcoef": 30.0, "spearman_corrcoef": 50.0},
    "glue_qqp_v002": {"f1": 49.0, "accuracy": 51.0},
    "glue_mnli_matched_v002": {"accuracy": 62.0},
    "glue_mnli_mismatched_v002": {"accuracy": 58.0},
    "glue_qnli_v002": {"accuracy": 70.0},
    "glue_rte_v002": {"accuracy": 88.0},
    "glue_wnli_v002_simple_eval": {"accuracy": 5.0},  # counts nowhere
}


def test_the_published_superglue_average():
    average = superglue_average(SUPERGLUE_SCORES)
    assert round(average.value, 2) == 69.47
    assert average.entries["CB"] == pytest.approx((83.93 + 87.5) / 2)
    assert (len(average.entries), average.missing) == (8, ())


def test_glue_by_hand():
    average = glue_average(GLUE_SCORES)
    assert average.entries == {
        "CoLA": 10, "SST-2": 20, "MRPC": 30, "STS-B": 40,
        "QQP": 50, "MNLI": 60, "QNLI": 70, "RTE": 88,
    }  # fmt: skip
    assert average.value == pytest.approx(368 / 8)
    # The plain mean over all eleven metrics is another number.
    assert average.value != pytest.approx(sum(sum(s.values()) for s in GLUE_SCORES.values()) / 11)


@pytest.mark.parametrize(
    ("average", "entries", "scores"),
    [(glue_average, GLUE, GLUE_SCORES), (superglue_average, SUPERGLUE, SUPERGLUE_SCORES)],
)
def test_whatever_is_missing_is_named(average, entries, scores):
    full = average(scores)
    for name, pairs in entries.items():
        for task, metric in pairs:
            less = copy.deepcopy(scores)
            del less[task][metric]
            with pytest.raises(DataError, match=f"no value for {task}/{metric};"):
                average(less)
            part = average(less, partial=True)
            assert part.missing == (name,)
            assert part.value == pytest.approx((8 * full.value - full.entries[name]) / 7)
    with pytest.raises(DataError, match="average: no value for"):
        average({"wmt14_enfr_v003": {"bleu": 30.0}}, partial=True)


def test_tasks_with_sentinels_stand_for_their_task():
    renamed = {
        task.replace("_simple_eval", "_simple") + "_1_sentinel" * ("wsc" not in task): scores
        for task, scores in SUPERGLUE_SCORES.items()
    }
    renamed["super_glue_wsc_v102_simple_1_sentinel_eval"] = renamed.pop(
        "super_glue_wsc_v102_simple"
    )
    assert superglue_average(renamed) == superglue_average(SUPERGLUE_SCORES)
    with pytest.raises(DataError, match="super_glue_rte_v102 was scored twice"):
        superglue_average(renamed | {"super_glue_rte_v102": {"accuracy": 78.7}})
