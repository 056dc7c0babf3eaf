"""Real runs through the launch scripts on real engines: Slurm, ssh, Open MPI 5, MPICH.

A process is killed, a host is asked to leave, the time ends: the run starts again, and every loss
is, bit for bit, that of the same run as one process that nothing disturbs.
"""

import dataclasses
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time

import pytest

from t5jax.checkpoints.record import checkpoint_directory, committed_steps
from t5jax.tracking.jsonl import current_records, read_metrics
from tests.launch import engines
from tests.launch.engines import LAUNCH, ROOT
from tests.multiprocess import tiny_run
from tests.multiprocess.test_launch_local import local

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("default_signals")]
STEPS, SAVED, HELD = 12, 5, 8

# A tracker of the run: from step HELD on the run waits as long as there is a file `hold` beside its
# workdir. So whatever a test does to it happens there, on the slowest and the fastest machine.
HOLD = f"""
import dataclasses
import time


@dataclasses.dataclass(kw_only=True)
class Hold:
    def build(self, workdir):
        self.file = workdir.parent / "hold"
        return self

    def scalars(self, step, values):
        while step >= {HELD} and self.file.exists():
            time.sleep(0.02)

    def restart(self, step):
        pass

    def close(self):
        pass
"""


@dataclasses.dataclass(kw_only=True)
class Tiny:
    """A run of STEPS steps on two hosts: its command line, environment, and undisturbed losses."""

    config: pathlib.Path
    environment: dict[str, str]
    losses: dict[int, str]  # step: bits

    def arguments(self, workdir: pathlib.Path) -> list[str]:
        return [str(self.config), "--workdir", str(workdir)]

    def has_finished_exactly(self, workdir: pathlib.Path, *, attempts: int) -> None:
        """Each step's loss stands once, equal in bits to the undisturbed run's; so do those of the
        steps that were trained twice."""
        records = read_metrics(workdir / "metrics.jsonl")
        steps = [r["step"] for r in current_records(records) if r["kind"] == "train"]
        assert steps == list(range(1, STEPS + 1))
        lines = tiny_run.loss_lines(workdir)
        assert [line for line in lines if self.losses[line[0]] != line[1]] == []
        kinds = [record["kind"] for record in records]
        assert kinds.count("started") + kinds.count("resumed") == attempts
        assert kinds.count("finished") == 1
        assert processes_of(workdir) == {}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Tiny:
    folder = tmp_path_factory.mktemp("tiny")
    config = tiny_run.write_config(folder, STEPS)
    (folder / "hold.py").write_text(HOLD)
    text = "import hold\n" + config.read_text()
    last = "seconds_between_lines=0)"
    held = text.replace(last, f"{last[:-1]}, trackers=(hold.Hold(),))")
    assert held != text
    config.write_text(held)
    program = folder / "t5jax"  # as it would be installed on every host
    path = f"{ROOT}:{folder}"
    program.write_text(
        f'#!/bin/sh\nPYTHONPATH={shlex.quote(path)} exec {sys.executable} -m t5jax "$@"\n'
    )
    program.chmod(0o755)
    others = ("T5JAX", "SLURM", "SBATCH", "OMPI", "PMI", "PRTE", "SSH")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(others)} | {
        "T5JAX": str(program),
        "T5JAX_ENV": "XLA_FLAGS JAX_*",
        "T5JAX_RESTART_SECONDS": "1",
        "JAX_NUM_CPU_DEVICES": "1",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "NOT_NAMED": "of the launcher's own environment",
    }
    workdir = folder / "plain" / "run"
    command = [str(program), "train", str(config), "--workdir", str(workdir)]
    outcome = local.Job(command, 1, devices=2).wait(timeout_seconds=300)
    assert outcome.code == 0, outcome.lines
    losses = dict(tiny_run.loss_lines(workdir))
    assert list(losses) == list(range(1, STEPS + 1))
    assert len(set(losses.values())) == STEPS  # it does learn
    return Tiny(config=config, environment=environment, losses=losses)


