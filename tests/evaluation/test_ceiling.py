"""The ceiling that a vocabulary puts on the metrics of a task."""

import dataclasses
import json
import re

import numpy as np
import pytest

from t5jax.data.vocabularies import ByteVocabulary
from t5jax.evaluation.ceiling import find_ceiling
from t5jax.evaluation.examples import EvaluationExample, TaskExamples
from t5jax.evaluation.report import EvaluationReport, read_evaluation_report
from t5jax.metrics import accuracy


class Letters:
    """Spells lower-case letters; everything else is the unknown piece, and spaces are single."""

    unk_id = 2

    def encode(self, text, *, sentinels=True):
        return np.array([ord(c) if c.islower() or c == " " else 2 for c in " ".join(text.split())])

    def decode(self, ids):
        return "".join("⁇" if i == 2 else chr(i) for i in ids)


def exact(targets, predictions):
    """A metric of the user's own."""
    raise AssertionError("it is called for the predictions alone")


def examples(targets, metrics=(accuracy,), postprocess=lambda text, **more: text) -> TaskExamples:
    return TaskExamples(
        task="sql",
        examples=[EvaluationExample("in", x, np.array([1], np.int32), {}) for x in targets],
        num_truncated=0,
        postprocess=postprocess,
        metrics=metrics,
        score_metrics=(),
        choices=None,
    )


TARGETS = ["a < b"] * 3 + ["a  b"] * 2 + ["a b"] * 5 + ["<unk>"] * 2


def test_what_can_be_reached_is_what_the_targets_themselves_score():
    ceiling = find_ceiling(examples(TARGETS), Letters())
    assert (ceiling.targets, ceiling.unknown, ceiling.changed) == (10, 3, 2)
    assert ceiling.values == {"exact match": 100 * 7 / 12, "accuracy": 100 * 7 / 12}
    assert str(ceiling) == (
        "sql: exact match can reach at most 58.3, accuracy 58.3: 3 of 10 targets cannot be spelled "
        "by the vocabulary; 2 more come back in another form (Unicode normalisation, white space)"
    )


def test_a_postprocessing_that_takes_both_forms_for_one_has_no_ceiling():
    alike = lambda text, **more: re.sub(r"\s+", " ", text)
    assert find_ceiling(examples(TARGETS[3:], postprocess=alike), Letters()) is None
    length = lambda text, **more: 1
    ceiling = find_ceiling(examples(TARGETS, postprocess=length), Letters())
    assert str(ceiling).startswith("sql: 3 of 10 targets cannot be spelled by the vocabulary")
    assert ceiling.values == {}


def test_metrics_of_others_are_not_called_for_it():
    ceiling = find_ceiling(examples(TARGETS, metrics=(exact,)), Letters())
    assert list(ceiling.values) == ["exact match"]


def test_code_of_others_that_fails_leaves_the_counts():
    def fails(text, **more):
        raise KeyError(text)

    ceiling = find_ceiling(examples(TARGETS, postprocess=fails), Letters())
    assert (ceiling.unknown, ceiling.values) == (3, {})


@pytest.mark.parametrize("targets", [["a b"], ["<unk>"]])
def test_nothing_is_said_where_all_can_be_spelled(targets):
    assert find_ceiling(examples(targets), Letters()) is None
    assert find_ceiling(examples(TARGETS), ByteVocabulary(extra_ids=100)) is None
    assert find_ceiling(examples(TARGETS), Letters(), ranked=True) is None


def test_the_report_keeps_it(tmp_path):
    ceiling = find_ceiling(examples(TARGETS), Letters())
    report = EvaluationReport(
        step=3, split="validation", settings={}, lines=[], notes=(str(ceiling),),
        ceilings={"sql": ceiling.to_dict()},
    )  # fmt: skip
    report.write(tmp_path)
    found = json.loads((tmp_path / "results.json").read_text())["ceilings"]["sql"]
    assert found["values"]["exact match"] == pytest.approx(58.333, abs=1e-3)
    assert read_evaluation_report(tmp_path) == report
    assert str(ceiling) in str(report)
    before = json.loads((tmp_path / "results.json").read_text())
    del before["ceilings"]
    (tmp_path / "results.json").write_text(json.dumps(before))
    assert read_evaluation_report(tmp_path) == dataclasses.replace(report, ceilings={})
