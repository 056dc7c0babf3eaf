""".ci/engines installs what is missing, and whatever apt-get does, ends well and in a line."""

import os
import pathlib
import shutil
import subprocess

import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / ".ci" / "engines"
# As sudo, where the tests are not root: -n true, and -n --preserve-env=NAME COMMAND.
SUDO = 'while [[ $1 == -* ]]; do shift; done\nexec "$@"\n'


@pytest.fixture
def machine(tmp_path):
    """machine(APT_GET): what the script prints where apt-get does so; its calls are in `calls`."""
    for name in ("bash", "timeout", "sort", "tail", "sleep", "touch", "chmod", "true"):
        (tmp_path / name).symlink_to(shutil.which(name))

    def program(name, text):
        (tmp_path / name).write_text(f"#!{shutil.which('bash')}\n{text}")
        (tmp_path / name).chmod(0o755)

    def run(apt_get, **variables):
        program("apt-get", f'echo "$*" >>{tmp_path}/calls\n{apt_get}')
        program("sudo", SUDO)
        # /usr/bin is not in it, so there is no sbatch, whatever this machine has.
        environment = {"PATH": str(tmp_path), "CI": "true"} | variables
        result = subprocess.run(
            [SCRIPT], env=environment, capture_output=True, text=True, timeout=20
        )
        assert (result.returncode, result.stderr) == (0, "")
        return result.stdout

    return run


def test_what_is_missing_is_installed_without_a_word(machine, tmp_path):
    names = " ".join(f"{tmp_path}/{name}" for name in ("sbatch", "slurmctld", "slurmd", "munged"))
    makes = f"touch {names} {tmp_path}/sshd; chmod +x {names} {tmp_path}/sshd"
    assert machine(f'[[ " $* " != *" install "* ]] || {{ {makes}; }}') == ""
    update, install = (tmp_path / "calls").read_text().splitlines()
    assert update.endswith(" update")
    assert "slurm-wlm" in install
    assert "DPkg::Lock::Timeout" in install
    assert machine("exit 100") == ""  # nothing is missing any more
    assert len((tmp_path / "calls").read_text().splitlines()) == 2


def test_apt_get_that_fails_is_a_line(machine):
    (line,) = machine("echo 'E: there is no network' >&2; exit 100").splitlines()
    assert line.startswith("engines: ")
    assert "slurm-wlm" in line
    assert line.endswith("not installed: apt-get: E: there is no network")


@pytest.mark.skipif(os.getuid() == 0, reason="as root nobody is asked")
def test_a_users_own_machine_is_left_alone(machine, tmp_path):
    (line,) = machine("exit 0", CI="").splitlines()
    assert "not root" in line
    assert not (tmp_path / "calls").exists()


def test_where_there_is_no_apt_get_it_says_so(machine, tmp_path):
    machine("exit 0")
    (tmp_path / "apt-get").unlink()
    script = subprocess.run(
        [SCRIPT], env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=20
    )
    assert script.returncode == 0
    assert script.stdout.endswith("not installed: this is neither Debian nor Ubuntu\n")
