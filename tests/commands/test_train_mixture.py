"""A mixture through the command line: every task has its own loss, in training and evaluation."""

import json
import pathlib
import re
import shutil

import pytest

from t5jax.cli import main
from t5jax.data.objectives import UL2_DENOISERS

pytestmark = pytest.mark.slow

TASKS = [f"text:ul2_{denoiser.name}" for denoiser in UL2_DENOISERS]


def train(tiny, workdir, *flags):
    words = ["train", str(tiny / "tiny.py"), "--workdir", str(workdir)]
    words += ["--data.mixture", "text:ul2", "--data.inputs-length", "71"]
    words += ["--train.eval-every-steps", "0", "--train.num-eval-rows", "None"]
    words += ["--checkpoints.save-every-steps", "2"]
    assert main([*words, "--train.num-train-steps", "4", *flags]) == 0
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def of_kind(records, kind):
    return [record for record in records if record["kind"] == kind]


@pytest.fixture(scope="module")
def mixed(tiny, tmp_path_factory):
    flags = ["--train.eval-every-steps", "4", "--train.num-eval-rows", "17"]
    return train(tiny, tmp_path_factory.mktemp("mixed") / "run", *flags)


def test_sums_of_the_tasks_are_those_of_the_step(mixed):
    seen = set()
    for record in of_kind(mixed, "train"):
        tasks = {name for name in TASKS if f"task/{name}/loss" in record}
        seen |= tasks
        weights = {name: record[f"task/{name}/target_tokens"] for name in tasks}
        assert sum(weights.values()) == record["train/target_tokens"]
        for what in ("loss", "accuracy"):
            total = sum(record[f"task/{name}/{what}"] * weights[name] for name in tasks)
            assert total / record["train/target_tokens"] == pytest.approx(
                record[f"train/{what}"], rel=1e-4
            )
    assert seen == set(TASKS)
    (started,) = of_kind(mixed, "started")
    assert started["mixture/weight/text:ul2_s_prefix_lm_25"] == pytest.approx(0.2, abs=1e-5)


def test_every_task_is_evaluated_and_all_together(mixed):
    evaluations = {record["split"]: record for record in of_kind(mixed, "evaluation")}
    assert set(evaluations) == {"validation"} | {f"validation/{name}" for name in TASKS}
    logged = {key: x for record in evaluations.values() for key, x in record.items()}
    tokens = {name: logged[f"eval/validation/{name}/target_tokens"] for name in TASKS}
    num_tokens = logged["eval/validation/target_tokens"]
    assert sum(tokens.values()) == num_tokens
    total = sum(logged[f"eval/validation/{name}/loss"] * n for name, n in tokens.items())
    assert total / num_tokens == pytest.approx(logged["eval/validation/loss"], rel=1e-5)


def test_every_logged_key_is_documented(mixed):
    """docs/metrics.md has TASK and SPLIT for names, and NAME for the metrics of a task."""
    page = (pathlib.Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    documented = set(re.findall(r"`((?:train|task|throughput|mixture|goodput|eval)/[\w/]+)`", page))
    logged = set()
    for key in {key for record in mixed for key in record if "/" in key}:
        for name in TASKS:
            key = key.replace(name, "TASK")
        key = key.replace("eval/validation", "eval/SPLIT")
        logged.add(re.sub(r"^eval/SPLIT/TASK/\w+$", "eval/SPLIT/TASK/NAME", key))
    of_one_task = {"eval/SPLIT/num_rows", "eval/SPLIT/unigram_entropy"}
    assert logged | of_one_task == documented
    assert not logged & of_one_task


@pytest.mark.slow
def test_a_live_run_goes_on_where_it_stopped(tiny, tmp_path):
    """Without a store: the same rows again from the positions that the checkpoint keeps."""
    whole = train(tiny, tmp_path / "whole", "--data.cache-dir", "None")
    losses = {record["step"]: record["train/loss_hex"] for record in of_kind(whole, "train")}
    assert list(losses) == [1, 2, 3, 4]
    again = shutil.copytree(tmp_path / "whole", tmp_path / "again")
    shutil.rmtree(again / "checkpoints" / "4")
    records = train(tiny, again, "--data.cache-dir", "None")
    (resumed,) = of_kind(records, "resumed")
    after = of_kind(records[records.index(resumed) :], "train")
    assert {record["step"]: record["train/loss_hex"] for record in after} == {
        step: loss for step, loss in losses.items() if step > 2
    }
