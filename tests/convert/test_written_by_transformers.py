"""Directories that transformers 5 and 4.46 write for every published layout: into a run, greedy
outputs equal to `generate`, and back with the same ids, tokens and logits."""

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest

import t5jax
from t5jax.cli import main
from tests.convert.published_settings import LAYOUTS, LENGTH, SLOW_TOO, TEXTS
from tests.marks import long_but

pytestmark = pytest.mark.parity
pytest.importorskip("torch", reason="needs the `parity` extra")
pytest.importorskip("transformers", reason="needs the `parity` extra")

ROOT = pathlib.Path(__file__).parents[2]
LAYOUT_NAMES = [f"{name}-fast" for name in LAYOUTS] + [f"{name}-slow" for name in SLOW_TOO]
# Every kind of file; others are in CI in test_published_layouts.py, and all are at night.
IN_CI = ("t5_1_1", "byt5", "codet5_plus", "resized")
OLD = pathlib.Path(sys.prefix) / "transformers-4.46"


@dataclasses.dataclass
class Written:
    """Directories of one version of transformers, what it says of them and of what is back."""

    version: str
    folder: pathlib.Path
    facts: dict[str, dict]
    codes: dict[str, int]
    backs: dict[str, dict]


def run_transformers(
    version: str, action: str, folder: pathlib.Path, layouts: Sequence[str] = ()
) -> dict[str, dict]:
    environment = os.environ | {"USE_TF": "0", "USE_FLAX": "0", "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    if version == "4.46":
        environment["PYTHONPATH"] = str(OLD)
    writer = [sys.executable, "-m", "tests.convert.transformers_writer"]
    command = [*writer, action, str(folder), *layouts]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    facts = json.loads((folder / {"write": "hf.json", "read": "back.json"}[action]).read_text())
    assert all(x["version"].startswith(f"{version}.") for x in facts.values())
    return facts


def written_by(version: str, folder: pathlib.Path, layouts: Sequence[str]) -> Written:
    """One process writes the layouts and one reads all that is written back."""
    facts = run_transformers(version, "write", folder, layouts)
    codes = {}
    for name in facts:
        hf, run, back = (str(folder / name / x) for x in ("hf", "run", "back"))
        code = main(["convert", hf, run, "--reference", "numpy"])
        codes[name] = code or main(["convert", run, back, "--reference", "numpy"])
    return Written(version, folder, facts, codes, run_transformers(version, "read", folder))


@pytest.fixture(scope="module", params=["5", pytest.param("4.46", marks=pytest.mark.long)])
def written(request, tmp_path_factory, long_trials) -> Written:
    if request.param == "4.46" and not (OLD / "installed").is_file():
        pytest.skip(f"{OLD} is not set up: make .venv/transformers-4.46/installed")
    folder = tmp_path_factory.mktemp(f"transformers-{request.param}")
    return written_by(request.param, folder, tuple(LAYOUTS) if long_trials else IN_CI)


def without_lone_marks(ids: list[int], names: list[str], own: set[int]) -> list[int]:
    """transformers' ids less the piece `▁` beside a sentinel, which takes the space before it and
    does not begin a word behind it (docs/data.md); and less the one that 4.46's fast tokenizer
    alone, not its slow one nor transformers 5, puts before an added token (`own`)."""
    found = []
    for at, number in enumerate(ids):
        before = names[ids[at - 1]] if at else ""
        behind = names[ids[at + 1]] if at + 1 < len(ids) else ""
        beside = "<extra_id_" in before or "<extra_id_" in behind
        if names[number] == "▁" and (beside or (at + 1 < len(ids) and ids[at + 1] in own)):
            continue
        found.append(number)
    return found


def expected_ids(layout: str, version: str, facts: dict, ids: list[int]) -> list[int]:
    """What transformers says, but for the documented differences."""
    names = facts["names"]
    if layout == "byt5":  # the top bytes on purpose (docs/conversion.md)
        found = [(n, re.fullmatch(r"<extra_id_(\d+)>", names[n])) for n in ids]
        return [258 - int(x[1]) if x else n for n, x in found]
    if layout == "madlad":  # transformers 5 takes id 2 for what has no piece, EOS here
        return [0 if n == 2 and version == "5" else n for n in ids]
    if layout in ("mt5", "aya"):  # sentinels are pieces like any other
        return ids
    if layout.startswith("codet5") or (layout, version) == ("pile_t5", "5"):
        return ids  # a BPE tokenizer.json alone, which says what its sentinels take
    known = {"<pad>", "</s>", "<s>", "<unk>"}
    own = {n for x, n in facts["added"].items() if x not in known and "<extra_id_" not in x}
    return without_lone_marks(ids, names, own if version == "4.46" else set())


@pytest.mark.parametrize("name", long_but([f"{x}-fast" for x in IN_CI], LAYOUT_NAMES))
def test_a_run_of_the_layout(written, name):
    """The run's report, special ids, ids of texts and greedy outputs are the directory's."""
    facts, back = facts_of(written, name), written.backs[name]
    folder = written.folder / name / "run"
    report = json.loads((folder / "conversion.json").read_text())
    assert report["text"]["passed"]
    assert all(x["relative_error"] < 1e-5 for x in report["checks"])
    loaded = t5jax.load(str(folder), model={"dtype": "float32"})
    vocabulary, model = loaded.texts.vocabulary, loaded.config.model
    assert [model.pad_id, model.decoder_start_id, model.eos_id] == facts["special"]
    texts, expected = [], []
    for at, (text, ids) in enumerate(zip(TEXTS, facts["ids"], strict=True)):
        found = vocabulary.encode(text).tolist()
        assert found == expected_ids(name.split("-")[0], written.version, facts, ids), text
        # Where ids differ on purpose, what transformers says to ours in the directory written back.
        said = next((x for x in (facts, back) if x["ids"][at] == found), None)
        if said is not None:
            texts.append(text)
            expected.append(said["outputs"][at])
    assert len(texts) >= len(TEXTS) - 1
    without = (model.eos_id, model.pad_id)  # a random model may say padding
    predictions = loaded.predict(texts, details=True, max_length=LENGTH)
    for prediction, output in zip(predictions, expected, strict=True):
        found = [x for x in prediction.outputs[0].ids.tolist() if x not in without]
        assert found == [x for x in output if x not in without]
    assert len({tuple(x) for x in expected}) > 1
    assert max(len(set(x)) for x in expected) > 2


@pytest.mark.parametrize("name", long_but([f"{x}-fast" for x in IN_CI], LAYOUT_NAMES))
def test_the_layout_written_back(written, name):
    """What transformers says of the directory is what it says of its own."""
    facts, layout = facts_of(written, name), name.split("-")[0]
    back = written.backs[name]
    for key in ("num_ids", "special", "generation", "added"):
        assert back[key] == facts[key], key
    # Pile-T5's tokenizer pads with nothing, its model with 0; a written one has the model's.
    pad = 0 if layout == "pile_t5" else facts["tokenizer"][0]
    assert back["tokenizer"] == [pad, *facts["tokenizer"][1:]]
    differing = [at for at in range(len(TEXTS)) if back["ids"][at] != facts["ids"][at]]
    if layout not in ("madlad", "pile_t5", "resized"):
        assert not differing
    for at, (theirs, ours) in enumerate(zip(facts["ids"], back["ids"], strict=True)):
        pair = [expected_ids(layout, written.version, facts, x) for x in (theirs, ours)]
        assert pair[0] == pair[1], TEXTS[at]
        assert at in differing or back["outputs"][at] == facts["outputs"][at]
    want, got = np.array(facts["logits"]), np.array(back["logits"])
    assert np.abs(got - want).max() < 1e-5 * np.abs(want).max()


def facts_of(written: Written, name: str) -> dict:
    if name not in written.facts:
        pytest.skip(f"transformers {written.version} has one kind of tokenizer")
    assert written.codes[name] == 0
    return written.facts[name]
