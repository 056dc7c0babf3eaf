"""Tasks with metrics through the command line: in training, afterwards, followed, handed in."""

import json
import os
import re
import shutil
import signal

import pytest

import t5jax
from t5jax.cli import main
from t5jax.data.registry import names
from t5jax.errors import ConfigError
from t5jax.evaluation import predictions
from t5jax.runtime import ExitCode
from tests.commands import glue_run
from tests.commands.glue_run import config as config
from tests.commands.glue_run import saved as saved

pytestmark = pytest.mark.slow

TASK = "glue_sst2_v002"
BEST_F1 = ("--checkpoints.best-metric", f"validation/{TASK}/f1")


@pytest.fixture(scope="module")
def trained(config):
    """Four steps, with the tasks answered every two and the best kept."""
    flags = ["--evaluation.every-steps", "2", "--checkpoints.keep-best", "1"]
    flags += ["--checkpoints.keep-newest", "1", "--checkpoints.best-mode", "max"]
    flags += ["--checkpoints.best-metric", f"validation/{TASK}/accuracy"]
    assert main(["train", str(config), *flags]) == 0
    return config.parent / "run"


@pytest.fixture
def run(saved, tmp_path):
    """The same in a folder of the test's own."""
    return shutil.copytree(saved, tmp_path / "run")


def evaluated(capsys, *words):
    assert main(["evaluate", *map(str, words)]) == 0
    return capsys.readouterr()


def test_training_answers_and_evaluate_finds_the_same(trained, capsys):
    records = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    found = {r["step"]: r for r in records if r["kind"] == "evaluation"}
    assert list(found) == [2, 4]
    assert {r["split"] for r in found.values()} == {f"validation/{TASK}"}
    folder = trained / "evaluations" / "validation" / "4"
    before = (folder / "results.json").read_bytes()
    lines = evaluated(capsys, trained, "--only", "metrics", "--json").out.splitlines()
    (record,) = [json.loads(line) for line in lines]
    assert record["metrics"] == {f"{TASK}/accuracy": found[4][f"eval/validation/{TASK}/accuracy"]}
    assert (folder / "results.json").read_bytes() == before, "what training wrote is taken as it is"
    shutil.rmtree(folder)
    evaluated(capsys, trained, "--only", "metrics")
    assert (folder / "results.json").read_bytes() == before, "and made again from the checkpoint"


def test_losses_and_the_table_are_printed(trained, capsys):
    said = evaluated(capsys, trained).out
    assert "text_loss" in said
    assert f"\n{TASK}  accuracy " in said
    assert said.splitlines()[-1] == f"predictions: {trained}/evaluations/validation/4"


def test_answers_and_the_majority_class_are_shown(trained, capsys):
    said = evaluated(capsys, trained, "--only", "metrics", "--show", "2").out
    file = trained / "evaluations" / "validation" / "4" / f"{TASK}.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    first = max(rows, key=lambda row: row["score"])
    shown = f"  {first['inputs']}\n    -> {first['prediction']}   (target: {first['targets']})\n"
    assert " most confident of the different predictions" in said
    assert shown in said
    targets = [row["targets"] for row in rows]
    share = 100 * max(map(targets.count, targets)) / len(targets)
    (line,) = [line for line in said.splitlines() if line.startswith(f"{TASK}  accuracy")]
    assert line.split()[-2:] == [f"{share:.2f}", str(len(rows))]
    record = json.loads(evaluated(capsys, trained, "--only", "metrics", "--json").out)
    assert record["majority"] == {f"{TASK}/accuracy": pytest.approx(share)}


def test_following_evaluates_every_step_and_keeps_the_best(run, capsys):
    words = (run, "--only", "metrics", "--follow", "--keep-best", f"{TASK}/accuracy")
    said = evaluated(capsys, *words)
    assert [line for line in said.out.splitlines() if line.startswith("step")] == [
        f"step {step} of {run} on validation" for step in (2, 4)
    ]
    best = json.loads((run / "best" / "best.json").read_text())
    values = {}
    for step in (2, 4):
        folder = run / "evaluations" / "validation" / str(step)
        (line,) = json.loads((folder / "results.json").read_text())["results"]
        values[step] = line["value"]
        assert len((folder / f"{TASK}.jsonl").read_text().splitlines()) == glue_run.NUM_EXAMPLES
    assert best["value"] == max(values.values()) == values[best["step"]]
    lines = evaluated(capsys, run / "best", "--only", "metrics", "--json").out.splitlines()
    assert json.loads(lines[0])["metrics"] == {f"{TASK}/accuracy": best["value"]}


