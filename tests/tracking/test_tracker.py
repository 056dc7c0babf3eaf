"""The reporter as the training loop uses it: what is written, by whom, and what is refused."""

import json

import numpy as np
import pytest

from t5jax.errors import ConfigError
from t5jax.tracking import Reporter, ReportingConfig, current_records, read_metrics


def make_reporter(workdir, *, is_primary=True, num_train_steps=23, **settings):
    settings = {"progress": "off", "tensorboard": False, "plot": False} | settings
    config = ReportingConfig(**settings)
    return Reporter(workdir, config, num_train_steps=num_train_steps, is_primary=is_primary)


def test_every_line_is_one_record(tmp_path):
    with make_reporter(tmp_path) as reporter:
        reporter.event(0, "started", parameters=np.int64(77))
        reporter.train(1, {"loss": np.float32(0.1), "mfu": None, "tokens": 512})
        reporter.evaluation(1, "validation", {"loss": np.float32(0.2)})
        reporter.event(1, "saved", path=tmp_path / "checkpoints" / "1")
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        assert line.pop("time") > 1.6e9
    loss, other = float(np.float32(0.1)), float(np.float32(0.2))
    checkpoint = str(tmp_path / "checkpoints" / "1")
    assert lines == [
        {"kind": "started", "step": 0, "parameters": 77},
        {
            "kind": "train", "step": 1, "loss": loss, "mfu": None, "tokens": 512,
            "loss_hex": loss.hex(),
        },
        {
            "kind": "evaluation", "step": 1, "split": "validation", "loss": other,
            "loss_hex": other.hex(),
        },
        {"kind": "saved", "step": 1, "path": checkpoint},
    ]  # fmt: skip


def test_what_is_only_said_is_not_recorded(tmp_path, capfd):
    with make_reporter(tmp_path, progress="lines") as reporter:
        reporter.say("workdir runs/x")
    assert capfd.readouterr() == ("", "workdir runs/x\n")
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_log_every_steps_keeps_the_first_and_the_last_step(tmp_path):
    with make_reporter(tmp_path, log_every_steps=10) as reporter:
        assert [step for step in range(1, 24) if reporter.due(step)] == [1, 10, 20, 23]
        for step in range(1, 24):
            reporter.train(step, {"loss": 1.0})
    assert [r["step"] for r in read_metrics(tmp_path / "metrics.jsonl")] == [1, 10, 20, 23]


def test_a_resumed_run_appends_and_the_last_life_counts(tmp_path):
    reporter = make_reporter(tmp_path)
    for step in range(1, 6):
        reporter.train(step, {"loss": float(step)})
    # Killed: never closed. Every step is on disk all the same.
    with make_reporter(tmp_path) as second:
        second.event(3, "resumed", path="checkpoints/3")
        second.train(4, {"loss": 40.0})
    records = read_metrics(tmp_path / "metrics.jsonl")
    assert [r["step"] for r in records] == [1, 2, 3, 4, 5, 3, 4]
    losses = [r["loss"] for r in current_records(records) if r["kind"] == "train"]
    assert losses == [1.0, 2.0, 3.0, 40.0]
    reporter.close()


def test_other_processes_write_and_print_nothing(tmp_path, capfd):
    config = ReportingConfig(progress="lines")
    workdir = tmp_path / "run"
    with Reporter(workdir, config, num_train_steps=2, is_primary=False) as reporter:
        reporter.say("nothing")
        reporter.event(0, "started")
        reporter.train(1, {"loss": 1.0})
        reporter.evaluation(1, "validation", {"loss": 1.0})
        assert reporter.plot() is None
    assert not workdir.exists()
    assert capfd.readouterr() == ("", "")


def test_closing_draws_the_curve_once(tmp_path):
    reporter = make_reporter(tmp_path, plot=True)
    reporter.train(1, {"loss": 1.0})
    reporter.close()
    (tmp_path / "loss.png").unlink()
    reporter.close()
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
    with pytest.raises(ConfigError, match=f"reporting.{named}"):
        ReportingConfig(**settings)


@pytest.mark.parametrize("workdir", ["gs://bucket/run", "s3://bucket/run"])
def test_an_object_store_cannot_be_the_workdir(workdir):
    with pytest.raises(ConfigError, match="object store"):
        make_reporter(workdir)


def test_a_workdir_that_cannot_be_written_is_an_os_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        make_reporter(tmp_path / "file" / "run")
