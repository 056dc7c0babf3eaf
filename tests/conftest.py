"""Every test runs on eight virtual CPU devices; real data comes through a variable."""

import collections
import gc
import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence

import pytest

from tests.signals import defaults_for_children

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUM_CPU_DEVICES"] = "8"
# Two programs with collectives in flight on more devices than cores can wait for each other.
os.environ["JAX_CPU_ENABLE_ASYNC_DISPATCH"] = "false"
# Tests compile for longer than they compute; those of parity are run with XLA_FLAGS= (see .ci/run).
# The emitters that XLA's CPU backend had before take half the time that its fusion emitters take;
# programs cut in parts, to be compiled by several threads, take a third longer on a core.
FLAGS = (
    "--xla_backend_optimization_level=0",
    "--xla_cpu_use_fusion_emitters=false",  # unknown to JAX 0.11, which has nothing else
    "--xla_cpu_parallel_codegen_split_count=1",
)


def known(flags: Sequence[str]) -> bool:
    """Whether the installed XLA knows them all: it ends a process that gives it others."""
    command = [sys.executable, "-c", "import jax; jax.devices()"]
    environment = os.environ | {"XLA_FLAGS": " ".join(flags)}
    return subprocess.run(command, env=environment, capture_output=True).returncode == 0


if "XLA_FLAGS" not in os.environ:  # it is set in the workers that pytest-xdist starts
    flags = FLAGS if known(FLAGS) else [flag for flag in FLAGS if known([flag])]
    os.environ["XLA_FLAGS"] = " ".join(flags)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Compiled programs stay, and are many objects: looking through them for garbage is a tenth of the
# time that tests take.
gc.set_threshold(100_000, 50, 100)


@pytest.fixture(scope="session")
def real_data() -> pathlib.Path:
    """Root of the real data (C4 rows, T5's vocabulary, golden activations)."""
    root = os.environ.get("T5JAX_TEST_DATA")
    if not root:
        pytest.skip("T5JAX_TEST_DATA is not set: needs the directory of real data")
    path = pathlib.Path(root)
    assert path.is_dir(), f"T5JAX_TEST_DATA={root} is not a directory"
    return path


@pytest.fixture
def default_signals():
    """For tests that send signals: they work under `nohup` and in background jobs too."""
    with defaults_for_children():
        yield


@pytest.fixture(scope="session")
def long_trials() -> bool:
    """Whether tests by trial (random kills, random mixtures) run as often as docs/ says; CI, which
    has to end within 40 minutes, runs fewer."""
    return bool(os.environ.get("T5JAX_LONG_TRIALS"))


# Few tests that take long: begun first, so that no worker sits over them when the others are done.
LONGEST = (
    "multiprocess/test_training",
    "launch/test_engines",
    "multiprocess/test_prediction",
    "commands/test_convert",
    "pipeline/test_invariance",
    "commands/test_finetuning_runs",
    "multiprocess/test_evaluation",
    "commands/test_train_evaluate",
    "commands/test_evaluate_tasks",
    "decoding/test_generator",
)


@pytest.hookimpl(trylast=True)  # when those that are not to run are gone
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not os.environ.get("T5JAX_LONG_TRIALS"):
        skipped = pytest.mark.skip(reason="T5JAX_LONG_TRIALS is not set: CI has no time for it")
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(skipped)
    tests_of = collections.Counter(item.path for item in items)

    def place(item: pytest.Item) -> tuple[int, int]:
        name = f"{item.path.parent.name}/{item.path.stem}"
        is_long = name in LONGEST
        return (LONGEST.index(name), 0) if is_long else (len(LONGEST), -tests_of[item.path])

    items.sort(key=place)  # stable: a file's tests stay together and in their order
