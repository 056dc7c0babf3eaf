"""`t5jax predict` and `t5jax.load` on a run at hand; the answers are those of NumPy."""

import io
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

import t5jax
from t5jax.cli import main
from t5jax.config import load_config
from t5jax.data.vocabularies.one_line import one_line
from t5jax.errors import CheckpointError, ConfigError
from t5jax.inference import TextOptions
from t5jax.inference.interactive import run_interactive
from tests.commands.saved_runs import restore_run, save_run
from tests.model import numpy_t5

TEXTS = ["The <extra_id_0> is returned", "", "b", "A <extra_id_0> is an <extra_id_1>.", "Wörter"]
LENGTH = "5"
SHORT = ["--decoding.max-length", LENGTH]


@pytest.fixture(scope="module")
def workdir(tiny_text, tmp_path_factory):
    """The folder of a run of tiny.py with random parameters at steps 20 and 30."""
    folder = tmp_path_factory.mktemp("saved") / "run"
    return str(
        save_run(load_config(str(tiny_text / "tiny.py"), ["--workdir", str(folder)]), folder)
    )


@pytest.fixture(scope="module")
def saved(workdir):
    """(config, NumPy parameters of step 30, of step 20)."""
    runs = [restore_run(workdir, step) for step in (30, 20)]
    return runs[0].config, *(jax.device_get(run.params) for run in runs)


def logits(saved, ids, said, members=(0,)):
    """Float64 logits of the next id, of one step or the mean of both."""
    config, *params = saved
    of_each = [numpy_t5.logits(config.model, params[i], ids, [*said, 1])[-1] for i in members]
    return np.mean(of_each, axis=0)  # of the whole table: the softmax counts its spare rows


def greedy(saved, text: str, *, begin: str = "", members=(0,)) -> tuple[str, float]:
    """(output, log-likelihood) by NumPy, a token at a time."""
    vocabulary = saved[0].data.vocabulary
    ids, said, total = [*vocabulary.encode(text).tolist(), 1], [], 0.0
    forced = vocabulary.encode(begin).tolist()
    while len(said) < int(LENGTH) and (not said or said[-1] != 1):
        scores = logits(saved, ids, said, members)
        if len(said) < len(forced):
            said.append(forced[len(said)])
            continue
        said.append(int(np.argmax(scores[: vocabulary.vocab_size])))
        total += scores[said[-1]] - np.log(np.sum(np.exp(scores - scores.max()))) - scores.max()
    return vocabulary.decode(said), total


@pytest.fixture(scope="module")
def run(workdir):
    return t5jax.load(workdir, decoding={"max_length": int(LENGTH)})


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# ---- the command line


@pytest.mark.slow
def test_files_are_answered_line_by_line(workdir, saved, tmp_path, capsys):
    (tmp_path / "in.txt").write_text("\n".join(TEXTS) + "\n")
    out = tmp_path / "out.jsonl"
    words = ["predict", workdir, "--input", str(tmp_path / "in.txt"), "--output", str(out), *SHORT]
    assert main(words) == 0
    said = capsys.readouterr().err
    assert "5/5 rows" in said
    assert "1 of 5 inputs blank: their output is empty" in said
    records = lines(out)
    assert [record["input"] for record in records] == TEXTS
    for record in records:
        assert record["step"] == 30
        if not record["input"]:
            assert (record["output"], record["score"]) == ("", None)
            continue
        output, score = greedy(saved, record["input"])
        assert record["output"] == output
        assert record["score"] == pytest.approx(score, abs=1e-3)
        assert ("filled" in record) == ("<extra" in record["input"])
    before = out.read_bytes()
    assert main(words) == 0
    assert out.read_bytes() == before, "everything is there"
    assert main([*words, "--decoding.num-beams", "2"]) == 64
    assert "decoding was" in capsys.readouterr().err
    assert main([*words[:2], "--step", "20", *words[2:]]) == 64
    assert "steps was [30], is [20]" in capsys.readouterr().err


