"""T5JAX_ENV: the variables that it names reach every process, whatever their values hold."""

import os
import pathlib
import subprocess
import sys

import pytest

from t5jax import runtime
from t5jax.errors import ConfigError
from t5jax.runtime import RuntimeConfig, distributed
from t5jax.runtime.launch_environment import missing_variables

pytestmark = pytest.mark.usefixtures("default_signals")
LAUNCH = pathlib.Path(__file__).parents[2] / "launch"
VALUES = {
    "XLA_FLAGS": "--xla_a=1 --xla_b='two words' --xla_c=\"q\"",
    "NCCL_DEBUG": "$HOME `id` \\ & ; * é",
    "NCCL_EMPTY": "",
    "LINES": "one\n  two\n",
}
NAMED = "XLA_FLAGS,LIBTPU_INIT_ARGS\tNCCL_* XLA_FLAGS LINES MISSING_*"
# Shows the values of its environment in NUL-separated form in the file of its process.
SHOW = """
for name in XLA_FLAGS NCCL_DEBUG NCCL_EMPTY LINES NCCLX T5JAX_ENV; do
    printf '%s=%s\\0' "$name" "${!name-(none)}"
done >"$0.$T5JAX_PROCESS_ID"
"""


@pytest.fixture
def named(monkeypatch):
    for name, value in (VALUES | {"T5JAX_ENV": NAMED, "NCCLX": "never"}).items():
        monkeypatch.setenv(name, value)
    for name in ("LIBTPU_INIT_ARGS", "T5JAX", "SSH_OPTIONS"):
        monkeypatch.delenv(name, raising=False)


def shown(path):
    return dict(pair.split("=", 1) for pair in path.read_text().split("\0")[:-1])


def environment_sh(what, **variables):
    return subprocess.run(
        [LAUNCH / "environment.sh", what],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=20,
    )


def test_names_and_what_is_not_set(named):
    result = environment_sh("names")
    assert result.returncode == 0
    assert result.stdout.split() == ["T5JAX_ENV", "XLA_FLAGS", "NCCL_DEBUG", "NCCL_EMPTY", "LINES"]
    first, second = result.stderr.splitlines()
    assert first.startswith("T5JAX_ENV names LIBTPU_INIT_ARGS: no such variable is set here")
    assert second.startswith("T5JAX_ENV names MISSING_*: no such variable is set here")
    assert missing_variables(os.environ) == ["LIBTPU_INIT_ARGS", "MISSING_*"]


def test_nothing_is_named():
    assert environment_sh("names", T5JAX_ENV="").stdout == ""
    assert missing_variables({}) == missing_variables({"T5JAX_ENV": " , "}) == []


@pytest.mark.parametrize("entry", ["*", "A=1", "N*L", "-x", "$(id)", "1A", "A**"])
def test_what_is_no_name_is_refused(entry):
    result = environment_sh("names", T5JAX_ENV=f"HOME {entry}")
    assert result.returncode == 64
    assert f"T5JAX_ENV names '{entry}'" in result.stderr
    with pytest.raises(ConfigError, match="must be the name of a variable"):
        missing_variables({"T5JAX_ENV": f"HOME {entry}"})


def test_what_a_launcher_gives_each_process_is_not_carried():
    variables = {"T5JAX_PROCESS_ID": "3", "T5JAX_COORDINATOR": "h:1", "T5JAX_GRACE": "9"}
    result = environment_sh("names", T5JAX_ENV="T5JAX_*", **variables)
    names = result.stdout.split()
    assert {"T5JAX_ENV", "T5JAX_GRACE"} <= set(names)
    assert not {"T5JAX_PROCESS_ID", "T5JAX_COORDINATOR"} & set(names)


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_exports_are_read_by_any_posix_shell(named, shell):
    script = environment_sh("exports").stdout + "\nenv -0"
    clean = {"PATH": os.environ["PATH"]}
    result = subprocess.run([shell, "-c", script], env=clean, capture_output=True, timeout=20)
    there = dict(pair.split("=", 1) for pair in result.stdout.decode().split("\0")[:-1])
    assert VALUES.items() <= there.items()


def test_ssh_carries_them_to_hosts_with_an_empty_environment(named, stand_in, tmp_path):
    # The real ssh hands the last argument to the user's login shell.
    path = os.environ["PATH"]
    stand_in("ssh", f'exec env -i PATH="{path}" sh -c "${{@: -1}}"\n')
    program = stand_in("show", SHOW)
    (tmp_path / "hosts").write_text("alpha\nbeta\n")
    command = [LAUNCH / "ssh.sh", tmp_path / "hosts", "a config.py"]
    environment = os.environ | {"T5JAX": str(program)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20)
    assert result.returncode == 0, result.stderr
    assert "names LIBTPU_INIT_ARGS: no such variable is set here" in result.stderr
    for index in range(2):
        values = shown(program.with_name(f"show.{index}"))
        assert values == VALUES | {"NCCLX": "(none)", "T5JAX_ENV": NAMED}


def test_ssh_refuses_before_it_reaches_a_host(named, stand_in, tmp_path):
    stand_in("ssh", f"touch {tmp_path}/reached\n")
    (tmp_path / "hosts").write_text("alpha\n")
    command = [LAUNCH / "ssh.sh", tmp_path / "hosts", "config.py"]
    environment = os.environ | {"T5JAX_ENV": "XLA-FLAGS"}
    assert subprocess.run(command, env=environment, capture_output=True).returncode == 64
    assert not (tmp_path / "reached").exists()


def test_local_processes_inherit_them(named, stand_in):
    program = stand_in("show", SHOW)
    command = [sys.executable, LAUNCH / "local.py", "-n", "2", "--program", str(program), "--"]
    assert subprocess.run(command, capture_output=True, timeout=20).returncode == 0
    for index in range(2):
        assert VALUES.items() <= shown(program.with_name(f"show.{index}")).items()


def test_the_run_says_what_is_not_set(monkeypatch, capsys):
    monkeypatch.setenv("T5JAX_ENV", "PATH HOM* NOT_THERE NOR_*")
    monkeypatch.setattr(distributed, "_serialize_virtual_devices", lambda: None)
    runtime.start_distributed(RuntimeConfig(detect_cluster=False))
    assert "T5JAX_ENV names NOT_THERE, NOR_*: not set here" in capsys.readouterr().err.splitlines()
