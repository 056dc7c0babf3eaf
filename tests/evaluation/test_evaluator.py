"""Predictions and scores of tasks: exact, independent of batch, mesh and interruptions."""

import json

import numpy as np
import pytest

from t5jax.errors import ConfigError, DataError
from t5jax.evaluation.config import EvaluationConfig
from t5jax.evaluation.evaluator import build_evaluator, evaluation_directory
from t5jax.evaluation.predictions import Predictor, TaskPrediction, read_predictions
from t5jax.evaluation.report import read_evaluation_report
from tests.evaluation import tiny_evaluation as tiny


@pytest.fixture(autouse=True)
def task():
    return tiny.task()


def evaluate(
    directory=None, mesh=(1, 1, 1), split="validation", data=None, replace=False, **config
):
    evaluator = build_evaluator(
        data or tiny.data(), tiny.DECODING, EvaluationConfig(**config), split
    )
    assert evaluator is not None
    return evaluator.evaluate(
        tiny.program(mesh), tiny.placed(mesh), 7, directory=directory, replace=replace
    )


def lines_of(directory):
    text = (directory / "tiny_examples.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def examples_alone():
    """(input ids, target, log-likelihood of the target) of every row, batched alone."""
    examples = []
    for shard in ("a", "b"):
        for row in tiny.Rows().records("validation", shard):
            (example,) = tiny.examples(row)
            read = np.append(tiny.ids(example["inputs"])[:-1][:30], 1).astype(np.int32)
            (scored,) = tiny.generator().score([read], [tiny.ids(example["targets"])])
            examples.append((read, example["targets"], scored.total))
    return examples


@pytest.fixture(scope="module")
def alone():
    return examples_alone()


@pytest.mark.slow
def test_predictions_equal_those_of_each_example_alone(tmp_path, alone):
    report = evaluate(tmp_path, batch_size=5)
    found = lines_of(tmp_path)
    assert len(found) == tiny.NUM
    texts = []
    for line, (read, target, score) in zip(found, alone, strict=True):
        ((best,),) = tiny.generator().generate([read], tiny.DECODING)
        texts.append(tiny.VOCABULARY.decode(best.ids))
        assert (line["prediction"], line["targets"]) == (texts[-1], target)
        assert line["score"] == pytest.approx(best.score, abs=1e-5)
        assert line["target_score"] == pytest.approx(score, abs=1e-5)
    assert len(set(texts)) > 3, "the predictions differ"
    values = {line.metric: line.value for line in report.lines}
    assert values["length"] == np.mean([len(text) for text in texts])
    assert values["likelihood"] == pytest.approx(np.mean([x[2] for x in alone]), abs=1e-5)
    assert {line.examples for line in report.lines} == {tiny.NUM}
    assert all(np.isnan([line.low, line.high]).all() for line in report.lines), "no units"


@pytest.mark.slow
@pytest.mark.parametrize(
    "mesh", [(2, 2, 2), pytest.param((8, 1, 1), marks=[pytest.mark.slow, pytest.mark.long])]
)
def test_the_result_depends_on_neither_batch_nor_mesh(mesh, tmp_path):
    one = evaluate(tmp_path / "one", batch_size=3)
    other = evaluate(tmp_path / "other", mesh, batch_size=8)
    predictions = [
        [line["prediction"] for line in lines_of(tmp_path / x)] for x in ("one", "other")
    ]
    assert predictions[0] == predictions[1]
    assert one.values["tiny_examples/length"] == other.values["tiny_examples/length"]
    for name, value in one.values.items():
        assert other.values[name] == pytest.approx(value, abs=1e-5)
    assert one.settings == other.settings, "nor do the recorded settings"


@pytest.mark.slow
@pytest.mark.parametrize("ranking", ["total", "per_token"])
def test_ranking_predicts_the_likeliest_choice(ranking, tmp_path, alone):
    evaluate(tmp_path, ranking=ranking)
    predictions = set()
    for line, (read, _, _) in zip(lines_of(tmp_path), alone, strict=True):
        scored = tiny.generator().score([read] * 3, [tiny.ids(text) for text in tiny.CHOICES])
        weights = [1 if ranking == "total" else len(one.tokens) for one in scored]
        totals = [one.total / n for one, n in zip(scored, weights, strict=True)]
        assert line["prediction"] == tiny.CHOICES[int(np.argmax(totals))]
        expected = [one.total for one in scored]
        assert list(line["choices"].values()) == pytest.approx(expected, abs=1e-5)
        predictions.add(line["prediction"])
    assert len(predictions) > 1, predictions


@pytest.mark.slow
def test_an_interrupted_evaluation_resumes_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr("t5jax.evaluation.predictions._BATCHES_PER_CHUNK", 2)
    whole = evaluate(tmp_path / "whole", batch_size=2)
    starts, predict = [], Predictor.predict

    def counting(self, task, start, stop):
        starts.append(start)
        if len(starts) == 3:
            raise KeyboardInterrupt
        return predict(self, task, start, stop)

    monkeypatch.setattr(Predictor, "predict", counting)
    with pytest.raises(KeyboardInterrupt):
        evaluate(tmp_path / "cut", batch_size=2)
    unfinished = tmp_path / "cut" / "tiny_examples.unfinished"
    unfinished.write_bytes(unfinished.read_bytes()[:-9])  # as if killed within a line
    assert read_evaluation_report(tmp_path / "cut") is None
    resumed = evaluate(tmp_path / "cut", batch_size=2)
    assert starts == [0, 4, 8, 4, 8, 12]
    assert resumed == whole
    assert lines_of(tmp_path / "cut") == lines_of(tmp_path / "whole")
    assert evaluate(tmp_path / "cut", batch_size=2) == whole
    assert len(starts) == 6, "a finished one is read"


@pytest.mark.slow
def test_evaluations_with_other_settings_are_kept_apart(tmp_path):
    place = tmp_path / "7"
    evaluate(place)
    evaluator = build_evaluator(
        tiny.data(), tiny.DECODING, EvaluationConfig(ranking="total"), "validation"
    )
    assert evaluator is not None
    other = evaluator.settings(tiny.program(), tiny.placed())
    assert evaluation_directory(place, evaluator.settings(tiny.program(), tiny.placed())) != place
    assert evaluation_directory(place, other).parent == tmp_path
    assert evaluation_directory(tmp_path / "8", other) == tmp_path / "8"
    with pytest.raises(DataError, match=r"other settings \(evaluation; see settings.json"):
        evaluate(place, ranking="total")
    replaced = evaluate(place, ranking="total", replace=True)
    assert read_evaluation_report(place) == replaced


@pytest.mark.slow
def test_a_finished_evaluation_is_of_its_rows(tmp_path, monkeypatch):
    evaluate(tmp_path)
    records = tiny.Rows.records
    monkeypatch.setattr(tiny.Rows, "records", lambda *words: list(records(*words))[1:])
    with pytest.raises(DataError, match=r"other settings \(tasks; see settings.json"):
        evaluate(tmp_path)


@pytest.mark.slow
def test_predictions_for_other_examples_are_refused(tmp_path):
    evaluate(tmp_path)
    (tmp_path / "results.json").unlink()
    file = tmp_path / "tiny_examples.jsonl"
    file.write_text(file.read_text().replace("3: many", "3: few"))
    with pytest.raises(DataError, match="other examples than tiny_examples has now"):
        evaluate(tmp_path)


def test_without_labels_there_are_predictions_only(tmp_path):
    report = evaluate(tmp_path, split="test")
    assert report.lines == []
    assert "split 'test' has no targets" in " ".join(report.notes)
    assert len(lines_of(tmp_path)) == tiny.NUM


@pytest.mark.slow
def test_truncated_inputs_are_counted_and_a_limit_takes_the_first(tmp_path):
    texts = [
        next(iter(tiny.examples(r)))["inputs"] for s in "ab" for r in tiny.Rows().records("x", s)
    ]
    cut = sum(len(text) > 30 for text in texts[:7])
    report = evaluate(tmp_path, num_examples=7)
    assert 0 < cut < 7
    assert report.notes[0].startswith(f"tiny_examples: {cut} of 7 inputs were truncated to ")
    assert [line["inputs"] for line in lines_of(tmp_path)] == texts[:7]


def test_a_table_has_the_average_of_what_is_there():
    tiny.task("tiny_other")
    report = evaluate()
    names = {"glue_cola_v002": "matthews_corrcoef", "glue_sst2_v002": "accuracy"}
    line = report.lines[0]
    lines = [
        type(line)(task=task, metric=metric, value=value, examples=5)
        for (task, metric), value in zip(names.items(), (30.0, 71.0), strict=True)
    ]
    table = type(report)(step=1, split="validation", settings={}, lines=lines)
    assert table.values["glue/average"] == 50.5
    assert "glue (2 of 8)" in str(table)
    assert "average" not in str(report)


def test_what_cannot_be_evaluated_is_refused_or_left_out():
    tiny.task("tiny_text", metrics=(), score_metrics=(), postprocess=None)
    config = EvaluationConfig(ranking="total")
    assert build_evaluator(tiny.data("tiny_text"), tiny.DECODING, config, "validation") is None
    assert build_evaluator(tiny.data(), tiny.DECODING, config, "train") is None
    tiny.task("tiny_free", choices=None)
    with pytest.raises(ConfigError, match="no task of tiny_free has choices to be ranked"):
        build_evaluator(tiny.data("tiny_free"), tiny.DECODING, config, "validation")
    for field, value in {"batch_size": 0, "num_examples": 0, "confidence_level": 1.0}.items():
        with pytest.raises(ConfigError, match=f"evaluation.{field} = {value}"):
            EvaluationConfig(**{field: value})


@pytest.mark.slow
def test_a_metric_that_fails_is_a_line_and_is_tried_again(tmp_path):
    works = []

    def fragile(targets, predictions):
        if not works:
            raise AssertionError("not today")
        return {"fragile": 3}

    tiny.task("tiny_fragile", metrics=(fragile, tiny.right))
    data = tiny.data("tiny_fragile")
    report = evaluate(tmp_path, data=data, num_examples=3)
    assert report.failures == {"tiny_fragile/fragile": "AssertionError: not today"}
    assert report.values.keys() == {f"tiny_fragile/{x}" for x in ("right", "length", "likelihood")}
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["error"] == report.failures
    assert len((tmp_path / "tiny_fragile.jsonl").read_text().splitlines()) == 3
    with pytest.raises(DataError, match="task tiny_fragile: its metric fragile failed: Assertion"):
        report.check()
    works.append(True)
    again = evaluate(tmp_path, data=data, num_examples=3)
    assert again.values == {**report.values, "tiny_fragile/fragile": 3.0}
    assert again.failures == {}
    again.check()
    assert "error" not in json.loads((tmp_path / "results.json").read_text())


def test_metrics_are_checked_before_anything_is_read(monkeypatch):
    def wants_more(targets, predictions, contexts):
        return {}

    monkeypatch.setattr(tiny.Rows, "records", lambda *words: pytest.fail("a row was read"))
    tiny.task("tiny_wants_more", metrics=(wants_more,))
    with pytest.raises(ConfigError, match=r"task tiny_wants_more: its metric wants_more takes \("):
        build_evaluator(
            tiny.data(), tiny.DECODING, EvaluationConfig(), "validation",
            names=("tiny_examples", "tiny_wants_more"),
        )  # fmt: skip


def test_an_evaluation_of_version_0_1_is_resumed(tmp_path):
    """The fingerprint of the examples in its settings.json, and a line of its predictions."""
    evaluator = build_evaluator(tiny.data(), tiny.DECODING, EvaluationConfig(), "validation")
    assert evaluator is not None
    (task,) = evaluator.tasks
    assert task.fingerprint == "ad47ecb32f454079"
    line = (
        '{"inputs": "is it 0: many words", "targets": "yes", "prediction": "a", "score": -1.5, '
        '"target_score": -2.5, "choices": {"yes": -2.5, "nay": -3.0}}\n'
    )
    (tmp_path / "old.jsonl").write_text(line)
    choices = {"yes": -2.5, "nay": -3.0}
    expected = [TaskPrediction("a", -1.5, -2.5, choices)]
    assert read_predictions(tmp_path / "old.jsonl", task) == expected
