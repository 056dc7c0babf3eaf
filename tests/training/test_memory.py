"""The arithmetic estimate of a step's memory against what the compiler plans."""

import jax
import pytest

from t5jax.model.config import T5Config
from t5jax.sharding import MeshConfig
from t5jax.training.losses import CrossEntropy
from t5jax.training.memory import StepMemory, activation_bytes, logits_bytes, resident_bytes
from t5jax.training.optimizers import AdamW
from t5jax.training.steps import Program

ROWS, INPUTS, TARGETS = 48, 112, 40


def make_program(remat: str, fsdp: int = 1) -> Program:
    cfg = T5Config(
        vocab_size=320, emb_dim=128, num_heads=4, head_dim=24, mlp_dim=192, num_encoder_layers=5,
        num_decoder_layers=3, dtype="float32", remat=remat, unroll_layers=1,
    )  # fmt: skip
    mesh = MeshConfig(fsdp=fsdp)
    tx = AdamW(learning_rate=0.1).build(10)
    return Program(
        model=cfg, loss=CrossEntropy(), tx=tx, mesh_config=mesh, mesh=mesh.build()
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["none", "dots", "full"])
def test_estimate_is_near_the_compiled_step(remat):
    program = make_program(remat)
    lengths = {"encoder_input_tokens": INPUTS, "decoder_input_tokens": TARGETS}
    lengths |= {"decoder_target_tokens": TARGETS, "decoder_loss_weights": TARGETS}
    batch = program.abstract_batch({name: (n,) for name, n in lengths.items()}, ROWS)
    analysis = program.compile_train_step(batch, jax.random.key(0)).memory_analysis()
    compiled = analysis.argument_size_in_bytes + analysis.temp_size_in_bytes
    state, gradients = resident_bytes(program)
    assert state == pytest.approx(analysis.argument_size_in_bytes, rel=0.02)  # and the batch
    of_row = activation_bytes(program.model, INPUTS, TARGETS, remat=remat, scores=True)
    memory = StepMemory(
        state=state,
        gradients=gradients,
        activations_of_row=of_row,
        logits=logits_bytes(program.model.vocab_size, ROWS // 8 * TARGETS),
    )
    assert memory.total(ROWS // 8, 1) == pytest.approx(compiled, rel=0.4)


def test_state_is_that_of_one_device():
    whole, quarter = resident_bytes(make_program("none")), resident_bytes(make_program("none", 4))
    parameters = sum(x.size for x in jax.tree.leaves(make_program("none").abstract_state.params))
    assert whole[1] == 4 * parameters
    assert whole[0] == pytest.approx(3 * 4 * parameters, abs=64)  # two moments, and counters
    assert whole[0] / quarter[0] == pytest.approx(4, rel=0.03)  # norms have no second axis


def test_logits_of_a_chunk_do_not_grow_with_the_rows():
    assert logits_bytes(32128, 100) == 8 * 100 * 32128
    most = 8 * max(1024 * 32128, 2**27 / 4)
    assert logits_bytes(32128, 1_000_000) <= most
    assert logits_bytes(32128, 1_000_000) == pytest.approx(logits_bytes(32128, 50_000), rel=0.02)
    assert logits_bytes(250112, 4096, 2) == 8 * 2048 * 250112


def test_gradients_of_several_microbatches_are_summed_in_a_second_copy():
    memory = StepMemory(state=100.0, gradients=10.0, activations_of_row=2.0)
    assert memory.total(8, 1) == 126.0
    assert memory.total(2, 4) == 124.0
