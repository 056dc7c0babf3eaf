"""`t5jax plan` and `t5jax inspect sharding`: what they print, write and return."""

import dataclasses
import json
import re

import pytest

from t5jax.cli import main
from t5jax.commands import plan as plan_module
from t5jax.planning.compilation import CompiledMemory, CompiledStep
from t5jax.planning.cost import Operation, ProgramCost
from t5jax.planning.nearest import Nearest
from t5jax.planning.plan import Plan
from t5jax.planning.topology import parse_topology
from tests.planning.programs import tiny_config

CONFIG = "from tests.planning.programs import tiny_config as config\n"


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "tiny.py"
    path.write_text(CONFIG)
    return str(path)


@pytest.fixture(scope="module")
def made():
    """A plan of two operations; what really compiles is in tests/planning/test_plan.py."""
    product = Operation(
        name="dot.1", op_name="jit(step)/dot_general", opcode="dot", count=3, flops=2e9, nbytes=1e6,
        compute_seconds=0.02, memory_seconds=0.01, cycle_seconds=0.0,
    )  # fmt: skip
    copy = dataclasses.replace(product, name="copy.1", opcode="copy", flops=0, compute_seconds=0)
    cost = ProgramCost(operations=[product, copy], exposed_seconds=0.01)
    memory = CompiledMemory(arguments=3e8, outputs=2e8, aliased=2e8, temporaries=4e8)
    return Plan(
        fits=True, memory_gb=0.7, hbm_gb=2.0, step_seconds=0.1, mfu=0.375, model_tflops=0.005,
        hlo_tflops=0.006, collectives_gb=0.0, topology=parse_topology("cpu:8"),
        mesh={"data": 8, "fsdp": 1, "tensor": 1}, assumptions=("nothing else runs",),
        step="evaluate", config=tiny_config(), written=tiny_config(),
        lengths=(56, 13), rows=16, cost=cost, estimate=None,
        compiled=CompiledStep(text="", memory=memory, seconds=3.0),
    )  # fmt: skip


@pytest.fixture
def compiled(made, monkeypatch):
    """What the command compiles is `made`; the plans that it asked for."""
    asked = []

    def make(config, topology, step, **options):
        asked.append((config, topology, step, options))
        return dataclasses.replace(made, **options)

    monkeypatch.setattr(plan_module, "make_plan", make)
    return asked


def test_a_plan_is_printed_and_written(config_file, compiled, made, tmp_path, capsys):
    out = str(tmp_path / "plan.json")
    words = ["plan", config_file, "--topology", "cpu:8", "--step", "evaluate", "--json", out]
    assert main([*words, "--price-per-chip-hour", "3", "--train.batch-size", "24"]) == 0
    said = capsys.readouterr()
    assert "evaluate step on cpu:8 (8 chips)" in said.out
    assert "MFU 37.5%" in said.out
    assert (
        "  dot                   60.00  60.0%      3  matrix     jit(step)/dot_general" in said.out
    )
    assert "compiling the evaluate step for cpu:8" in said.err
    with open(out) as file:
        assert json.load(file) == json.loads(json.dumps(made.as_json()))
    ((config, topology, step, options),) = compiled
    assert config.train.batch_size == 24
    assert (str(topology), step, options) == ("cpu:8", "evaluate", {"price_per_chip_hour": 3.0})


def test_what_does_not_fit_ends_with_1_and_what_does(
    config_file, compiled, made, monkeypatch, tmp_path, capsys
):
    out = str(tmp_path / "plan.json")
    refused = dataclasses.replace(made, fits=False, step="train", memory_gb=31.25, hbm_gb=16.9)
    monkeypatch.setattr(plan_module, "make_plan", lambda *a, **k: refused)
    nearest = lambda plan, log: Nearest("--train.num-microbatches 4", made)
    monkeypatch.setattr(plan_module, "nearest_that_fits", nearest)
    assert main(["plan", config_file, "--topology", "cpu:8", "--json", out]) == 1
    said = capsys.readouterr().out
    assert "refused: 31.25 GB of a device's 16.90 GB" in said
    assert "what fits: --train.num-microbatches 4" in said
    with open(out) as file:
        content = json.load(file)
    assert content["fits"] is False
    assert content["nearest"]["flags"] == "--train.num-microbatches 4"
    assert content["nearest"]["fits"] is True
    monkeypatch.setattr(plan_module, "nearest_that_fits", lambda plan, log: None)
    assert main(["plan", config_file, "--topology", "cpu:8"]) == 1
    assert "no layout with more microbatches" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("--topology v5x:4x8", "there is no chip 'v5x'; choose one of v4, v5e"),
        ("--topology v5e:32", "a shape of v5e has 2 numbers"),
        ("--topology cpu:8 --price-per-chip-hour nan", "--price-per-chip-hour nan: give 0 or more"),
        ("--topology cpu:8 --mesh.data 3", "data=3 x fsdp=1 x tensor=1 does not make 8 devices"),
        ("--topology cpu:8 --train.num-microbatches 4", "do not divide among 8 replicas"),
        ("--topology cpu:8 --data.mixture squat", "'squat' is not a task or mixture of t5jax"),
    ],
)
def test_what_cannot_be_ends_with_64_before_anything_compiles(config_file, words, reason, capsys):
    assert main(["plan", config_file, *words.split()]) == 64
    assert reason in capsys.readouterr().err


def test_the_layout_of_every_parameter(config_file, capsys):
    words = ["inspect", "sharding", config_file, "--topology", "cpu:8"]
    assert main([*words, "--mesh.data", "2", "--mesh.fsdp", "2", "--mesh.tensor", "2"]) == 0
    said = capsys.readouterr().out
    lines = said.split("\n\n")[0].splitlines()
    rows = {name: cells for name, *cells in (re.split(r"  +", line) for line in lines[1:])}
    assert rows["encoder/layers/mlp/wi_0"] == [
        "2x24x44", "-, fsdp, tensor", "2x12x22", "2", f"{2 * 12 * 22 * 4 / 1e6:.3f}",
    ]  # fmt: skip
    assert rows["token_embedder"][1:4] == ["tensor, fsdp", "195x12", "2"]
    assert "mesh             data=2 x fsdp=2 x tensor=2 over cpu:8" in said


def test_what_is_whole_everywhere_says_why(config_file, capsys):
    assert main(["inspect", "sharding", config_file, "--topology", "cpu:8"]) == 0
    said = capsys.readouterr().out
    assert "because embed is divided along fsdp=1; mlp is divided along tensor=1" in said
    count = re.search(r"of them whole +([\d.]+) GB", said)
    assert count is not None
    assert float(count[1]) > 0
