"""Which interpreter `make test-matrix` takes for a version: one that runs, wherever it is."""

import pathlib
import shutil
import subprocess
import sys

import pytest

PROGRAM = pathlib.Path(__file__).parents[2] / ".ci" / "find_python"
VERSION = f"3.{sys.version_info.minor}"
SHIM = "#!/bin/sh\necho 'the command exists in these Python versions' >&2\nexit 127\n"


@pytest.fixture
def find(tmp_path):
    """`find(VERSION, …)`: (exit code, output), where bin/ is the PATH and pyenv/ is pyenv's."""
    (tmp_path / "bin").mkdir()
    for tool in ("bash", "sort"):  # the machine's own Pythons lie beside its tools
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))
    (tmp_path / "pyenv/versions").mkdir(parents=True)
    environment = {"PATH": str(tmp_path / "bin"), "PYENV_ROOT": str(tmp_path / "pyenv")}

    def find(*words) -> tuple[int, str]:
        ended = subprocess.run([PROGRAM, *words], env=environment, capture_output=True, text=True)
        return ended.returncode, ended.stdout

    return find


def script(path: pathlib.Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def test_one_in_the_path(find, tmp_path):
    (tmp_path / f"bin/python{VERSION}").symlink_to(sys.executable)
    code, output = find(VERSION)
    assert code == 0
    assert pathlib.Path(output.strip()).samefile(sys.executable)


def test_a_shim_that_runs_nothing_is_passed_over(find, tmp_path):
    script(tmp_path / f"bin/python{VERSION}", SHIM)
    place = tmp_path / f"pyenv/versions/{VERSION}.1/bin"
    place.mkdir(parents=True)
    (place / "python").symlink_to(sys.executable)
    code, output = find(VERSION)
    assert code == 0
    assert pathlib.Path(output.strip()).samefile(sys.executable)


def test_uv_is_asked(find, tmp_path):
    """For a version of which nothing else is found; here uv's answer is another version, though."""
    uv = tmp_path / "uv"
    script(
        uv, f'#!/bin/sh\necho "$UV_PYTHON_DOWNLOADS $*" >{tmp_path}/asked\necho {sys.executable}\n'
    )
    assert find("3.99", str(uv)) == (1, "")
    assert (tmp_path / "asked").read_text() == "never python find --no-project 3.99\n"


def test_none(find):
    assert find("3.99") == (1, "")
