"""Training from stores where TensorFlow, seqio and TFDS cannot be imported: nothing tries."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from t5jax.cli import main
from t5jax.data.registry import names

MODULE = """
from t5jax.data.sources import JsonLines
from t5jax.data.tasks import Equal, ExampleTask, Mixture
from t5jax.data.registry import add_mixture, add_task

add_task(ExampleTask(
    name="sums_of_mine",
    description="",
    source=lambda data: JsonLines(
        train_files=("FOLDER/train.jsonl",), validation_files=("FOLDER/validation.jsonl",)
    ),
    examples=lambda row: [{"inputs": row.text("sum"), "targets": row.text("is")}],
))
add_mixture(Mixture(
    name="sums_and_text", tasks=("sums_of_mine", "text_span_corruption"), rate=Equal()
))
"""
# A command in a process of its own, in which forbidden packages are found but fail to import; an
# attempt that is caught is noticed, too.
COMMAND = """
import sys
from importlib.machinery import ModuleSpec

tried = []

class Broken:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tensorflow", "tensorflow_datasets", "seqio", "t5"):
            return ModuleSpec(name, self)

    def create_module(self, spec):
        tried.append(spec.name)
        raise ImportError(f"{spec.name} cannot be imported here")

    def exec_module(self, module): ...

sys.meta_path.insert(0, Broken())
from t5jax.cli import main
code = main(sys.argv[1:])
sys.exit(f"tried to import {tried}" if tried else code)
"""


@pytest.fixture
def cached(tiny_text, tmp_path, monkeypatch):
    """Flags of a mixture of examples and text whose stores are made, and its folder."""
    for split, count in (("train", 300), ("validation", 40)):
        rows = [{"sum": f"{n} + {n % 7}", "is": str(n + n % 7)} for n in range(count)]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{split}.jsonl").write_text(lines)
    (tmp_path / "sums_module.py").write_text(MODULE.replace("FOLDER", str(tmp_path)))
    # The smallest program: nothing here depends on the optimizer, and compiling it takes longest.
    tiny = (tiny_text / "tiny.py").read_text().replace("import Adafactor", "import OptaxOptimizer")
    sgd = 'OptaxOptimizer(factory="optax.sgd", learning_rate=0.02, schedule=Constant())'
    (tmp_path / "sums.py").write_text(re.sub(r"Adafactor\(.*\)", sgd, tiny))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = dict(names._own)
    flags = ["--data.mixture", "sums_and_text", "--data.modules", "sums_module"]
    flags += ["--data.cache-dir", "cache", "--data.targets-length", "20", "--workdir", "run"]
    flags += ["--model.dropout-rate", "0"]
    assert main(["cache", "sums.py", *flags]) == 0
    names._own.clear()
    names._own.update(before)
    sys.modules.pop("sums_module")
    return flags


def run_command(*words):
    root = str(pathlib.Path(__file__).parents[2])
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1", "PYTHONPATH": root}
    command = [sys.executable, "-c", COMMAND, *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_a_mixture_is_trained_and_evaluated_from_its_stores(cached):
    flags = ["--train.num-train-steps", "3", "--train.eval-every-steps", "3", *cached]
    flags += ["--train.num-eval-rows", "7", "--checkpoints.save-every-steps", "3"]
    ended = run_command("train", "sums.py", *flags)
    assert ended.returncode == 0, ended.stderr
    with open("run/metrics.jsonl") as file:
        records = [json.loads(line) for line in file]
    steps = [record for record in records if record["kind"] == "train"]
    assert [record["step"] for record in steps] == [1, 2, 3]
    tasks = ("sums_of_mine", "text_span_corruption")
    for name in tasks:
        assert any(f"task/{name}/loss" in record for record in steps)
    evaluated = {record["split"] for record in records if record["kind"] == "evaluation"}
    assert evaluated == {"validation", *(f"validation/{name}" for name in tasks)}
    assert records[-1]["kind"] == "finished"


@pytest.mark.slow
def test_the_stores_of_a_mixture_are_verified(cached):
    """What the mixture is made of is in its record; the module is not imported."""
    os.remove("sums_module.py")
    ended = run_command("cache", "sums.py", "--verify", *cached)
    assert ended.returncode == 0, ended.stderr
    stores = [line.partition(":")[0] for line in ended.stdout.splitlines()]
    assert stores == [
        f"cache/{corpus}/{split}"
        for corpus in ("sums_of_mine", "text")
        for split in ("train", "validation")
    ]