def test_following_a_run_that_stopped_ends(run, capsys, monkeypatch):
    monkeypatch.setattr("t5jax.evaluation.continuous.time.sleep", lambda seconds: None)
    shutil.rmtree(run / "checkpoints" / "4")
    words = (run, "--only", "metrics", "--follow", "--wait", "11")
    assert "no new checkpoint in" in evaluated(capsys, *words).err


def test_sigterm_ends_an_evaluation_that_goes_on_where_it_was(
    run, tmp_path, capsys, monkeypatch, default_signals
):
    monkeypatch.setattr(predictions, "_BATCHES_PER_CHUNK", 1)
    append, rows = predictions._append, []

    def append_and_kill(file, chunk, *rest):
        append(file, chunk, *rest)
        rows.append(len(chunk))
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(predictions, "_append", append_and_kill)
    batch = ("--evaluation.batch-size", "8")
    assert main(["evaluate", str(run), "--only", "metrics", *batch]) == ExitCode.PREEMPTED
    assert "preempted: the records written so far stay" in capsys.readouterr().err
    assert rows == [8]
    monkeypatch.setattr(predictions, "_append", append)
    evaluated(capsys, run, "--only", "metrics", *batch)
    evaluated(capsys, run, "--only", "metrics", "--output", tmp_path / "whole", *batch)
    both = [folder / "validation" / "4" for folder in (run / "evaluations", tmp_path / "whole")]
    for file in (f"{TASK}.jsonl", "results.json"):
        assert (both[0] / file).read_bytes() == (both[1] / file).read_bytes()


def test_sigterm_ends_a_follower_that_waits(run, capsys, monkeypatch, default_signals):
    shutil.rmtree(run / "checkpoints" / "4")
    monkeypatch.setattr("time.sleep", lambda seconds: os.kill(os.getpid(), signal.SIGTERM))
    words = ["evaluate", str(run), "--only", "metrics", "--follow", "--wait", "11"]
    assert main(words) == ExitCode.PREEMPTED
    assert "no new checkpoint in" not in capsys.readouterr().err


def test_a_submission_of_the_test_split(run, tmp_path, capsys):
    target = tmp_path / "out"
    words = (run, "--split", "test", "--evaluation.ranking", "total", "--submission", target)
    said = evaluated(capsys, *words)
    assert "split 'test' has no targets: predictions only" in said.out
    lines = (target / "SST-2.tsv").read_text().splitlines()
    assert lines[0] == "index\tprediction"
    assert [line.split("\t")[0] for line in lines[1:]] == ["0", "1", "2", "3", "4"]
    assert {line.split("\t")[1] for line in lines[1:]} <= {"0", "1"}


def test_other_tasks_than_the_run_s_own_and_their_average(run, capsys, tmp_path):
    tasks = ("--tasks", TASK, "glue_cola_v002")
    said = evaluated(capsys, run, "--output", tmp_path / "out", *tasks, "--json").out
    (record,) = [json.loads(line) for line in said.splitlines()]
    values = record["metrics"]
    mean = (values[f"{TASK}/accuracy"] + values["glue_cola_v002/matthews_corrcoef"]) / 2
    assert values["glue/average"] == pytest.approx(mean)
    table = evaluated(capsys, run, "--output", tmp_path / "out", *tasks).out
    assert "glue (2 of 8)" in table


def test_a_loaded_run_evaluates_as_the_act_does(run, capsys, tmp_path):
    words = (run, "--only", "metrics", "--json", "--decoding.num-beams", "2")
    (record,) = [json.loads(line) for line in evaluated(capsys, *words).out.splitlines()]
    report = t5jax.load(str(run)).evaluate(num_beams=2, output=str(tmp_path / "out"))
    assert report.values == record["metrics"]
    assert str(report).startswith("task ")
    first = t5jax.load(str(run)).evaluate("glue_cola_v002", num_examples=7, ranking="total")
    assert {line.examples for line in first.lines} == {7}
    with pytest.raises(
        ConfigError, match=r"no task of .*_simple_train has metrics and a split 'val"
    ):
        t5jax.load(str(run)).evaluate("super_glue_wsc_v102_simple_train")


