"""Stores made by a Slurm array and a Kubernetes Job: which part each task and each pod makes.

`tests/commands/test_cache_parts.py` runs the Slurm script with the real command.
"""

import os
import pathlib
import subprocess

import pytest

LAUNCH = pathlib.Path(__file__).parents[2] / "launch"


@pytest.fixture
def t5jax(stand_in):
    """t5jax(WORDS, VARIABLES): what the command line called t5jax with, or its error."""
    stand_in("t5jax", 'printf "%s|" "$@"\n')

    def run(words, **variables):
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "T5JAX"))}
        result = subprocess.run(
            words, env=environment | variables, capture_output=True, text=True, timeout=20
        )
        return result.stdout.split("|")[:-1] if result.returncode == 0 else result.stderr

    return run


def array(tasks: list[int], task: int) -> dict[str, str]:
    """What Slurm says to a task of --array=TASKS."""
    numbers = {"ID": task, "COUNT": len(tasks), "MIN": min(tasks), "MAX": max(tasks)}
    return {f"SLURM_ARRAY_TASK_{name}": str(number) for name, number in numbers.items()}


SCRIPT = ["bash", LAUNCH / "slurm" / "cache.sbatch", "a config.py", "--data.seed", "3"]


def test_slurm_every_task_of_an_array_makes_its_part(t5jax):
    options = ["cache", "--part", "5/7", "--num-processes", "3"]
    called = t5jax(SCRIPT, SLURM_CPUS_PER_TASK="3", **array(list(range(7)), 5))
    assert called == [*options, "a config.py", "--data.seed", "3"]


def test_slurm_a_repeated_task_needs_the_number_of_parts(t5jax):
    called = t5jax(SCRIPT, T5JAX_PARTS="64", **array([3, 17], 17))
    assert called[:5] == ["cache", "--part", "17/64", "--num-processes", "1"]
    for tasks in ([3, 17], [1, 2, 3], [0, 2]):
        assert "T5JAX_PARTS=64 sbatch" in t5jax(SCRIPT, **array(tasks, tasks[0]))


def test_slurm_a_job_that_is_no_array_finishes(t5jax):
    assert t5jax(SCRIPT) == ["cache", "--finish", "a config.py", "--data.seed", "3"]


def test_kubernetes_every_index_makes_its_part(t5jax):
    yaml = pytest.importorskip("yaml")
    parts, finish = yaml.safe_load_all((LAUNCH / "gke" / "cache_job.yaml").read_text())
    spec = parts["spec"]
    assert (parts["kind"], spec["completionMode"]) == ("Job", "Indexed")
    (container,) = spec["template"]["spec"]["containers"]
    words = [*container["command"], *container["args"]]
    count, cpus = spec["completions"], container["resources"]["requests"]["cpu"]
    called = t5jax(words, JOB_COMPLETION_INDEX="5")
    expected = ["cache", "configs/CONFIG.py", "--part", f"5/{count}", "--num-processes", cpus]
    assert called == expected
    (ignored, failed) = spec["podFailurePolicy"]["rules"]
    assert ignored["action"] == "Ignore"  # an eviction is no failure
    assert (failed["action"], failed["onExitCodes"]["values"]) == ("FailIndex", [64, 65, 73])
    assert failed["onExitCodes"]["containerName"] == container["name"]
    (finishing,) = finish["spec"]["template"]["spec"]["containers"]
    assert t5jax(finishing["command"]) == ["cache", "configs/CONFIG.py", "--finish"]
    for name in ("image", "workingDir", "volumeMounts", "env"):
        assert finishing[name] == container[name]
