"""When a run saves: by steps, at named steps, by minutes, and the same on all hosts."""

import pytest

from t5jax.checkpoints import CheckpointConfig, schedule
from t5jax.checkpoints.schedule import SaveSchedule
from t5jax.errors import ConfigError


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def saved(config: CheckpointConfig, seconds: list[float]) -> list[int]:
    """The steps that are saved, of steps that take so many seconds."""
    clock = Clock()
    asked, found = SaveSchedule(config, clock), []
    for step, passed in enumerate(seconds, start=1):
        clock.now += passed
        if asked.due(step):
            found.append(step)
    return found


def test_steps_and_named_steps():
    config = CheckpointConfig(save_every_steps=4, keep_steps=(6, 7, 12))
    assert saved(config, [1.0] * 14) == [4, 6, 7, 8, 12]


def test_minutes_are_counted_from_the_last_save():
    config = CheckpointConfig(save_every_steps=10, save_every_minutes=0.5)
    assert saved(config, [7.0] * 23) == [5, 10, 15, 20]
    assert saved(config, [1.0] * 10 + [13.0] * 9) == [10, 13, 16, 19]
    assert saved(config, [40.0] * 3) == [1, 2, 3]
    assert saved(CheckpointConfig(), [1000.0] * 5) == []


@pytest.mark.parametrize(
    ("seconds", "minutes", "asked_at_most", "late"),
    [
        ([2.0] * 2000, 10, 170, 0),  # 300 steps: 6 saves
        ([900.0] + [2.0] * 2000, 10, 170, 0),  # the first one compiles
        ([1.0] * 500 + [60.0] + [3.0] * 1500, 10, 250, 0),  # evaluation; then slower
        ([0.01] * 30000, 2, 80, 1),
    ],
)
def test_hosts_save_at_one_step_by_the_first_one_s_clock(
    monkeypatch, seconds, minutes, asked_at_most, late
):
    monkeypatch.setattr(schedule.jax, "process_count", lambda: 2)
    config = CheckpointConfig(save_every_steps=10**6, save_every_minutes=minutes)
    said: dict[int, list] = {}
    first, second = Host(config, said), Host(config, said)
    monkeypatch.setattr(schedule, "of_first_host", first.hear)
    last = first.clock.now
    for passed in seconds:
        if first.saves_after(passed):
            over = first.clock.now - last - minutes * 60
            assert 0 <= over <= passed * (1 + late), (first.step, over)
            last = first.clock.now
    monkeypatch.setattr(schedule, "of_first_host", second.hear)
    for passed in seconds:
        second.saves_after(1.3 * passed)
    assert first.asked == second.asked, "both talk at the same steps"
    assert len(first.asked) < asked_at_most
    assert first.saved == second.saved
    assert len(first.saved) >= 2


class Host:
    """One of two hosts, each with a clock of its own; both hear what the first one said."""

    def __init__(self, config: CheckpointConfig, said: dict[int, list]):
        self.clock, self.said = Clock(), said
        self.schedule = SaveSchedule(config, self.clock)
        self.step, self.asked, self.saved = 0, [], []

    def hear(self, value: list) -> list:
        self.asked.append(self.step)
        return self.said.setdefault(self.step, value)

    def saves_after(self, passed: float) -> bool:
        self.clock.now += passed
        self.step += 1
        due = self.schedule.due(self.step)
        self.saved += [self.step] * due
        return due


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"save_every_minutes": 0.0}, "save_every_minutes=0.0: must be more than 0, or None"),
        ({"save_every_minutes": float("nan")}, "save_every_minutes=nan: must be more"),
        ({"keep_steps": (4, -1)}, r"keep_steps=\(4, -1\): must be 0 or more"),
    ],
)
def test_settings_are_checked(values, message):
    with pytest.raises(ConfigError, match=message):
        CheckpointConfig(**values)
