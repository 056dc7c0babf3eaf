"""Real processes: they agree or refuse, and when one goes, all are gone within seconds."""

import importlib.util
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.usefixtures("default_signals")
HERE = pathlib.Path(__file__).resolve().parent
LAUNCHER = HERE.parent.parent / "launch" / "local.py"
JOB = HERE / "job.py"

spec = importlib.util.spec_from_file_location("launch_local", LAUNCHER)
local = importlib.util.module_from_spec(spec)
sys.modules["launch_local"] = local  # dataclasses look their module up
spec.loader.exec_module(local)


def run(scenario: str, argument="", *, processes=2, devices=2, faults=(), grace=20.0):
    command = [sys.executable, str(JOB), scenario, str(argument)]
    job = local.Job(command, processes, devices=devices, faults=tuple(faults))
    outcome = job.wait(grace_seconds=grace, timeout_seconds=90)
    print("\n".join(outcome.lines))
    return outcome


def codes(outcome) -> dict[int, int]:
    return {end.process: end.code for end in outcome.exits}


def spread_of_exits(outcome) -> float:
    """Seconds from the first end to the last."""
    return outcome.exits[-1].seconds - outcome.exits[0].seconds


def plain(script: str, processes: int = 2, **settings):
    """Processes without jax: for what concerns the launcher alone."""
    job = local.Job([sys.executable, "-c", script], processes, faults=settings.pop("faults", ()))
    return job.wait(**settings)


WHO = "import os, sys, time; me = int(os.environ['T5JAX_PROCESS_ID']); "


def test_first_failure_decides_and_the_rest_is_killed():
    begin = time.monotonic()
    outcome = plain(
        WHO + "print('here'); sys.exit(7) if me == 1 else time.sleep(60)", grace_seconds=0.3
    )
    assert time.monotonic() - begin < 10
    assert outcome.code == 7
    assert codes(outcome) == {1: 7, 0: 128 + signal.SIGKILL}
    assert {"[0] here", "[1] here"} <= set(outcome.lines)


def test_all_well_is_zero_and_faults_strike_on_a_line():
    assert plain(WHO + "print(me)").code == 0
    fault = local.Fault.parse("1:round 3", signal.SIGKILL)
    script = (
        WHO + "[print('round', i, flush=True) or time.sleep(0.05) for i in range(200 * me + 1)]"
    )
    outcome = plain(script, faults=(fault,))
    assert outcome.code == 128 + signal.SIGKILL
    assert "[1] round 3" in outcome.lines
    assert "[1] round 9" not in outcome.lines


@pytest.mark.parametrize("when", ["1:round 3", "1:500"])
def test_a_signal_whose_moment_never_came_is_said_and_is_an_error(when):
    fault = local.Fault.parse(when, signal.SIGTERM)
    outcome = plain(WHO + "print('round', me)", faults=(fault,))
    assert codes(outcome) == {0: 0, 1: 0}
    assert outcome.code == 64
    assert outcome.missed == [fault]
    [said] = [line for line in outcome.lines if "never sent" in line]
    assert said.startswith(f"launcher: --term {when} was never sent: process 1 ")
    outcome = plain(WHO + "sys.exit(7)", faults=(fault,))
    assert outcome.code == 7, "what failed is the cause"
    assert outcome.missed == [fault]


def test_the_program_ends_with_64_when_nothing_was_rehearsed():
    command = [sys.executable, str(LAUNCHER), "-n", "1", "--program", "true"]
    assert subprocess.run(command).returncode == 0
    ended = subprocess.run([*command, "--kill", "0:step 7"], capture_output=True, text=True)
    assert ended.returncode == 64
    assert "--kill 0:step 7 was never sent: process 0 did not print 'step 7'" in ended.stdout


