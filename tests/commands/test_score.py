"""`t5jax score`: what NumPy says of every token."""

import io
import json
import sys

import jax
import numpy as np
import pytest

import t5jax
from t5jax.cli import main
from t5jax.config import load_config
from tests.commands.saved_runs import restore_run, save_run
from tests.model import numpy_t5

pytestmark = pytest.mark.slow
PAIRS = [("a question", "an answer"), ("b", ""), ("", "x"), ("Wörter", "<extra_id_0> Wort")]


@pytest.fixture(scope="module")
def workdir(tiny_text, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "run"
    config = load_config(str(tiny_text / "tiny.py"), ["--workdir", str(folder)])
    return str(save_run(config, folder, steps=(30,)))


@pytest.fixture(scope="module")
def expected(workdir):
    """Log-likelihoods of the tokens of each target, EOS the last."""
    saved = restore_run(workdir)
    params, vocabulary = jax.device_get(saved.params), saved.config.data.vocabulary
    found = []
    for text, target in PAIRS:
        ids = [[*vocabulary.encode(one).tolist(), 1] for one in (text, target)]
        logits = numpy_t5.logits(saved.config.model, params, *ids)
        logits -= logits.max(axis=1, keepdims=True)
        logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        found.append([float(logprobs[t, token]) for t, token in enumerate(ids[1])])
    return found


def test_pairs_of_a_table(workdir, expected, tmp_path):
    table = ["input\ttarget", *("\t".join(pair) for pair in PAIRS)]
    (tmp_path / "in.tsv").write_text("\n".join(table) + "\n")
    out = tmp_path / "out.jsonl"
    words = ["score", workdir, "--input", str(tmp_path / "in.tsv"), "--output", str(out)]
    assert main([*words, "--tokens"]) == 0
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(record["input"], record["target"]) for record in records] == PAIRS
    for record, of_tokens in zip(records, expected, strict=True):
        assert record["token_scores"] == pytest.approx(of_tokens, abs=1e-4)
        assert record["score"] == pytest.approx(sum(of_tokens), abs=1e-3)
        assert record["num_tokens"] == len(of_tokens) == len(record["tokens"])
        assert record["score_per_token"] == pytest.approx(np.mean(of_tokens), abs=1e-4)
        assert record["tokens"][-1] == "</s>"
    assert records[0]["tokens"] == [*"an answer", "</s>"]
    assert main(words) == 64, "with tokens and without are two outputs"


def test_pairs_on_standard_input(workdir, expected, capsys, monkeypatch):
    text = "".join("\t".join(pair) + "\n" for pair in PAIRS)
    given = io.TextIOWrapper(io.BufferedReader(io.BytesIO(text.encode())))
    monkeypatch.setattr(sys, "stdin", given)
    assert main(["score", workdir, "--header", "input", "target"]) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    totals = [sum(of_tokens) for of_tokens in expected]
    assert [record["score"] for record in said] == pytest.approx(totals, abs=1e-3)
    assert "tokens" not in said[0]


def test_a_loaded_run_scores(workdir, expected):
    run = t5jax.load(workdir, batch_size=2)
    inputs, targets = zip(*PAIRS, strict=True)
    totals = [sum(of_tokens) for of_tokens in expected]
    assert run.score(inputs, targets) == pytest.approx(totals, abs=1e-3)
    (detail,) = run.score(["a question"], ["an answer"], details=True)
    np.testing.assert_allclose(detail.tokens, expected[0], atol=1e-4)


def test_score_refuses_inputs_of_one_column(workdir, tmp_path, capsys):
    (tmp_path / "in.txt").write_text("a\n")
    assert main(["score", workdir, "--input", str(tmp_path / "in.txt")]) == 64
    assert "a line of text is one column" in capsys.readouterr().err
    (tmp_path / "in.jsonl").write_text('{"input": "a", "output": "b"}\n')
    assert main(["score", workdir, "--input", str(tmp_path / "in.jsonl")]) == 65
    assert "no column 'target'" in capsys.readouterr().err
