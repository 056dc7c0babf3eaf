"""The kill test of a self-test: what it compares, and that its programs are alone; a whole one runs
every night."""

import os

import pytest

from t5jax.selftest import Outcome, kill_test
from t5jax.selftest.kill_test import KillTest, Loss, compare, kill_and_resume


def lines(*pairs):
    return [Loss(step, bits) for step, bits in pairs]


WHOLE = lines((1, "a"), (2, "b"), (3, "c"))


@pytest.mark.parametrize(
    ("killed", "expected"),
    [
        (lines((1, "a"), (2, "b"), (1, "a"), (2, "b"), (3, "c")), KillTest(7, 5, 0, 0)),
        (lines((1, "a"), (2, "x"), (2, "b"), (3, "c")), KillTest(7, 4, 1, 0)),
        (lines((1, "a"), (3, "c")), KillTest(7, 2, 0, 1)),
        (lines((1, "a"), (2, "b"), (3, "c"), (4, "d")), KillTest(7, 4, 1, 0)),
    ],
)
def test_every_line_is_compared_and_every_step_is_there(killed, expected):
    found = compare(7, WHOLE, killed, steps=3)
    assert found == expected
    assert found.problem == (found[2:] != (0, 0))


def test_a_whole_run_that_is_not_whole_is_a_problem():
    assert compare(1, WHOLE[:2], WHOLE, steps=3) == KillTest(1, 3, 1, 1)


def test_its_programs_know_of_no_other_host(monkeypatch):
    monkeypatch.setenv("T5JAX_COORDINATOR", "somewhere:1")
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_enable_x=1")
    environment = kill_test._environment()
    assert "T5JAX_COORDINATOR" not in environment
    assert "gpu" not in environment["XLA_FLAGS"]
    assert environment["JAX_PLATFORMS"] == "cpu"
    assert environment["PATH"] == os.environ["PATH"]


@pytest.mark.slow
def test_a_run_that_cannot_begin_fails_with_what_it_said(monkeypatch, tmp_path):
    monkeypatch.setattr(kill_test, "_CONFIG", "no Python at all")
    from t5jax.runtime import Watchdog

    with Watchdog(100.0) as watchdog:
        check = kill_test.check_kills(str(tmp_path), 1, watchdog)
    assert (check.outcome, check.code) == (Outcome.FAILED, 70)
    assert "ended with 64" in check.value
    assert "SyntaxError" in check.value
    assert os.listdir(tmp_path) == []


@pytest.mark.long  # four starts of JAX and more
@pytest.mark.slow
def test_kills_change_no_loss(tmp_path, long_trials):
    number = 20 if long_trials else 2
    found = kill_and_resume(str(tmp_path), number)
    assert found.kills == number
    assert not found.problem, found
    assert found.loss_lines > 30 * (number + 1), "steps were done again"
    assert os.listdir(tmp_path) == []
