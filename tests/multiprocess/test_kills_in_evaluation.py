"""`kill -9` while a run is evaluated: real processes, no step lost."""

import json
import os
import random
import shutil
import subprocess
import sys
import time

import pytest

from t5jax.checkpoints import committed_steps
from t5jax.commands.cache import cache_command
from tests.multiprocess import tiny_run

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


def test_killed_evaluations_lose_no_step(tmp_path, long_trials):
    kills = 20 if long_trials else 2
    steps = EVERY * (kills + 1)
    config = tiny_run.write_config(tmp_path, steps)
    (tmp_path / "held_out").mkdir()
    validation = shutil.copy(tmp_path / "reference.txt", tmp_path / "held_out")
    flags = ["--data.validation-files", str(validation)]
    cache_command(str(config), flags, splits=["validation"], num_processes=1, overwrite=False)
    flags += ["--checkpoints.save-every-steps", str(EVERY)]
    flags += ["--train.eval-every-steps", str(EVERY), "--train.num-eval-rows", "1500"]
    command = [sys.executable, "-m", "t5jax", "train", str(config), *flags]
    environment = dict(
        os.environ,
        JAX_NUM_CPU_DEVICES="1",
        JAX_COMPILATION_CACHE_DIR=str(tmp_path / "xla"),
        JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
    )
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
    subprocess.run(command, env=environment, check=True)
    lines = tiny_run.loss_lines(killed)
    print(f"{kills} kills in evaluations, {len(lines)} loss lines, {len(lost)} steps lost")
    assert lost == []
    assert lines == sorted(expected.items()), "every step once, with the same bits"
    records = map(json.loads, (killed / "metrics.jsonl").read_text().splitlines())
    evaluated = [record["step"] for record in records if record["kind"] == "evaluation"]
    assert evaluated == list(range(EVERY, steps + 1, EVERY))
