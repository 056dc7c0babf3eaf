"""Two writers of each place that a command writes: the second is refused by name."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from t5jax.cli import main
from t5jax.runtime import ExitCode, owned, ownership
from tests.commands.glue_run import config as config
from tests.commands.glue_run import saved as saved

TASK = "glue_sst2_v002"


@pytest.fixture
def run(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "run")


def said(capsys, code: int, *words) -> str:
    assert main([str(word) for word in words]) == code
    return capsys.readouterr().err


def refused(capsys, target, *words) -> None:
    line = said(capsys, ExitCode.CANNOT_WRITE, *words).splitlines()[-1]
    assert line.startswith(f"error: {target}: the first (process {os.getpid()} on ")
    assert "wait for it or end it" in line


def test_a_workdir(config, tmp_path, capsys):
    workdir = tmp_path / "run"
    workdir.mkdir()
    words = ("train", config, "--workdir", workdir)
    with owned(workdir, "the first"):
        refused(capsys, workdir, *words)
        refused(capsys, workdir, "train", config, "--take-over", "--workdir", workdir)
        assert os.listdir(workdir) == [".lease"]


def test_stores_and_their_parts(config, tmp_path, capsys):
    cache = ("--data.cache-dir", tmp_path)
    store = tmp_path / TASK / "train"
    store.mkdir(parents=True)
    with owned(store, "the first", shared=True):
        refused(capsys, store, "cache", config, *cache)
        said(capsys, 0, "cache", config, "--part", "0/2", *cache)
        refused(capsys, store, "cache", config, "--finish", *cache)
    with owned(store, "the first"):
        refused(capsys, store, "cache", config, "--part", "1/2", *cache)
    for options in (("--part", "1/2"), ("--finish",)):
        said(capsys, 0, "cache", config, *options, *cache)
    left = [name for _, _, names in os.walk(tmp_path) for name in names if "lease" in name]
    assert left == []


@pytest.mark.slow
@pytest.mark.parametrize("command", ["predict", "score"])
def test_outputs(run, tmp_path, capsys, command):
    output = tmp_path / "out.jsonl"
    (tmp_path / "in.tsv").write_text("input\ttarget\nsst2 sentence: dull\tnegative\n")
    words = (command, run, "--input", tmp_path / "in.tsv", "--output", output)
    with owned(output, "the first", beside=True):
        refused(capsys, output, *words)
        assert not output.exists()
    assert said(capsys, ExitCode.CONFIG, *words[:4], "--take-over") == (
        "error: --take-over has no effect without --output FILE\n"
    )


@pytest.mark.slow
def test_the_best_checkpoint(run, capsys):
    with owned(run / "best", "the first", beside=True):
        refused(capsys, run / "best", "evaluate", run, "--keep-best", f"{TASK}/accuracy")
        assert not (run / "best").exists()


@pytest.mark.long
@pytest.mark.slow
def test_evaluations(run, tmp_path, capsys):
    words = ("evaluate", run, "--only", "metrics")
    for options, folder in (
        ((), run / "evaluations"),
        (("--output", tmp_path / "o"), tmp_path / "o"),
    ):
        directory = folder / "validation" / "4"
        with owned(directory, "the first", beside=True):
            refused(capsys, directory, *words, *options)
            assert not directory.exists()
            said(capsys, 0, *words, "--step", "2", *options)  # another folder


@pytest.mark.slow
def test_a_follower_waits_for_the_run_s_own_evaluation(run, capsys, monkeypatch):
    first = contextlib.ExitStack()
    directory = run / "evaluations" / "validation" / "4"
    first.enter_context(owned(directory, "t5jax train", beside=True))
    lines = []

    def end_when_waited_for(line: str) -> None:
        lines.append(line)
        assert not directory.exists()
        first.close()

    monkeypatch.setattr(ownership, "_say", end_when_waited_for)
    said(capsys, 0, "evaluate", run, "--only", "metrics", "--follow")
    (line,) = lines
    assert line.startswith(f"{directory}: t5jax train (process {os.getpid()} on ")
    assert line.endswith("writes there: waiting for its end")
    assert {"2", "4"} <= set(os.listdir(run / "evaluations" / "validation"))


@pytest.mark.long  # a whole run
@pytest.mark.slow
def test_training_goes_on_where_another_evaluates_its_step(config, tmp_path, capsys):
    workdir = tmp_path / "run"
    directory = workdir / "evaluations" / "validation" / "2"
    train = ("train", config, "--workdir", workdir, "--evaluation.every-steps", "2")
    said(capsys, 0, "train", config, "--workdir", workdir, "--train.num-train-steps", "1")
    with owned(directory, "t5jax evaluate", beside=True):
        said(capsys, 0, *train)
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    (kept,) = [record for record in records if record["kind"] == "predictions_not_kept"]
    assert kept["step"] == 2
    assert kept["reason"].startswith(f"{directory}: t5jax evaluate (process {os.getpid()} on ")
    assert [record["step"] for record in records if record["kind"] == "evaluation"] == [2, 4]
    assert not directory.exists()
    assert (directory.with_name("4") / "results.json").exists()


@pytest.mark.long  # two of them; tests/multiprocess/test_kills_in_evaluation.py has another
@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_at_once(config, tmp_path, capsys, default_signals):
    workdir = tmp_path / "run"
    words = ["train", str(config), "--workdir", str(workdir), "--train.num-train-steps", "100000"]
    words += ["--tracking.seconds-between-lines", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "t5jax", *words], stderr=subprocess.PIPE, text=True,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "1"},
    )  # fmt: skip
    try:
        assert process.stderr is not None
        assert any("step 3/" in line for line in process.stderr)
        line = said(capsys, ExitCode.CANNOT_WRITE, *words).splitlines()[-1]
        assert f"{workdir}: t5jax train (process {process.pid} on " in line
    finally:
        process.send_signal(signal.SIGKILL)
        with contextlib.suppress(BrokenPipeError):
            process.communicate()
    records = (workdir / "metrics.jsonl").read_text().splitlines()
    steps = str(json.loads(records[-1])["step"] + 2)
    lines = said(capsys, 0, *words[:4], "--train.num-train-steps", steps).splitlines()
    (line,) = [line for line in lines if "taken over" in line]
    assert line.startswith(f"{workdir}: taken over from t5jax train (process {process.pid} on ")
    assert line.endswith(": it has ended")
