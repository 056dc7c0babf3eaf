"""Train steps compiled for TPUs that are not here: their kernels, and what they never store."""

import importlib.util
import re

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from benchmarks.kernel_cycles import CASES, compile_attention
from t5jax.model.attention import Mask
from t5jax.model.config import T5Config, t5_1_1_xl
from t5jax.model.encoder_decoder import Stack
from t5jax.planning.abstract_run import abstract_key
from t5jax.planning.topology import parse_topology, prepare_process
from t5jax.sharding import MeshConfig, use_mesh
from t5jax.training.losses import CrossEntropy
from t5jax.training.optimizers import Adafactor
from t5jax.training.steps import Program

S, T = 512, 114
SCANNED = {"unroll_layers": 1, "remat": "none"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None,
        reason="needs libtpu: make .venv/installed-plan",
    ),
]


def lowered_step(
    topology: str, model: T5Config, mesh: MeshConfig, rows: int, inputs: int, targets: int
):
    """A train step of packed rows traced for the topology."""
    prepare_process(parse_topology(topology))
    program = Program(
        model=model,
        loss=CrossEntropy(),
        tx=Adafactor().build(10),
        mesh_config=mesh,
        mesh=mesh.build(parse_topology(topology).devices()),
    )
    shapes = {f"encoder_{name}": (inputs,) for name in ("input_tokens", "segment_ids")}
    names = ("input_tokens", "target_tokens", "loss_weights", "segment_ids")
    shapes |= {f"decoder_{name}": (targets,) for name in names}
    return program.lower_train_step(program.abstract_batch(shapes, rows), abstract_key(program))


def shapes_of_scores(text: str) -> set[str]:
    """Shapes of buffers with queries and keys, of whole tiles, too; no other size is like them."""
    pairs = [(S, S), (T, T), (T, S), (S, T), (128, 128), (128, S), (S, 128)]
    sizes = "|".join(f"{x},{y}" for x, y in pairs)
    return set(re.findall(rf"\w+\[(?:\d+,)+(?:{sizes})\]", text))


@pytest.mark.long  # three minutes
def test_a_step_of_xl_stores_no_scores_and_no_matrix_of_the_position_bias():
    model = t5_1_1_xl(num_encoder_layers=2, num_decoder_layers=2, vocab_size=1536, **SCANNED)
    lowered = lowered_step("v5e:2x4", model, MeshConfig(data=-1, fsdp=2, tensor=2), 8, S, T)
    # The host has CPUs: their loop over rows is not what is traced for the mesh.
    assert "attention_forward" in lowered.as_text()
    text = lowered.compile().as_text()
    # Two self-attentions and a cross-attention, each once in a loop over layers, and once more in
    # that of the backward pass.
    assert text.count('custom_call_target="tpu_custom_call"') == 6
    assert {"attention_forward", "attention_backward"} <= set(
        re.findall(r"attention_(?:for|back)ward", text)
    )
    assert not shapes_of_scores(text)


@pytest.mark.parametrize("topology", ["v5e:2x2", "v5p:2x2x1", "v6e:2x2", "tpu7x:2x2x1"])
@pytest.mark.parametrize("case", ["self", "causal", "1000", "head_dim 256"])
def test_kernels_compile(topology, case):
    compile_attention(CASES[case], topology)


@pytest.mark.long
def test_memory_of_an_encoder_grows_as_its_inputs_do():
    cfg = T5Config(emb_dim=128, mlp_dim=128, num_heads=2, **SCANNED)
    prepare_process(parse_topology("v5e:1x1"))
    mesh_config = MeshConfig(data=1)
    mesh = mesh_config.build(parse_topology("v5e:1x1").devices())
    graph, params = nnx.split(nnx.eval_shape(lambda: Stack(cfg, 2, rngs=nnx.Rngs(params=0))))
    array = lambda *shape, dtype=jnp.bfloat16: jax.ShapeDtypeStruct(
        shape, dtype, sharding=jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    )
    params = jax.tree.map(lambda x: array(*x.shape), params)

    def temporaries(inputs: int) -> int:
        def loss(params, x_BSD, segments_BS):
            y_BSD = nnx.merge(graph, params)(x_BSD, Mask(segments_BS, segments_BS))
            return jnp.sum(y_BSD.astype(jnp.float32))

        arrays = array(4, inputs, cfg.emb_dim), array(4, inputs, dtype=jnp.int32)
        with use_mesh(mesh, mesh_config.logical_axis_rules):
            lowered = jax.jit(jax.grad(loss, (0, 1))).lower(params, *arrays)
        assert "attention_backward" in lowered.as_text()
        return lowered.compile().memory_analysis().temp_size_in_bytes

    short, long = temporaries(4096), temporaries(16384)
    # 231 and 1118 MB: of the shorter ones libtpu keeps more in on-chip memory. Scores would grow 16
    # times, and a matrix of the position bias alone would be 2147 MB.
    assert short < long < 5.5 * short