OWN = """
from t5jax.data.sources import Tsv
from t5jax.data.tasks import ExampleTask
from t5jax.data.registry import add_task
from t5jax.metrics.classification import accuracy

add_task(ExampleTask(
    name="own_questions", description="", metrics=(accuracy,), splits=("validation",),
    source=lambda data: Tsv(validation_files=(data.datasets_dir + "/own.tsv",)),
    examples=lambda row: [{"inputs": row.text("text"), "targets": row.text("label")}],
))
"""


def test_a_run_answers_tasks_that_it_was_not_trained_on(run, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(names, "_own", {})
    (tmp_path / "own_questions.py").write_text(OWN)
    (tmp_path / "own.tsv").write_text("text\tlabel\na joy\tyes\na bore\tno\na row\tno\n")
    flags = ["--data.modules", "own_questions", "--data.datasets-dir", str(tmp_path)]
    assert main(["evaluate", str(run), *flags]) == 64  # its own task reads no module
    assert "data.modules=('own_questions',) has no effect" in capsys.readouterr().err
    words = ("--tasks", "own_questions", "--output", tmp_path / "out", *flags)
    assert re.search(r"own_questions +accuracy .* 3\n", evaluated(capsys, run, *words).out)
    settings = {"modules": ("own_questions",), "datasets_dir": str(tmp_path)}
    report = t5jax.load(str(run), data=settings).evaluate("own_questions")
    assert [line.examples for line in report.lines] == [3]


def test_several_models_answer_together(run, tmp_path):
    both = t5jax.load(str(run), ensemble=[f"{run}@2"]).evaluate(output=str(tmp_path / "both"))
    alone = t5jax.load(str(run)).evaluate(output=str(tmp_path / "alone"))
    assert both.settings["parameters"] != alone.settings["parameters"]
    texts = [(tmp_path / name / f"{TASK}.jsonl").read_text() for name in ("both", "alone")]
    assert texts[0] != texts[1]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--only", "loss", "--submission", "x"), "leave out --only loss"),
        (("--only", "metrics", "--num-rows", "5"), "leave out --tasks and --only"),
        (("--split", "nothing"), "no task of glue_sst2_v002 has metrics and a split 'nothing'"),
        (("--only", "metrics", "--keep-best", "x/y"), "the evaluation has glue_sst2_v002/accuracy"),
        (("--data.cache-dir", "nowhere"), "t5jax cache CONFIG; --only metrics needs no store"),
        (("--follow", "--step", "2"), "--follow takes every step"),
        (("--lowest",), "give --keep-best TASK/METRIC"),
        (("--show", "-1"), "--show -1: 0 or more predictions"),
        (("--show", "3", "--json"), "not with --json"),
        (("--show", "3", "--only", "loss"), "leave out --only loss"),
        (("--evaluation.batch-size", "0"), "evaluation.batch_size = 0: at least 1"),
    ],
)
def test_what_cannot_be_done_is_refused(run, words, reason, capsys):
    try:
        code = main(["evaluate", str(run), *words])
    except SystemExit as end:  # of argparse
        code = end.code
    assert code in (ExitCode.CONFIG, ExitCode.DATA)
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (
            ("--evaluation.every-steps", "2", "--data.mixture", "text_span_corruption"),
            "no task of text_span_corruption has metrics",
        ),
        (
            ("--evaluation.every-steps", "2", "--checkpoints.keep-best", "1", *BEST_F1),
            "best_metric = 'validation/glue_sst2_v002/f1': the tasks have",
        ),
        (
            ("--checkpoints.keep-best", "1", "--checkpoints.best-metric", "validation/a/b"),
            "needs evaluations: set evaluation.every_steps",
        ),
    ],
)
def test_training_refuses_what_it_could_not_evaluate(trained, config, flags, reason, capsys):
    if "text_span_corruption" in flags:
        for split in ("train", "validation"):
            text = config.parent / f"{split}.txt"
            text.write_text("some words in a row\n" * 50)
            flags += (f"--data.{split}-files", str(text))
        flags += ("--data.datasets-dir", "None", "--data.cache-dir", "None")
    assert main(["train", str(config), "--workdir", str(config.parent / "other"), *flags]) != 0
    assert reason in capsys.readouterr().err
