"""A bar on a terminal, plain lines elsewhere, at a bounded rate."""

import io
import os
import pty
import sys
import termios
import threading

import pytest

from t5jax.tracking import Tracker, TrackingConfig
from t5jax.tracking.progress import CountProgress, ProgressLines, format_count, format_eta

METRICS = {
    "train/loss": 4.3124,
    "train/text_loss": 4.0099,
    "train/accuracy": 0.21,
    "train/learning_rate": 0.01,
    "train/grad_norm": 0.8,
    "train/param_norm": 512.5,
    "throughput/tokens_per_second_per_device": 12_345.0,
    "throughput/mfu": 0.114,
}


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_plain_line_shows_what_a_person_follows():
    clock, stream = Clock(), io.StringIO()
    lines = ProgressLines(stream, 1000, seconds_between_lines=5.0, clock=clock)
    lines.step(116, METRICS)
    clock.now += 40.0  # four steps of ten seconds; 880 are left
    lines.step(120, METRICS)
    first, second = stream.getvalue().splitlines()
    numbers = (
        "loss 4.312  text_loss 4.010  accuracy 0.210  learning_rate 0.01  grad_norm 0.8  "
        "12.3k tokens/s/device  mfu 11 %"
    )
    assert first == f"step 116/1000  {numbers}  eta ?"
    assert second == f"step 120/1000  {numbers}  eta 2:26:40"


def test_unknown_metrics_are_left_out_and_nan_is_shown():
    stream = io.StringIO()
    lines = ProgressLines(stream, 9, seconds_between_lines=0.0)
    lines.step(1, {"train/loss": float("nan"), "throughput/mfu": None})
    assert stream.getvalue() == "step 1/9  loss nan  eta ?\n"


def test_lines_come_at_a_bounded_rate_with_the_first_and_the_last_step():
    clock, stream = Clock(), io.StringIO()
    lines = ProgressLines(stream, 100, seconds_between_lines=3.0, clock=clock)
    for step in range(1, 101):
        lines.step(step, {"train/loss": 1.0})
        clock.now += 0.125
    steps = [int(line.split("/")[0].split()[1]) for line in stream.getvalue().splitlines()]
    assert steps == [1, 25, 49, 73, 97, 100]


def test_the_last_step_of_a_run_that_stops_early_is_printed_once():
    clock, stream = Clock(), io.StringIO()
    lines = ProgressLines(stream, 100, seconds_between_lines=1e9, clock=clock)
    for step in (1, 2, 3):
        lines.step(step, {"train/loss": float(step)})
    lines.close()
    lines.close()
    assert [line[:10] for line in stream.getvalue().splitlines()] == ["step 1/100", "step 3/100"]


def test_the_time_left_starts_anew_after_a_resume():
    clock, stream = Clock(), io.StringIO()
    lines = ProgressLines(stream, 10, seconds_between_lines=0.0, clock=clock)
    lines.step(8, {})
    lines.restart(2)
    clock.now += 1000.0  # restoring
    lines.step(3, {})
    clock.now += 2.0
    lines.step(4, {})
    assert stream.getvalue().splitlines()[-1] == "step 4/10  eta 0:00:12"


def track_run(workdir, **settings):
    config = TrackingConfig(tensorboard=False, plot=False, **settings)
    with Tracker(workdir, config, num_train_steps=7, is_primary=True) as tracker:
        tracker.event(0, "started", parameters=1234)
        for step in range(1, 8):
            tracker.train(step, METRICS)
            if step == 4:
                tracker.evaluation(4, "validation", {"loss": 3.5, "perplexity": 33.1})
                tracker.event(4, "skipped_bad_step", reason="NaN")
        tracker.event(7, "finished")


def test_elsewhere_than_on_a_terminal_there_is_no_bar(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    track_run(tmp_path, seconds_between_lines=1e9)
    lines = sys.stderr.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "step 0",
        "step 1/7",
        "step 4/7",  # beside the evaluation
        "step 4",
        "step 4",
        "step 7/7",
        "step 7",
    ]
    assert lines[0] == "step 0  started  parameters 1234"
    assert lines[3] == "step 4  eval/validation  loss 3.5  perplexity 33.1"
    assert lines[4] == "step 4  skipped bad step  reason NaN"
    assert "\r" not in sys.stderr.getvalue()
    assert "|" not in sys.stderr.getvalue()


