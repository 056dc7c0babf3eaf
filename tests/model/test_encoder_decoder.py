"""The whole model: T5X's and Hugging Face's numbers, packing, decoding, ways to compute it."""

import dataclasses
import itertools
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization

from t5jax.model import matmul
from t5jax.model.attention import MASKED
from t5jax.model.config import T5Config
from t5jax.model.decode_weights import decode_weights
from t5jax.training.losses import CrossEntropy
from t5jax.training.train_step import cast_params
from tests.marks import slow_but
from tests.model import tiny_t5
from tests.model.foreign_weights import flattened, from_hf, from_t5x
from tests.model.tiny_t5 import assert_close

PARITY = 1e-5


def under(golden, prefix: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): golden[k] for k in golden if k.startswith(prefix)}


def teacher_forced(inputs, decoder_inputs, targets) -> dict[str, np.ndarray]:
    """A batch; targets that do not count are 0 or less."""
    targets = np.maximum(targets, 0)
    return {
        "encoder_input_tokens": inputs,
        "decoder_input_tokens": decoder_inputs,
        "decoder_target_tokens": targets,
        "decoder_loss_weights": (targets > 0).astype(np.int32),
    }


# ---- goldens


def test_t5x_logits(real_data):
    golden = dict(np.load(real_data / "golden/t5x/t5x_encoder_decoder_unpacked.npz"))
    cfg = tiny_t5.config(
        vocab_size=48, emb_dim=16, num_heads=4, head_dim=4, mlp_dim=64, num_encoder_layers=4,
        num_decoder_layers=4, relpos_num_buckets=32, relpos_max_distance=128,
    )  # fmt: skip
    model = tiny_t5.build(cfg, from_t5x(under(golden, "params/")))
    batch = teacher_forced(golden["source_ids"], golden["target_ids"], golden["target_labels"])
    real = golden["padding_mask"]
    np.testing.assert_array_equal(real, batch["decoder_target_tokens"] > 0)
    logits = np.asarray(jax.jit(type(model).__call__)(model, batch))
    assert logits.dtype == np.float32
    assert_close(logits[real], golden["outputs"][real], PARITY)


@pytest.mark.parametrize("version", ["v1_0", "v1_1"])
def test_hugging_face_logits_and_loss(real_data, version):
    golden = dict(np.load(real_data / f"golden/hf_t5/hf_t5_{version}.npz"))
    cfg = tiny_t5.config(
        vocab_size=128, emb_dim=12, num_heads=3, head_dim=4, num_encoder_layers=2,
        num_decoder_layers=2, relpos_num_buckets=32, relpos_max_distance=128,
        mlp_dim={"v1_0": 48, "v1_1": 32}[version],
        mlp_activations={"v1_0": ("relu",), "v1_1": ("gelu", "linear")}[version],
    )  # fmt: skip
    params = from_hf(under(golden, "params/"), tied=False)
    inputs = under(golden, "inputs/")
    batch = teacher_forced(inputs["source_ids"], inputs["target_ids"], inputs["target_labels"])
    real = batch["decoder_target_tokens"] > 0

    @jax.jit
    def run(params):
        model = tiny_t5.build(cfg, params)
        return model(batch), CrossEntropy(z_loss=0.0)(model, batch, None)

    logits, sums = run(params)
    assert_close(np.asarray(logits)[real], golden["outputs/logits"][real], PARITY)
    assert float(sums.loss / sums.weight) == pytest.approx(float(golden["outputs/loss"]), rel=1e-6)


def test_genuine_t5x_checkpoint(real_data):
    """Written by T5X itself; the logits were computed in NumPy float64 from its weights."""
    folder = real_data / "golden/t5x_checkpoint"
    saved = serialization.msgpack_restore((folder / "test_t5_tiny.checkpoint_0").read_bytes())
    cfg = T5Config(
        emb_dim=8, num_heads=4, head_dim=3, mlp_dim=16, num_encoder_layers=2,
        num_decoder_layers=2, dtype="float32", attention="einsum",
    )  # fmt: skip
    params = from_t5x(flattened(saved["optimizer"]["target"]))
    want = json.loads((folder / "computed_logits.json").read_text())
    del want["note"]
    want = {name: np.array(value) for name, value in want.items()}
    names = ("encoder_input_ids", "decoder_input_ids", "target_ids")
    batch = teacher_forced(*(np.int32(want[name])[None] for name in names))

    @jax.jit
    def run(params):
        model = tiny_t5.build(cfg, params)
        return model(batch)[0], CrossEntropy(z_loss=0.0)(model, batch, None).loss

    logits, loss = run(params)
    assert_close(logits[:, :8], want["logits_first8"], PARITY)
    np.testing.assert_array_equal(np.argmax(logits, axis=-1), want["logits_argmax"])
    log_z = jax.nn.logsumexp(logits, axis=-1)
    assert_close(log_z, want["logsumexp"], 1e-6)
    target_logits = np.take_along_axis(np.asarray(logits), batch["decoder_target_tokens"].T, 1)
    assert_close(log_z - target_logits[:, 0], want["token_cross_entropy"], 1e-6)
    assert float(loss) / 5 == pytest.approx(want["mean_cross_entropy"], rel=1e-6)
    np.testing.assert_allclose(np.sum(logits, axis=-1), want["logits_sum"], atol=0.01)