@pytest.mark.slow
def test_arguments_and_standard_input_give_the_same(workdir, capsys, monkeypatch):
    texts = [text for text in TEXTS if text]
    assert main(["predict", workdir, "--json", *texts, *SHORT]) == 0
    by_argument = capsys.readouterr().out
    given = io.TextIOWrapper(io.BufferedReader(io.BytesIO("\n".join(texts).encode())))
    monkeypatch.setattr(sys, "stdin", given)
    assert main(["predict", workdir, "--json", "--batch-size", "8", *SHORT]) == 0
    assert capsys.readouterr().out == by_argument
    assert main(["predict", workdir, texts[0], *SHORT]) == 0
    assert capsys.readouterr().out == json.loads(by_argument.splitlines()[0])["filled"] + "\n"


@pytest.mark.slow
def test_beams_on_two_devices_in_a_process_of_its_own(workdir):
    """Of its own, since XLA of JAX 0.11 ended it where an empty array (here: no prefix) was used
    on each device. One device on its own compiles another program, which did not crash."""
    said, texts = [], [text for text in TEXTS if text]
    for devices in (1, 2):
        command = [sys.executable, "-m", "t5jax", "predict", workdir, "--json", *texts]
        ended = subprocess.run(
            [*command, *SHORT, "--decoding.num-beams", "4", "--decoding.num-outputs", "2"],
            env=os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)},
            cwd=pathlib.Path(__file__).parents[2],
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 0, ended.stderr
        said.append([json.loads(line) for line in ended.stdout.splitlines()])
    for alone, shared in zip(*said, strict=True):
        assert len(set(alone["outputs"])) == 2
        assert shared["outputs"] == alone["outputs"]
        assert shared["scores"] == pytest.approx(alone["scores"], abs=1e-4)


@pytest.mark.slow
def test_columns_shards_and_ensembles(workdir, saved, tmp_path):
    rows = [{"id": i, "question": text, "more": [i]} for i, text in enumerate(TEXTS)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out.jsonl"
    words = ["predict", workdir, "--input", str(tmp_path / "in.jsonl"), "--column", "question"]
    words += ["--ensemble", f"{workdir}@20", "--output", str(out), "--shard", "1/2", *SHORT]
    assert main(words) == 0
    records = lines(tmp_path / "out-00001-of-00002.jsonl")
    assert [record["id"] for record in records] == [1, 3]
    assert {name: records[1][name] for name in rows[3]} == rows[3]
    output, score = greedy(saved, TEXTS[3], members=(0, 1))
    assert records[1]["output"] == output
    assert records[1]["score"] == pytest.approx(score, abs=1e-3)
    assert records[1]["step"] == [30, 20]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--input", "none.txt"], 65, "none.txt"),
        (["--input", "x.txt", "and a text"], 64, "give one"),
        (["--batch-size", "0", "a text"], 64, "--batch-size 0"),
        (["--shard", "0/2", "a text"], 64, "--shard has no effect without --output"),
        (["--json", "--output", "x.jsonl", "a text"], 64, "--json has no effect"),
        (["--format", "tsv", "a text"], 64, "--format and --header are about --input"),
        (["--truncate-inputs", "1", "a text"], 64, "truncate_inputs = 1"),
        (["--interactive", "a text"], 64, "leave TEXT out"),
        (["--decoder-prefix", "much too long", "a text", *SHORT], 65, "leaves no room"),
        (["--data.vocabulary.extra-ids", "90"], 64, "is not the one that"),
    ],
)
def test_predict_refuses(workdir, capsys, words, code, said):
    # Values of the config come last, so the folder stands first.
    assert main(["predict", workdir, *words]) == code
    assert said in capsys.readouterr().err


# ---- t5jax.load


def test_a_loaded_run_answers_lists(run, saved):
    texts = [text for text in TEXTS if text]
    assert run.step == 30
    assert run.predict(texts) == [greedy(saved, text)[0] for text in texts]
    assert run.predict(["b"], decoder_prefix="xy") == [greedy(saved, "b", begin="xy")[0]]
    assert run.predict(["b"], prefix="A <extra_id_0> ") == run.predict(["A <extra_id_0> b"])
    assert run.predict([""]) == [""]
    assert run.predict([]) == []


