"""`kill -9` while a run is evaluated: real processes, no step lost."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from t5jax.checkpoints import committed_steps
from t5jax.commands.cache import cache_command
from tests.multiprocess import tiny_run
from tests.multiprocess.test_launch_local import codes, local

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("default_signals")]
EVERY = 4  # steps
SECONDS = 0.5  # of an evaluation, at least


def killed_in_evaluation(command, environment, seconds: float, *, again: bool) -> None:
    """Starts the run, and kills it `seconds` after a step that is to be evaluated was saved; if
    `again`, after it began to evaluate the step that it resumed from."""
    trigger = "evaluating again" if again else "saved"
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if f"  {trigger}" in line:
            time.sleep(seconds)
            break
    process.kill()
    process.communicate()
    assert f"  {trigger}" in said[-1], "".join(said)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory) -> list[str]:
    """`t5jax train CONFIG` of a run that is evaluated, on many rows, and saved every few steps."""
    folder = tmp_path_factory.mktemp("evaluated")
    config = tiny_run.write_config(folder, steps=2 * EVERY)
    (folder / "held_out").mkdir()
    validation = shutil.copy(folder / "reference.txt", folder / "held_out")
    flags = ["--data.validation-files", str(validation)]
    cache_command(str(config), flags, splits=["validation"], num_processes=1, overwrite=False)
    flags += ["--checkpoints.save-every-steps", str(EVERY)]
    flags += ["--train.eval-every-steps", str(EVERY), "--train.num-eval-rows", "1000"]
    flags += ["--runtime.compilation-cache", str(folder / "compiled")]
    return [sys.executable, "-m", "t5jax", "train", str(config), *flags]


@pytest.mark.long  # four starts of two processes; in one: tests/run/test_save_before_evaluation.py
@pytest.mark.parametrize("saved", [True, False])
def test_sigterm_to_one_of_two_hosts_while_they_evaluate(evaluated, tmp_path, saved):
    """The step is saved before it is evaluated, or by both when it was only to be evaluated."""
    workdir = tmp_path / "run"
    every = EVERY if saved else 2 * EVERY
    command = [*evaluated, "--workdir", str(workdir), "--checkpoints.save-every-steps", str(every)]
    when = "  saved" if saved else f"step {EVERY}/"
    faults = [local.Fault(process=0, signal=signal.SIGTERM, when=when)] * 2
    outcome = local.Job(command, 2, devices=1, faults=tuple(faults)).wait(timeout_seconds=240)
    print("\n".join(outcome.lines))
    assert codes(outcome) == {0: 143, 1: 143}
    found = events(workdir)
    assert found[-2:] == [("saved", EVERY), ("preempted", EVERY)], found
    assert ("evaluation", EVERY) not in found
    outcome = local.Job(command, 2, devices=1).wait(timeout_seconds=240)
    print("\n".join(outcome.lines))
    assert outcome.code == 0
    assert [step for step, _ in tiny_run.loss_lines(workdir)] == list(range(1, 2 * EVERY + 1))
    later = events(workdir)[len(found) :]
    assert later == [
        ("resumed", EVERY), ("evaluating_again", EVERY), ("evaluation", EVERY),
        ("saved", 2 * EVERY), ("evaluation", 2 * EVERY), ("finished", 2 * EVERY),
    ]  # fmt: skip


def events(workdir) -> list[tuple]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    records = [(record["kind"], record["step"]) for record in map(json.loads, lines)]
    return [x for x in records if x[0] not in ("train", "goodput", "compiled", "started")]


def test_killed_evaluations_lose_no_step(evaluated, tmp_path, long_trials):
    kills = 20 if long_trials else 1
    steps = EVERY * (kills + 1)
    command = [*evaluated, "--train.num-train-steps", str(steps)]
    environment = dict(os.environ, JAX_NUM_CPU_DEVICES="1")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([*command, "--workdir", str(whole)], env=environment, check=True)
    expected = dict(tiny_run.loss_lines(whole))
    assert set(expected) == set(range(1, steps + 1))

    command += ["--workdir", str(killed)]
    generator, lost = random.Random(5), []
    for kill in range(kills):
        seconds = generator.uniform(0, SECONDS)
        killed_in_evaluation(command, environment, seconds, again=kill > 0 and kill % 3 == 0)
        newest = committed_steps(killed / "checkpoints")[-1]
        trained = [step for step, _ in tiny_run.loss_lines(killed)]
        lost += [step for step in trained if step > newest]
        text = (killed / "metrics.jsonl").read_text().splitlines()
        assert json.loads(text[-1])["kind"] in ("saved", "evaluating_again"), "in an evaluation"
    ended = subprocess.run(command, env=environment, check=True, stderr=subprocess.PIPE, text=True)
    assert f"{killed}: taken over from t5jax train (process" in ended.stderr, "at once"
    lines = tiny_run.loss_lines(killed)
    print(f"{kills} kills in evaluations, {len(lines)} loss lines, {len(lost)} steps lost")
    assert lost == []
    assert lines == sorted(expected.items()), "every step once, with the same bits"
    records = map(json.loads, (killed / "metrics.jsonl").read_text().splitlines())
    evaluated = [record["step"] for record in records if record["kind"] == "evaluation"]
    assert evaluated == list(range(EVERY, steps + 1, EVERY))
