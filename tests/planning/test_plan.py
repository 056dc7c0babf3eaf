"""Plans of a tiny run on eight virtual CPU devices, against the run's own compiled step."""

import dataclasses
import json
import types
from typing import Any

import jax
import pytest

from t5jax.data.pipeline.converters import batch_shapes
from t5jax.errors import ConfigError
from t5jax.planning.abstract_run import AssumedVocabulary, abstract_run
from t5jax.planning.nearest import candidates, nearest_that_fits
from t5jax.planning.plan import make_plan
from t5jax.planning.report import report
from t5jax.planning.topology import parse_topology
from t5jax.run.summary import compiled_memory
from t5jax.tracking import model_flops
from tests.planning.programs import abstract_program, tiny_config, with_memory

KEYS = [
    "fits", "memory_gb", "hbm_gb", "step_seconds", "mfu", "model_tflops", "hlo_tflops",
    "collectives_gb", "topology", "mesh", "assumptions",
]  # fmt: skip
CONFIG = tiny_config(mesh={"data": 2, "fsdp": 4}, num_microbatches=2)


@pytest.fixture(scope="module")
def plan():
    return make_plan(CONFIG, parse_topology("cpu:8"), price_per_chip_hour=2.5)


def test_json_begins_with_the_promised_keys(plan):
    content = json.loads(json.dumps(plan.as_json()))
    assert list(content)[: len(KEYS)] == KEYS
    assert content["fits"] is True
    assert content["topology"] == "cpu:8"
    assert content["mesh"] == {"data": 2, "fsdp": 4, "tensor": 1}
    assert 0 < content["mfu"] < 1
    assert any("nowhere/spiece.model is not here" in text for text in content["assumptions"])


@pytest.mark.slow
def test_memory_is_that_of_the_run_itself(plan):
    """The step as the trainer compiles it: a real key, and the state's own shardings."""
    run, program = abstract_program(CONFIG)
    compiled = program.compile_train_step(run.train_batch(program), jax.random.key(0))
    assert plan.memory_gb == pytest.approx(compiled_memory(compiled)["peak_gb"], rel=0.05, abs=1e-3)
    estimate = plan.estimate
    state = estimate.parameters + estimate.optimizer
    assert plan.compiled.memory.arguments == pytest.approx(state + estimate.batch, rel=0.01)


def test_flops_are_those_of_the_model(plan):
    inputs, targets = plan.lengths
    flops = model_flops(CONFIG.model, CONFIG.train.batch_size, inputs, targets) / 8 / 1e12
    assert plan.model_tflops == pytest.approx(flops)
    assert plan.hlo_tflops == pytest.approx(flops)


def test_time_tokens_days_and_cost_follow_from_each_other(plan):
    seconds = plan.step_seconds
    assert plan.mfu == pytest.approx(
        plan.model_tflops * 1e12 / seconds / plan.topology.chip.peak_flops("float32")
    )
    assert plan.tokens_per_second == pytest.approx(16 * sum(plan.lengths) / seconds)
    assert plan.days == pytest.approx(70 * seconds / 86_400)
    assert plan.price == pytest.approx(plan.days * 24 * 8 * 2.5)


def test_collectives_are_over_the_axes_of_the_mesh(plan):
    axes = {x.axes for x, _ in plan.cost.collectives}
    assert axes <= {"data", "fsdp", "data+fsdp"}
    assert {"data", "fsdp"} <= set("+".join(axes).split("+"))
    assert not any(x.over_network for x, _ in plan.cost.collectives)


