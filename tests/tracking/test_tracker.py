"""The tracker as the training loop uses it: what is written, by whom, and what is refused."""

import json

import numpy as np
import pytest

from t5jax.errors import ConfigError
from t5jax.tracking import Tracker, TrackingConfig, current_records, read_metrics


def make_tracker(workdir, *, is_primary=True, num_train_steps=23, **settings):
    settings = {"progress": "off", "tensorboard": False, "plot": False} | settings
    config = TrackingConfig(**settings)
    return Tracker(workdir, config, num_train_steps=num_train_steps, is_primary=is_primary)


def test_every_line_is_one_record(tmp_path):
    with make_tracker(tmp_path) as tracker:
        tracker.event(0, "started", parameters=np.int64(77))
        tracker.train(
            1, {"train/loss": np.float32(0.1), "throughput/mfu": None, "train/tokens": 512}
        )
        tracker.evaluation(1, "validation", {"loss": np.float32(0.2)})
        tracker.event(1, "saved", path=tmp_path / "checkpoints" / "1")
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        assert line.pop("time") > 1.6e9
    loss, other = float(np.float32(0.1)), float(np.float32(0.2))
    checkpoint = str(tmp_path / "checkpoints" / "1")
    assert lines == [
        {"kind": "started", "step": 0, "parameters": 77},
        {
            "kind": "train", "step": 1, "train/loss": loss, "throughput/mfu": None,
            "train/tokens": 512, "train/loss_hex": loss.hex(),
        },
        {
            "kind": "evaluation", "step": 1, "split": "validation",
            "eval/validation/loss": other, "eval/validation/loss_hex": other.hex(),
        },
        {"kind": "saved", "step": 1, "path": checkpoint},
    ]  # fmt: skip


def test_what_is_only_said_is_not_recorded(tmp_path, capfd):
    with make_tracker(tmp_path, progress="lines") as tracker:
        tracker.message("workdir runs/x")
    assert capfd.readouterr() == ("", "workdir runs/x\n")
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_log_every_steps_keeps_the_first_and_the_last_step(tmp_path):
    with make_tracker(tmp_path, log_every_steps=10) as tracker:
        assert [step for step in range(1, 24) if tracker.due(step)] == [1, 10, 20, 23]
        for step in range(1, 24):
            tracker.train(step, {"train/loss": 1.0})
    assert [r["step"] for r in read_metrics(tmp_path / "metrics.jsonl")] == [1, 10, 20, 23]


def test_a_resumed_run_appends_and_the_last_life_counts(tmp_path):
    tracker = make_tracker(tmp_path)
    for step in range(1, 6):
        tracker.train(step, {"train/loss": float(step)})
    # Killed: never closed. Every step is on disk all the same.
    with make_tracker(tmp_path) as second:
        second.event(3, "resumed", path="checkpoints/3")
        second.train(4, {"train/loss": 40.0})
    records = read_metrics(tmp_path / "metrics.jsonl")
    assert [r["step"] for r in records] == [1, 2, 3, 4, 5, 3, 4]
    losses = [r["train/loss"] for r in current_records(records) if r["kind"] == "train"]
    assert losses == [1.0, 2.0, 3.0, 40.0]
    tracker.close()


def test_other_processes_write_and_print_nothing(tmp_path, capfd):
    config = TrackingConfig(progress="lines")
    workdir = tmp_path / "run"
    with Tracker(workdir, config, num_train_steps=2, is_primary=False) as tracker:
        tracker.message("nothing")
        tracker.event(0, "started")
        tracker.train(1, {"train/loss": 1.0})
        tracker.evaluation(1, "validation", {"loss": 1.0})
        assert tracker.plot() is None
    assert not workdir.exists()
    assert capfd.readouterr() == ("", "")


def test_closing_draws_the_curve_once(tmp_path):
    tracker = make_tracker(tmp_path, plot=True)
    tracker.train(1, {"train/loss": 1.0})
    tracker.close()
    (tmp_path / "loss.png").unlink()
    tracker.close()
    assert not (tmp_path / "loss.png").exists()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"log_every_steps": 0}, "log_every_steps = 0"),
        ({"seconds_between_lines": -1.0}, "seconds_between_lines = -1.0"),
        ({"seconds_between_lines": float("nan")}, "seconds_between_lines = nan"),
        ({"progress": "loud"}, "progress = 'loud'"),
        ({"wandb_project": ""}, "wandb_project = ''"),
    ],
)
def test_bad_settings_are_refused_by_name(settings, named):
    with pytest.raises(ConfigError, match=f"tracking.{named}"):
        TrackingConfig(**settings)


def test_s3_cannot_be_the_workdir():
    with pytest.raises(ConfigError, match=r"s3://bucket/run.*Orbax.* does not take s3://"):
        make_tracker("s3://bucket/run")


def test_a_workdir_that_cannot_be_written_is_an_os_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        make_tracker(tmp_path / "file" / "run")


@pytest.mark.parametrize("value", [-1, 15, 5])
def test_norms_that_would_not_be_logged_are_refused(value):
    with pytest.raises(ConfigError, match=rf"norms_every_steps = {value}: must be a multiple of"):
        TrackingConfig(norms_every_steps=value, log_every_steps=10)
    assert TrackingConfig(norms_every_steps=20, log_every_steps=10).norms_every_steps == 20
