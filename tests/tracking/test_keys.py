"""Keys of metrics.jsonl: a file that version 0.1 wrote, resumed, reads as one of today's."""

import json
import math
import pathlib
import shutil

from t5jax.tracking import Tracker, TrackingConfig, current_records, read_metrics
from t5jax.tracking.keys import with_current_keys
from t5jax.tracking.plots import plot_run
from tests.tracking.test_plots import pixels_of

# Nine steps of a run with two tasks, evaluated every two steps, resumed once.
OLD = pathlib.Path(__file__).parents[1] / "golden" / "metrics_v0_1.jsonl"


def by_place(records, kind):
    return {(r["step"], r.get("split")): r for r in records if r["kind"] == kind}


def test_records_of_version_0_1_have_the_keys_of_today():
    raw = [json.loads(line) for line in OLD.read_text().splitlines()]
    new = read_metrics(OLD)
    assert len(new) == len(raw) > 30
    for before, record in zip(raw, new, strict=True):
        assert list(before.values()) == list(record.values())
    assert new[0]["mixture/weight/golden_reviews"] == raw[0]["share of rows of golden_reviews"]
    assert new[0]["parameters"] == raw[0]["parameters"]
    old, step = by_place(raw, "train")[2, None], by_place(new, "train")[2, None]
    assert float.fromhex(step["train/loss_hex"]) == step["train/loss"] == old["loss"]
    assert step["train/learning_rate"] == old["learning_rate"]
    assert step["throughput/mfu"] is None
    rate = "tokens_per_second_per_device"
    assert step[f"throughput/{rate}"] == old[rate] > 0
    assert step["task/golden_reviews/loss"] == old["task/golden_reviews/loss"]
    assert all("/" in key for key in step if key not in ("kind", "step", "time"))
    for place, record in by_place(new, "evaluation").items():
        names = [key for key in record if key not in ("kind", "step", "time", "split")]
        assert names
        assert all(name.startswith(f"eval/{place[1]}/") for name in names)
    assert new[-1] == raw[-1], "an event"


def test_the_keys_of_today_stay(tmp_path):
    config = TrackingConfig(tensorboard=False, plot=False, progress="off")
    with Tracker(tmp_path, config, num_train_steps=2, is_primary=True) as tracker:
        tracker.event(0, "started", **{"mixture/weight/a": 0.5, "parameters": 3})
        tracker.train(1, {"train/loss": 0.5, "throughput/mfu": 0.25, "task/a/loss": math.inf})
        tracker.evaluation(1, "validation/a", {"loss": 0.5, "f1": 0.75})
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        assert with_current_keys(json.loads(line)) == json.loads(line)


def test_a_run_of_version_0_1_that_goes_on_is_read_and_drawn_as_one(tmp_path):
    shutil.copy(OLD, tmp_path / "metrics.jsonl")
    config = TrackingConfig(tensorboard=False, plot=False, progress="off")
    with Tracker(tmp_path, config, num_train_steps=10, is_primary=True) as tracker:
        tracker.event(8, "resumed")
        tracker.train(9, {"train/loss": 2.0, "train/text_loss": 1.5, "train/learning_rate": 0.1})
        tracker.evaluation(9, "validation", {"loss": 2.25})
    records = current_records(read_metrics(tmp_path / "metrics.jsonl"))
    steps = by_place(records, "train")
    assert [step for step, _ in steps] == list(range(1, 10))
    assert all(record["train/loss"] > 0 for record in steps.values())
    assert steps[9, None]["train/loss"] == 2.0
    evaluations = by_place(records, "evaluation")
    assert evaluations[8, "validation"]["eval/validation/loss"] > 2.5
    assert evaluations[9, "validation"]["eval/validation/loss"] == 2.25
    png = plot_run(tmp_path)
    for drawn in ("#3465a4", "#c4622d", "#7a7a7a", "#2e7d32"):  # losses, rate, an evaluation
        assert pixels_of(png, drawn) > 40, drawn
