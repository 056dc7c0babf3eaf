"""TensorBoard event files as TensorBoard reads them; wandb as it is called."""

import importlib.util
import math
import subprocess
import sys
import types

import pytest

from t5jax.errors import ConfigError
from t5jax.tracking import Tracker, TrackingConfig
from t5jax.tracking.writers import TensorBoardWriter


@pytest.fixture
def read_events(monkeypatch):
    # The reader would load TensorFlow where it is installed; this name is TensorBoard's switch.
    monkeypatch.setitem(sys.modules, "tensorboard.compat.notf", types.ModuleType("notf"))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def read(directory):
        events = EventAccumulator(str(directory))
        events.Reload()
        return {
            tag: [(scalar.step, scalar.value) for scalar in events.Scalars(tag)]
            for tag in events.Tags()["scalars"]
        }

    return read


def test_tensorboard_reads_what_was_written(tmp_path, read_events):
    writer = TensorBoardWriter(tmp_path)
    writer.scalars(1, {"train/loss": 4.25, "train/mfu": 0.5})
    writer.scalars(3, {"train/loss": math.nan})
    assert read_events(tmp_path)["train/loss"][0] == (
        1,
        4.25,
    )  # before close: kill -9 loses nothing
    writer.close()
    events = read_events(tmp_path)
    assert events["train/mfu"] == [(1, 0.5)]
    assert events["train/loss"][0] == (1, 4.25)
    assert events["train/loss"][1][0] == 3
    assert math.isnan(events["train/loss"][1][1])


def test_a_restart_makes_tensorboard_drop_later_steps(tmp_path, read_events):
    first = TensorBoardWriter(tmp_path)
    for step in range(1, 6):
        first.scalars(step, {"train/loss": float(step)})
    second = TensorBoardWriter(tmp_path)  # the first was killed and never closed
    second.restart(2)
    second.scalars(3, {"train/loss": 30.0})
    second.close()
    assert len(list(tmp_path.iterdir())) == 2
    assert read_events(tmp_path)["train/loss"] == [(1, 1.0), (2, 2.0), (3, 30.0)]


def test_tracker_writes_finite_and_other_numbers_under_groups(tmp_path, read_events):
    config = TrackingConfig(progress="off", plot=False)
    with Tracker(tmp_path, config, num_train_steps=7, is_primary=True) as tracker:
        tracker.train(1, {"train/loss": 2.5, "throughput/mfu": None})
        tracker.evaluation(1, "validation", {"loss": 2.75, "rows": 24})
    events = read_events(tmp_path / "tensorboard")
    assert events == {
        "train/loss": [(1, 2.5)],
        "eval/validation/loss": [(1, 2.75)],
        "eval/validation/rows": [(1, 24.0)],
    }


def test_tracking_a_whole_run_loads_neither_tensorflow_nor_jax(tmp_path):
    assert importlib.util.find_spec("jax") is not None
    program = """
import sys
from t5jax.tracking import Tracker, TrackingConfig
with Tracker(sys.argv[1], TrackingConfig(), num_train_steps=3, is_primary=True) as tracker:
    for step in (1, 2, 3):
        tracker.train(step, {"train/loss": 1.0 / step})
print(sorted({"tensorflow", "jax", "wandb", "seqio"} & sys.modules.keys()))
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1
    assert (tmp_path / "loss.png").exists()


def test_wandb_wanted_but_missing_is_refused_on_every_host(tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    missing = lambda name, *rest: None if name == "wandb" else find_spec(name, *rest)
    monkeypatch.setattr(importlib.util, "find_spec", missing)
    config = TrackingConfig(wandb_project="t5", progress="off")
    for is_primary in (True, False):
        with pytest.raises(ConfigError, match=r"pip install 't5jax\[wandb\]'"):
            Tracker(tmp_path, config, num_train_steps=1, is_primary=is_primary)
    assert list(tmp_path.iterdir()) == []


class FakeRun:
    def __init__(self):
        self.logged, self.finished = [], False

    def define_metric(self, name, step_metric=None):
        pass

    def log(self, values):
        self.logged.append(values)

    def finish(self):
        self.finished = True


def test_wandb_gets_metrics_only_and_resumes_its_run(tmp_path, monkeypatch):
    runs = []

    def init(**arguments):
        runs.append((arguments, FakeRun()))
        return runs[-1][1]

    fake = types.ModuleType("wandb")
    fake.__spec__ = importlib.util.spec_from_loader("wandb", loader=None)
    fake.init, fake.Settings = init, lambda **settings: settings
    monkeypatch.setitem(sys.modules, "wandb", fake)
    config = TrackingConfig(wandb_project="t5", tensorboard=False, progress="off", plot=False)
    for start in (1, 2):
        with Tracker(tmp_path, config, num_train_steps=9, is_primary=True) as tracker:
            if start > 1:
                tracker.event(start - 1, "resumed", path="somewhere")
            tracker.train(start, {"train/loss": 0.5})
    (first, run), (second, rerun) = runs
    assert first == second  # the id above all
    assert first["project"] == "t5"
    assert first["resume"] == "allow"
    assert "config" not in first
    assert first["settings"]["disable_git"]
    assert first["settings"]["x_disable_meta"]
    assert run.logged == [{"step": 1, "train/loss": 0.5}]
    assert rerun.logged == [{"step": 1, "resumed": 1}, {"step": 2, "train/loss": 0.5}]
    assert run.finished
    assert rerun.finished


def test_wandb_itself_accepts_the_settings(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    config = TrackingConfig(wandb_project="t5", tensorboard=False, progress="off", plot=False)
    with Tracker(tmp_path, config, num_train_steps=9, is_primary=True) as tracker:
        tracker.train(1, {"train/loss": 0.5})
        tracker.event(0, "resumed")
        tracker.train(1, {"train/loss": 0.5})
    (run,) = tmp_path.glob("wandb/offline-run-*")
    assert list((run / "files").iterdir()) == []  # no environment, no source, no command line
