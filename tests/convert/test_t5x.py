"""T5X checkpoints: its own file, zarr directories in every layout, slots, settings."""

import json

import ml_dtypes
import numpy as np
import pytest
from flax import serialization

from t5jax.convert.forward import model_logits
from t5jax.convert.numpy_t5 import NumpyT5
from t5jax.convert.probe_inputs import ProbeInputs
from t5jax.convert.t5x import is_t5x, open_t5x
from t5jax.errors import CheckpointError, ConfigError
from t5jax.model.config import T5Config
from tests.convert.foreign import (
    TINY,
    VARIANTS,
    model_of,
    our_params,
    random_weights,
    t5x_name,
    write_t5x,
)

GIN = """
from __gin__ import dynamic_registration
import __main__ as train_script

# Macros:
DROPOUT_RATE = 0.2
NUM_HEADS = {heads}
include 'x.gin'
network.T5Config:
network.T5Config.dropout_rate = %DROPOUT_RATE
network.T5Config.num_heads = %NUM_HEADS
network.T5Config.mlp_activations = \\
    ('gelu',
     'linear')
network.T5Config.dtype = 'bfloat16'
network.T5Config.logits_via_embedding = False
models.EncoderDecoderModel.module = @network.Transformer()
"""


def assert_params(source, weights):
    want = our_params(weights, source.model)
    assert set(source.params) == set(want)
    for path, array in want.items():
        np.testing.assert_array_equal(source.params[path].whole(), array, err_msg=path)


def unused() -> np.ndarray:
    return np.zeros(1, np.float32)


def random_slots(shape, *, factored, rng, row_axis=None) -> dict[str, np.ndarray]:
    """As T5X keeps them: what is not used has one element."""
    slots = {"v_row": unused(), "v_col": unused(), "v": unused(), "m": unused()}
    if not factored:
        return slots | {"v": rng.random(shape).astype(np.float32)}
    if row_axis is None:
        row_axis = int(np.argsort(shape)[-2])
    return slots | {
        "v_row": rng.random(shape[row_axis]).astype(np.float32),
        "v_col": rng.random(shape[1 - row_axis]).astype(np.float32),
    }


def minimal_leaves(weights, *, step=7, slots=False, least=128, seed=3):
    rng = np.random.default_rng(seed)
    leaves = {"state/step": np.array(step, np.int32)}
    for name, x in weights.items():
        leaves[f"target/{t5x_name(name)}"] = x
        if slots:
            factored = x.ndim == 2 and min(x.shape) >= least
            for slot, array in random_slots(x.shape, factored=factored, rng=rng).items():
                leaves[f"state/param_states/{t5x_name(name)}/{slot}"] = array
    return leaves


# ---- layouts


@pytest.mark.parametrize("variant", ["t5", "t5_1_1"])
def test_a_directory_of_zarr_arrays(tmp_path, variant):
    weights = random_weights(model_of(variant))
    folder = tmp_path / "checkpoint_7"
    write_t5x(folder, minimal_leaves(weights), inline=("state/step",))
    assert is_t5x(folder)
    source = open_t5x(str(folder))
    assert source.step == 7
    assert source.model.tied_embeddings == (variant == "t5")
    assert source.model.mlp_activations == (("relu",) if variant == "t5" else ("gelu", "linear"))
    assert any("mlp_activations" in note for note in source.notes)
    assert_params(source, weights)


def test_the_newest_of_several(tmp_path):
    for step in (5, 40):
        weights = random_weights(model_of("t5_1_1"), seed=step)
        write_t5x(tmp_path / f"checkpoint_{step}", minimal_leaves(weights, step=step))
    assert is_t5x(tmp_path)
    assert open_t5x(str(tmp_path)).step == 40
    assert open_t5x(str(tmp_path), 5).step == 5
    with pytest.raises(ConfigError, match=r"--step 6.* has 5, 40"):
        open_t5x(str(tmp_path), 6)
    with pytest.raises(ConfigError, match="leave it out"):
        open_t5x(str(tmp_path / "checkpoint_5"), 6)


