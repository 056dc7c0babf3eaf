"""launch/tpu_vm.sh as users run it, with a stand-in for gcloud: two slices of one host each.

The hosts are directories with an empty environment, where stand-ins take the places of sudo,
systemd, uv and the run. A queued resource goes through the states of a list, one a question.
"""

import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import time

import pytest

pytestmark = pytest.mark.usefixtures("default_signals")
LAUNCH = pathlib.Path(__file__).parents[2] / "launch"
FLAGS = "--xla_a='two words' --xla_b=\"q\" $x"

# $CLOUD/states: the states of the resource that is made next; one is used up with each question.
GCLOUD = r"""
printf '%s\n' "$*" >>"$CLOUD/calls"
[[ "$1 $2" == "compute tpus" ]] || exit 2
verb=$4
on_hosts() { # COMMAND
    code=0
    for home in "$CLOUD"/hosts/*; do
        (cd "$home" && env -i HOME="$home" CLOUD="$CLOUD" PATH="$CLOUD/host_bin:/usr/bin:/bin" \
            bash -c "$1" </dev/null) || code=$?
    done
    return $code
}
case $verb in
    create)
        [[ ! -e $CLOUD/resource ]] || exit 1
        { read -r line; echo "$line" >"$CLOUD/resource"; cat >"$CLOUD/rest"; } <"$CLOUD/states"
        mv "$CLOUD/rest" "$CLOUD/states"
        for host in 0 1; do mkdir -p "$CLOUD/hosts/$host"; done ;;
    delete)
        for pid in "$CLOUD"/hosts/*/pid; do kill -KILL "$(cat "$pid")"; done 2>/dev/null
        rm -rf "$CLOUD/resource" "$CLOUD/hosts" ;;
    describe)
        [[ -e $CLOUD/resource ]] || { echo "ERROR: NOT_FOUND: no such resource" >&2; exit 1; }
        read -r now later <"$CLOUD/resource"
        echo "$now"
        [[ -z $later ]] || echo "$later" >"$CLOUD/resource" ;;
    scp) for home in "$CLOUD"/hosts/*; do cp "$5" "$home/${6#*:}"; done ;;
    ssh) last=${@: -1}; on_hosts "${last#--command=}" ;;
esac
"""
SUDO = 'exec "${@//\\/etc\\/systemd\\/system/$HOME}"\n'
# Starts and stops the service as its unit says; `boot` is the host's.
SYSTEMCTL = r"""
unit=$HOME/t5jax.service
value() { sed -n "s/^$1=//p" "$unit"; }
running() { [[ -e $HOME/pid ]] && kill -0 "$(cat "$HOME/pid")" 2>/dev/null; }
begin() {
    file=$(value ConditionPathExists)
    [[ ! -e ${file#!} ]] || return 0
    (
        $(value ExecStart) & main=$!
        echo $main >"$HOME/pid"
        wait $main; code=$?
        while kill -0 $main 2>/dev/null; do wait $main; code=$?; done
        EXIT_CODE=exited EXIT_STATUS=$code $(value ExecStopPost)
        rm "$HOME/pid"
    ) >/dev/null 2>&1 &
    until [[ -e $HOME/pid || -e ${file#!} ]]; do sleep 0.02; done
}
case "$*" in
    daemon-reload) ;;
    "enable --now t5jax") touch "$HOME/enabled"; begin ;;
    "disable --now t5jax")
        rm -f "$HOME/enabled"
        running && kill -TERM "$(cat "$HOME/pid")"
        while [[ -e $HOME/pid ]]; do sleep 0.02; done ;;
    boot) [[ ! -e $HOME/enabled ]] || begin ;;
    "is-active --quiet t5jax") running ;;
    "is-enabled --quiet t5jax") [[ -e $HOME/enabled ]] ;;
    *) exit 64 ;;
esac
"""
# As uv: makes the environment, in which the run is a stand-in.
UV = r"""
printf '%s\n' "$*" >>"$HOME/uv_calls"
if [[ $1 == venv ]]; then mkdir -p .venv/bin; cp "$CLOUD/host_bin/t5jax_run" .venv/bin/t5jax
touch .venv/bin/python; chmod +x .venv/bin/python; fi
"""
RUN = r"""
[[ $1 == --version ]] && exit
trap 'echo saved; exit 143' TERM
printf '%s\n' "<$XLA_FLAGS> <${NOT_NAMED-none}> $*" | tee -a "$CLOUD/starts"
for ((i = 0; i < 1200; i++)); do
    [[ ! -e $CLOUD/code ]] || exit "$(cat "$CLOUD/code")"
    sleep 0.05
done
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """What tpu_vm.sh and the hosts' scripts use of this checkout, as a git repository."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(LAUNCH, folder / "launch")
    for name in ("requirements.lock", "requirements-plan.lock"):
        shutil.copy(LAUNCH.parent / name, folder / name)
    (folder / "an old file").touch()
    for command in ("git init -q", "git add -A"):
        subprocess.run(shlex.split(command), cwd=folder, check=True)
    (folder / "an old file").unlink()
    (folder / "not tracked").touch()
    return folder


