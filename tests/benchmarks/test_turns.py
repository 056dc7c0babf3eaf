"""Benchmarks' turns: CPU time of other processes, which rounds count, medians and ratios."""

import subprocess
import sys
import time

import pytest

from benchmarks import turns
from benchmarks.turns import Rounds, Stopwatch, Turn, process_seconds


@pytest.mark.skipif(not turns._STAT.exists(), reason="needs /proc")
def test_cpu_time_of_another_process_is_others_unless_it_is_ones_own():
    spinner = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.2)  # past its start
        with Stopwatch() as all_others, Stopwatch([spinner.pid]) as but_it:
            before = process_seconds(spinner.pid)
            time.sleep(0.6)
            spent = process_seconds(spinner.pid) - before
        assert spent > 0.1
        cores = spent / (all_others.others - but_it.others) / all_others.seconds
        assert cores == pytest.approx(turns.num_cores(), rel=0.3)  # clocks tick every 10 ms
    finally:
        spinner.kill()
        spinner.wait()


def test_where_nothing_is_recorded_nobody_is_accused(monkeypatch, tmp_path):
    monkeypatch.setattr(turns, "_STAT", tmp_path / "stat")
    with Stopwatch() as watch:
        pass
    assert watch.others is None
    rounds = Rounds(["a"]).take({"a": lambda: Turn(1.0, None)}, wanted=3)
    assert len(rounds.clean) == rounds.tried == 3
    assert "not known" in rounds.cleanness()


def sides(*shares):
    """Two sides whose turns take 1, 2, 3 … and 2, 5, 8 … seconds; `shares` are the first's."""
    given = iter(range(len(shares)))
    numbers = []

    def first():
        numbers.append(next(given))
        return Turn(1.0 + numbers[-1], shares[numbers[-1]])

    return {"a": first, "b": lambda: Turn(2.0 + 3 * numbers[-1], 0.01)}


def test_rounds_with_a_dirty_turn_do_not_count():
    taking = sides(0.0, 0.2, 0.04, 0.06, 0.05)
    rounds = Rounds(taking).take(taking, wanted=3)
    assert rounds.seconds("a") == [1.0, 3.0, 5.0]
    assert rounds.seconds("b") == [2.0, 8.0, 14.0]
    assert rounds.median("b") == 8.0
    assert rounds.ratios("b", "a") == pytest.approx([2.0, 8 / 3, 14 / 5])
    assert (rounds.dirty, rounds.cleanness()) == (2, "3 of 5 rounds clean")
    assert rounds.as_json()["clean_rounds"] == 3


def test_a_busy_machine_is_given_up_after_three_times_as_many():
    taking = sides(*[0.5] * 6)
    rounds = Rounds(taking).take(taking, wanted=2)
    assert rounds.tried == 6
    assert rounds.clean == []
    assert rounds.cleanness() == "0 of 6 rounds clean"


def test_spread_is_median_and_range():
    assert turns.spread([3.0, 1.0, 2.0]) == "2.00 (1.00 to 3.00)"