def test_grandchildren_go_too():
    sleeper = "[sys.executable, '-c', 'import time; time.sleep(99)']"
    parent = f"import subprocess, sys; print('pid', subprocess.Popen({sleeper}).pid, flush=True)"
    outcome = plain(parent, processes=1)
    [pid] = [int(line.split()[-1]) for line in outcome.lines if "pid" in line]
    deadline = time.monotonic() + 5
    while pathlib.Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0]
        if state == "Z":  # dead; whoever adopted it has not fetched it yet
            break
        time.sleep(0.05)
    else:
        assert not pathlib.Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_program_passes_signals_on_and_leaves_nothing(number):
    script = WHO + "print('pid', os.getpid(), flush=True); time.sleep(60)"
    command = [sys.executable, str(LAUNCHER), "-n", "2", "--grace", "1"]
    command += ["--program", f'{sys.executable} -c "{script}"']
    launcher = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    pids = [int(launcher.stdout.readline().split()[-1]) for _ in range(2)]
    launcher.send_signal(number)
    launcher.communicate(timeout=20)
    expected = 130 if number == signal.SIGINT else 128 + signal.SIGTERM
    assert launcher.returncode == expected
    assert not any(pathlib.Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_processes_are_being_started_leaves_nothing(number):
    script = (
        f"import signal, sys; sys.path.insert(0, {str(LAUNCHER.parent)!r}); import local\n"
        "start = local.Job._start_process\n"
        "def interrupted(self, command, index, environment):\n"
        "    start(self, command, index, environment)\n"
        "    print('pid', self._processes[-1].pid, flush=True)\n"
        f"    if index == 0: signal.raise_signal({int(number)})\n"
        "local.Job._start_process = interrupted\n"
        "sys.exit(local.main(['-n', '2', '--program', 'sleep 60']))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30
    )
    assert ended.returncode == (130 if number == signal.SIGINT else 128 + signal.SIGTERM)
    pids = [line.split()[1] for line in ended.stdout.splitlines() if line.startswith("pid")]
    assert pids
    assert not any(pathlib.Path(f"/proc/{pid}").exists() for pid in pids)


def test_bad_arguments_are_refused():
    for arguments in (["--kill", "1"], ["--kill", "2:5"], ["-n", "0"]):
        with pytest.raises(SystemExit) as caught:
            local.main([*arguments, "--", "train"])
        assert caught.value.code == 2


@pytest.mark.slow
def test_hosts_agree_or_refuse(tmp_path):
    outcome = run("agreement", tmp_path)
    assert codes(outcome) == {0: 64, 1: 64}
    for host in (0, 1):
        [config] = [li for li in outcome.lines if li.startswith(f"[{host}] config refused")]
        assert "host 1 of 2 not as host 0" in config
        assert "line 2: host 0 has 'seed = 0', host 1 has 'seed = 1'" in config
        [unshared] = [li for li in outcome.lines if li.startswith(f"[{host}] unshared refused")]
        assert "host 1 of 2 cannot read" in unshared
    assert spread_of_exits(outcome) < 5


@pytest.mark.slow
def test_hosts_own_a_folder_together_and_are_refused_together(tmp_path):
    outcome = run("owning", tmp_path)
    assert codes(outcome) == {0: 73, 1: 73}
    said = f"error on host {{}}: {tmp_path}: the first (process "
    for host in (0, 1):
        assert any(said.format(host) in line for line in outcome.lines)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_hosts_with_different_ambient_settings_are_refused():
    outcome = run("ambient")
    assert codes(outcome) == {0: 64, 1: 64}
    said = "host 1 has jax_default_prng_impl = rbg, host 0 threefry2x32, of 2 hosts"
    assert sum(said in line for line in outcome.lines) == 2


@pytest.mark.slow
def test_killed_process_takes_the_others_with_it():
    outcome = run("endless", faults=[local.Fault.parse("1:step 5", signal.SIGKILL)])
    assert codes(outcome)[1] == 128 + signal.SIGKILL
    assert codes(outcome)[0] in (70, 128 + signal.SIGABRT)
    assert spread_of_exits(outcome) < 5


@pytest.mark.slow
def test_killed_coordinator_takes_the_others_with_it():
    outcome = run("endless", faults=[local.Fault.parse("0:step 5", signal.SIGKILL)])
    assert codes(outcome)[0] == 128 + signal.SIGKILL
    assert codes(outcome)[1] in (70, 128 + signal.SIGABRT)
    assert spread_of_exits(outcome) < 5


@pytest.mark.slow
def test_exception_on_one_host_ends_all():
    outcome = run("failing")
    assert codes(outcome)[1] == 70
    assert codes(outcome)[0] in (70, 128 + signal.SIGABRT)
    assert spread_of_exits(outcome) < 5
    assert any("a bad record on this host only" in line for line in outcome.lines)


@pytest.mark.slow
def test_sigterm_to_one_host_ends_all_after_one_step():
    outcome = run("preempted", faults=[local.Fault.parse("1:step 5", signal.SIGTERM)])
    assert codes(outcome) == {0: 143, 1: 143}
    saved = {
        re.search(r"after step (\d+)", line)[1] for line in outcome.lines if "preempted" in line
    }
    assert len(saved) == 1
    assert spread_of_exits(outcome) < 5


@pytest.mark.slow
def test_hosts_save_by_minutes_at_the_same_steps():
    outcome = run("minutes")
    assert codes(outcome) == {0: 0, 1: 0}
    due = [line.partition("] ") for line in outcome.lines if "due after step" in line]
    by_host = [[text for host, _, text in due if host == f"[{number}"] for number in (0, 1)]
    assert by_host[0] == by_host[1]
    assert 2 <= len(by_host[0]) < 15, "every 0.3 s, of steps of 0.05 s"


@pytest.mark.slow
def test_stuck_host_is_ended_by_the_watchdog():
    outcome = run("stuck")
    assert 75 in codes(outcome).values()
    assert set(codes(outcome).values()) <= {70, 75, 128 + signal.SIGABRT}
    assert spread_of_exits(outcome) < 5
    assert any("in sleep" in line for line in outcome.lines)  # the stack names the place


@pytest.mark.slow
def test_orderly_end():
    outcome = run("finishing", processes=2, devices=1)
    assert codes(outcome) == {0: 0, 1: 0}


@pytest.mark.slow
def test_checkpoint_damaged_for_one_host_is_passed_over_by_all(tmp_path):
    assert run("saving", tmp_path / "run").code == 0
    chunks = sorted(
        (tmp_path / "run" / "2" / "state" / "d").iterdir(), key=lambda p: p.stat().st_size
    )
    with open(chunks[-1], "r+b") as file:
        file.truncate(100)
    outcome = run("restoring", tmp_path / "run")
    assert codes(outcome) == {0: 0, 1: 0}
    for host in (0, 1):
        assert f"[{host}] restored step 1" in outcome.lines
        assert f"[{host}] steps ['1', '3', 'set_aside']" in outcome.lines
    assert sum("CHECKPOINT OF STEP 2 IS DAMAGED" in line for line in outcome.lines) == 1


@pytest.mark.slow
def test_checkpoint_moves_between_host_counts(tmp_path):
    assert run("saving", tmp_path / "run", processes=2, devices=2).code == 0
    outcome = run("restoring", tmp_path / "run", processes=1, devices=8)
    assert outcome.code == 0
    assert "[0] restored step 2" in outcome.lines
