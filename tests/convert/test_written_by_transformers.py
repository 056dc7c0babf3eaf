"""Directories that transformers 5 and 4.46 write for every published layout: into a run, greedy
outputs equal to `generate`, and back with the same ids, tokens and logits."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import t5jax
from t5jax.cli import main
from tests.convert.transformers_writer import LENGTH, OWN, TEXTS

pytestmark = pytest.mark.parity
pytest.importorskip("torch", reason="needs the `parity` extra")
pytest.importorskip("transformers", reason="needs the `parity` extra")

ROOT = pathlib.Path(__file__).parents[2]
OLD = pathlib.Path(sys.prefix) / "transformers-4.46"


@dataclasses.dataclass
class Written:
    """Directories of one version of transformers and what it says of them."""

    version: str
    folder: pathlib.Path
    facts: dict[str, dict]


def run_transformers(version: str, action: str, folder: pathlib.Path) -> dict[str, dict]:
    environment = os.environ | {"USE_TF": "0", "USE_FLAX": "0", "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    if version == "4.46":
        environment["PYTHONPATH"] = str(OLD)
    command = [sys.executable, "-m", "tests.convert.transformers_writer", action, str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    facts = json.loads((folder / {"write": "hf.json", "read": "back.json"}[action]).read_text())
    assert all(x["version"].startswith(f"{version}.") for x in facts.values())
    return facts


@pytest.fixture(scope="module", params=["5", "4.46"])
def written(request, tmp_path_factory) -> Written:
    if request.param == "4.46" and not OLD.is_dir():
        pytest.skip(f"{OLD} is missing: make .venv/transformers-4.46/installed")
    folder = tmp_path_factory.mktemp(f"transformers-{request.param}")
    return Written(request.param, folder, run_transformers(request.param, "write", folder))


def names_of(written: Written) -> list[str]:
    return sorted(written.facts)


def check_run(folder: pathlib.Path, facts: dict) -> None:
    """The run's report, special ids, ids of texts and greedy outputs are the directory's."""
    report = json.loads((folder / "run/conversion.json").read_text())
    assert report["text"]["passed"]
    assert all(x["relative_error"] < 1e-5 for x in report["checks"])
    loaded = t5jax.load(str(folder / "run"), model={"dtype": "float32"})
    vocabulary, model = loaded.texts.vocabulary, loaded.config.model
    assert [model.decoder_start_id, model.eos_id] == facts["special"][1:]
    for text, ids in zip(TEXTS, facts["ids"], strict=True):
        assert vocabulary.encode(text).tolist() == ids, text
    predictions = loaded.predict(list(TEXTS), details=True, max_length=LENGTH)
    without = (model.eos_id, model.pad_id)  # a random model may say padding
    for prediction, expected in zip(predictions, facts["outputs"], strict=True):
        found = [x for x in prediction.outputs[0].ids.tolist() if x not in without]
        assert found == [x for x in expected if x not in without]
    assert len({tuple(x) for x in facts["outputs"]}) > 1
    assert max(len(set(x)) for x in facts["outputs"]) > 2


def check_back(facts: dict, back: dict) -> None:
    """What transformers says of the directory written back."""
    for key in ("ids", "outputs", "num_ids"):
        assert back[key] == facts[key], key
    assert back["special"][1:] == facts["special"][1:]
    assert back["generation"] == facts["generation"]
    assert back["tokenizer"][1:] == facts["tokenizer"][1:]
    for token in (*OWN, "<sep>", "<extra_id_0>", "<extra_id_9>"):
        assert back["added"].get(token) == facts["added"].get(token), token
    want, got = np.array(facts["logits"]), np.array(back["logits"])
    assert np.abs(got - want).max() < 1e-5 * np.abs(want).max()


def test_there_and_back(written):
    """Every layout; failures are listed together: one process reads all that is written back."""
    failed = {}
    for name in names_of(written):
        folder = written.folder / name
        code = main(["convert", str(folder / "hf"), str(folder / "run"), "--reference", "numpy"])
        code = code or main(
            ["convert", str(folder / "run"), str(folder / "back"), "--reference", "numpy"]
        )
        if code:
            failed[name] = f"convert ends with {code}"
    backs = run_transformers(written.version, "read", written.folder)
    for name in names_of(written):
        if name not in failed:
            try:
                check_run(written.folder / name, written.facts[name])
                check_back(written.facts[name], backs[name])
            except AssertionError as error:
                failed[name] = str(error)[:400]
    assert not failed, "\n".join(f"{name}: {why}" for name, why in failed.items())
