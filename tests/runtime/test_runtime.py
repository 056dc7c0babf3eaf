"""Start, agreement, preemption, watchdog and exit codes in one process; several: multiprocess/."""

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from t5jax import runtime
from t5jax.checkpoints import CheckpointWriteError, NoUsableCheckpoint
from t5jax.errors import CheckpointError, ConfigError, DataError
from t5jax.runtime import RuntimeConfig, exits, lifeline, watchdog

pytestmark = pytest.mark.usefixtures("default_signals")


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for name in ("T5JAX_COORDINATOR", "T5JAX_NUM_PROCESSES", "T5JAX_PROCESS_ID"):
        monkeypatch.delenv(name, raising=False)


def python(script: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_alone_without_flags_or_cluster():
    assert runtime.start_distributed(RuntimeConfig()) == 1
    assert runtime.start_distributed(RuntimeConfig(detect_cluster=False)) == 1


@pytest.mark.parametrize(
    ("flags", "variables", "message"),
    [
        ({"num_processes": 2}, {}, "num_processes given but not coordinator_address, process_id"),
        ({}, {"T5JAX_PROCESS_ID": "1"}, "process_id given but not coordinator_address, num_proc"),
        ({"process_id": 2}, {"T5JAX_COORDINATOR": "h:1", "T5JAX_NUM_PROCESSES": "2"}, "below"),
        ({}, {"T5JAX_NUM_PROCESSES": "two"}, "T5JAX_NUM_PROCESSES='two': must be a whole"),
        (
            {"num_processes": 2, "process_id": 0},
            {"T5JAX_COORDINATOR": "nowhere"},
            "coordinator_address='nowhere': must be HOST:PORT",
        ),
    ],
)
def test_wrong_or_partial_flags_are_refused(monkeypatch, flags, variables, message):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message):
        runtime.start_distributed(RuntimeConfig(**flags))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"heartbeat_timeout_seconds": 0}, "heartbeat_timeout_seconds=0"),
        ({"step_timeout_seconds": -1}, "step_timeout_seconds=-1"),
        ({"coordinator_address": "host:99999"}, "coordinator_address='host:99999'"),
    ],
)
def test_settings_are_checked(values, message):
    with pytest.raises(ConfigError, match=message):
        RuntimeConfig(**values)


def test_nothing_imports_jax_before_it_is_needed():
    script = "import sys, t5jax.runtime; sys.exit('jax' in sys.modules)"
    assert python(script).returncode == 0


def test_one_process_agrees_with_itself(tmp_path):
    runtime.agree("config", "anything")
    assert runtime.gather_texts("ä") == ["ä"]
    assert runtime.of_first_host({"ä": [1, None]}) == {"ä": [1, None]}
    runtime.check_shared_directory(tmp_path / "new" / "run")
    assert list((tmp_path / "new" / "run").iterdir()) == []


def test_workdir_that_cannot_be_made_is_a_write_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError) as caught:
        runtime.check_shared_directory(tmp_path / "file" / "run")
    assert caught.value.errno == errno.ENOTDIR


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 64),
        (DataError("x"), 65),
        (runtime.TooManyBadSteps("x"), 65),
        (CheckpointError("x"), 66),
        (NoUsableCheckpoint("x"), 66),
        (OSError(errno.ENOSPC, "x"), 73),
        (NotADirectoryError(errno.ENOTDIR, "x", "/y"), 73),
        (FileExistsError(errno.EEXIST, "x", "/y"), 73),
        (CheckpointWriteError(errno.EDQUOT, "x", "/y"), 73),
        (FileNotFoundError(errno.ENOENT, "x"), 70),
        (ValueError("x"), 70),
        (MemoryError(), 70),
        (runtime.Preempted(7), 143),
        (KeyboardInterrupt(), 130),
        (SystemExit(), 0),
        (SystemExit(3), 3),
        (SystemExit("message"), 64),
    ],
)
def test_exit_codes(error, code, capsys):
    def fail():
        raise error

    assert runtime.run_guarded(fail) == code
    printed = capsys.readouterr().err
    assert ("Traceback" in printed) == (code == 70)
    if code not in (0, 3):
        assert printed.splitlines()[-1].startswith("error: ") == (code != 143)