@pytest.mark.slow
def test_several_outputs_and_details(run):
    outputs = run.predict(["b", ""], num_beams=3, num_outputs=2)
    assert [len(one) for one in outputs] == [2, 0]
    (detail,) = run.predict(["b"], num_beams=3, num_outputs=2, details=True)
    assert [one.text for one in detail.outputs] == outputs[0]
    assert detail.outputs[0].score >= detail.outputs[1].score
    assert (detail.input_tokens, detail.input_truncated) == (2, False)


@pytest.mark.slow
def test_samples_are_their_rows_own(run):
    sampling = {"temperature": 1.0, "seed": 3}
    texts = [text for text in TEXTS if text] * 3
    whole = run.predict(texts, **sampling)
    assert len(set(whole)) > len(set(run.predict(texts)))
    (alone,) = run.texts.predict(
        [texts[7]], run_decoding(run, sampling), TextOptions(), row_numbers=[7]
    )
    assert alone.outputs[0].text == whole[7]


def run_decoding(run, settings):
    from t5jax.inference.loaded_run import replace_settings

    return replace_settings(run.config.decoding, settings)


def test_stop_texts_end_outputs_before_them(run):
    texts = [text for text in TEXTS if text]
    for text, output in zip(texts, run.predict(texts), strict=True):
        if len(output) < 2:
            continue
        (stopped,) = run.predict([text], stop=[output[1]])
        assert stopped == output[: output.index(output[1])]
        return
    pytest.fail("no output has two characters")


def test_inputs_are_cut_only_when_asked(run):
    long = "x" * 100
    whole, cut = run.predict([long, long[:8]], details=True)
    assert (whole.input_tokens, cut.input_tokens) == (101, 9)
    (truncated,) = run.predict([long], truncate_inputs=9, details=True)
    assert truncated.input_truncated
    assert truncated.outputs[0].text == cut.outputs[0].text


def test_mistakes_are_named(run, workdir, tmp_path):
    with pytest.raises(ConfigError, match=r"texts is one text: give a list"):
        run.predict("one text")
    with pytest.raises(ConfigError, match=r"decoding\.num_beam: .* did you mean num_beams\?"):
        run.predict(["b"], num_beam=2)
    with pytest.raises(ConfigError, match=r"mesh\.fsdb: .* did you mean fsdp"):
        t5jax.load(workdir, mesh={"fsdb": 2})
    with pytest.raises(ConfigError, match=r"decoding\.num_beams = '2': a str"):
        run.predict(["b"], num_beams="2")
    with pytest.raises(CheckpointError, match="holds no checkpoints"):
        t5jax.load(str(tmp_path))
    with pytest.raises(ConfigError, match="2 inputs and 1 targets"):
        run.score(["a", "b"], ["c"])


@pytest.mark.slow
def test_an_ensemble_of_other_shapes_is_refused(tiny_text, workdir, tmp_path):
    flags = ["--workdir", str(tmp_path / "other"), "--model.mlp-dim", "16"]
    other = save_run(
        load_config(str(tiny_text / "tiny.py"), flags), tmp_path / "other", steps=(30,)
    )
    with pytest.raises(ConfigError, match=r"model\.mlp_dim of .* is 16, not 40"):
        t5jax.load(workdir, ensemble=[str(other)])


# ---- --interactive


@pytest.mark.slow
def test_a_conversation(workdir, run, capsys):
    said = ["b", "/num_beams 2", "/length_penalty x", "/nonsense", "//b", "/settings", "/stop ,"]
    said += ["/scores", "b", "/help"]
    waiting = iter(said)

    def read(prompt):
        try:
            return next(waiting)
        except StopIteration:
            raise EOFError from None

    run_interactive(workdir, None, (), TextOptions(), SHORT, read=read)
    answers = capsys.readouterr().out
    assert one_line(run.predict(["b"])[0]) + "\n" in answers
    assert "line ends within it are shown as" in answers
    assert "\nnum_beams = 2\n" in answers
    assert "error: length_penalty = 'x': a str" in answers
    assert "error: /nonsense: there is no such command" in answers
    assert one_line(run.predict(["/b"], num_beams=2)[0]) in answers
    assert "max_length = 5\nnum_beams = 2\n" in answers
    assert "stop = (',',)" in answers
    (detail,) = run.predict(["b"], num_beams=2, details=True)
    assert f"{detail.outputs[0].score:.2f}"[:-1] in answers
