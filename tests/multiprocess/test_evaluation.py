"""Tasks evaluated on several hosts: the same values to the last digit, whatever their number."""

import json
import sys

import pytest

from t5jax.config import load_config
from tests.commands import glue_run
from tests.commands.saved_runs import save_run
from tests.multiprocess.test_launch_local import local

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from t5jax.commands.cache import cache_command

    folder = tmp_path_factory.mktemp("glue")
    config = glue_run.write(folder)
    cache_command(str(config), [], splits=[], num_processes=1, overwrite=False)
    return save_run(load_config(str(config)), folder / "run", steps=(4,))


def evaluate(run, output, processes):
    """(losses, metrics, text of the predictions) on four devices shared by so many hosts."""
    command = [sys.executable, "-m", "t5jax", "evaluate", str(run), "--json"]
    command += ["--output", str(output), "--evaluation.batch-size", "4", "--mesh.data", "4"]
    job = local.Job(command, processes, devices=4 // processes)
    outcome = job.wait(grace_seconds=60, timeout_seconds=240)
    print("\n".join(outcome.lines))
    assert outcome.code == 0
    found = [line.partition("{") for line in outcome.lines]
    records = [json.loads(brace + rest) for _, brace, rest in found if '"split"' in rest]
    losses, metrics = records
    predictions = (output / "validation" / "4" / "glue_sst2_v002.jsonl").read_text()
    return losses, metrics, predictions


def test_values_do_not_depend_on_the_number_of_hosts(run, tmp_path):
    alone = evaluate(run, tmp_path / "1", 1)
    losses, metrics, predictions = alone
    assert losses["num_rows"] % 4, "the rows do not divide"
    assert len(predictions.splitlines()) == glue_run.NUM_EXAMPLES
    assert "glue_sst2_v002/accuracy" in metrics["metrics"]
    for processes in (2, 4):
        assert evaluate(run, tmp_path / str(processes), processes) == alone
