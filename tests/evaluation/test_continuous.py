"""Continuous evaluation: polling for checkpoints, and the best one kept."""

import json
import shutil

import pytest

from t5jax.errors import ConfigError
from t5jax.evaluation import continuous
from t5jax.evaluation.continuous import (
    BestCheckpoint,
    StepDeleted,
    is_committed,
    poll_checkpoints,
)


def make_step(folder, step):
    (folder / str(step) / "state").mkdir(parents=True)
    (folder / str(step) / "state" / "array").write_text(f"of {step}")


def test_steps_come_once_in_order_as_they_appear(tmp_path):
    appear = {2: [30], 4: [50, 40]}  # after so many looks
    looks = []

    def wait(seconds):
        looks.append(seconds)
        for step in appear.get(len(looks), []):
            make_step(tmp_path, step)

    make_step(tmp_path, 10)
    make_step(tmp_path, 20)
    found = list(poll_checkpoints(tmp_path, timeout_seconds=12.0, wait=wait))
    assert found == [10, 20, 30, 40, 50]
    assert sum(looks[4:]) >= 12.0 > sum(looks[5:])


@pytest.fixture
def workdir(tmp_path):
    for step in (10, 20, 30):
        make_step(tmp_path / "checkpoints", step)
    return tmp_path


def kept(workdir):
    folder = workdir / "best"
    steps = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert (folder / "checkpoints" / steps[0] / "state" / "array").read_text() == f"of {steps[0]}"
    return steps, json.loads((folder / "best.json").read_text())["value"]


def test_the_best_is_copied_and_survives_its_deletion(workdir):
    best = BestCheckpoint(workdir, "a/x", "max")
    assert best.update(10, {"a/x": 3.0, "b": 9.0})
    assert kept(workdir) == (["10"], 3.0)
    assert not best.update(20, {"a/x": 3.0})
    again = BestCheckpoint(workdir, "a/x", "max")  # another process, later
    assert again.update(30, {"a/x": 3.5})
    assert kept(workdir) == (["30"], 3.5)


def test_the_lowest_can_be_best(workdir):
    best = BestCheckpoint(workdir, "a/loss", "min")
    values = {10: 3.0, 20: 2.0, 30: 2.5}
    assert [best.update(step, {"a/loss": value}) for step, value in values.items()] == [
        True,
        True,
        False,
    ]
    assert kept(workdir) == (["20"], 2.0)


@pytest.mark.parametrize("mode", ["max", "min"])
def test_nan_is_never_the_best(workdir, mode):
    best = BestCheckpoint(workdir, "a/x", mode)
    assert not best.update(10, {"a/x": float("nan")})
    assert not (workdir / "best").exists()
    assert best.update(20, {"a/x": 2.0})
    assert not best.update(30, {"a/x": float("nan")})
    assert kept(workdir) == (["20"], 2.0)


def test_nan_that_was_kept_before_is_replaced(workdir):
    (workdir / "best" / "checkpoints" / "10").mkdir(parents=True)
    record = '{"step": 10, "metric": "a/x", "mode": "max", "value": NaN}'
    (workdir / "best" / "best.json").write_text(record)
    assert BestCheckpoint(workdir, "a/x", "max").update(20, {"a/x": -3.0})
    assert kept(workdir) == (["20"], -3.0)


def test_another_metric_or_one_that_is_not_there_is_refused(workdir):
    best = BestCheckpoint(workdir, "a/x", "max")
    with pytest.raises(ConfigError, match="--keep-best a/x: the evaluation has a/y, b/z"):
        best.update(10, {"a/y": 1.0, "b/z": 2.0})
    best.update(10, {"a/x": 1.0})
    with pytest.raises(ConfigError, match=r"holds the best by a/x \(max\); delete it first"):
        BestCheckpoint(workdir, "a/x", "min")


@pytest.mark.parametrize("when", ["before", "while", "in part"])
def test_a_step_that_training_deletes_is_passed_over(workdir, monkeypatch, when):
    best = BestCheckpoint(workdir, "a/x", "max")
    assert best.update(10, {"a/x": 3.0})
    step = workdir / "checkpoints" / "20"
    (step / "record").mkdir()
    (step / "record" / "record.json").write_text("{}")
    copytree = shutil.copytree

    def copy(source, target, **options):
        monkeypatch.undo()
        if when == "while":
            shutil.rmtree(step)
        else:
            shutil.rmtree(step / "state")  # copied without an error
        return copytree(source, target, **options)

    if when == "before":
        shutil.rmtree(step)
    else:
        monkeypatch.setattr(continuous.shutil, "copytree", copy)
    with pytest.raises(StepDeleted, match="step 20 is the best so far, but the training run del"):
        best.update(20, {"a/x": 4.0})
    assert kept(workdir) == (["10"], 3.0)
    assert [path.name for path in (workdir / "best").iterdir() if path.name == "unfinished"] == []
    assert is_committed(workdir / "checkpoints", 30)
    assert best.update(30, {"a/x": 3.5}), "better than what is kept"
    assert kept(workdir) == (["30"], 3.5)
