"""The check at the end: three implementations agree on goldens, and a wrong weight is noticed."""

import dataclasses
import json

import numpy as np
import pytest

from t5jax.convert import verify
from t5jax.convert.forward import model_logits
from t5jax.convert.huggingface import open_huggingface
from t5jax.convert.lazy_arrays import InMemory
from t5jax.convert.numpy_t5 import NumpyT5
from t5jax.convert.probe_inputs import ProbeInputs
from t5jax.errors import CheckpointError, ConfigError
from t5jax.model.config import T5Config
from tests.convert.foreign import huggingface_config, tiny_huggingface, write_huggingface
from tests.marks import slow_but
from tests.model import tiny_t5

PARITY = 1e-5


def under(golden, prefix: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): golden[k] for k in golden if k.startswith(prefix)}


def probe_of(source_ids, target_ids, real) -> ProbeInputs:
    rows, positions = np.nonzero(real)
    return ProbeInputs(
        np.maximum(source_ids, 0).astype(np.int32),
        target_ids.astype(np.int32),
        real.sum(axis=1).astype(np.int32),
        rows.astype(np.int32),
        positions.astype(np.int32),
    )


def both(kind: str, arrays, source, probe):
    yield model_logits(source.model, source.params, probe)
    yield NumpyT5(kind, arrays, source.model).logits(probe)


@pytest.mark.parametrize("version", ["v1_0", "v1_1"])
def test_hugging_face_s_golden_activations(real_data, tmp_path, version):
    """Imported from a directory of theirs, through ours and through NumPy."""
    golden = dict(np.load(real_data / f"golden/hf_t5/hf_t5_{version}.npz"))
    weights = under(golden, "params/")
    model = T5Config(
        vocab_size=128, emb_dim=12, num_heads=3, head_dim=4, num_encoder_layers=2,
        num_decoder_layers=2, mlp_dim={"v1_0": 48, "v1_1": 32}[version],
        mlp_activations={"v1_0": ("relu",), "v1_1": ("gelu", "linear")}[version],
    )  # fmt: skip
    folder = write_huggingface(tmp_path / "hf", weights, huggingface_config(model))
    source = open_huggingface(str(folder))
    assert source.model == model
    inputs = under(golden, "inputs/")
    labels = inputs["target_labels"]
    probe = probe_of(inputs["source_ids"], inputs["target_ids"], (labels > 0) & (labels < 128))
    want = golden["outputs/logits"][probe.rows, probe.positions]
    for logits in both("huggingface", source.weights.arrays, source, probe):
        tiny_t5.assert_close(logits, want, PARITY)


def test_t5x_s_golden_activations(real_data, tmp_path):
    from t5jax.convert.t5x import open_t5x
    from tests.convert.foreign import write_t5x

    golden = dict(np.load(real_data / "golden/t5x/t5x_encoder_decoder_unpacked.npz"))
    weights = under(golden, "params/")
    write_t5x(tmp_path / "checkpoint_1", {f"target/{name}": x for name, x in weights.items()})
    source = open_t5x(str(tmp_path))
    probe = probe_of(golden["source_ids"], golden["target_ids"], golden["padding_mask"])
    want = golden["outputs"][probe.rows, probe.positions]
    for logits in both("t5x", source.weights.arrays, source, probe):
        tiny_t5.assert_close(logits, want, PARITY)


@pytest.mark.parametrize("variant", slow_but(["umT5"], tiny_t5.VARIANTS))
def test_layer_by_layer_equals_the_model(variant):
    """The walk through the stacks that holds one layer, against the model itself."""
    cfg = tiny_t5.config(variant, vocab_size=61, relpos_num_buckets=32, relpos_max_distance=128)
    params = tiny_t5.random_params(cfg)
    probe = ProbeInputs.for_vocabulary(cfg.vocab_size)
    targets = np.pad(probe.decoder_inputs[:, 1:], ((0, 0), (0, 1)), constant_values=1)
    batch = {
        "encoder_input_tokens": probe.encoder_tokens,
        "decoder_input_tokens": probe.decoder_inputs,
        "decoder_target_tokens": np.where(probe.decoder_mask, targets, 0),
    }
    want = np.asarray(tiny_t5.build(cfg, params)(batch))[probe.rows, probe.positions]
    flat = {}

    def flatten(tree, prefix=""):
        for name, value in tree.items():
            if isinstance(value, dict):
                flatten(value, f"{prefix}{name}/")
            else:
                flat[f"{prefix}{name}"] = InMemory(value)

    flatten(params)
    tiny_t5.assert_close(model_logits(cfg, flat, probe), want, 5e-6)


