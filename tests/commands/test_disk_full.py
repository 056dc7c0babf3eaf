"""A disk that takes no more, in a process of its own: the last line names the file and what to do.

The limit on the size of a file (RLIMIT_FSIZE) makes the operating system refuse the writing itself.
"""

import os
import pathlib
import subprocess
import sys

import pytest

from t5jax.runtime import ExitCode

SCRIPT = """
import resource, sys
from t5jax.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
sys.exit(main(sys.argv[1:]))
"""


def limited(limit: int, *words: object, cwd: pathlib.Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    environment.pop("T5JAX_DEBUG", None)
    return subprocess.run(
        [sys.executable, "-c", SCRIPT.format(limit=limit), *map(str, words)],
        cwd=cwd, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def last_line(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == ExitCode.CANNOT_WRITE, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    return done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_a_checkpoint_that_does_not_fit(tiny, tmp_path):
    workdir = tmp_path / "run"
    done = limited(
        40_000, "train", tiny / "tiny.py", "--workdir", workdir, "--train.num-train-steps", 3,
        "--train.eval-every-steps", 0, "--train.num-eval-rows", "None",
        "--checkpoints.save-every-steps", 2, cwd=tmp_path,
    )  # fmt: skip
    line = last_line(done)
    assert line.startswith(f"error: {workdir}/checkpoints/2.orbax-checkpoint-tmp/")
    assert "the checkpoint of step 2 was not saved (File too large)" in line
    assert "there is none before it" in line
    assert line.endswith("(ulimit -f): raise the limit, then start again")


@pytest.mark.slow
def test_a_store_that_does_not_fit(tiny_text, tmp_path):
    done = limited(
        9_000, "cache", tiny_text / "tiny.py", "--data.cache-dir", tmp_path / "c",
        "--num-processes", 1, cwd=tmp_path,
    )  # fmt: skip
    line = last_line(done)
    assert line.startswith(f"error: {tmp_path}/c/text/train/shard-0000")
    assert "File too large" in line
    assert line.endswith("(ulimit -f): raise the limit, then start again")
