"""Every test runs on eight virtual CPU devices; real data comes through a variable."""

import gc
import os
import pathlib

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUM_CPU_DEVICES"] = "8"
# Two programs with collectives in flight on more devices than cores can wait for each other.
os.environ["JAX_CPU_ENABLE_ASYNC_DISPATCH"] = "false"
# Tests compile for longer than they compute; those of parity are run with XLA_FLAGS= (see .ci/run).
# The emitters that XLA's CPU backend had before take half the time that its fusion emitters take;
# programs cut in parts, to be compiled by several threads, take a third longer on a core.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false "
    "--xla_cpu_parallel_codegen_split_count=1",
)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest

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


@pytest.fixture(scope="session")
def long_trials() -> bool:
    """Whether tests by trial (random kills, random mixtures) run as often as docs/ says; CI, which
    has to end within 40 minutes, runs fewer."""
    return bool(os.environ.get("T5JAX_LONG_TRIALS"))


# Half a minute each: begun first, so that no worker sits over one when all the others are done.
LONGEST = (
    "test_train_evaluate",
    "test_train_step",
    "test_predict",
    "test_t5",
    "test_evaluate_tasks",
    "test_generator",
    "test_launch_local",
    "test_suite",
    "test_seqio_own_tasks",
    "test_choosing",
    "test_warm_start",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not os.environ.get("T5JAX_LONG_TRIALS"):
        skipped = pytest.mark.skip(reason="T5JAX_LONG_TRIALS is not set: CI has no time for it")
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(skipped)
    items.sort(key=lambda item: item.path.stem not in LONGEST)  # stable: else as collected