@pytest.fixture
def cloud(checkout, tmp_path, stand_in, monkeypatch):
    """The directory of the stand-in cloud; its processes are ended after the test."""
    folder = tmp_path / "cloud"
    (folder / "host_bin").mkdir(parents=True)
    stand_in("gcloud", GCLOUD)
    programs = {"sudo": SUDO, "systemctl": SYSTEMCTL, "uv": UV, "t5jax_run": RUN}
    for name, text in programs.items():
        path = folder / "host_bin" / name
        path.write_text(f"#!/usr/bin/env bash\n{text}")
        path.chmod(0o755)
    variables = {
        "CLOUD": str(folder),
        "CHECKOUT": str(checkout),
        "T5JAX_TPU_POLL_SECONDS": "0.05",
        "T5JAX_TPU_TYPE": "v6e-8",
        "T5JAX_TPU_RUNTIME": "v2-alpha-tpuv6e",
        "T5JAX_TPU_SLICES": "2",
        "T5JAX_TPU_OPTIONS": "--spot --network=net",
        "T5JAX_ENV": "XLA_FLAGS T5JAX_MAX_* T5JAX_RESTART_SECONDS",
        "T5JAX_RESTART_SECONDS": "0",
        "XLA_FLAGS": FLAGS,
        "NOT_NAMED": "x",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for name in ("T5JAX_TPU_GROUP", "T5JAX_TPU_SSH", "T5JAX_MAX_FAILURES"):
        monkeypatch.delenv(name, raising=False)
    yield folder
    (folder / "code").write_text("0")  # to what outlives its launcher
    for pid in folder.glob("hosts/*/pid"):
        try:
            os.kill(int(pid.read_text()), signal.SIGKILL)
        except (ProcessLookupError, FileNotFoundError, ValueError):
            continue


ARGUMENTS = ["a config.py", "--workdir", "/shared/it's b"]


def tpu_vm(action, *rest, check=True):
    command = [f"{os.environ['CHECKOUT']}/launch/tpu_vm.sh", action, "pod", "my-zone", *rest]
    return subprocess.run(command, check=check, timeout=60, capture_output=True, text=True)


def wait_until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def starts(cloud):
    path = cloud / "starts"
    return path.read_text().splitlines() if path.exists() else []


def calls(cloud, verb):
    path = cloud / "calls"
    lines = path.read_text().splitlines() if path.exists() else []
    return [line for line in lines if line.startswith(f"compute tpus queued-resources {verb} ")]


def services_started(cloud):
    return [line for line in calls(cloud, "ssh") if line.endswith("/service.sh start")]


def on_host(cloud, host, command):
    home = cloud / "hosts" / host
    path = f"{cloud}/host_bin:/usr/bin:/bin"
    environment = {"HOME": str(home), "CLOUD": str(cloud), "PATH": path}
    subprocess.run(shlex.split(command), env=environment, cwd=home, check=True, timeout=20)


@pytest.mark.slow
def test_run_recreates_a_preempted_resource_and_resumes(cloud):
    (cloud / "states").write_text(
        "WAITING_FOR_RESOURCES PROVISIONING ACTIVE ACTIVE ACTIVE SUSPENDING SUSPENDED\nACTIVE\n"
    )
    command = [f"{os.environ['CHECKOUT']}/launch/tpu_vm.sh", "run", "pod", "my-zone", *ARGUMENTS]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: len(services_started(cloud)) == 2 and (cloud / "hosts/1/pid").exists())
    (cloud / "code").write_text("0")
    _, log = run.communicate(timeout=30)
    assert run.returncode == 0, log
    assert set(starts(cloud)) == {f"<{FLAGS}> <none> train a config.py --workdir /shared/it's b"}
    states = re.findall(r"pod: (.*)", log)
    assert states.index("lost") < states.index("SUSPENDED") < states.index("ended with 0")
    assert calls(cloud, "create") == 2 * [
        "compute tpus queued-resources create pod --zone=my-zone --node-count=2 --node-prefix=pod "
        "--accelerator-type=v6e-8 --runtime-version=v2-alpha-tpuv6e --spot --network=net"
    ]
    assert calls(cloud, "delete") == [
        "compute tpus queued-resources delete pod --zone=my-zone --force --quiet"
    ]
    for call in calls(cloud, "ssh") + calls(cloud, "scp"):
        assert "--zone=my-zone --worker=all --node=all" in call