# ---- packing


@pytest.mark.slow
def test_packed_rows_equal_the_same_sequences_alone():
    """Logits and gradients; sequences alone in a row carry no segment ids at all."""
    cfg = tiny_t5.config("1.1")
    params = tiny_t5.random_params(cfg)
    packed, alone, places = tiny_t5.packed_and_alone(cfg.vocab_size)
    run = tiny_t5.with_gradients(cfg)
    (loss, logits), gradients = run(params, packed)
    (loss_alone, logits_alone), gradients_alone = run(params, alone)
    assert float(loss) == pytest.approx(float(loss_alone), rel=1e-6)
    for row, where, row_alone, where_alone in places:
        assert_close(logits[row, where], logits_alone[row_alone, where_alone], PARITY)
    assert_close(gradients, gradients_alone, PARITY)
    # The segments matter: without them the same rows give something else.
    unmarked = {k: np.minimum(x, 1) if "segment" in k else x for k, x in packed.items()}
    (loss_unmarked, _), _ = run(params, unmarked)
    assert abs(float(loss_unmarked) - float(loss)) > 0.01


# ---- the same numbers, computed otherwise

BATCH = {"rows": 4, "inputs": 11, "targets": 7}


def run_plainly(cfg, params, batch):
    """Logits, without dropout."""
    return jax.jit(lambda params: tiny_t5.loss_and_logits(cfg, params, batch)[1])(params)


@pytest.fixture(scope="module")
def plain():
    """A model, its parameters, a batch, the logits."""
    cfg = tiny_t5.config("1.1")
    params, batch = tiny_t5.random_params(cfg), tiny_t5.random_batch(cfg, **BATCH)
    return cfg, params, batch, np.asarray(run_plainly(cfg, params, batch))


@pytest.fixture(scope="module")
def baseline():
    """Scanned one layer at a time, nothing computed twice; with dropout."""
    cfg = tiny_t5.config("1.1", dropout_rate=0.2)
    arguments = (
        tiny_t5.random_params(cfg),
        tiny_t5.random_batch(cfg, **BATCH),
        jax.random.split(jax.random.key(1), BATCH["rows"]),
    )
    return cfg, arguments, tiny_t5.with_gradients(cfg)(*arguments)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"unroll_layers": 2, "remat": "dots", "attention": "rowwise"},
        {"unroll_layers": "all", "remat": "full"},
    ],
)
def test_how_it_is_computed_does_not_change_the_result(baseline, changes):
    cfg, arguments, want = baseline
    got = tiny_t5.with_gradients(dataclasses.replace(cfg, **changes))(*arguments)
    assert_close(got, want, 5e-6 if "attention" not in changes else PARITY)


@pytest.mark.slow
def test_dropout_is_on_in_the_baseline(baseline, plain):
    (_, logits), _ = baseline[2]
    assert np.abs(logits - plain[3]).max() > 0.1


@pytest.mark.parametrize(
    ("remat", "unroll", "times"),
    slow_but(
        [("none", 1, 0), ("dots", 1, 2), ("full", "all", 5)],
        [("none", 1, 0), ("dots", 1, 2), ("full", 1, 2), ("none", "all", 0), ("full", "all", 5)],
    ),
)
def test_remat_is_in_the_program(remat, unroll, times):
    """Once per scanned stack, once per unrolled layer; without the scan, which keeps a forward pass
    from being merged with its second one, the compiler must be told not to."""
    cfg = tiny_t5.config(remat=remat, unroll_layers=unroll)
    params, batch = tiny_t5.random_params(cfg), tiny_t5.random_batch(cfg, **BATCH)
    jaxpr = jax.make_jaxpr(lambda p: tiny_t5.loss_and_logits(cfg, p, batch)[0])(params)
    assert str(jaxpr).count(f"prevent_cse={unroll == 'all'}") == times


