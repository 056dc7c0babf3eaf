"""A run whose optimizer, schedule, loss, objective, logits processors and tracker are a user's:
trained, resumed, evaluated, loaded and taken as a warm start; the module is docs/extending.md's."""

import csv
import itertools
import json
import pathlib
import re
import sys

import pytest

import t5jax
from t5jax.checkpoints import read_record
from t5jax.cli import main
from t5jax.config import from_text, load_config

pytestmark = pytest.mark.slow

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs" / "extending.md"
PARTS = """
    run = tiny()
    run.workdir = "own"
    run.optimizer = my_parts.MuonForKernels(
        learning_rate=0.01, schedule=my_parts.StepDecay(at=(0.5,)), momentum=0.8
    )
    run.loss = my_parts.FocalLoss(gamma=0.5)
    run.data.objective = "my_parts.Reversal(keep=2)"
    run.decoding = DecodingConfig(
        max_length=24,
        logits_processors=(my_parts.Penalize(tokens=(100, 104)), my_parts.no_repeated_token),
    )
    run.tracking.trackers = (my_parts.CsvTracker(),)
    return run
"""


FLAGS = [
    *("--optimizer.momentum", "0.9", "--loss.gamma", "1", "--train.num-microbatches", "2"),
    *("--train.eval-every-steps", "4", "--checkpoints.save-every-steps", "3"),
]
TRAIN = ["train", "own.py", *FLAGS]


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    """The folder that t5jax is started in, after three steps and a fourth one of a resumed run."""
    folder = tmp_path_factory.mktemp("custom")
    blocks = re.findall(r"```python\n# (\S+)\n(.*?)```", DOCS.read_text(), re.DOTALL)
    (folder / "my_parts.py").write_text(dict(blocks)["my_parts.py"])
    text = (tiny / "tiny.py").read_text().replace("def config()", "def tiny()")
    imports = "import my_parts\nfrom t5jax.decoding.config import DecodingConfig\n"
    (folder / "own.py").write_text(f"{imports}{text}\n\ndef config():{PARTS}")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", list(sys.path))
        sys.modules.pop("my_parts", None)
        assert main([*TRAIN, "--train.num-train-steps", "3"]) == 0
        assert main([*TRAIN, "--train.num-train-steps", "4"]) == 0
        yield folder
    sys.modules.pop("my_parts", None)


def records(workdir: pathlib.Path, kind: str) -> list[dict]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


def evaluations(folder: pathlib.Path) -> list[dict]:
    """Those of the whole validation split, after the third step and after the fourth."""
    found = [x for x in records(folder / "own", "evaluation") if x["split"] == "validation"]
    assert [x["step"] for x in found] == [3, 4]
    return found


def test_it_trains_and_resumes_with_what_the_command_line_changed(folder):
    assert [record["step"] for record in records(folder / "own", "train")] == [1, 2, 3, 4]
    (resumed,) = records(folder / "own", "resumed")
    assert (resumed["step"], resumed["changed"]) == (3, ["train.num_train_steps = 4"])
    # Two programs with different runs' lengths: the decay begins at half of each.
    rates = [record["train/learning_rate"] for record in records(folder / "own", "train")]
    assert rates == pytest.approx([0.01, 0.01, 0.001, 0.001])


def test_its_loss_was_minimised_and_plain_cross_entropy_reported(folder):
    evaluated = evaluations(folder)[-1]
    first = records(folder / "own", "train")[0]["train/loss"]
    loss = next(value for name, value in evaluated.items() if name.endswith("/loss"))
    assert loss < first


def test_config_and_checkpoint_name_its_classes(folder):
    text = (folder / "own" / "config.txt").read_text()
    assert text == read_record(folder / "own" / "checkpoints", 4).content["config"]
    assert from_text(text) == load_config("own.py", [*FLAGS, "--train.num-train-steps", "4"])
    assert "loss: my_parts.FocalLoss\nloss.gamma = 1.0\n" in text


def test_its_tracker_has_every_step(folder):
    with open(folder / "own" / "scalars.csv", newline="") as stream:
        rows = list(csv.reader(stream))
    losses = [(step, float(value)) for step, name, value in rows if name == "train/loss"]
    assert [step for step, _ in losses] == ["1", "2", "3", "4"]
    assert ["3", "resumed", "1"] in rows
    expected = [record["train/loss"] for record in records(folder / "own", "train")]
    assert [value for _, value in losses] == pytest.approx(expected)


def test_it_is_evaluated(folder, capsys):
    assert main(["evaluate", "own", "--num-rows", "37", "--json"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    evaluated = evaluations(folder)[-1]
    loss = next(value for name, value in evaluated.items() if name.endswith("/loss"))
    assert any(value == pytest.approx(loss, rel=1e-5) for value in numbers(report))


def numbers(tree):
    if isinstance(tree, dict):
        for value in tree.values():
            yield from numbers(value)
    elif isinstance(tree, float):
        yield tree


@pytest.mark.parametrize("num_beams", [1, 2])
def test_loaded_its_outputs_keep_to_the_logits_processors(folder, num_beams):
    run = t5jax.load("own")
    processors = run.config.decoding.logits_processors
    assert processors[0] == sys.modules["my_parts"].Penalize(tokens=(100, 104))
    texts = ["The cat sat on the mat.", "Numbers are immutable."]

    def outputs(**changes) -> list[list[int]]:
        found = run.predict(texts, details=True, num_beams=num_beams, min_length=12, **changes)
        return [prediction.outputs[0].ids.tolist() for prediction in found]

    for ids in outputs():
        assert len(ids) >= 11
        assert not {100, 104} & set(ids)
        assert all(one != other for one, other in itertools.pairwise(ids))
    (first, *_), _ = outputs(logits_processors=())
    penalize = sys.modules["my_parts"].Penalize(tokens=(first,))
    assert all(first not in ids for ids in outputs(logits_processors=(penalize,)))


def test_it_is_a_warm_start_for_another_run_with_its_optimizer(folder):
    words = ["--workdir", "next", "--init.path", "own", "--init.optimizer", "keep"]
    assert main([*TRAIN, *words, "--train.num-train-steps", "1"]) == 0
    (started,) = records(folder / "next", "started")
    assert (started["parameters_from"], started["of_step"]) == ("own", 4)
