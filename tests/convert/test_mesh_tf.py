"""Mesh TensorFlow checkpoints, written by TensorFlow with the names that T5's have."""

import re
import shutil

import numpy as np
import pytest

from t5jax.convert import parameter_names
from t5jax.convert.mesh_tf import is_mesh_tf, open_mesh_tf
from t5jax.convert.parameter_names import MESH_TF
from t5jax.errors import CheckpointError, ConfigError
from t5jax.model.config import T5Config
from t5jax.model.layer_stack import layer_paths
from tests.convert.foreign import (
    TINY,
    mesh_tf_name,
    model_of,
    our_params,
    random_weights,
    write_mesh_tf,
)


def assert_params(source, weights):
    want = our_params(weights, source.model)
    assert set(source.params) == set(want)
    for path, array in want.items():
        np.testing.assert_array_equal(source.params[path].whole(), array, err_msg=path)


def published(real_data) -> dict[str, tuple[int, ...]]:
    """Names and shapes of T5's own test model."""
    text = (real_data / "golden/mtf_names/model-info.txt").read_text()
    found = re.findall(r"^Variable (\S+) .* Shape\[(.*?)\]", text, re.MULTILINE)
    return {name: tuple(int(n) for n in re.findall(r"=(\d+)", shape)) for name, shape in found}


@pytest.mark.slow
def test_the_published_names(real_data, tmp_path):
    """Every variable of T5's test model has its place, and every place its variable."""
    variables = published(real_data)
    assert len(variables) == 52
    rng = np.random.default_rng(0)
    values = {name: rng.normal(size=s).astype(np.float32) for name, s in variables.items()}
    slots = {f"{name}_slot_v": rng.random(s).astype(np.float32) for name, s in variables.items()}
    prefix = write_mesh_tf(
        tmp_path / "mesh", {**values, **slots, "global_step": np.array(100, np.int64)}, 100
    )
    gin = real_data / "golden/mtf_names/operative_config.gin"
    shutil.copy(gin, tmp_path / "mesh/operative_config.gin")
    source = open_mesh_tf(prefix)
    assert source.step == 100
    model = T5Config(
        vocab_size=32128, emb_dim=32, num_heads=2, head_dim=64, mlp_dim=64,
        num_encoder_layers=2, num_decoder_layers=2,
    )  # fmt: skip
    assert source.model == model
    shapes = {path: leaf.shape for path, leaf in parameter_names.parameters(model).items()}
    places = [place for path, shape in shapes.items() for place in layer_paths(path, shape)]
    assert set(map(MESH_TF.name, places)) == set(variables)
    wo = "decoder/layers/mlp/wo"
    kernels = [f"decoder/block_00{i}/layer_002/DenseReluDense/wo/kernel" for i in (0, 1)]
    assert source.origins[wo] == kernels
    np.testing.assert_array_equal(source.params[wo].whole(), [values[name] for name in kernels])
    np.testing.assert_array_equal(
        source.slots[f"v/{wo}"].whole(), [slots[f"{name}_slot_v"] for name in kernels]
    )


def test_the_older_names_of_t5_1_0(tmp_path):
    model = model_of("t5")
    weights = random_weights(model)
    variables = {mesh_tf_name(name, old_norms=True): x for name, x in weights.items()}
    unused = "decoder/block_000/layer_001/EncDecAttention/relative_attention_bias"
    variables |= {unused: np.ones((3, 32), "f4"), f"{unused}_slot_v": np.ones((3, 32), "f4")}
    prefix = write_mesh_tf(tmp_path / "mesh", variables, 20)
    source = open_mesh_tf(prefix)
    assert source.model.tied_embeddings
    assert source.model.mlp_activations == ("relu",)
    assert source.step == 20  # of the name: there is no global_step
    assert source.slots is None
    assert_params(source, weights)
    assert source.origins["encoder/final_norm/scale"] == ["encoder/final_layer_norm/scale"]


def test_factored_slots(tmp_path):
    """Of a square its rows are the second axis' means there, the first's here."""
    model = T5Config(**{**TINY, "emb_dim": 130, "num_heads": 2, "head_dim": 65, "mlp_dim": 140})
    weights = random_weights(model)
    variables, rng = {}, np.random.default_rng(1)
    for name, x in weights.items():
        variables[mesh_tf_name(name)] = x
        largest_first = sorted(range(x.ndim), key=lambda axis: -x.shape[axis])
        if x.ndim == 2 and min(x.shape) >= 128:
            slots = {"vr": x.shape[largest_first[1]], "vc": x.shape[largest_first[0]]}
        else:
            slots = {"v": x.shape}
        for slot, shape in slots.items():
            variables[f"{mesh_tf_name(name)}_slot_{slot}"] = rng.random(shape).astype(np.float32)
    source = open_mesh_tf(write_mesh_tf(tmp_path / "mesh", variables, 5))
    assert source.slots is not None, source.notes
    wi, query = "mlp/wi_0", "self_attention/query"  # 130 x 140, 130 x 130
    of = lambda layer, kind, slot: variables[
        f"{mesh_tf_name(f'encoder {layer} {kind}')}_slot_{slot}"
    ]
    for slot, theirs, kind, path in (
        ("v_row", "vr", "wi_0", wi),
        ("v_col", "vc", "wi_0", wi),
        ("v_row", "vc", "q", query),
        ("v_col", "vr", "q", query),
    ):
        np.testing.assert_array_equal(
            source.slots[f"{slot}/encoder/layers/{path}"].whole(),
            [of(layer, kind, theirs) for layer in range(3)],
        )


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """A folder with the steps 3 and 20."""
    folder = tmp_path_factory.mktemp("mesh")
    for step in (3, 20):
        weights = random_weights(model_of("t5_1_1"), seed=step)
        write_mesh_tf(folder / str(step), {mesh_tf_name(k): x for k, x in weights.items()}, step)
        for file in (folder / str(step)).glob("model.ckpt*"):
            file.rename(folder / file.name)
        (folder / str(step)).rmdir()
    (folder / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-20"\n')
    return folder


@pytest.mark.slow
def test_the_newest_of_a_folder(several):
    assert is_mesh_tf(several)
    assert open_mesh_tf(str(several)).step == 20
    assert open_mesh_tf(str(several), 3).step == 3
    with pytest.raises(ConfigError, match=r"--step 4: .* has 3, 20"):
        open_mesh_tf(str(several), 4)


def test_damaged_files(several, tmp_path):
    for file in several.glob("model.ckpt-3.*"):
        shutil.copy(file, tmp_path)
    data = tmp_path / "model.ckpt-3.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:5000])
    source = open_mesh_tf(str(tmp_path / "model.ckpt-3"))
    with pytest.raises(CheckpointError, match="is damaged"):
        [array.whole() for array in source.params.values()]
    (tmp_path / "model.ckpt-3.index").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="TensorFlow cannot read it"):
        open_mesh_tf(str(tmp_path / "model.ckpt-3"))


@pytest.mark.parametrize(
    ("rename", "message"),
    [
        (lambda name: name.replace("decoder/", "transformer/"), "decoder-only"),
        (lambda name: name.replace("shared/", "encoder/"), "separate token tables"),
        (lambda name: f"model/{name}", "holds no Mesh TensorFlow T5"),
    ],
)
def test_other_models(tmp_path, rename, message):
    weights = random_weights(model_of("t5_1_1"))
    variables = {rename(mesh_tf_name(name)): x for name, x in weights.items()}
    prefix = write_mesh_tf(tmp_path / "mesh", variables, 1)
    with pytest.raises(CheckpointError, match=message):
        open_mesh_tf(prefix)