def test_hosts_get_the_locked_versions_and_python_3_11(cloud):
    (cloud / "states").write_text("ACTIVE\n")
    tpu_vm("create")
    tpu_vm("setup")
    home = cloud / "hosts" / "1"
    venv, locked, tpu, own = (home / "uv_calls").read_text().splitlines()
    assert venv == "venv --quiet --python 3.11 .venv"
    assert locked.endswith("--require-hashes -r requirements.lock")
    assert tpu.endswith("--no-deps -r .venv/tpu.lock")
    lock = (home / "t5jax" / ".venv" / "tpu.lock").read_text()
    assert re.fullmatch(r"libtpu==\S+\nrequests==\S+\n", lock)
    assert own.endswith("-e .[gcs]")
    same = "requirements.lock"
    assert (home / "t5jax" / same).read_bytes() == (LAUNCH.parent / same).read_bytes()
    assert not (home / "t5jax" / "not tracked").exists()


def test_a_booted_host_starts_its_process_again_until_the_run_has_ended(cloud):
    (cloud / "states").write_text("ACTIVE\n")
    for step in ("create", "setup"):
        tpu_vm(step)
    tpu_vm("train", *ARGUMENTS)
    wait_until(lambda: len(starts(cloud)) == 2)
    pid = cloud / "hosts" / "0" / "pid"
    os.kill(int(pid.read_text()), signal.SIGTERM)  # as the machine goes down
    wait_until(lambda: not pid.exists())
    assert tpu_vm("status").stdout.split() == ["ACTIVE", "booting", "active"]
    on_host(cloud, "0", "systemctl boot")
    wait_until(lambda: len(starts(cloud)) == 3)
    assert "saved" in tpu_vm("log").stdout
    (cloud / "code").write_text("65")
    wait_until(lambda: tpu_vm("status").stdout.split() == ["ACTIVE", "65", "65"])
    on_host(cloud, "0", "systemctl boot")
    assert len(starts(cloud)) == 3


def test_stop_lets_every_process_save_and_none_starts_again(cloud):
    (cloud / "states").write_text("ACTIVE\n")
    for step in ("create", "setup"):
        tpu_vm(step)
    tpu_vm("train", *ARGUMENTS)
    wait_until(lambda: len(starts(cloud)) == 2)
    tpu_vm("stop")
    assert tpu_vm("log").stdout.split("\n").count("saved") == 2
    assert tpu_vm("status").stdout.split() == ["ACTIVE", "stopped", "stopped"]
    on_host(cloud, "1", "systemctl boot")
    assert len(starts(cloud)) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("code", "times"), [("66", 1), ("75", 4)])
def test_run_starts_again_only_where_that_may_help(cloud, monkeypatch, code, times):
    monkeypatch.setenv("T5JAX_MAX_FAILURES", "2")
    (cloud / "states").write_text("ACTIVE\n")
    (cloud / "code").write_text(code)
    result = tpu_vm("run", *ARGUMENTS, check=False)
    assert result.returncode == int(code), result.stderr
    # restart.sh on the hosts has the same limit: two of run times two of its own.
    wait_until(lambda: len(starts(cloud)) >= 2 * times)
    assert len(starts(cloud)) == 2 * times


def test_run_gives_up_where_nothing_can_be_created(cloud, stand_in):
    stand_in("gcloud", 'echo "ERROR: $4 NOT_FOUND quota" >&2; exit 1\n')
    result = tpu_vm("run", *ARGUMENTS, check=False)
    assert result.returncode == 70
    assert "3 failures in a row: giving up" in result.stderr


def test_a_slice_without_a_queue(cloud, monkeypatch):
    monkeypatch.setenv("T5JAX_TPU_GROUP", "tpu-vm")
    monkeypatch.setenv("T5JAX_TPU_SSH", "--tunnel-through-iap")
    (cloud / "hosts" / "0").mkdir(parents=True)
    tpu_vm("log", check=False)
    assert (cloud / "calls").read_text().splitlines() == [
        "compute tpus tpu-vm ssh pod --zone=my-zone --worker=all --tunnel-through-iap "
        "--command=tail -n 20 t5jax/train.log"
    ]
    assert tpu_vm("run", *ARGUMENTS, check=False).returncode == 64


@pytest.mark.parametrize("missing", ["T5JAX_TPU_TYPE", "T5JAX_TPU_RUNTIME"])
def test_the_kind_of_tpu_must_be_named(cloud, monkeypatch, missing):
    monkeypatch.delenv(missing)
    result = tpu_vm("create", check=False)
    assert result.returncode == 64
    assert "set T5JAX_TPU_TYPE and T5JAX_TPU_RUNTIME" in result.stderr
    assert not (cloud / "calls").exists()


@pytest.mark.parametrize("script", sorted(LAUNCH.glob("tpu_vm/*.sh")), ids=lambda path: path.name)
def test_host_scripts_are_bash(script):
    assert subprocess.run(["bash", "-n", script]).returncode == 0