def scanned(weights, model, prefix: str, bias: str, *, split_heads: bool):
    """All layers of a stack in one array, along axis 1."""
    leaves = {}
    for name, x in weights.items():
        parts = name.split()
        if len(parts) != 3:
            leaves[f"target/{t5x_name(name)}"] = x
            continue
        stack, layer, kind = parts
        if layer != "0":
            continue
        path = t5x_name(name, per_layer_bias=bias).replace(
            f"{stack}/layers_0/", f"{stack}/{prefix.format(stack)}/"
        )
        count = getattr(model, f"num_{stack}_layers")
        layers = [weights[f"{stack} {i} {kind}"] for i in range(count)]
        if split_heads and kind[-1] in "qkv" and x.ndim == 2:
            layers = [x.reshape(len(x), model.num_heads, -1) for x in layers]
        if split_heads and kind in ("o", "xo"):
            layers = [x.reshape(model.num_heads, -1, x.shape[1]) for x in layers]
        leaves[f"target/{path}"] = np.stack(layers, axis=1)
    return leaves


@pytest.mark.parametrize(
    ("prefix", "bias", "split_heads"),
    [("layers", "relative_posemb", False), ("{}", "relpos_bias", True)],
    ids=["T5X's scalable network", "Flaxformer's umT5"],
)
def test_scanned_stacks(tmp_path, prefix, bias, split_heads):
    model = model_of("umt5")
    weights = random_weights(model)
    leaves = scanned(weights, model, prefix, bias, split_heads=split_heads)
    write_t5x(tmp_path / "checkpoint_1", leaves)
    source = open_t5x(str(tmp_path))
    assert source.model.per_layer_relative_bias
    assert_params(source, weights)
    origin = source.origins["encoder/layers/mlp/wo"][2]
    assert origin == f"encoder/{prefix.format('encoder')}/mlp/wo/kernel[:, 2]"


def test_a_scalable_network_that_is_not_scanned(tmp_path):
    model = model_of("umt5")
    weights = random_weights(model)
    leaves = {
        f"target/{t5x_name(name, per_layer_bias='relative_posemb')}": x
        for name, x in weights.items()
    }
    write_t5x(tmp_path / "checkpoint_1", leaves)
    assert_params(open_t5x(str(tmp_path)), weights)


def test_a_tree_of_orbax(tmp_path):
    """Later T5X: other words around the same tree, placeholders for arrays."""
    weights = random_weights(model_of("t5_1_1"))
    write_t5x(tmp_path / "checkpoint_3", minimal_leaves(weights, step=3))
    file = tmp_path / "checkpoint_3/checkpoint"
    old = serialization.msgpack_restore(file.read_bytes())["optimizer"]

    def placeholders(tree):
        if "kvstore" in tree:
            return f"PLACEHOLDER://{tree['kvstore']['path'].rstrip('/')}"
        return {name: placeholders(value) for name, value in tree.items()}

    new = {"_optimizer": placeholders(old), "flax_mutables": None, "params_axes": None}
    file.write_bytes(serialization.msgpack_serialize(new))
    source = open_t5x(str(tmp_path / "checkpoint_3"))
    assert source.step == 3
    assert_params(source, weights)


def test_bfloat16_as_the_bits_that_it_is(tmp_path):
    weights = random_weights(model_of("t5_1_1"))
    halves = {k: x.astype(ml_dtypes.bfloat16) for k, x in weights.items()}
    leaves = {f"target/{t5x_name(k)}": x.view(np.uint16) for k, x in halves.items()}
    write_t5x(tmp_path / "checkpoint_1", leaves)
    source = open_t5x(str(tmp_path))
    assert source.params["token_embedder"].dtype == ml_dtypes.bfloat16
    assert_params(source, halves)


# ---- slots


@pytest.mark.parametrize(
    "least",
    [pytest.param(128, marks=pytest.mark.slow), 32, pytest.param(1, marks=pytest.mark.slow)],
)
def test_slots(tmp_path, least):
    """Factored where both sides are large; rows are of the smaller one, as ours."""
    sizes = {"emb_dim": 40, "num_heads": 4, "head_dim": 10, "mlp_dim": 200, "vocab_size": 300}
    if least == 128:
        sizes |= {"emb_dim": 144, "head_dim": 36}
    model = T5Config(**{**TINY, **sizes})
    weights = random_weights(model)
    write_t5x(tmp_path / "checkpoint_9", minimal_leaves(weights, step=9, slots=True, least=least))
    source = open_t5x(str(tmp_path))
    assert source.step == 9
    assert source.slots is not None, source.notes
    assert source.slot_settings == ({} if least == 128 else {"min_dim_size_to_factor": least})
    rng = np.random.default_rng(3)
    slots = {}
    for name, x in weights.items():
        factored = x.ndim == 2 and min(x.shape) >= least
        slots[name] = random_slots(x.shape, factored=factored, rng=rng)
    for kind in ("v_row", "v_col", "v"):
        want = our_params({name: slot[kind] for name, slot in slots.items()}, model)
        for path, array in want.items():
            found = source.slots[f"{kind}/{path}"].whole()
            if np.shape(array)[-1:] == (1,) and not array.any():
                array = np.zeros(1, np.float32)  # not used, one for the whole stack
            np.testing.assert_array_equal(found, array, err_msg=f"{kind}/{path}")
    momenta = [x for path, x in source.slots.items() if path.startswith("m/")]
    assert all(x.shape == (1,) for x in momenta)