def processes_of(workdir: pathlib.Path) -> dict[int, tuple[int, dict[str, str]]]:
    """rank: (process id, environment) of the Pythons that train in `workdir`."""
    found = {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_text().split("\0")
            pairs = (folder / "environ").read_text(errors="replace").split("\0")
        except OSError:  # it has ended
            continue
        if not {"train", str(workdir)} <= set(words) or "python" not in os.path.basename(words[0]):
            continue
        variables = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        rank = variables.get("T5JAX_PROCESS_ID") or variables["SLURM_PROCID"]
        found[int(rank)] = (int(folder.name), variables)
    return found


def hold(workdir: pathlib.Path) -> pathlib.Path:
    """The file to remove when the run may go on."""
    file = workdir.parent / "hold"
    file.touch()
    return file


def go_on_once_signalled(go: pathlib.Path) -> None:
    """A launcher's signal is on its way for a moment, in which the run could end."""
    time.sleep(3)
    go.unlink()


def wait_until_held(workdir: pathlib.Path, is_running) -> None:
    """Until step SAVED is saved for good and step HELD is logged."""

    def is_held() -> bool:
        assert is_running(), "the run ended before it was held"
        log = workdir / "metrics.jsonl"
        records = read_metrics(log) if log.exists() else []
        is_saved = SAVED in committed_steps(checkpoint_directory(workdir))
        return is_saved and any((r["kind"], r["step"]) == ("train", HELD) for r in records)

    engines.wait_until(is_held, 240, f"step {SAVED} saved, step {HELD} trained", every=0.25)


@pytest.fixture(scope="module")
def ssh(tmp_path_factory):
    with engines.ssh_server(tmp_path_factory.mktemp("ssh")) as configuration:
        yield configuration


@dataclasses.dataclass(kw_only=True)
class Launcher:
    """A launch script on two hosts; `carries_all`: also variables that nobody named."""

    command: list[str]  # what stands before the config
    environment: dict[str, str]
    carries_all: bool = False


def ssh_launcher(ssh: pathlib.Path, folder: pathlib.Path) -> Launcher:
    hosts = folder / "hosts"
    hosts.write_text(f"127.0.0.1\n{engines.USER}@beta\n")
    return Launcher(
        command=[str(LAUNCH / "ssh.sh"), str(hosts)],
        environment={"SSH_OPTIONS": f"-F {ssh}", "T5JAX_PORT": str(engines.free_port())},
    )


def mpi_launcher(name: str, ssh: pathlib.Path, folder: pathlib.Path) -> Launcher:
    mpirun = engines.mpirun(name)
    environment = {
        "PATH": f"{mpirun.parent}:{os.environ['PATH']}",
        "T5JAX_COORDINATOR": f"127.0.0.1:{engines.free_port()}",
    }
    if name == "openmpi":
        environment["PRTE_MCA_plm_ssh_agent"] = f"ssh -F {ssh}"
        options = ["-np", "2", "--host", "alpha:1,beta:1", "--map-by", "node"]
        options += ["--allow-run-as-root"] if os.getuid() == 0 else []
    else:
        agent = folder / "agent"
        agent.write_text(f'#!/bin/sh\nexec ssh -F {ssh} "$@"\n')
        agent.chmod(0o755)
        options = ["-np", "2", "-hosts", "alpha:1,beta:1", "-launcher-exec", str(agent)]
    engines.must_run(name, [mpirun, *options, "true"], env={**os.environ, **environment})
    return Launcher(
        command=[str(LAUNCH / "mpi.sh"), *options, "--"],
        environment=environment,
        carries_all=name == "mpich",
    )


@pytest.fixture(params=["ssh", "openmpi", "mpich"])
def launcher(request, ssh, tmp_path) -> Launcher:
    if request.param == "ssh":
        return ssh_launcher(ssh, tmp_path)
    return mpi_launcher(request.param, ssh, tmp_path)


def started(tiny: Tiny, launcher: Launcher, workdir: pathlib.Path, *before: str):
    """The launcher as a process whose output goes to a file beside the workdir."""
    with open(workdir.parent / "output", "a") as output:
        return subprocess.Popen(
            [*before, *launcher.command, *tiny.arguments(workdir)],
            env=tiny.environment | launcher.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def ended(process: subprocess.Popen, workdir: pathlib.Path) -> int:
    code = process.wait(timeout=240)
    print((workdir.parent / "output").read_text())
    return code


@pytest.mark.parametrize("rank", [1, pytest.param(0, marks=pytest.mark.long)])
def test_a_killed_process_starts_again_and_changes_no_loss(tiny, launcher, tmp_path, rank):
    workdir = tmp_path / "run"
    go = hold(workdir)
    process = started(tiny, launcher, workdir, str(LAUNCH / "restart.sh"))
    wait_until_held(workdir, lambda: process.poll() is None)
    running = processes_of(workdir)
    assert set(running) == {0, 1}
    for _, variables in running.values():
        assert variables["XLA_FLAGS"] == os.environ["XLA_FLAGS"]
        assert ("NOT_NAMED" in variables) == launcher.carries_all
    os.kill(running[rank][0], signal.SIGKILL)
    go.unlink()
    assert ended(process, workdir) == 0
    tiny.has_finished_exactly(workdir, attempts=2)


@pytest.mark.long
def test_sigterm_lets_every_host_save_and_the_run_goes_on_from_there(tiny, launcher, tmp_path):
    workdir = tmp_path / "run"
    go = hold(workdir)
    process = started(tiny, launcher, workdir, str(LAUNCH / "restart.sh"))
    wait_until_held(workdir, lambda: process.poll() is None)
    process.send_signal(signal.SIGTERM)
    go_on_once_signalled(go)
    assert ended(process, workdir) == 143  # restart.sh itself was asked to leave
    was_preempted(workdir)
    process = started(tiny, launcher, workdir)
    assert ended(process, workdir) == 0
    tiny.has_finished_exactly(workdir, attempts=2)


def was_preempted(workdir: pathlib.Path) -> None:
    """All left after one step, which is saved."""
    events = [r for r in read_metrics(workdir / "metrics.jsonl") if r["kind"] != "train"]
    (preempted,) = [event for event in events if event["kind"] == "preempted"]
    assert HELD <= preempted["step"] < STEPS
    assert preempted["step"] in [event["step"] for event in events if event["kind"] == "saved"]
    assert processes_of(workdir) == {}


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    with engines.slurm_cluster(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture
def job(slurm, tiny, tmp_path):
    """job(OPTION, ...): the number of a job of train.sbatch; its output is shown at the end."""
    output = tmp_path / "output"

    def submit(*options, flags=()):
        script = LAUNCH / "slurm" / "train.sbatch"
        arguments = [*tiny.arguments(tmp_path / "run"), *flags]
        return slurm.submit(
            "--nodes=2", f"--output={output}", *options, script, *arguments,
            environment=tiny.environment,
        )  # fmt: skip

    yield submit
    print(output.read_text() if output.exists() else "no output")


def wait_until_job_is_held(slurm, number, workdir):
    wait_until_held(workdir, lambda: slurm.state(number) in ("PENDING", "CONFIGURING", "RUNNING"))


@pytest.mark.parametrize("rank", [1, pytest.param(0, marks=pytest.mark.long)])
def test_slurm_requeues_after_a_kill_and_has_all_cpus(slurm, tiny, job, tmp_path, rank):
    workdir = tmp_path / "run"
    go = hold(workdir)
    number = job()
    wait_until_job_is_held(slurm, number, workdir)
    running = processes_of(workdir)
    assert set(running) == {0, 1}
    assert running[1][1]["SLURMD_NODENAME"] == engines.NODES[1]
    shown = slurm.job(number)
    assert (shown["NumNodes"], shown["NumCPUs"]) == ("2", str(2 * engines.CPUS))
    assert shown["TRES"].startswith(f"cpu={2 * engines.CPUS},mem=2000M,node=2")
    assert running[rank][1]["SLURM_CPUS_PER_TASK"] == str(engines.CPUS)
    os.kill(running[rank][0], signal.SIGKILL)
    go.unlink()
    done = slurm.wait_for(number, "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")
    assert (done["JobState"], done["ExitCode"], done["Restarts"]) == ("COMPLETED", "0:0", "1")
    assert done["failures"] == "1"  # of the job's comment
    tiny.has_finished_exactly(workdir, attempts=2)


@pytest.mark.long
def test_slurm_sigterm_saves_and_requeues(slurm, tiny, job, tmp_path):
    workdir = tmp_path / "run"
    go = hold(workdir)
    number = job()
    wait_until_job_is_held(slurm, number, workdir)
    slurm.call("scancel", "--signal=TERM", number)
    go_on_once_signalled(go)
    done = slurm.wait_for(number, "COMPLETED", "FAILED", "CANCELLED")
    assert (done["JobState"], done["Restarts"]) == ("COMPLETED", "1")
    tiny.has_finished_exactly(workdir, attempts=2)


@pytest.mark.long
def test_slurm_scancel_saves_and_a_new_job_goes_on(slurm, tiny, job, tmp_path):
    workdir = tmp_path / "run"
    go = hold(workdir)
    number = job()
    wait_until_job_is_held(slurm, number, workdir)
    slurm.call("scancel", number)
    go_on_once_signalled(go)
    engines.wait_until(lambda: not processes_of(workdir), 60, "every process has left")
    was_preempted(workdir)
    assert slurm.wait_for(number, "CANCELLED")["Restarts"] == "0"
    assert slurm.wait_for(job(), "COMPLETED", "FAILED")["JobState"] == "COMPLETED"
    tiny.has_finished_exactly(workdir, attempts=2)


@pytest.mark.long
def test_slurm_requeues_before_the_time_limit(slurm, tiny, job, tmp_path):
    workdir = tmp_path / "run"
    go = hold(workdir)
    number = job("--time=2", "--signal=TERM@60")  # Slurm looks at the time every 30 s
    wait_until_job_is_held(slurm, number, workdir)
    seconds = lambda: sum(
        60**place * int(part)
        for place, part in enumerate(reversed(slurm.job(number)["RunTime"].split(":")))
    )
    engines.wait_until(lambda: seconds() > 95, 120, "Slurm has sent the signal", every=1)
    go.unlink()
    done = slurm.wait_for(number, "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")
    assert done["JobState"] == "COMPLETED"
    # On a slow machine the time of the second attempt is over before the run is, too.
    assert int(done["Restarts"]) >= 1
    tiny.has_finished_exactly(workdir, attempts=1 + int(done["Restarts"]))


@pytest.mark.long
def test_slurm_does_not_requeue_what_cannot_be_mended(slurm, job):
    number = job(flags=("--train.batch-size", "0"))
    done = slurm.wait_for(number, "COMPLETED", "FAILED", "CANCELLED")
    assert (done["JobState"], done["ExitCode"], done["Restarts"]) == ("FAILED", "64:0", "0")


@pytest.mark.long
def test_slurm_arrays_make_the_store_of_one_host(slurm, tiny, tmp_path):
    for number in range(5):
        (tmp_path / f"{number}.txt").write_text("over the locks\n\n" * (number + 3))
    flags = ["--split", "train", "--data.train-files", str(tmp_path / "*.txt"), "--data.cache-dir"]
    command = [tiny.environment["T5JAX"], "cache", tiny.config, *flags, tmp_path / "one"]
    subprocess.run(command, env=tiny.environment, check=True, timeout=240)

    def ended(*options):
        """The exit code of a job of cache.sbatch, once it has ended."""
        script = [LAUNCH / "slurm" / "cache.sbatch", tiny.config, *flags, tmp_path / "many"]
        words = ("--cpus-per-task=1", f"--output={tmp_path}/output", *options, *script)
        job = slurm.submit(*words, environment=tiny.environment | {"T5JAX_PARTS": "4"})
        left = lambda: slurm.call("squeue", "-h", "-j", job).split()
        engines.wait_until(lambda: not left(), 240, f"job {job} has ended", every=0.5)
        return slurm.job(job)["ExitCode"]

    assert ended("--array=0,1,3") == "0:0"
    assert ended() == "65:0"  # a part is missing
    assert ended("--array=2") == "0:0"
    assert ended() == "0:0"
    files = lambda folder: {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }
    assert len(files(tmp_path / "one")) >= 3
    assert files(tmp_path / "many") == files(tmp_path / "one")
