"""`t5jax export`: the loaded export gives the outputs of the run."""

import json

import numpy as np
import pytest

import t5jax
from t5jax.cli import main
from t5jax.config import load_config
from t5jax.errors import DataError
from t5jax.export import stablehlo
from t5jax.export.exported_run import ExportedRun
from tests.commands.saved_runs import save_run
from tests.convert.layout_directories import directory

pytestmark = pytest.mark.slow
SHORT = ["--decoding.max-length", "6"]
TEXTS = ["A <extra_id_0> b", "c", "Wörter und mehr"]


@pytest.fixture(scope="module")
def workdir(tiny_text, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "run"
    config = load_config(str(tiny_text / "tiny.py"), ["--workdir", str(folder)])
    return str(save_run(config, folder, steps=(30,)))


@pytest.fixture(scope="module")
def run(workdir):
    return t5jax.load(workdir, decoding={"max_length": 6})


@pytest.mark.parametrize("beams", [1, 3])
def test_stablehlo(workdir, run, tmp_path, capsys, beams):
    target = tmp_path / "exported"
    words = ["export", workdir, str(target), "--inputs-length", "24", *SHORT]
    assert main([*words, "--decoding.num-beams", str(beams)]) == 0
    assert "7 of 7 outputs are the same" in capsys.readouterr().out
    exported = ExportedRun(target)
    for texts in (TEXTS[:1], TEXTS):
        found = exported.predict(texts)
        expected = run.predict(texts, num_beams=beams, details=True)
        assert [one[0].text for one in found] == [one.outputs[0].text for one in expected]
        scores = [one.outputs[0].score for one in expected]
        assert [one[0].score for one in found] == pytest.approx(scores, abs=1e-3)
    assert exported.score(TEXTS, ["x", "", "yz"]) == pytest.approx(
        run.score(TEXTS, ["x", "", "yz"]), abs=1e-3
    )
    manifest = json.loads((target / "manifest.json").read_text())
    assert manifest["run"]["step"] == 30
    assert manifest["platforms"] == ["cpu", "cuda", "tpu"]
    assert manifest["checked"]["batch_sizes"] == [2, 5]
    with np.load(target / "check.npz") as check:
        again = exported.functions["predict"](check["inputs"])["tokens"]
        np.testing.assert_array_equal(again, check["tokens"])
    with pytest.raises(DataError, match="input 0 has 31 tokens; the export was made for 24"):
        exported.predict(["x" * 30])


def test_special_ids_and_tokens_of_the_model(tmp_path):
    """A converted run: padding 1, EOS 2, start 7, language tokens of the vocabulary's own."""
    source, run = directory(tmp_path / "hf", "madlad", decoder_start_token_id=7), tmp_path / "run"
    assert main(["convert", str(source), str(run)]) == 0
    settings = ["--decoding.max-length", "9", "--model.dtype", "float32"]
    target = tmp_path / "exported"
    words = ["export", str(run), str(target), "--inputs-length", "23", "--platforms", "cpu"]
    assert main([*words, *settings]) == 0
    exported = ExportedRun(target)
    ids = {"pad_id": 1, "eos_id": 2, "decoder_start_id": 7}
    assert exported.manifest["special_ids"] == ids
    texts, targets = ["<2de> The river", "a", "Trees <2pt> are tall"], ["x", "", "<2pt> tall"]
    loaded = t5jax.load(str(run), model={"dtype": "float32"}, decoding={"max_length": 9})
    assert (
        exported.vocabulary.encode("<2de>").tolist()
        == loaded.texts.vocabulary.encode("<2de>").tolist()
    )
    expected = [one.outputs[0] for one in loaded.predict(texts, details=True)]
    found = [one[0] for one in exported.predict(texts)]
    assert [one.text for one in found] == [one.text for one in expected]
    assert len({one.text for one in found}) > 1
    assert [one.score for one in found] == pytest.approx([x.score for x in expected], abs=1e-3)
    assert exported.score(texts, targets) == pytest.approx(loaded.score(texts, targets), abs=1e-3)


def test_an_export_with_other_outputs_is_removed(workdir, tmp_path, capsys, monkeypatch):
    read = stablehlo.read_stablehlo

    def damaged(folder, names, dtype):
        with np.load(folder / "parameters.npz") as arrays:
            changed = {name: 1.2 * arrays[name] for name in arrays.files}
        np.savez(folder / "parameters.npz", **changed)
        return read(folder, names, dtype)

    monkeypatch.setattr(stablehlo, "read_stablehlo", damaged)
    assert main(["export", workdir, str(tmp_path / "exported"), *SHORT]) == 70
    assert "outputs of the export differ from those of the run" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--decoding.temperature", "1.0"], "an export cannot sample"),
        (["--inputs-length", "0"], "inputs_length = 0: at least 1"),
        (["--platforms", "abacus"], "--platforms abacus: choose of cpu"),
    ],
)
def test_export_refuses(workdir, tmp_path, capsys, words, said):
    assert main(["export", workdir, str(tmp_path / "exported"), *words]) == 64
    assert said in capsys.readouterr().err
    assert not (tmp_path / "exported").exists()
    assert main(["export", workdir, str(tmp_path)]) == 64
    assert "exists already" in capsys.readouterr().err
    with pytest.raises(DataError, match="holds no export"):
        ExportedRun(tmp_path)


def test_saved_model(workdir, run, tmp_path, capsys):
    target = tmp_path / "exported"
    words = ["export", workdir, str(target), "--format", "savedmodel", "--inputs-length", "24"]
    assert main([*words, *SHORT]) == 0
    assert "7 of 7 outputs are the same" in capsys.readouterr().out
    exported = ExportedRun(target)
    assert [one[0].text for one in exported.predict(TEXTS)] == run.predict(TEXTS)
    assert exported.score(TEXTS, ["x", "", "yz"]) == pytest.approx(
        run.score(TEXTS, ["x", "", "yz"]), abs=1e-3
    )
