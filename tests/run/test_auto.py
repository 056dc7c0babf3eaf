"""Settings of "auto": the values on machines of all kinds, kept by the run that goes on."""

import dataclasses
import json

import jax
import pytest

from t5jax.config import RunConfig, TrainConfig, to_text
from t5jax.data.config import DataConfig
from t5jax.data.vocabularies import ByteVocabulary
from t5jax.model.config import T5Config, t5_1_1_large, t5_1_1_xl
from t5jax.run.auto import FIELDS, Machine, local_machine, resolve_auto
from t5jax.sharding import MeshConfig

LENGTHS = (512, 114)


def config_of(model: T5Config, batch_size: int = 2048, **changes) -> RunConfig:
    return RunConfig(
        workdir="run",
        model=model,
        data=DataConfig(mixture="c4", vocabulary=ByteVocabulary(), cache_dir="cache"),
        train=TrainConfig(num_train_steps=10, batch_size=batch_size),
        **changes,
    )


def machine(platform: str, memory_gb: float) -> Machine:
    return Machine(platform=platform, devices=tuple(jax.devices()), memory_bytes=memory_gb * 1e9)


def values(resolved) -> dict:
    return {choice.field: choice.value for choice in resolved.choices}


def test_cpu_computes_rows_one_at_a_time_in_float32():
    config = config_of(T5Config(), batch_size=64)
    resolved = resolve_auto(config, machine("cpu", 8.0), LENGTHS)
    assert values(resolved) == {
        "model.dtype": "float32",
        "model.unroll_layers": "all",
        "mesh.fsdp": 1,
        "model.remat": "none",
        "train.num_microbatches": 8,  # 8 devices with 8 rows each, of 626 tokens
    }
    assert resolved.written is config
    assert to_text(config) == to_text(resolved.written)
    assert config.train.num_microbatches == "auto"


def test_short_rows_are_taken_together():
    config = config_of(T5Config(), batch_size=64)
    resolved = resolve_auto(config, machine("cpu", 8.0), (96, 32))
    assert resolved.config.train.num_microbatches == 2  # 4 rows of 128 tokens


def test_small_memory_is_met_by_microbatches_then_by_computing_again():
    roomy = resolve_auto(config_of(t5_1_1_large()), machine("tpu", 95.0), LENGTHS)
    tight = resolve_auto(config_of(t5_1_1_large()), machine("tpu", 16.0), LENGTHS)
    assert values(roomy)["model.remat"] == "none"
    assert values(tight)["model.remat"] == "dots"
    rows = 2048 // 8 // values(tight)["train.num_microbatches"]
    assert rows * sum(LENGTHS) >= 4096
    parts = [values(x)["train.num_microbatches"] for x in (roomy, tight)]
    assert parts[0] < parts[1]
    for resolved in (roomy, tight):
        assert resolved.config.model.dtype == "bfloat16"


def test_state_that_is_too_large_for_a_device_is_sharded():
    wide = resolve_auto(config_of(t5_1_1_xl()), machine("gpu", 80.0), LENGTHS)
    narrow = resolve_auto(config_of(t5_1_1_xl()), machine("tpu", 15.75), LENGTHS)
    assert (wide.config.mesh.fsdp, narrow.config.mesh.fsdp) == (1, 4)
    assert "22.8 GB of parameters, optimizer and gradients" in str(narrow.choices)


def test_slices_along_fsdp_are_as_few_as_there_are():
    config = config_of(T5Config(), mesh=MeshConfig(dcn_fsdp=2))
    whole = resolve_auto(config_of(T5Config()), machine("cpu", 8.0), LENGTHS).choices
    choices = resolve_auto(config, machine("cpu", 8.0), LENGTHS).choices
    (one,), (two,) = ([x for x in c if x.field == "mesh.fsdp"] for c in (whole, choices))
    assert (one.value, two.value) == (1, 2)
    sizes = [float(x.reason.split(" GB")[0]) for x in (one, two)]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.01)  # but for Adafactor's factors


def test_what_fits_nowhere_says_so():
    resolved = resolve_auto(config_of(t5_1_1_xl()), machine("gpu", 1.0), LENGTHS)
    assert values(resolved)["model.remat"] == "full"
    assert "it may not fit, see `t5jax plan`" in resolved.choices[-1].reason


def test_numbers_stay():
    model = T5Config(dtype="bfloat16", unroll_layers=2, remat="full")
    config = config_of(model, mesh=MeshConfig(fsdp=2))
    config.train.num_microbatches = 4
    resolved = resolve_auto(config, machine("cpu", 8.0), LENGTHS)
    assert resolved.choices == ()
    assert to_text(resolved.config) == to_text(config)


def test_a_run_that_goes_on_keeps_its_choices_on_the_same_machine():
    config = config_of(t5_1_1_large())
    tpu = machine("tpu", 16.0)
    record = json.loads(json.dumps(resolve_auto(config, tpu, LENGTHS).record()))
    more = dataclasses.replace(tpu, memory_bytes=95e9)  # other rules would choose otherwise
    kept = resolve_auto(config, more, LENGTHS, record)
    assert values(kept) == record["fields"]
    assert {choice.reason for choice in kept.choices} == {"as the run began"}


def test_on_another_machine_only_the_dtype_stays():
    config = config_of(t5_1_1_large())
    record = resolve_auto(config, machine("tpu", 16.0), LENGTHS).record()
    record["machine"] = "32 x TPU v5 lite"
    moved = resolve_auto(config, machine("cpu", 64.0), LENGTHS, record)
    assert moved.config.model.dtype == "bfloat16"
    assert moved.config.model.remat == "none"
    reasons = {choice.field: choice.reason for choice in moved.choices}
    assert reasons["model.remat"].endswith("; it was dots on 32 x TPU v5 lite")


def test_the_local_machine_is_that_of_the_tests():
    found = local_machine()
    assert (found.platform, found.name) == ("cpu", "8 x cpu")
    assert 1e8 < found.memory_bytes < 1e12


def test_fields_are_the_ones_that_say_auto_by_default():
    text = to_text(config_of(T5Config()))
    said = {line.split(" = ")[0] for line in text.splitlines() if line.endswith(" = 'auto'")}
    others = {"model.attention", "loss.num_chunks", "tracking.progress"}
    assert said == {*FIELDS, *others, "runtime.compilation_cache"}
