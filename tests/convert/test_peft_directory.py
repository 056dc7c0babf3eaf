"""PEFT's LoRA directories: read over their base, written from a run, refused by name.

The directories are written here from the format's page: A [rank, in] and B [out, rank] of every
module; what they compute is W + scale · B A, merged here by hand.
"""

import json
import math
import re

import numpy as np
import pytest

import t5jax
from t5jax.cli import main
from t5jax.config import from_text
from t5jax.runtime import ExitCode
from t5jax.training.peft import LoRA
from tests.convert.foreign import (
    huggingface_config,
    huggingface_weights,
    model_of,
    random_weights,
    read_safetensors,
    write_huggingface,
    write_safetensors,
)

SETTINGS = {
    "peft_type": "LORA", "task_type": "SEQ_2_SEQ_LM", "r": 4, "lora_alpha": 10, "bias": "none",
    "lora_dropout": 0.05, "fan_in_fan_out": False, "use_rslora": False, "use_dora": False,
    "modules_to_save": None, "rank_pattern": {}, "alpha_pattern": {}, "inference_mode": True,
    "base_model_name_or_path": "somebody/t5", "target_modules": ["q", "v"],
}  # fmt: skip
ALL = ("q", "k", "v", "o", "wi_0", "wi_1", "wo")


def matrices(weights, ends):
    """The names of the modules that end so."""
    names = (name.removesuffix(".weight") for name in weights)
    return [name for name in names if name.rpartition(".")[2] in ends]


def write_adapter(folder, weights, modules, *, seed=5, spelling="", **changes):
    """A PEFT directory with random factors; returns it and the merged weights."""
    settings, rng = SETTINGS | changes, np.random.default_rng(seed)
    rank = settings["r"]
    by = math.sqrt(rank) if settings["use_rslora"] else rank
    tensors, merged = {}, dict(weights)
    for module in modules:
        outputs, inputs = weights[f"{module}.weight"].shape
        a = rng.normal(size=(rank, inputs)).astype(np.float32) * inputs**-0.5
        b = rng.normal(size=(outputs, rank)).astype(np.float32) * 0.05
        tensors[f"base_model.model.{module}.lora_A{spelling}.weight"] = a
        tensors[f"base_model.model.{module}.lora_B{spelling}.weight"] = b
        change = settings["lora_alpha"] / by * (b.astype(np.float64) @ a.astype(np.float64))
        merged[f"{module}.weight"] = (weights[f"{module}.weight"] + change).astype(np.float32)
    folder.mkdir()
    write_safetensors(folder / "adapter_model.safetensors", tensors)
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder, merged


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny T5 1.1 of Hugging Face, its weights and its directory."""
    model = model_of("t5_1_1")
    weights = huggingface_weights(random_weights(model))
    folder = tmp_path_factory.mktemp("base") / "hf"
    return weights, write_huggingface(folder, weights, huggingface_config(model))


def convert(*words) -> int:
    return main(["convert", *map(str, words), "--reference", "numpy"])


def params_of(folder):
    """The run's parameters as it predicts with them, flat."""
    (params,) = t5jax.load(str(folder)).params
    flat = {}

    def walk(tree, prefix):
        for name, value in tree.items():
            if isinstance(value, dict):
                walk(value, f"{prefix}{name}/")
            else:
                flat[prefix + name] = np.asarray(value)

    walk(params, "")
    return flat


@pytest.mark.parametrize(
    ("ends", "changes"),
    [
        pytest.param(("q", "v"), {}, marks=pytest.mark.slow),
        pytest.param(ALL, {"use_rslora": True, "r": 3}, marks=pytest.mark.slow),
        pytest.param(("wo",), {"spelling": ".default"}, marks=pytest.mark.slow),
    ],
    ids=["q and v", "all, rank-stabilised", "one, with the adapter's name"],
)
def test_read_as_lora_over_its_base(tmp_path, base, ends, changes):
    weights, folder = base
    modules = matrices(weights, ends)
    adapter, merged = write_adapter(tmp_path / "lora", weights, modules, **changes)
    assert convert(adapter, tmp_path / "run", "--base", folder) == ExitCode.DONE
    [check] = json.loads((tmp_path / "run" / "conversion.json").read_text())["checks"]
    assert check["relative_error"] < 1e-5

    whole = write_huggingface(tmp_path / "whole", merged, huggingface_config(model_of("t5_1_1")))
    assert convert(whole, tmp_path / "merged") == ExitCode.DONE
    found, expected = params_of(tmp_path / "run"), params_of(tmp_path / "merged")
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=2e-6, atol=2e-6, err_msg=name)

    config = from_text((tmp_path / "run" / "config.txt").read_text())
    rank = changes.get("r", 4)
    assert isinstance(config.finetuning, LoRA)
    assert config.finetuning.rank == rank
    scale = 10 / (math.sqrt(rank) if changes.get("use_rslora") else rank)
    assert config.finetuning.alpha / rank == pytest.approx(scale, rel=1e-12)
    assert config.init.path == str(folder)


