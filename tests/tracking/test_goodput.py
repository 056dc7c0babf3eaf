"""Where the wall time of a run goes: the parts add up, over kills and restarts."""

import contextlib
import json

import pytest

from t5jax.tracking import Goodput, Tracker, TrackingConfig
from t5jax.tracking.goodput import PARTS, past_parts


class Clock:
    def __init__(self, now: float):
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    """The time of day, for what is logged and for what is counted."""
    clock = Clock(1_800_000_000.0)
    monkeypatch.setattr("t5jax.tracking.jsonl.time.time", clock)
    return clock


class Process:
    """A process of a run whose every second is known."""

    def __init__(self, workdir, clock: Clock):
        self.clock = clock
        self.goodput = Goodput(clock=clock)
        config = TrackingConfig(progress="off", tensorboard=False, plot=False)
        self.tracker = Tracker(
            workdir, config, num_train_steps=99, is_primary=True, goodput=self.goodput
        )

    def begin(self, step: int, seconds: float) -> None:
        self.clock.now += seconds
        self.tracker.event(step, "resumed" if step else "started")
        self.tracker.begin(step)

    def spend(self, part: str, seconds: float) -> None:
        with self.goodput.part(part):
            self.clock.now += seconds


def spent(workdir) -> dict[str, float]:
    """The parts by the last record, but for those of no time."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    last = [json.loads(line) for line in lines if line.startswith('{"kind": "goodput"')][-1]
    found = {key.removeprefix("goodput/"): last[key] for key in last if "goodput/" in key}
    return {name: seconds for name, seconds in found.items() if seconds}


def test_parts_within_parts_are_counted_once(clock):
    goodput = Goodput(clock=clock)
    clock.now += 3
    goodput.begin()
    clock.now += 0.25
    with goodput.part("evaluation"):
        clock.now += 5
        with goodput.part("save"):
            clock.now += 7
        clock.now += 11
    with contextlib.suppress(KeyError), goodput.part("step"):
        clock.now += 13
        raise KeyError
    clock.now += 0.5
    metrics = goodput.metrics()
    assert metrics.pop("goodput/wall") == 39.75
    found = {"init": 3, "evaluation": 16, "save": 7, "step": 13, "other": 0.75}
    assert metrics == {f"goodput/{name}": found.get(name, 0) for name in PARTS}
    said = goodput.table().splitlines()
    assert said[0] == "wall time 39.8 s, of which"
    assert [line.split()[0] for line in said[1:]] == [
        "evaluation",
        "train",
        "saving",
        "start,",
        "other",
    ]
    assert said[1].split()[-1] == "40.3%"


def test_a_killed_run_that_resumes_accounts_for_every_second(tmp_path, clock):
    born = clock.now
    first = Process(tmp_path, clock)
    first.begin(0, 4)
    first.spend("compile", 30)
    first.spend("step", 50)
    first.tracker.time_spent(10)
    first.spend("save", 2)  # after the record: the next process does not know of it
    first.spend("step", 17)
    first.tracker.train(13, {"train/loss": 1.0})
    clock.now += 100  # killed: nobody knows when, and nothing runs
    second = Process(tmp_path, clock)  # dies before it saves anything
    second.begin(10, 5)
    second.spend("compile", 31)
    second.tracker.train(11, {"train/loss": 1.0})
    clock.now += 1000
    third = Process(tmp_path, clock)
    third.begin(10, 6)
    assert spent(tmp_path) == {
        "init": 10, "compile": 30, "step": 50, "lost": 19 + 36, "down": 1100,
        "wall": clock.now - born,
    }  # fmt: skip
    third.spend("data", 3)
    third.tracker.end(20, "finished")
    assert spent(tmp_path)["wall"] == clock.now - born
    assert spent(tmp_path)["data"] == 3


def test_a_run_that_falls_back_to_an_older_step_loses_what_came_after(tmp_path, clock):
    first = Process(tmp_path, clock)
    first.begin(0, 1)
    for step in (5, 10):
        first.spend("step", 100)
        first.tracker.time_spent(step)
    second = Process(tmp_path, clock)
    second.begin(5, 2)
    assert spent(tmp_path) == {"init": 3, "step": 100, "lost": 100, "wall": 203}
    third = Process(tmp_path, clock)  # the step 5 is gone, too: from the beginning
    third.begin(0, 4)
    assert spent(tmp_path) == {"init": 4, "lost": 203, "wall": 207}


def test_runs_of_before_count_from_where_they_are_resumed(tmp_path, clock):
    with open(tmp_path / "metrics.jsonl", "w") as file:
        file.write('{"kind": "saved", "step": 4, "time": 1795988445.901}\n')
    process = Process(tmp_path, clock)
    process.begin(4, 9)
    assert spent(tmp_path) == {"init": 9, "wall": 9}


def test_a_torn_line_and_one_without_time_are_passed_over(tmp_path, clock):
    process = Process(tmp_path, clock)
    process.begin(0, 1)
    process.spend("step", 7)
    process.tracker.time_spent(3)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"kind": "saved", "step": 3, "time": true}\n{"kind": "goodput", "st')
    parts = past_parts(tmp_path / "metrics.jsonl", 3, clock.now + 2)
    assert {name: x for name, x in parts.items() if x} == {"init": 1, "step": 7, "down": 2}
