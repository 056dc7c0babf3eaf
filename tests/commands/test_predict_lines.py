"""`t5jax predict` on standard output: one line an answer, whatever the model writes."""

import json
import types

import numpy as np
import pytest

from t5jax.commands.predict import predict_command
from t5jax.data.vocabularies.one_line import several_lines
from t5jax.decoding import DecodingConfig
from t5jax.errors import ConfigError
from t5jax.inference import Prediction, TextOptions, TextOutput
from t5jax.inference.interactive import InteractiveSession
from t5jax.inference.text_job import JobOptions
from t5jax.runtime import RuntimeConfig

ANSWERS = {
    "poem": "roses\nare red\r\n",
    "web": "a\u2028b\x85c",
    "formula": r"\nu and \alpha",
    "plain": "no end",
    "fields": "a\tb",
}


class Model:
    """A text model that has its answers ready."""

    trained_length, batch_size = 50, 2

    def __init__(self, num_outputs=1):
        self.num_outputs = num_outputs
        self.generator = types.SimpleNamespace(after_batch=None)

    def predict(self, texts, decoding, options, numbers=None):
        return [self._prediction(text) for text in texts]

    def _prediction(self, text):
        answers = [ANSWERS[text], f"{ANSWERS[text]}\nsecond"][: self.num_outputs]
        outputs = [
            TextOutput(text=answer, score=-1.5, ids=np.array([5, 1]), ended=True)
            for answer in answers
        ]
        return Prediction(outputs, 3, False)


@pytest.fixture
def predict(monkeypatch, capsys):
    """(standard output, standard error) of `t5jax predict RUN TEXTS`."""

    def run(*texts, num_outputs=1, output=None, **options):
        loaded = types.SimpleNamespace(
            texts=Model(num_outputs),
            step=7,
            members=(),
            config=types.SimpleNamespace(
                decoding=DecodingConfig(num_beams=num_outputs, num_outputs=num_outputs),
                runtime=RuntimeConfig(),
                data=types.SimpleNamespace(vocabulary=types.SimpleNamespace(fingerprint="f")),
                model=types.SimpleNamespace(dtype="float32"),
            ),
        )
        monkeypatch.setattr("t5jax.inference.text_job.load_with_flags", lambda *a, **k: loaded)
        job = JobOptions(workdir="run", output=output)
        predict_command(
            job, texts, None, TextOptions(), [], column="input", **{"as_json": False} | options
        )
        return capsys.readouterr()

    return run


def test_every_answer_is_one_line_that_reads_back(predict):
    out, err = predict(*ANSWERS)
    assert out.splitlines() == out.removesuffix("\n").split("\n")
    assert [several_lines(line) for line in out.splitlines()] == list(ANSWERS.values())
    assert out.splitlines()[3:] == ["no end", "a\tb"]
    said = [line for line in err.splitlines() if "line ends" in line]
    assert len(said) == 1
    assert said[0].startswith(r"3 of 5 outputs hold line ends: written as \n, \r or \u2028")
    assert "--json or --output FILE" in said[0]
    assert "--raw" in said[0]


def test_several_outputs_are_a_line_each(predict):
    out, err = predict("poem", "plain", num_outputs=2)
    assert [several_lines(line) for line in out.splitlines()] == [
        "roses\nare red\r\n", "roses\nare red\r\n\nsecond", "no end", "no end\nsecond",
    ]  # fmt: skip
    assert "3 of 4 outputs hold line ends" in err


def test_nothing_is_said_where_nothing_is_changed(predict):
    out, err = predict("plain", "fields")
    assert out == "no end\na\tb\n"
    assert "line ends" not in err


def test_as_they_are_when_asked(predict):
    out, err = predict("poem", "formula", raw=True)
    assert out == "roses\nare red\r\n\n\\nu and \\alpha\n"
    assert "line ends" not in err
    for more in ({"as_json": True}, {"output": "out.jsonl"}):
        with pytest.raises(ConfigError, match="--raw has no effect on JSON lines"):
            predict("poem", raw=True, **more)


def test_json_lines_are_lines_for_every_reader(predict, tmp_path):
    out, err = predict(*ANSWERS, as_json=True)
    assert [json.loads(line)["output"] for line in out.splitlines()] == list(ANSWERS.values())
    assert "line ends" not in err
    predict(*ANSWERS, output=str(tmp_path / "out.jsonl"))
    written = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [json.loads(line)["output"] for line in written] == list(ANSWERS.values())


def test_at_the_prompt():
    session = InteractiveSession(
        Model(2), DecodingConfig(num_beams=2, num_outputs=2), TextOptions(), 7
    )
    assert session.predict("poem").splitlines() == [
        r"roses\nare red\r\n", r"roses\nare red\r\n\nsecond"
    ]  # fmt: skip
    session.command("scores")
    assert len(session.predict("poem").splitlines()) == 2