def test_results_pass_through():
    assert runtime.run_guarded(lambda: None) == 0
    assert runtime.run_guarded(lambda: 5) == 5


def test_message_names_the_step_that_is_saved():
    assert "after step 7 is saved" in str(runtime.Preempted(7))


def test_one_sigterm_is_noted_and_the_handler_given_back():
    before = signal.getsignal(signal.SIGTERM)
    with runtime.Preemption() as preemption:
        assert not preemption.reached()
        os.kill(os.getpid(), signal.SIGTERM)
        assert preemption.reached()
    assert signal.getsignal(signal.SIGTERM) is before


def test_further_sigterms_do_not_end_a_process_that_is_saving():
    with runtime.Preemption() as preemption:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        assert preemption.reached()
        os.kill(os.getpid(), signal.SIGTERM)
        assert preemption.reached(), "asked again, as evaluations do"


class Dog:
    """A watchdog whose bite is noted."""

    def __init__(self, monkeypatch, *limits):
        self.bites = []
        monkeypatch.setattr(watchdog, "_end", lambda waited: self.bites.append(waited))
        self.dog = runtime.Watchdog(*limits)


@pytest.mark.slow
def test_watchdog_lets_beating_and_suspended_work_pass(monkeypatch):
    test = Dog(monkeypatch, 0.5, 5.0)
    with test.dog as dog:
        time.sleep(0.8)  # the first step compiles
        for _ in range(6):
            dog.beat()
            time.sleep(0.15)
        with dog.suspended():
            time.sleep(0.8)
        assert test.bites == []
        with dog.suspended(0.2):
            time.sleep(0.6)
        assert test.bites
        test.bites.clear()
        time.sleep(1.0)  # the limit of before holds again
        assert test.bites


def test_watchdog_limits_the_first_step_too(monkeypatch):
    test = Dog(monkeypatch, 60.0, 0.3)
    with test.dog:
        time.sleep(0.8)
    assert test.bites


def test_watchdog_without_limits_never_bites(monkeypatch):
    test = Dog(monkeypatch, 0.0)
    with test.dog as dog:
        dog.beat()
        time.sleep(0.3)
    assert test.bites == []


def test_watchdog_shows_the_stacks_and_exits_with_75():
    script = (
        "import time\nfrom t5jax import runtime\n"
        "def busy_with_something(): time.sleep(60)\n"
        "runtime.Watchdog(0.3).beat()\nprint('unflushed', end='')\nbusy_with_something()"
    )
    begin = time.monotonic()
    done = python(script)
    assert done.returncode == 75
    assert time.monotonic() - begin < 20
    assert "in busy_with_something" in done.stderr
    assert "runtime.step_timeout_seconds" in done.stderr
    assert done.stdout == "unflushed"


def test_a_stuck_stream_does_not_stop_the_end():
    begin = time.monotonic()
    lifeline.run_with_timeout(0.2, lambda: time.sleep(30))
    assert time.monotonic() - begin < 5


def test_lifeline_accepts_hosts_and_sends_strangers_away():
    token = bytes(range(16))
    server = lifeline._listen(local=True)
    port = server.getsockname()[1]
    accepted = {}
    thread = threading.Thread(target=lambda: accepted.update(lifeline._accept(server, token, 2)))
    thread.start()
    stranger = socket.create_connection(("127.0.0.1", port))
    stranger.sendall(bytes(20))
    assert stranger.recv(1) == b""
    hosts = [
        lifeline._connect_to_host_0(["127.0.0.1"], port, token + i.to_bytes(4))[0] for i in (2, 1)
    ]
    thread.join(10)
    assert sorted(accepted) == [1, 2]
    hosts[0].sendall(b"\x49")
    assert lifeline._read_exit_code(accepted[2]) == 0x49
    hosts[1].close()
    assert lifeline._read_exit_code(accepted[1]) is None
    for connection in (stranger, *hosts, *accepted.values()):
        connection.close()


def test_lifeline_without_connection_says_so(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: refused
        assert lifeline._connect_to_host_0(["127.0.0.1"], taken.getsockname()[1], b"x") == {}
    assert "heartbeat_timeout_seconds" in capsys.readouterr().err


def test_codes_are_those_that_launchers_know():
    assert sorted(exits.ExitCode) == [0, 64, 65, 66, 70, 73, 75, 130, 141, 143]
