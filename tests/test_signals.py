"""What programs that a test starts inherit, however the suite itself was started."""

import signal
import subprocess
import sys

import pytest

from tests.signals import ASKED_TO_LEAVE, defaults_for_children

WAIT = "import time; print('ready', flush=True); time.sleep(60)"


def ended_by(number: int) -> int:
    """The exit code of a program that gets a signal, and is killed if that does not end it."""
    child = subprocess.Popen(
        [sys.executable, "-c", WAIT], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with child:
        assert child.stdout.readline() == "ready\n"
        child.send_signal(number)
        try:
            return child.wait(timeout=0.5 if signal.getsignal(number) is signal.SIG_IGN else 20)
        except subprocess.TimeoutExpired:
            child.kill()
            return child.wait()


@pytest.mark.parametrize("number", ASKED_TO_LEAVE)
def test_children_are_ended_by_signals_that_the_suite_ignores(number):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        assert ended_by(number) == -signal.SIGKILL, "what is ignored is inherited"
        with defaults_for_children():
            assert ended_by(number) == -number
            signal.raise_signal(number)  # and the suite still does as if nothing had come
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_signals_that_are_blocked_reach_children_and_stay_blocked():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ASKED_TO_LEAVE)
    try:
        with defaults_for_children():
            assert ended_by(signal.SIGTERM) == -signal.SIGTERM
        assert set(ASKED_TO_LEAVE) <= signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