@pytest.mark.slow
def test_scanned_slots_are_factored_by_axis_names(tmp_path):
    """Rows are the embedding's there: of squares that are written backwards ours are columns."""
    model = T5Config(**{**TINY, **VARIANTS["umt5"][0], "emb_dim": 130, "num_heads": 2,
                        "head_dim": 65, "mlp_dim": 140})  # fmt: skip
    weights = random_weights(model)
    leaves = scanned(weights, model, "layers", "relative_posemb", split_heads=False)
    rng, slots = np.random.default_rng(4), {}
    for path, x in list(leaves.items()):
        name = path.removeprefix("target/")
        layers = x.shape[1] if "/layers/" in name else None
        layer_shape = np.delete(x.shape, 1) if layers else np.array(x.shape)
        parts = dict.fromkeys(("v_row", "v_col", "v", "m"), unused())
        if len(layer_shape) == 2 and min(layer_shape) >= 128:
            row = 1 if name.endswith(("out/kernel", "wo/kernel")) else 0
            if layers is None:
                row = int(np.argsort(layer_shape)[-2])
            for slot, axis in (("v_row", row), ("v_col", 1 - row)):
                one = rng.random((layers or 1, layer_shape[axis])).astype(np.float32)
                slots[f"{slot} {name}"] = one
                # The layers keep their place among what is left.
                position = 1 if layers and axis == 0 else 0
                parts[slot] = np.moveaxis(one, 0, position) if layers else one[0]
        else:
            parts["v"] = rng.random(x.shape).astype(np.float32)
        for slot, array in parts.items():
            leaves[f"state/param_states/{name}/{slot}"] = array
    write_t5x(tmp_path / "checkpoint_2", leaves)
    source = open_t5x(str(tmp_path))
    assert source.slots is not None, source.notes
    found = lambda path: source.slots[path].whole()
    out = "encoder/layers/attention/out/kernel"
    query = "encoder/layers/attention/query/kernel"
    ours = "encoder/layers/self_attention"
    np.testing.assert_array_equal(found(f"v_row/{ours}/out"), slots[f"v_col {out}"])
    np.testing.assert_array_equal(found(f"v_col/{ours}/out"), slots[f"v_row {out}"])
    np.testing.assert_array_equal(found(f"v_row/{ours}/query"), slots[f"v_row {query}"])
    np.testing.assert_array_equal(found(f"v_col/{ours}/query"), slots[f"v_col {query}"])
    wo = "decoder/layers/mlp/wo"  # 140 x 130: the smaller side is the embedding, row in both
    np.testing.assert_array_equal(found(f"v_row/{wo}"), slots[f"v_row {wo}/kernel"])