def test_the_report_has_the_numbers(plan):
    text = report(plan)
    assert "train step on cpu:8 (8 chips), mesh data=2 x fsdp=4 x tensor=1" in text
    assert f"16 rows of 56 inputs + {plan.lengths[1]} targets in 2 microbatches" in text
    assert f"MFU {plan.mfu:.1%}" in text
    assert f"of {plan.hbm_gb:.2f}: fits" in text
    assert len(text.split("largest operations")[1].split("\n\n")[0].splitlines()) == 11
    largest = plan.as_json()["largest_operations"]
    assert [x["seconds"] for x in largest] == sorted((x["seconds"] for x in largest), reverse=True)
    assert sum(plan.as_json()["seconds_by_bound"].values()) == pytest.approx(
        plan.step_seconds, rel=1e-3
    )


def test_the_evaluation_step_needs_a_third_of_the_flops():
    plan = make_plan(CONFIG, parse_topology("cpu:8"), "evaluate")
    inputs, targets = plan.lengths
    assert plan.rows == 8  # one microbatch
    flops = model_flops(CONFIG.model, 8, inputs, targets) / 3 / 8 / 1e12
    assert plan.model_tflops == pytest.approx(flops)
    assert plan.hlo_tflops == pytest.approx(flops)
    assert plan.days is None


@pytest.mark.slow
def test_the_decoding_step_counts_its_loop():
    config = dataclasses.replace(CONFIG, mesh=dataclasses.replace(CONFIG.mesh, data=8, fsdp=1))
    plan = make_plan(config, parse_topology("cpu:8"), "decode")
    assert plan.rows == 32
    assert plan.hlo_tflops == pytest.approx(plan.model_tflops, rel=0.5)


@pytest.mark.slow
def test_what_does_not_fit_is_offered_with_the_nearest_that_does(plan):
    """A device with a little less than the layout needs: the next one in order is taken."""
    config = dataclasses.replace(
        CONFIG, train=dataclasses.replace(CONFIG.train, num_microbatches=1)
    )
    whole = make_plan(config, parse_topology("cpu:8"))
    small = with_memory(parse_topology("cpu:8"), 0.9 * whole.memory_gb * 1e9)
    refused = make_plan(config, small)
    assert not refused.fits
    assert refused.memory_gb == whole.memory_gb
    assert "DOES NOT FIT" in report(refused)
    said = []
    found = nearest_that_fits(refused, log=said.append)
    assert found is not None
    assert found.plan.fits
    assert found.plan.memory_gb < refused.hbm_gb
    assert found.flags == "--train.num-microbatches 2"
    assert len(said) == 1


def test_nothing_is_offered_where_nothing_fits(plan):
    tiny = dataclasses.replace(plan, fits=False, topology=with_memory(plan.topology, 1000.0))
    assert nearest_that_fits(tiny) is None


def test_candidates_change_little_first():
    refused: Any = types.SimpleNamespace(config=CONFIG, written=CONFIG)
    layouts = list(candidates(CONFIG, parse_topology("cpu:8")))
    assert [x.changes for x in layouts] == sorted(x.changes for x in layouts)
    assert layouts[0].flags(refused) == "--train.num-microbatches 4"
    assert {x.remat for x in layouts} == {"none", "dots", "full"}
    assert {x.fsdp for x in layouts} == {4, 8}
    assert all(16 % x.num_microbatches == 0 for x in layouts)
    wider = next(x for x in layouts if x.fsdp == 8 and x.changes == 1)
    assert wider.flags(refused) == "--mesh.data -1 --mesh.fsdp 8"


def test_a_mesh_that_the_topology_does_not_make_is_refused():
    with pytest.raises(ConfigError, match="does not make 6 devices"):
        make_plan(CONFIG, parse_topology("cpu:6"))


def test_ids_of_an_absent_vocabulary_are_the_models():
    run = abstract_run(CONFIG)
    vocabulary = run.config.data.vocabulary
    assert isinstance(vocabulary, AssumedVocabulary)
    assert vocabulary.vocab_size == CONFIG.model.vocab_size
    assert vocabulary.first_sentinel_id == CONFIG.model.vocab_size - 100
    assert run.shapes == batch_shapes(run.row_format, packed=False)