# ---- what the check notices


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A tiny T5 1.1, and our logits of it."""
    folder = tiny_huggingface(tmp_path_factory.mktemp("hf") / "model", "t5_1_1")
    source = open_huggingface(str(folder))
    probe = ProbeInputs.for_vocabulary(source.model.vocab_size)
    return source, model_logits(source.model, source.params, probe)


def test_right_weights_pass(opened):
    source, ours = opened
    found = verify.check_logits(ours, source, "numpy")
    assert found.passed
    assert found.error < PARITY
    assert found.num_logits == ours.size
    assert "NumPy" in found.reference


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("encoder/layers/self_attention/query", lambda x: x[[1, 0, 2]]),
        pytest.param("decoder/layers/mlp/wi_0", lambda x: x * 1.001, marks=pytest.mark.slow),
        ("decoder/relpos_bias/embedding", lambda x: x[:, ::-1]),
        pytest.param(
            "encoder/layers/mlp_norm/scale", lambda x: np.roll(x, 1, axis=1), marks=pytest.mark.slow
        ),
        pytest.param("token_embedder", lambda x: np.roll(x, 1, axis=0), marks=pytest.mark.slow),
        ("logits_dense", lambda x: x * 18**-0.5),
    ],
)
def test_wrong_weights_do_not(opened, path, change):
    source, _ = opened
    params = {**source.params, path: InMemory(change(source.params[path].whole()))}
    probe = ProbeInputs.for_vocabulary(source.model.vocab_size)
    assert not verify.check_logits(
        model_logits(source.model, params, probe), source, "numpy"
    ).passed


@pytest.mark.parametrize("activations", [("gelu_exact", "linear"), ("relu", "linear")])
def test_another_activation_does_not(opened, activations):
    source, _ = opened
    model = dataclasses.replace(source.model, mlp_activations=activations)
    probe = ProbeInputs.for_vocabulary(model.vocab_size)
    assert not verify.check_logits(
        model_logits(model, source.params, probe), source, "numpy"
    ).passed


def test_numbers_that_are_none_do_not(opened):
    source, ours = opened
    assert not verify.check_logits(ours * np.nan, source, "numpy").passed


def test_stored_logits(opened, tmp_path):
    source, ours = opened
    folder = tmp_path / "with golden"
    verify_source = dataclasses.replace(source, path=str(folder))
    folder.mkdir()
    with pytest.raises(ConfigError, match="there is no"):
        verify.check_logits(ours, verify_source, "golden")
    verify.write_golden(folder, ours)
    found = verify.check_logits(ours, verify_source, "golden")
    assert found.passed
    assert verify.GOLDEN in found.reference
    assert not verify.check_logits(ours * 1.01, verify_source, "golden").passed
    # A single id's logits are wrong, and not one of those that are stored.
    one = ours.copy()
    one[:, 1] += 3.0
    assert not verify.check_logits(one, verify_source, "golden").passed
    content = json.loads((folder / verify.GOLDEN).read_text())
    (folder / verify.GOLDEN).write_text(json.dumps(content | {"inputs": 0}))
    with pytest.raises(CheckpointError, match="version 0"):
        verify.check_logits(ours, verify_source, "golden")


def test_without_transformers_the_files_are_read_by_numpy(opened, monkeypatch):
    source, ours = opened
    monkeypatch.setattr(verify.transformers_t5, "is_installed", lambda: False)
    assert "NumPy" in verify.check_logits(ours, source, "auto").reference
    with pytest.raises(ConfigError, match="--reference transformers"):
        verify.check_logits(ours, source, "transformers")


def test_the_inputs_are_as_they_were():
    """Stored logits are for these; another version of them needs another number."""
    probe = ProbeInputs.for_vocabulary(32128)
    assert probe.encoder_tokens[0, :4].tolist() == [3, 19858, 7588, 27443]
    assert probe.decoder_inputs[1, :3].tolist()[0] == 0
    assert probe.encoder_tokens.max() < 32128
    assert (probe.encoder_tokens[1, 57:] == 0).all()
    assert len(np.unique(probe.encoder_tokens)) > 150
    tiny = ProbeInputs.for_vocabulary(4)
    assert tiny.encoder_tokens.max() <= 3
