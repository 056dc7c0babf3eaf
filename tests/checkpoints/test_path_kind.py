"""What a path is that should be a run, and the advice that fits it."""

import json
import pathlib

import pytest

from t5jax.checkpoints import explain, kind_of
from t5jax.paths import found_elsewhere, started_elsewhere

MSGPACK_MAP = b"\x83\xa7version\x03"


def make(root: pathlib.Path, *names: str, **contents: str | bytes) -> pathlib.Path:
    """Files below a folder; names that end in / are folders."""
    for name in names:
        place = root / name
        if name.endswith("/"):
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(b"")
    return root


def hf(root, **settings):
    make(root, "model.safetensors")
    config = {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]} | settings
    (root / "config.json").write_text(json.dumps(config))
    return root


def peft(root):
    make(root, "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "base_model_name_or_path": "google/flan-t5-small"}
    (root / "adapter_config.json").write_text(json.dumps(settings))
    return root


def run(root):
    return make(root, "config.txt", "metrics.jsonl", "checkpoints/7/state/manifest.ocdbt")


def t5x(root):
    make(root, "target.encoder.layers_0/")
    (root / "checkpoint").write_bytes(MSGPACK_MAP)
    return root


# What stands at which path below tmp_path, how the kind is called, and what is said of it.
CASES = {
    "Hugging Face": (lambda d: hf(d / "m"), "m", "huggingface",
                     ["is a Hugging Face directory (T5ForConditionalGeneration)",
                      "t5jax convert {path} RUN"]),
    "its weights alone": (lambda d: make(d / "m", "pytorch_model.bin"), "m", "huggingface",
                          ["is a Hugging Face directory", "t5jax convert {path} RUN"]),
    "one of its files": (lambda d: hf(d / "m"), "m/model.safetensors", "weights",
                         ["is a file of weights", "its folder is a Hugging Face directory",
                          "t5jax convert {tmp}/m RUN"]),
    "weights without a config": (lambda d: make(d, "loose.pt"), "loose.pt", "weights",
                                 ["is a file of weights (PyTorch)", "config.json"]),
    "GGUF": (lambda d: make(d, "t5.gguf"), "t5.gguf", "weights", ["GGUF", "convert the model"]),
    "PEFT": (lambda d: peft(d / "a"), "a", "peft",
             ["is a PEFT directory (LORA)", "google/flan-t5-small",
              "t5jax convert {path} RUN --base BASE"]),
    "T5X": (lambda d: t5x(d / "x"), "x", "t5x",
            ["is a T5X checkpoint", "t5jax convert {path} RUN"]),
    "T5X, above the step": (lambda d: t5x(d / "x" / "checkpoint_1000"), "x", "t5x",
                            ["is a T5X checkpoint", "t5jax convert {path} RUN"]),
    "T5X, its index": (lambda d: t5x(d / "x"), "x/checkpoint", "t5x",
                       ["is a T5X checkpoint", "t5jax convert {tmp}/x RUN"]),
    "Mesh TensorFlow": (lambda d: make(d / "t", "model.ckpt-10.index"), "t", "mesh_tf",
                        ["is a Mesh TensorFlow checkpoint", "convert {path}/model.ckpt-10 RUN"]),
    "Mesh TensorFlow, prefix": (lambda d: make(d / "t", "model.ckpt-10.index"), "t/model.ckpt-10",
                                "mesh_tf",
                                ["is a Mesh TensorFlow checkpoint", "convert {path} RUN"]),
    "SavedModel": (lambda d: make(d / "s", "saved_model.pb"), "s", "saved_model",
                   ["is a SavedModel", "the run that it was made of"]),
    "Orbax of another program": (lambda d: make(d / "o", "_CHECKPOINT_METADATA", "state/"), "o",
                                 "orbax", ["is an Orbax checkpoint, but no run"]),
    "one too deep": (lambda d: run(d / "r"), "r/checkpoints", "inside_run",
                     ["is the folder of a run's checkpoints: give {tmp}/r"]),
    "two too deep": (lambda d: run(d / "r"), "r/checkpoints/7", "step",
                     ["is one step of a run", "give {tmp}/r and the step, --step 7"]),
    "three too deep": (lambda d: run(d / "r"), "r/checkpoints/7/state", "step",
                       ["is a part of a step", "give {tmp}/r and the step, --step 7"]),
    "one too high": (lambda d: [run(d / "runs" / name) for name in ("a", "b")], "runs",
                     "folder_of_runs", ["is a folder of runs: give one: {path}/a, {path}/b"]),
    "above a Hugging Face directory": (lambda d: hf(d / "out" / "checkpoint-500"), "out",
                                       "folder_of_huggingface",
                                       ["but checkpoint-500, which is a Hugging Face directory",
                                        "t5jax convert {path}/checkpoint-500 RUN"]),
    "a run that saved nothing": (lambda d: make(d / "r", "config.txt", "checkpoints/"), "r",
                                 "unsaved_run", ["is a run that holds no checkpoints yet"]),
    "its metrics": (lambda d: run(d / "r"), "r/metrics.jsonl", "inside_run", ["give the folder"]),
    "a tokenised store": (lambda d: make(d / "c", "c4/train/META.json"), "c", "store",
                          ["is a tokenised store", "data.cache_dir"]),
    "a vocabulary": (lambda d: make(d, "spiece.model"), "spiece.model", "vocabulary",
                     ["is a SentencePiece model", "data.vocabulary.path"]),
    "a config file": (lambda d: make(d, "mine.py"), "mine.py", "config",
                      ["is a config file", "the workdir of the run"]),
    "nothing in it": (lambda d: make(d, "empty/"), "empty", "empty",
                      ["is an empty folder, it holds no checkpoints"]),
    "nothing there": (lambda d: None, "absent", "absent",
                      ["holds no checkpoints, there is no such folder"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_kind_is_named_with_what_to_do(tmp_path, case):
    prepare, name, kind, parts = CASES[case]
    prepare(tmp_path)
    path = str(tmp_path / name)
    found = kind_of(path)
    assert found is not None
    assert found.name == kind
    text = explain(path, "give a run")
    assert text.startswith(f"{path} ")
    for part in parts:
        assert part.format(path=path, tmp=tmp_path) in text


def test_a_run_is_a_run(tmp_path):
    assert kind_of(str(run(tmp_path / "r"))) is None


def test_a_relative_step_names_the_run_as_it_was_written(tmp_path, monkeypatch):
    run(tmp_path / "runs" / "a")
    monkeypatch.chdir(tmp_path)
    assert "give runs/a and the step, --step 7" in explain("runs/a/checkpoints/7", "")
    monkeypatch.chdir(tmp_path / "runs" / "a" / "checkpoints")
    assert f"give {tmp_path}/runs/a and the step" in explain("7", "")


def test_what_nothing_can_be_told_of(tmp_path):
    make(tmp_path, "notes.txt")
    assert explain(str(tmp_path), "give a run") == f"{tmp_path} holds no checkpoints: give a run"
    assert kind_of("gs://bucket/run") is None


def test_another_working_directory(tmp_path, monkeypatch):
    run(tmp_path / "runs" / "a")
    make(tmp_path / "data", "part-1.jsonl")
    make(tmp_path, "other/deep/", "beside/")
    monkeypatch.chdir(tmp_path / "other" / "deep")
    assert found_elsewhere("runs/a") == str(tmp_path / "runs" / "a")
    text = explain("runs/a", "")
    assert "it exists from another folder than this one" in text
    assert f"start t5jax in {tmp_path}, or give {tmp_path}/runs/a" in text
    assert f"start t5jax in {tmp_path}," in started_elsewhere("data/part-*.jsonl")
    assert started_elsewhere("data/part-2*.jsonl") == ""
    assert started_elsewhere(str(tmp_path / "absent")) == ""
    assert started_elsewhere("gs://data/part-1.jsonl") == ""
    elsewhere = tmp_path.parent / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    monkeypatch.chdir(elsewhere)
    assert started_elsewhere("data/part-1.jsonl") == ""
    assert str(tmp_path) in started_elsewhere("data/part-1.jsonl", [tmp_path / "beside"])


def test_a_model_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = explain("google/flan-t5-small", "")
    assert "hf download google/flan-t5-small --local-dir DIR" in text
    assert "t5jax convert DIR RUN" in text
