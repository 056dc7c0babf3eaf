"""Train steps compiled for TPUs that are not here: their kernels, and what they never store."""

import importlib.util
import re

import pytest

from t5jax.model.config import T5Config, t5_1_1_xl
from t5jax.planning.abstract_run import abstract_key
from t5jax.planning.topology import parse_topology, prepare_process
from t5jax.sharding import MeshConfig
from t5jax.training.losses import CrossEntropy
from t5jax.training.optimizers import Adafactor
from t5jax.training.steps import Program

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None,
        reason="needs libtpu: make .venv/installed-plan",
    ),
]


def lowered_step(topology: str, model: T5Config, mesh: MeshConfig, rows: int, S: int, T: int):
    """A train step of packed rows with S inputs and T targets, traced for the topology."""
    prepare_process(parse_topology(topology))
    program = Program(
        model=model,
        loss=CrossEntropy(),
        tx=Adafactor().build(10),
        mesh_config=mesh,
        mesh=mesh.build(parse_topology(topology).devices()),
    )
    shapes = {f"encoder_{name}": (S,) for name in ("input_tokens", "segment_ids")}
    names = ("input_tokens", "target_tokens", "loss_weights", "segment_ids")
    shapes |= {f"decoder_{name}": (T,) for name in names}
    return program.lower_train_step(program.abstract_batch(shapes, rows), abstract_key(program))


def shapes_of_scores(text: str, *lengths: int) -> set[str]:
    """Shapes of buffers whose last two dimensions are two of the lengths, padded ones too."""
    sizes = "|".join(str(size) for x in lengths for size in {x, -(-x // 128) * 128})
    return set(re.findall(rf"\w+\[(?:\d+,)+(?:{sizes}),(?:{sizes})\]", text))


@pytest.mark.parametrize("topology", ["v5e:2x4", "v5p:2x2x2", "v6e:2x4", "tpu7x:2x2x1"])
def test_a_step_of_xl_stores_no_scores_and_no_matrix_of_the_position_bias(topology):
    model = t5_1_1_xl(num_encoder_layers=3, num_decoder_layers=3, vocab_size=1024)
    lowered = lowered_step(topology, model, MeshConfig(data=-1, fsdp=2, tensor=2), 8, 512, 114)
    # The host has CPUs: their loop over rows is not what is traced for the mesh.
    assert "attention_forward" in lowered.as_text()
    text = lowered.compile().as_text()
    assert {"attention_forward", "attention_backward"} <= set(
        re.findall(r"attention_(?:for|back)ward", text)
    )
    assert not shapes_of_scores(text, 512, 114)


def test_memory_of_the_encoder_grows_as_the_inputs_do():
    model = T5Config(
        num_encoder_layers=2, num_decoder_layers=1, emb_dim=256, num_heads=4, vocab_size=512
    )

    def temporaries(S: int) -> int:
        lowered = lowered_step("v5e:2x2", model, MeshConfig(data=-1), 4, S, 96)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    short, long = temporaries(4096), temporaries(16384)
    assert long < 4.4 * short
