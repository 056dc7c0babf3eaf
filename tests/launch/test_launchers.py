"""The launch scripts, with stand-ins for ssh and for the run, on this machine."""

import os
import pathlib
import signal
import subprocess
import time

import pytest

pytestmark = pytest.mark.usefixtures("default_signals")
LAUNCH = pathlib.Path(__file__).parents[2] / "launch"

# As ssh: runs its last argument, on the "host" before it, where nothing inherits ignored signals.
SSH = """#!/usr/bin/env bash
host=${@: -2:1}
if [[ $host == *unreachable* ]]; then sleep 0.5; exit 255; fi
exec env --default-signal bash -c "${@: -1}"
"""

# As t5jax: says who it is, then does what its host's variable tells it.
RUN = """#!/usr/bin/env bash
trap 'echo saving; sleep 0.3; echo saved; exit 143' TERM
echo "process $T5JAX_PROCESS_ID of $T5JAX_NUM_PROCESSES at $T5JAX_COORDINATOR: $*"
plan=PLAN_$T5JAX_PROCESS_ID
case ${!plan:-wait} in
    wait) for ((i = 0; i < 600; i++)); do sleep 0.1; done ;;
    deaf) trap '' TERM; for ((i = 0; i < 600; i++)); do sleep 0.1; done ;;
    *) trap '' TERM; sleep 0.3; exit "${!plan}" ;;
esac
"""

# As any command: ends with the next exit code of a list.
NEXT_CODE = """#!/usr/bin/env bash
read -r code <"$CODES"
sed -i 1d "$CODES"
exit "$code"
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A directory with the stand-ins on the path; its `hosts` names three hosts."""
    for name, text in (("ssh", SSH), ("t5jax", RUN), ("next_code", NEXT_CODE)):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    (tmp_path / "hosts").write_text("alpha\nme@beta  # the second\n\n# none\ngamma\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("T5JAX_RESTART_SECONDS", "0")
    for name in ("T5JAX", "T5JAX_PORT", "T5JAX_GRACE", "SSH_OPTIONS", "T5JAX_COMMAND"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def ssh_run(place, **plans):
    command = [LAUNCH / "ssh.sh", place / "hosts", "a config.py", "--train.batch-size", "7"]
    environment = os.environ | {f"PLAN_{name[1:]}": str(code) for name, code in plans.items()}
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def ended(process, seconds=20):
    output, _ = process.communicate(timeout=seconds)
    return process.returncode, output.splitlines()


def wait_for(place, process, lines):
    """Reads until every one of `lines` was printed."""
    seen = []
    while not set(lines) <= set(seen):
        line = process.stdout.readline()
        assert line, f"ended early: {seen}"
        seen.append(line.rstrip("\n"))


STARTED = [
    f"[{i}] process {i} of 3 at alpha:8476: train a config.py --train.batch-size 7"
    for i in range(3)
]


def test_ssh_starts_one_process_per_host_and_all_end_well(place):
    code, lines = ended(ssh_run(place, _0=0, _1=0, _2=0))
    assert code == 0
    assert set(STARTED) <= set(lines)


def test_ssh_starts_another_command_with_the_same_arguments(place, monkeypatch):
    monkeypatch.setenv("T5JAX_COMMAND", "selftest")
    code, lines = ended(ssh_run(place, _0=0, _1=0, _2=0))
    assert code == 0
    assert {line.replace(": train ", ": selftest ") for line in STARTED} <= set(lines)


@pytest.mark.parametrize("cause", [70, 64, 1])
def test_ssh_first_failure_stops_the_others_and_is_the_exit_code(place, cause):
    code, lines = ended(ssh_run(place, _1=cause))
    assert code == cause
    assert "[0] saved" in lines
    assert "[2] saved" in lines
    assert f"[1] ended with {cause}" in lines


def test_ssh_prefers_the_failure_that_trying_again_cannot_mend(place):
    # Both fail at about the same time, as the peers of a failing host do.
    code, _ = ended(ssh_run(place, _0=70, _1=70, _2=65))
    assert code == 65


def test_ssh_an_unreachable_host_stops_the_others(place):
    (place / "hosts").write_text("alpha\nunreachable\n")
    code, lines = ended(ssh_run(place))
    assert code == 255
    assert "[0] saved" in lines


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_ssh_a_signal_lets_every_process_save(place, number):
    process = ssh_run(place)
    wait_for(place, process, STARTED)
    process.send_signal(number)
    code, lines = ended(process)
    assert code == 143
    assert {"[0] saved", "[1] saved", "[2] saved"} <= set(lines)


def test_ssh_kill_9_of_the_launcher_lets_every_process_save(place):
    process = ssh_run(place)
    wait_for(place, process, STARTED)
    process.kill()
    code, lines = ended(process)  # the output ends when the last process does
    assert code == -signal.SIGKILL
    assert {"[0] saved", "[1] saved", "[2] saved"} <= set(lines)


def test_ssh_kills_a_process_that_does_not_leave(place, monkeypatch):
    monkeypatch.setenv("T5JAX_GRACE", "1")
    start = time.monotonic()
    code, lines = ended(ssh_run(place, _0=70, _1="deaf"))
    assert code == 70
    assert "[1] ended with 137" in lines
    assert time.monotonic() - start < 10


def restart(place, codes, **variables):
    (place / "codes").write_text("".join(f"{code}\n" for code in codes))
    environment = os.environ | {"CODES": str(place / "codes")} | variables
    command = [LAUNCH / "restart.sh", "next_code"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20)
    return result.returncode, len((place / "codes").read_text().split())


@pytest.mark.parametrize(
    ("codes", "code", "left"),
    [
        ([0, 1], 0, 1),
        ([143, 70, 143, 75, 0, 1], 0, 1),
        ([137, 255, 139, 0], 139, 1),  # three failures
        ([64, 0], 64, 1),
        ([143, 65, 0], 65, 1),
        ([66, 0], 66, 1),
        ([73, 0], 73, 1),
        ([1, 0], 1, 1),
    ],
)
def test_restart_tries_again_only_where_that_may_help(place, codes, code, left):
    assert restart(place, codes) == (code, left)


def test_restart_counts_failures_in_a_row(place):
    assert restart(place, [70, 0], T5JAX_MAX_FAILURES="1") == (70, 1)
    # Every run counts as long, so the count starts anew each time.
    many = [70] * 6 + [0]
    assert restart(place, many, T5JAX_GOOD_SECONDS="-1", T5JAX_MAX_FAILURES="2") == (0, 0)


def test_restart_passes_sigterm_on_and_does_not_start_again(place):
    command = [LAUNCH / "restart.sh", "t5jax", "train"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    wait_for(place, process, ["process  of  at : train"])
    process.terminate()
    assert ended(process) == (143, ["saving", "saved"])


def test_restart_between_two_runs_ends_on_sigterm(place):
    (place / "codes").write_text("70\n0\n")
    environment = os.environ | {"CODES": str(place / "codes"), "T5JAX_RESTART_SECONDS": "60"}
    command = [LAUNCH / "restart.sh", "next_code"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert "starting again" in process.stderr.readline()
    process.terminate()
    assert process.wait(timeout=10) == 70
    process.stderr.close()


@pytest.mark.parametrize(
    "script", [*LAUNCH.glob("*.sh"), *LAUNCH.glob("slurm/*"), *LAUNCH.glob("gke/*.sh")]
)
def test_scripts_are_bash_and_say_how_they_are_used(script):
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    result = subprocess.run([script], capture_output=True, text=True)
    assert result.returncode == 64
    assert "usage: " in result.stderr
    assert "# Has been run: " in script.read_text()
