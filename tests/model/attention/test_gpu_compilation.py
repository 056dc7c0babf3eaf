"""A train step compiled for GPUs that are not here: its kernels, and what it never stores."""

import collections
import importlib.util
import re

import pytest

from t5jax.model.config import T5Config
from t5jax.planning.abstract_run import abstract_key
from t5jax.planning.topology import parse_topology
from t5jax.sharding import MeshConfig
from t5jax.training.losses import CrossEntropy
from t5jax.training.optimizers import Adafactor
from t5jax.training.steps import Program

S, T = 512, 114
COMPILER_OPTIONS = {"xla_gpu_enable_triton_gemm": False}  # it would look for a GPU to tune on

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not any(map(importlib.util.find_spec, ("jax_cuda12_plugin", "jax_cuda13_plugin"))),
        reason="needs JAX's CUDA plugin: pip install --no-deps jax-cuda12-plugin jax-cuda12-pjrt",
    ),
]


def compiled_step(chip: str, mesh: MeshConfig, *, packed: bool) -> str:
    """Text of a train step of one encoder and one decoder layer with four heads."""
    sizes = {"emb_dim": 192, "mlp_dim": 320, "vocab_size": 1024, "num_heads": 4}
    program = Program(
        model=T5Config(num_encoder_layers=1, num_decoder_layers=1, **sizes),
        loss=CrossEntropy(),
        tx=Adafactor().build(10),
        mesh_config=mesh,
        mesh=mesh.build(parse_topology(f"{chip}:1x4").devices()),
    )
    shapes = {"encoder_input_tokens": (S,), "decoder_input_tokens": (T,)}
    shapes |= {"decoder_target_tokens": (T,), "decoder_loss_weights": (T,)}
    if packed:
        shapes |= {"encoder_segment_ids": (S,), "decoder_segment_ids": (T,)}
    step = program.lower_train_step(program.abstract_batch(shapes, 12), abstract_key(program))
    return step.compile(compiler_options=COMPILER_OPTIONS).as_text()


def calls(text: str) -> collections.Counter:
    return collections.Counter(re.findall(r'custom_call_target="([^"]+)"', text))


def stored_scores(text: str) -> set[str]:
    """Shapes of buffers with a batch, heads, queries and keys."""
    return set(re.findall(rf"\w+\[(?:\d+,)*[1-9]\d*,\d+,(?:{S}|{T}),(?:{S}|{T})\]", text))


@pytest.mark.parametrize("chip", ["h100", pytest.param("h200", marks=pytest.mark.long)])
def test_packed_rows_are_ours_and_store_no_scores(chip):
    text = compiled_step(chip, MeshConfig(data=2, tensor=2), packed=True)
    # Output and three gradients of two self-attentions, and of a cross-attention without a bias.
    assert calls(text)["__gpu$xla.gpu.triton"] == 4 + 4 + 3
    assert not stored_scores(text)


def test_other_rows_are_cudnns_whose_bias_has_no_batch():
    text = compiled_step("h100", MeshConfig(data=-1), packed=False)
    found = calls(text)
    assert (
        found["__cudnn$fmhaScaleBiasSoftmax"] == found["__cudnn$fmhaScaleBiasSoftmaxBackward"] == 2
    )
    assert found["__cudnn$fmhaSoftmax"] == found["__cudnn$fmhaSoftmaxBackward"] == 1
    assert {shape.split("[")[1].split(",")[0] for shape in stored_scores(text)} <= {"1"}
