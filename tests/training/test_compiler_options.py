"""Options of the compiler: by platform, the user's first, unknown ones left out aloud."""

import logging

import jax
import pytest

from t5jax.training.compiler_options import OPTIONS, compile_lowered, compiler_options
from tests.training.test_train_step import build

SCHEDULER = "xla_tpu_enable_latency_hiding_scheduler"
EINSUM = "xla_jf_spmd_threshold_for_windowed_einsum_mib"


def options(platform="tpu", **environ):
    return compiler_options(platform, num_devices=8, tensor_parallel=False, environ=environ)


def test_platforms():
    assert options()[SCHEDULER] is True
    assert options("gpu") == {"xla_gpu_enable_latency_hiding_scheduler": True}
    assert options("cpu") == {}
    alone = {"num_devices": 1, "tensor_parallel": False, "num_microbatches": 2}
    assert compiler_options("tpu", **alone) == compiler_options("gpu", **alone) == {}
    shared = compiler_options("tpu", num_devices=8, tensor_parallel=True, num_microbatches=2)
    assert EINSUM in options()
    assert EINSUM not in shared
    assert shared["xla_disable_hlo_passes"] == "while-loop-all-reduce-code-motion"
    assert "xla_disable_hlo_passes" not in options()


@pytest.mark.parametrize("variable", ["XLA_FLAGS", "LIBTPU_INIT_ARGS"])
def test_what_the_user_says_is_left(variable):
    given = options(**{variable: f"--one=1 --{SCHEDULER}=false --{EINSUM}=3"})
    assert given.keys() == options().keys() - {SCHEDULER, EINSUM}


def test_an_option_that_the_compiler_does_not_know_is_named(caplog):
    lowered = jax.jit(lambda x: x + 1).lower(1.0)
    given = {"xla_of_another_version": True, "xla_embed_ir_in_executable": False, "xla_none": 3}
    with caplog.at_level(logging.WARNING, "t5jax"):
        assert compile_lowered(lowered, given)(1.0) == 2.0
    names = [message.split()[6] for message in caplog.messages]
    assert sorted(names) == ["xla_none:", "xla_of_another_version:"]


def test_another_error_is_raised():
    lowered = jax.jit(lambda x: x + 1).lower(1.0)
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_embed_ir_in_executable"):
        compile_lowered(lowered, {"xla_embed_ir_in_executable": "perhaps"})


def test_the_program_gives_those_of_its_mesh(monkeypatch):
    monkeypatch.setitem(OPTIONS, "cpu", {"xla_embed_ir_in_executable": False})
    assert build((2, 2, 2)).compiler_options == {"xla_embed_ir_in_executable": False}