def test_momentum(tmp_path):
    """As umT5 XXL was trained: not factored, with momentum."""
    weights = random_weights(model_of("t5_1_1"))
    leaves = minimal_leaves(weights, slots=True, least=10**6)
    for path in list(leaves):
        if path.endswith("/m"):
            of = path.removeprefix("state/param_states/").removesuffix("/m")
            leaves[path] = (leaves[f"target/{of}"] * 0.01).astype(ml_dtypes.bfloat16)
    write_t5x(tmp_path / "checkpoint_2", leaves, inline=[p for p in leaves if p.endswith("/m")])
    source = open_t5x(str(tmp_path))
    assert source.slot_settings == {"beta1": 0.9, "momentum_dtype": "bfloat16"}
    assert source.slots is not None
    assert source.slots["m/token_embedder"].shape == (389, 18)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(
            lambda leaves, at: leaves.pop(f"{at}/v"), "no second moments", marks=pytest.mark.slow
        ),
        (lambda leaves, at: leaves.update({f"{at}/v": np.ones((3, 3), "f4")}), "has shape"),
        pytest.param(
            lambda leaves, at: leaves.update({f"{at}/m": np.ones((22, 18), "f4")}),
            "momentum",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_slots_that_are_not_adafactor_s(tmp_path, change, reason):
    weights = random_weights(model_of("t5_1_1"))
    leaves = minimal_leaves(weights, slots=True)
    change(leaves, "state/param_states/encoder/layers_1/mlp/wo/kernel")
    write_t5x(tmp_path / "checkpoint_2", leaves)
    source = open_t5x(str(tmp_path))
    assert source.slots is None
    assert any("slots are left out" in note and reason in note for note in source.notes)


# ---- settings and mistakes


def test_settings_of_a_gin_file(tmp_path):
    write_t5x(tmp_path / "checkpoint_1", minimal_leaves(random_weights(model_of("t5_1_1"))))
    (tmp_path / "config.gin").write_text(GIN.format(heads=3))
    source = open_t5x(str(tmp_path / "checkpoint_1"))
    assert source.model.dropout_rate == 0.2
    assert source.model.mlp_activations == ("gelu", "linear")
    assert not any("assumed" in note for note in source.notes)
    (tmp_path / "config.gin").write_text(GIN.format(heads=5))
    with pytest.raises(CheckpointError, match="num_heads: 5 by the config, 3 by the weights"):
        open_t5x(str(tmp_path / "checkpoint_1"))


def test_a_missing_weight(tmp_path):
    leaves = minimal_leaves(random_weights(model_of("t5_1_1")))
    name = "decoder/layers_1/mlp/wi_1/kernel"
    del leaves[f"target/{name}"]
    write_t5x(tmp_path / "checkpoint_1", leaves)
    with pytest.raises(CheckpointError, match=f"{name} is missing"):
        open_t5x(str(tmp_path))


def test_arrays_that_were_not_copied(tmp_path):
    folder = tmp_path / "checkpoint_1"
    write_t5x(folder, minimal_leaves(random_weights(model_of("t5_1_1"))))
    (folder / "target.token_embedder.embedding/.zarray").unlink()
    with pytest.raises(CheckpointError, match=r"\.zarray is missing"):
        open_t5x(str(folder))


def test_a_damaged_array(tmp_path):
    folder = tmp_path / "checkpoint_1"
    weights = random_weights(model_of("t5_1_1"))
    write_t5x(folder, minimal_leaves(weights))
    for chunk in (folder / "target.token_embedder.embedding").iterdir():
        if not chunk.name.startswith("."):
            chunk.write_bytes(b"\x1f\x8b nonsense")
    source = open_t5x(str(folder))
    with pytest.raises(CheckpointError, match=r"token_embedder.embedding cannot be read"):
        source.params["token_embedder"].whole()


def test_another_model(tmp_path):
    leaves = {"target/mlp/kernel": np.ones((3, 4), np.float32)}
    write_t5x(tmp_path / "checkpoint_1", leaves)
    with pytest.raises(CheckpointError, match="holds no T5X T5"):
        open_t5x(str(tmp_path))


# ---- the real thing


def test_an_index_of_t5x_itself(real_data):
    """Its test checkpoint's arrays are not all here, but its index is; it is not a T5 either."""
    for name in ("tiny_t5/checkpoint_1", "tiny_orbax/1"):
        folder = real_data / "golden/t5x_checkpoint" / name
        assert is_t5x(folder)
        with pytest.raises(CheckpointError, match=r"zarray is missing"):
            open_t5x(str(folder))


@pytest.mark.parametrize("who", ["ours", "NumPy"])
def test_the_genuine_checkpoint(real_data, who):
    """Written by T5X; expected logits computed elsewhere, in float64."""
    folder = real_data / "golden/t5x_checkpoint"
    source = open_t5x(str(folder / "test_t5_tiny.checkpoint_0"))
    want = json.loads((folder / "computed_logits.json").read_text())
    assert source.step == 0
    assert source.slots is not None
    assert source.model.emb_dim == 8
    assert source.model.vocab_size == 32128
    length = len(want["decoder_input_ids"])
    probe = ProbeInputs(
        np.array([want["encoder_input_ids"]], np.int32),
        np.array([want["decoder_input_ids"]], np.int32),
        np.array([length], np.int32),
        np.zeros(length, np.int32),
        np.arange(length, dtype=np.int32),
    )
    if who == "ours":
        logits = model_logits(source.model, source.params, probe)
    else:
        logits = NumpyT5("t5x", source.weights.arrays, source.model).logits(probe)
    np.testing.assert_allclose(logits[:, :8], want["logits_first8"], atol=2e-5)
    np.testing.assert_array_equal(logits.argmax(axis=-1), want["logits_argmax"])
    np.testing.assert_allclose(
        np.log(np.exp(logits.astype(np.float64)).sum(axis=-1)), want["logsumexp"], atol=1e-5
    )
