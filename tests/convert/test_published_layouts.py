"""Tiny random directories in the layouts of published models: into a run, greedy outputs as
transformers' `generate`, and back with the same special ids and tokens."""

import json
import pathlib

import numpy as np
import pytest

import t5jax
from t5jax.cli import main
from tests.convert.foreign import write_safetensors
from tests.convert.layout_directories import LAYOUTS, directory
from tests.marks import long_but

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch", reason="needs the `parity` extra")
transformers = pytest.importorskip("transformers", reason="needs the `parity` extra")

TEXT = "The river {runs} fast.\nA tree"
LENGTH = 20


def generated(folder: pathlib.Path, ids: list[int], num_ids: int) -> list[int]:
    """What `generate` makes of the ids: from the directory's own start to its own end."""
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32)
    if model.config.model_type == "umt5":
        model.config.tie_word_embeddings = False  # transformers 5 says true of every umT5
    row = torch.tensor([ids])
    spare = list(range(num_ids, model.config.vocab_size))
    out = model.generate(
        row, attention_mask=torch.ones_like(row), max_new_tokens=LENGTH, do_sample=False,
        num_beams=1, suppress_tokens=spare or None,
    )  # fmt: skip
    return out[0, 1:].tolist()


# The others are in CI as transformers itself writes them: test_written_by_transformers.py.
@pytest.mark.parametrize("layout", long_but(["madlad", "pile_t5", "aya"], LAYOUTS))
def test_there_and_back(layout, tmp_path):
    source = directory(tmp_path / "hf", layout)
    run, back = tmp_path / "run", tmp_path / "back"
    assert main(["convert", str(source), str(run)]) == 0
    report = json.loads((run / "conversion.json").read_text())["text"]
    assert report["passed"]
    assert report["num_probe_texts"] > 10
    _, _, (_, start, eos), _ = LAYOUTS[layout]
    loaded = t5jax.load(str(run), model={"dtype": "float32"})
    model = loaded.config.model
    assert (model.decoder_start_id, model.eos_id) == (start, eos)
    vocabulary = loaded.texts.vocabulary
    assert (model.pad_id, model.eos_id) == (vocabulary.pad_id, vocabulary.eos_id)
    ids = [*vocabulary.encode(TEXT).tolist(), eos]
    (prediction,) = loaded.predict([TEXT], details=True, max_length=LENGTH)
    expected = generated(source, ids, vocabulary.vocab_size)
    without = (eos, vocabulary.pad_id)  # a random model may say padding
    found = [x for x in prediction.outputs[0].ids.tolist() if x not in without]
    assert found == [x for x in expected if x not in without]
    assert len(set(found)) > 1
    assert main(["convert", str(run), str(back)]) == 0
    config, old = (json.loads((x / "config.json").read_text()) for x in (back, source))
    for key in ("decoder_start_token_id", "eos_token_id", "vocab_size"):
        assert config[key] == old[key], key
    assert config["pad_token_id"] in (old["pad_token_id"], vocabulary.pad_id)
    assert generated(back, ids, vocabulary.vocab_size) == expected
    theirs = transformers.AutoTokenizer.from_pretrained(back)
    assert theirs(TEXT, add_special_tokens=False).input_ids == ids[:-1]


@pytest.mark.parametrize("places", [("config.json",), ("config.json", "generation_config.json")])
def test_start_and_end_of_its_own(places, tmp_path):
    """The start is a sentinel, the end another token than a text's."""
    source = directory(tmp_path / "hf", "flan_ul2")
    own = {"decoder_start_token_id": 169, "eos_token_id": 5, "pad_token_id": 0}
    for name in places:
        file = source / name
        before = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps(before | own))
    assert main(["convert", str(source), str(tmp_path / "run")]) == 0
    loaded = t5jax.load(str(tmp_path / "run"), model={"dtype": "float32"})
    model, vocabulary = loaded.config.model, loaded.texts.vocabulary
    assert (model.decoder_start_id, model.eos_id, vocabulary.eos_id) == (169, 5, 1)
    texts = [TEXT, "a river", "Trees are tall. And the"]
    for text, prediction in zip(
        texts, loaded.predict(texts, details=True, max_length=LENGTH), strict=True
    ):
        ids = [*vocabulary.encode(text).tolist(), 1]
        expected = generated(source, ids, vocabulary.vocab_size)
        assert prediction.outputs[0].ids.tolist() == [x for x in expected if x != 5]
    assert main(["convert", str(tmp_path / "run"), str(tmp_path / "back")]) == 0
    for name in ("config.json", "generation_config.json"):
        written = json.loads((tmp_path / "back" / name).read_text())
        assert {key: written[key] for key in own} == own


def test_decoding_defaults_are_those_of_generate(tmp_path):
    """Beams, lengths, suppressed and forced tokens of generation_config.json."""
    source = directory(tmp_path / "hf", "flan_ul2")
    settings = {
        "decoder_start_token_id": 0, "eos_token_id": [1, 7], "pad_token_id": 0, "num_beams": 3,
        "max_new_tokens": 11, "min_new_tokens": 4, "length_penalty": 0.8,
        "no_repeat_ngram_size": 3, "suppress_tokens": [20, 21], "begin_suppress_tokens": [9],
        "forced_bos_token_id": 33,
    }  # fmt: skip
    (source / "generation_config.json").write_text(json.dumps(settings))
    assert main(["convert", str(source), str(tmp_path / "run")]) == 0
    loaded = t5jax.load(str(tmp_path / "run"), model={"dtype": "float32"})
    vocabulary = loaded.texts.vocabulary
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(source, dtype=torch.float32)
    model.generation_config.suppress_tokens = [
        *settings["suppress_tokens"], *range(vocabulary.vocab_size, model.config.vocab_size)
    ]  # fmt: skip
    texts = [TEXT, "a river", "Trees are tall. And the"]
    for text, prediction in zip(texts, loaded.predict(texts, details=True), strict=True):
        row = torch.tensor([[*vocabulary.encode(text).tolist(), 1]])
        out = model.generate(row, attention_mask=torch.ones_like(row))[0, 1:].tolist()
        assert prediction.outputs[0].ids.tolist() == [x for x in out if x > 1]


def test_an_unknown_key_is_refused_by_name(tmp_path, capsys):
    source = directory(tmp_path / "hf", "resized", rope_theta=10000.0)
    assert main(["convert", str(source), str(tmp_path / "run")]) != 0
    assert "rope_theta is 10000.0" in capsys.readouterr().err
    words = ["convert", str(source), str(tmp_path / "run"), "--ignore-key", "rope_theta"]
    assert main(words) == 0


def test_dense_act_fn_counts(tmp_path):
    source = directory(tmp_path / "hf", "madlad", dense_act_fn="silu")
    assert main(["convert", str(source), str(tmp_path / "run")]) == 0
    assert t5jax.load(str(tmp_path / "run")).config.model.mlp_activations == ("silu", "linear")


def test_an_array_with_nan_is_named(tmp_path, capsys):
    source = directory(tmp_path / "hf", "resized")
    from tests.convert.foreign import read_safetensors

    weights = {name: x.copy() for name, x in read_safetensors(source / "model.safetensors").items()}
    name = "decoder.block.1.layer.2.DenseReluDense.wo.weight"
    weights[name][3, 5] = np.nan
    write_safetensors(source / "model.safetensors", weights)
    assert main(["convert", str(source), str(tmp_path / "run")]) != 0
    assert f"{name} holds nan" in capsys.readouterr().err
