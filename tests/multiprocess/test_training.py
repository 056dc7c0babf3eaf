"""Whole runs of `t5jax train` as real processes: any number of hosts, kills, restarts."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from tests.multiprocess import tiny_run
from tests.multiprocess.test_launch_local import codes, local, spread_of_exits

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("default_signals")]
STEPS = 12


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return tiny_run.write_config(tmp_path_factory.mktemp("tiny"), STEPS)


def train(config, workdir, *flags, processes=1, devices=4, faults=()):
    command = [sys.executable, "-m", "t5jax", "train", str(config), "--workdir", str(workdir)]
    job = local.Job([*command, *flags], processes, devices=devices, faults=tuple(faults))
    outcome = job.wait(grace_seconds=60, timeout_seconds=240)
    print("\n".join(outcome.lines))
    return outcome


MESH = ("--mesh.data", "2", "--mesh.fsdp", "2")


@pytest.fixture(scope="module")
def one_process(config, tmp_path_factory):
    """The losses of the uninterrupted run, alone with four devices."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    assert train(config, workdir, *MESH).code == 0
    lines = tiny_run.loss_lines(workdir)
    assert [step for step, _ in lines] == list(range(1, STEPS + 1))
    assert len({bits for _, bits in lines}) == STEPS  # it does learn
    return dict(lines)


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.long)])
def test_losses_do_not_depend_on_the_number_of_hosts(config, one_process, tmp_path, processes):
    workdir = tmp_path / "run"
    hosts = {"processes": processes, "devices": 4 // processes}
    assert train(config, workdir, *MESH, **hosts).code == 0
    assert dict(tiny_run.loss_lines(workdir)) == one_process
    if processes == 2:
        kept = sorted(workdir.glob("compilation_cache/cpu-*/jit_train_step-*"))
        longer = ("--train.num-train-steps", str(STEPS + 1))
        assert train(config, workdir, *MESH, *longer, **hosts).code == 0
        assert len(kept) == 1
        assert sorted(workdir.glob("compilation_cache/cpu-*/jit_train_step-*")) == kept
        assert tiny_run.loss_lines(workdir)[-1][0] == STEPS + 1


def test_a_killed_host_takes_the_others_along_and_two_hosts_resume_as_one(
    config, one_process, tmp_path
):
    workdir = tmp_path / "run"
    fault = local.Fault(process=0, signal=signal.SIGKILL, when="step 8/")
    outcome = train(config, workdir, *MESH, processes=2, devices=2, faults=(fault,))
    assert codes(outcome)[0] == 128 + signal.SIGKILL
    assert codes(outcome)[1] not in (0, None)
    assert spread_of_exits(outcome) < 10
    assert train(config, workdir, *MESH, processes=1, devices=4).code == 0
    lines = tiny_run.loss_lines(workdir)
    assert {step for step, _ in lines} == set(range(1, STEPS + 1))
    assert [line for line in lines if one_process[line[0]] != line[1]] == []


def test_another_mesh_resumes_to_the_same_losses(config, one_process, tmp_path):
    workdir = tmp_path / "run"
    first = ("--train.num-train-steps", "5")
    assert train(config, workdir, *MESH, *first, processes=2, devices=2).code == 0
    assert train(config, workdir, "--mesh.data", "1", "--mesh.tensor", "4").code == 0
    for step, bits in tiny_run.loss_lines(workdir):
        expected = float.fromhex(one_process[step])
        assert float.fromhex(bits) == pytest.approx(expected, rel=1e-5)


def kill_and_restart(command, environment, workdir, generator, *, kills: int, seconds: float):
    """Starts the run again and again, kill -9 each time at a random moment; then to its end."""
    done = 0
    while done < kills:
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        time.sleep(generator.uniform(0.3 * seconds, seconds))
        if process.poll() is None:
            process.kill()
            done += 1
        output = process.communicate()[0]
        assert process.returncode in (0, -signal.SIGKILL), output
        if process.returncode == 0:
            return done
    subprocess.run(command, env=environment, check=True, timeout=600)
    return done


def test_twenty_kills_on_real_text_change_no_loss(real_data, tmp_path, long_trials):
    """`kill -9` at random moments: every loss line equals the uninterrupted run's, bit for bit."""
    steps, kills = (3000, 20) if long_trials else (400, 2)
    config = tiny_run.write_config(tmp_path, steps)
    flags = [
        "--data.mixture", "c4_json_span_corruption",
        "--data.train-files", str(real_data / "text/c4/en/c4-train.*.json.gz"),
        "--data.validation-files", str(real_data / "text/c4/en/c4-validation.*.json.gz"),
        "--data.cache-dir", str(tmp_path / "c4"),
        "--checkpoints.save-every-steps", "7",
        "--train.eval-every-steps", "14", "--train.num-eval-rows", "16",
    ]  # fmt: skip
    base = [sys.executable, "-m", "t5jax"]
    environment = dict(
        os.environ, JAX_NUM_CPU_DEVICES="1", JAX_COMPILATION_CACHE_DIR=str(tmp_path / "xla")
    )
    subprocess.run([*base, "cache", str(config), *flags], env=environment, check=True)
    command = [*base, "train", str(config), *flags]
    subprocess.run([*command, "--workdir", str(tmp_path / "whole")], env=environment, check=True)
    expected = dict(tiny_run.loss_lines(tmp_path / "whole"))
    assert set(expected) == set(range(1, steps + 1))
    done = kill_and_restart(
        [*command, "--workdir", str(tmp_path / "killed")],
        environment,
        tmp_path / "killed",
        random.Random(7),
        kills=kills,
        seconds=12.0,
    )
    lines = tiny_run.loss_lines(tmp_path / "killed")
    differing = [line for line in lines if expected[line[0]] != line[1]]
    print(f"{done} kills, {len(lines)} loss lines, {len(differing)} differing")
    assert differing == []
    assert {step for step, _ in lines} == set(expected)
    assert done >= 0.5 * kills, "the rest came after the end"
