"""`t5jax evaluate` and `train` with metrics that fail: one line each, the rest scored, exit 65."""

import dataclasses
import json
import shutil

import pytest

from t5jax.cli import main
from t5jax.data.benchmarks.glue import TASKS
from t5jax.data.registry import add_task, builtin, names
from t5jax.metrics.classification import accuracy
from t5jax.runtime import ExitCode
from tests.commands import glue_run
from tests.commands.glue_run import config as config
from tests.commands.glue_run import saved as saved

pytestmark = pytest.mark.slow  # units: tests/metrics/test_contract.py, tests/evaluation
(SST2,) = [task for task in TASKS if task.name == "glue_sst2_v002"]
TASK = SST2.name


@pytest.fixture
def run(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(names, "_own", {})
    return shutil.copytree(saved, tmp_path / "run")


def own_task(name, *metrics):
    add_task(dataclasses.replace(SST2, name=name, metrics=metrics))
    return name


def needs_a_package(targets, predictions):
    import a_package_that_is_not_there

    return a_package_that_is_not_there.score(targets, predictions)


def returns_a_float(targets, predictions):
    return 0.5


def asserts(targets, predictions):
    raise AssertionError("rows must come in pairs")


def test_every_failure_is_a_line_and_the_rest_is_scored(run, tmp_path, capsys):
    broken = own_task("broken", asserts, accuracy, needs_a_package, returns_a_float)
    words = ["evaluate", str(run), "--tasks", broken, TASK, "--output", str(tmp_path / "out")]
    assert main(words) == ExitCode.DATA
    said = capsys.readouterr()
    reasons = {
        "asserts": "AssertionError: rows must come in pairs",
        "needs_a_package": "ModuleNotFoundError: No module named 'a_package_that_is_not_there'",
        "returns_a_float": "TypeError: it returned float 0.5, not a mapping {name: number}",
    }
    lines = said.out.splitlines()
    for metric, reason in reasons.items():
        assert f"task broken: its metric {metric} failed: {reason}" in lines
        assert f"its metric {metric} failed: {reason}" in said.err
    assert "Traceback" not in said.err
    scored = [line.split()[:2] for line in lines if " accuracy " in line]
    assert scored == [["broken", "accuracy"], [TASK, "accuracy"]]
    (folder,) = (tmp_path / "out" / "validation").iterdir()
    written = json.loads((folder / "results.json").read_text())
    assert written["error"] == {f"broken/{name}": reason for name, reason in reasons.items()}
    for task in ("broken", TASK):
        predictions = (folder / f"{task}.jsonl").read_text().splitlines()
        assert len(predictions) == glue_run.NUM_EXAMPLES
    assert main([*words, "--json"]) == ExitCode.DATA
    (record,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert record["error"] == written["error"]
    assert record["metrics"].keys() == {"broken/accuracy", f"{TASK}/accuracy"}


def test_a_metric_that_cannot_be_called_is_refused_before_the_model_is_read(run, capsys):
    shutil.rmtree(run / "checkpoints" / "4" / "state")
    task = own_task("three", lambda targets, predictions, contexts: {})
    assert main(["evaluate", str(run), "--step", "4", "--tasks", task]) == ExitCode.CONFIG
    assert "task three: its metric <lambda> takes (targets, predictions, contexts)" in (
        capsys.readouterr().err
    )


def test_nan_first_is_never_the_best(run, capsys):
    values = iter([float("nan"), 30.0])

    @dataclasses.dataclass
    class Drawn:
        """A metric that declares its units, undefined at first."""

        def __call__(self, targets, predictions):
            return self.aggregate(None)

        def units(self, targets, predictions):
            return None

        def statistics(self, targets, predictions):
            return None

        def aggregate(self, statistics):
            return {"pearson": next(values)}

        def notes(self, targets, predictions):
            return []

    task = own_task("drawn", Drawn())
    words = ["--follow", "--keep-best", "drawn/pearson", "--evaluation.bootstrap-samples", "0"]
    assert main(["evaluate", str(run), "--tasks", task, *words]) == 0
    said = capsys.readouterr()
    assert "drawn: pearson is not defined for these predictions (NaN)" in said.out
    assert "step 2 has drawn/pearson NaN: it is not the best" in said.err
    assert json.loads((run / "best" / "best.json").read_text())["value"] == 30.0
    assert [path.name for path in (run / "best" / "checkpoints").iterdir()] == ["4"]


def test_following_goes_on_after_a_failure(run, capsys):
    results = iter([None, {"pearson": 3.0}])
    task = own_task("late", lambda targets, predictions: next(results))
    words = ["--follow", "--keep-best", "late/pearson"]
    assert main(["evaluate", str(run), "--tasks", task, *words]) == 0
    said = capsys.readouterr()
    assert "task late: its metric <lambda> failed: TypeError: it returned nothing" in said.out
    assert "step 2 has no late/pearson, a metric failed: it is not the best" in said.err
    assert json.loads((run / "best" / "best.json").read_text())["step"] == 4


@pytest.mark.slow
def test_training_ends_with_the_failure_when_all_is_saved(config, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(names, "_own", {})
    failing = dataclasses.replace(SST2, metrics=(asserts, accuracy))
    monkeypatch.setitem(builtin.TABLE, TASK, failing)
    flags = ["--workdir", str(tmp_path / "run"), "--evaluation.every-steps", "2"]
    flags += ["--checkpoints.keep-best", "1", "--checkpoints.best-mode", "max"]
    flags += ["--checkpoints.best-metric", f"validation/{TASK}/accuracy"]
    assert main(["train", str(config), *flags]) == ExitCode.DATA
    said = capsys.readouterr().err
    assert f"task {TASK}: its metric asserts failed: AssertionError: rows must come in" in said
    records = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    failed = [r for r in records if r["kind"] == "metric_failed"]
    assert [(r["step"], r["metric"]) for r in failed] == [
        (2, f"validation/{TASK}/asserts"),
        (4, f"validation/{TASK}/asserts"),
    ]
    assert records[-1]["kind"] == "finished"
    assert {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()} >= {"4"}