def test_a_run_that_is_preempted_shows_its_last_step_before_saying_so(tmp_path, capfd):
    config = TrackingConfig(tensorboard=False, plot=False, progress="lines")
    with Tracker(tmp_path, config, num_train_steps=99, is_primary=True) as tracker:
        for step in (1, 2, 3):
            tracker.train(step, {"train/loss": 2.0})
        tracker.event(2, "saved")
        tracker.event(3, "preempted")
    lines = [line.split("  ")[:2] for line in capfd.readouterr().err.splitlines()]
    assert lines == [
        ["step 1/99", "loss 2.000"],
        ["step 2", "saved"],
        ["step 3/99", "loss 2.000"],
        ["step 3", "preempted"],
    ]


def test_off_prints_nothing(tmp_path, capfd):
    track_run(tmp_path, progress="off")
    assert capfd.readouterr() == ("", "")


def test_on_a_terminal_there_is_a_bar_with_messages_above_it(tmp_path, monkeypatch):
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 118))
    received = bytearray()

    def drain():
        while b"THE END" not in received:
            received.extend(os.read(master, 4096))

    reader = threading.Thread(target=drain, daemon=True)
    reader.start()
    with open(slave, "w", buffering=1) as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        track_run(tmp_path)
        print("THE END", file=terminal)
        reader.join(timeout=20)
    os.close(master)
    assert not reader.is_alive()
    screen = received.decode()
    assert "100%|" in screen
    assert "| 7/7, loss 4.312  text_loss 4.010  12.3k tokens/s/device  eta 0:00:00" in screen
    lines = [line.split("\r")[-1].strip() for line in screen.split("\r\n")]
    assert "step 4  eval/validation  loss 3.5  perplexity 33.1" in lines
    assert not any("step 7/7" in line for line in lines)


@pytest.mark.parametrize(
    ("value", "text"),
    [(7.5, "7.5"), (999.4, "999"), (999.6, "1.00k"), (12_345, "12.3k"), (999_600, "1.00M"),
     (123_456, "123k"), (4.56e6, "4.56M"), (7e9, "7.00G")],
)  # fmt: skip
def test_counts_have_three_digits_and_a_unit(value, text):
    assert format_count(value) == text


def test_time_left_is_hours_minutes_seconds():
    assert format_eta(192.4) == "eta 0:03:12"
    assert format_eta(None) == "eta ?"


# ---- CountProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def counted(stream, total, steps, **settings) -> str:
    clock = Clock()
    progress = CountProgress(stream, total, "rows", clock=clock, **settings)
    for seconds, done in steps:
        clock.now += seconds
        progress.update(done)
    return stream.getvalue()


def test_count_progress_prints_at_a_bounded_rate_and_the_last():
    steps = [(20, 10), (1, 20), (1, 30), (10, 50), (1, 100)]
    lines = counted(io.StringIO(), 100, steps).splitlines()
    assert lines[0] == "10/100 rows  eta ?"
    assert [line.split()[0] for line in lines] == ["10/100", "50/100", "100/100"]
    assert lines[1] == "50/100 rows  3.33 rows/s  eta 0:00:15"


def test_count_progress_without_a_total_shows_a_rate():
    assert counted(io.StringIO(), None, [(1, 8), (20, 48)]).splitlines()[1] == "48 rows  2 rows/s"


def test_count_progress_excludes_earlier_items_from_the_rate():
    assert "10 rows/s" in counted(io.StringIO(), 1000, [(30, 600), (10, 700)]).splitlines()[1]


def test_patient_count_progress_is_silent_for_fast_work():
    assert counted(io.StringIO(), 3, [(1, 1), (1, 2), (1, 3)], patient=True) == ""
    slow = counted(io.StringIO(), 3, [(9, 1), (9, 2), (1, 3)], patient=True)
    assert [line.split()[0] for line in slow.splitlines()] == ["2/3", "3/3"]


def test_count_progress_on_a_terminal_is_one_line():
    text = counted(Terminal(), 20, [(1, 10), (1, 20)])
    assert text.count("\n") == 1
    assert text.split("\r")[-1].rstrip() == "20/20 rows  10 rows/s  eta 0:00:00"