def test_bfloat16_is_close_to_float32(plain):
    cfg, params, batch, want = plain
    low = dataclasses.replace(cfg, dtype="bfloat16")
    got = run_plainly(low, cast_params(params, "bfloat16"), batch)
    assert got.dtype == jnp.float32
    assert 1e-4 < np.sqrt(np.mean((got - want) ** 2) / np.mean(want**2)) < 0.03


# ---- variants


def test_a_bias_per_layer(plain):
    """Equal tables in all layers are one shared table; another in one layer is not."""
    cfg, params, batch, want = plain
    per_layer = dataclasses.replace(cfg, per_layer_relative_bias=True)
    params = jax.tree.map(np.copy, params)
    for stack, num_layers in (("encoder", 3), ("decoder", 2)):
        table = params[stack].pop("relpos_bias")["embedding"]
        params[stack]["layers"]["relpos_bias"] = {"embedding": np.stack([table] * num_layers)}
    run = jax.jit(lambda params: tiny_t5.loss_and_logits(per_layer, params, batch)[1])
    assert_close(run(params), want, PARITY)
    for stack in ("encoder", "decoder"):
        other = jax.tree.map(np.copy, params)
        other[stack]["layers"]["relpos_bias"]["embedding"][1] += 0.5 * np.arange(8)
        assert np.abs(run(other) - want).max() > 0.01


DECODED = list(itertools.product(tiny_t5.VARIANTS, (True, False)))


@pytest.mark.parametrize(  # True: weights laid out for few rows
    ("variant", "one_cpu"), slow_but([("1.1", False), ("umT5", True)], DECODED)
)
def test_decoding_step_by_step_equals_teacher_forcing(variant, one_cpu, monkeypatch):
    monkeypatch.setattr(matmul, "devices_in_program", lambda: 1 if one_cpu else 8)
    cfg = tiny_t5.config(variant)
    params = tiny_t5.random_params(cfg)
    batch = tiny_t5.random_batch(cfg, **BATCH)
    full = tiny_t5.random_batch(cfg, **BATCH, padded=False, seed=1)
    batch = {**full, "encoder_input_tokens": batch["encoder_input_tokens"]}
    batch["encoder_input_tokens"][2, 3:] = 0  # certainly padded

    @jax.jit
    def run(params):
        model = tiny_t5.build(cfg, params)

        def step(kv_cache, index_and_tokens):
            index, tokens_B = index_and_tokens
            mask_T = jnp.where(jnp.arange(length) <= index, 0.0, MASKED)
            logits_B1V, kv_cache = decode(
                tokens_B[:, None], index, kv_cache, mask_T[None, None, :, None]
            )
            return kv_cache, logits_B1V[:, 0]

        tokens_TB = batch["decoder_input_tokens"].T
        length = len(tokens_TB) + 3
        inputs = batch["encoder_input_tokens"]
        decode, kv_cache = model.start_decoding(decode_weights(model, len(inputs)), inputs, length)
        _, logits_TBV = jax.lax.scan(step, kv_cache, (jnp.arange(len(tokens_TB)), tokens_TB))
        return logits_TBV.swapaxes(0, 1), model(batch)

    got, want = run(params)
    assert got.dtype == jnp.float32
    assert_close(got, want, PARITY)


def test_tied_logits_are_scaled():
    cfg = tiny_t5.config("1.0")
    params, batch = tiny_t5.random_params(cfg), tiny_t5.random_batch(cfg, **BATCH)
    model = tiny_t5.build(cfg, params)
    hidden, table = jax.jit(type(model).hidden_and_table)(model, batch)
    np.testing.assert_array_equal(table, params["token_embedder"].T)
    rms = np.sqrt(np.mean(np.square(hidden / params["decoder"]["final_norm"]["scale"]), axis=-1))
    np.testing.assert_allclose(rms, cfg.emb_dim**-0.5, rtol=1e-3)


# ---- the containers


@pytest.mark.slow
def test_nothing_needs_nnx_graph_mode():
    """DESIGN.md decision 1: the same program with NNX's modules as plain trees."""
    code = (
        "import jax; from tests.model import tiny_t5\n"
        "cfg = tiny_t5.config('umT5', num_encoder_layers=2, num_decoder_layers=1)\n"
        "params = tiny_t5.random_params(cfg)\n"
        "batch = tiny_t5.random_batch(cfg, 2, 5, 3)\n"
        "(loss, _), gradients = tiny_t5.with_gradients(cfg)(params, batch, None)\n"
        "assert all(x.any() for x in jax.tree.leaves(gradients))\n"
    )
    environment = {"NNX_GRAPH_MODE": "false", "NNX_GRAPH_UPDATES": "false"}
    child = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        cwd=pathlib.Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert child.returncode == 0, child.stderr