@pytest.mark.slow
def test_written_as_it_was_read(tmp_path, base):
    """Over a run as base; the directory that comes back has the same bits."""
    weights, folder = base
    adapter, _ = write_adapter(tmp_path / "lora", weights, matrices(weights, ("q", "v")))
    assert convert(folder, tmp_path / "base") == ExitCode.DONE
    assert convert(adapter, tmp_path / "run", "--base", tmp_path / "base") == ExitCode.DONE
    assert convert(tmp_path / "run", tmp_path / "back", "--to", "peft") == ExitCode.DONE
    first, second = (read_safetensors(x / "adapter_model.safetensors")
                     for x in (adapter, tmp_path / "back"))  # fmt: skip
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(second[name], array, err_msg=name)
    settings = json.loads((tmp_path / "back" / "adapter_config.json").read_text())
    assert settings["target_modules"] == ["q", "v"]
    same = ("peft_type", "task_type", "r", "lora_alpha", "bias", "use_rslora", "fan_in_fan_out")
    assert {name: settings[name] for name in same} == {name: SETTINGS[name] for name in same}
    assert settings["base_model_name_or_path"] == str(tmp_path / "base")


@pytest.mark.slow
def test_layers_without_factors_stay_as_they_are(tmp_path, base):
    weights, folder = base
    modules = [m for m in matrices(weights, ("q",)) if m.startswith("encoder.block.1.")]
    adapter, merged = write_adapter(tmp_path / "lora", weights, modules)
    assert convert(adapter, tmp_path / "run", "--base", folder) == ExitCode.DONE
    assert "have no factors" in (tmp_path / "run" / "conversion.txt").read_text()
    query = params_of(tmp_path / "run")["encoder/layers/self_attention/query"]
    for layer in range(3):
        name = f"encoder.block.{layer}.layer.0.SelfAttention.q.weight"
        np.testing.assert_allclose(query[layer], merged[name].T, rtol=2e-6, atol=2e-6)
    assert convert(tmp_path / "run", tmp_path / "back", "--to", "peft") == ExitCode.DONE
    settings = json.loads((tmp_path / "back" / "adapter_config.json").read_text())
    targets = settings["target_modules"]
    assert targets == [f"encoder.block.{n}.layer.0.SelfAttention.q" for n in range(3)]


REFUSED = {
    "DoRA": ({"use_dora": True}, "use_dora = True is not read"),
    "another type": ({"peft_type": "IA3"}, "peft_type = 'IA3' is not read"),
    "biases": ({"bias": "lora_only"}, "bias = 'lora_only' is not read"),
    "whole modules": ({"modules_to_save": ["lm_head"]}, "modules_to_save = ['lm_head'] is not"),
    "ranks": ({"rank_pattern": {"q": 2}}, "rank_pattern = {'q': 2} is not read"),
    "alphas": ({"alpha_pattern": {"q": 2}}, "alpha_pattern = {'q': 2} is not read"),
    "turned": ({"fan_in_fan_out": True}, "fan_in_fan_out = True is not read"),
    "a start that changes the base": (
        {"init_lora_weights": "pissa"}, "init_lora_weights = 'pissa'",
    ),
    "a setting of tomorrow": ({"use_tomorrow": 3}, "use_tomorrow = 3 is not read"),
    "another rank": ({"r": 7}, "r = 7, but the factors of decoder/layers/0/self_attention/"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_lora_of_t5jax_is_refused_by_name(tmp_path, base, case, capsys):
    weights, folder = base
    changes, message = REFUSED[case]
    adapter, _ = write_adapter(tmp_path / "lora", weights, matrices(weights, ("q", "v")))
    settings = json.loads((adapter / "adapter_config.json").read_text()) | changes
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    code = convert(adapter, tmp_path / "run", "--base", folder)
    assert code in (ExitCode.CONFIG, ExitCode.NO_CHECKPOINT)
    (line,) = capsys.readouterr().err.splitlines()
    assert f"adapter_config.json: {message}" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_files_that_do_not_fit(tmp_path, base, capsys):
    weights, folder = base
    modules = matrices(weights, ("q", "v"))
    adapter, _ = write_adapter(tmp_path / "lora", weights, modules)
    file = adapter / "adapter_model.safetensors"
    tensors = read_safetensors(file)
    name = f"base_model.model.{modules[0]}.lora_B.weight"
    for changed, message in (
        ({k: v for k, v in tensors.items() if k != name}, "one factor of encoder/layers/0"),
        ({**tensors, name: tensors[name][:-1]}, "an adapter of another base"),
        ({**tensors, name: tensors[name] * np.float32(np.nan)}, f"{name} holds nan at [0, 0]"),
        ({**tensors, "base_model.model.shared.lora_embedding_A": tensors[name]}, "has no place"),
        ({}, "it holds no factors"),
    ):
        write_safetensors(file, {k: np.ascontiguousarray(v) for k, v in changed.items()})
        assert convert(adapter, tmp_path / "run", "--base", folder) == ExitCode.NO_CHECKPOINT
        assert message in capsys.readouterr().err
    file.unlink()
    (adapter / "adapter_model.bin").write_bytes(b"")
    assert convert(adapter, tmp_path / "run", "--base", folder) == ExitCode.CONFIG
    assert "is a pickle" in capsys.readouterr().err


def test_the_base_is_asked_for(tmp_path, base, capsys):
    weights, folder = base
    adapter, _ = write_adapter(tmp_path / "lora", weights, matrices(weights, ("q",)))
    assert convert(adapter, tmp_path / "run") == ExitCode.CONFIG
    error = capsys.readouterr().err
    assert re.search(r"the difference to somebody/t5: give that with --base", error)
    assert convert(folder, tmp_path / "run", "--base", folder) == ExitCode.CONFIG
    assert "--base" in capsys.readouterr().err
    assert convert(adapter, tmp_path / "hf", "--to", "huggingface", "--base", folder) == 64
    assert "t5jax merge RUN MERGED" in capsys.readouterr().err
    assert convert(folder, tmp_path / "p", "--to", "peft") == ExitCode.CONFIG
    assert "is no run of t5jax" in capsys.readouterr().err
