"""Every architecture through the command line: trained, evaluated, resumed, asked."""

import json
import shutil

import pytest

from t5jax.cli import main

ONE_DECODER = ("--model.num-encoder-layers", "0")
RUNS = {
    "prefix_lm": (*ONE_DECODER, "--data.objective", "packed_prefix_lm"),
    # Span corruption for a language model: inputs and targets one behind the other.
    "decoder_only": ONE_DECODER,
    "language_model": (*ONE_DECODER, "--data.objective", "lm", "--data.targets-length", "61"),
    "shared_encoder_decoder": (),
    "encoder_only": ("--model.num-decoder-layers", "0", "--data.objective", "bert_style"),
}


def train(tiny, workdir, name, *flags):
    architecture = "decoder_only" if name == "language_model" else name
    words = ["train", str(tiny / "tiny.py"), "--workdir", str(workdir)]
    words += ["--model.architecture", architecture, *RUNS[name]]
    words += ["--train.num-train-steps", "8", "--train.eval-every-steps", "8"]
    words += ["--train.num-eval-rows", "19", "--checkpoints.save-every-steps", "4"]
    assert main([*words, *flags]) == 0
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def losses(records):
    return {r["step"]: r["train/loss_hex"] for r in records if r["kind"] == "train"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [name if name == "prefix_lm" else pytest.param(name, marks=pytest.mark.long) for name in RUNS],
)
def test_a_run(tiny, tmp_path, capsys, name):
    records = train(tiny, tmp_path / "run", name)
    steps = [record for record in records if record["kind"] == "train"]
    assert [record["step"] for record in steps] == list(range(1, 9))
    assert steps[-1]["train/loss"] < 0.97 * steps[0]["train/loss"]
    sides = {key.removeprefix("train/") for key in steps[0] if "non_padding" in key}
    expected = {
        "shared_encoder_decoder": {"non_padding_inputs", "non_padding_targets"},
        "encoder_only": {"non_padding_inputs"},
    }
    assert sides == expected.get(name, {"non_padding_targets"})
    # The checkpoint of step 4 gives the same losses again.
    again = shutil.copytree(tmp_path / "run", tmp_path / "again")
    shutil.rmtree(again / "checkpoints" / "8")
    whole, resumed = losses(records), train(tiny, again, name)[len(records) :]
    assert losses(resumed) == {step: loss for step, loss in whole.items() if step > 4}
    capsys.readouterr()
    baselines = [] if name == "prefix_lm" else ["--baselines"]  # it has EOS where documents end
    words = ["evaluate", str(tmp_path / "run"), "--num-rows", "19", "--json"]
    assert main([*words, *baselines]) == 0
    said = json.loads(capsys.readouterr().out)
    (recorded,) = [record for record in records if record["kind"] == "evaluation"]
    assert said["loss"] == recorded["eval/validation/loss"]
    assert not baselines or said["bigram_model"] < said["unigram_model"] < 5.6
    words = ["predict", str(tmp_path / "run"), "A <extra_id_0> is", "The"]
    if name == "encoder_only":
        assert main(words) == 64
        assert "'encoder_only' predicts tokens in their places" in capsys.readouterr().err
    else:
        assert main(words) == 0
        assert len(capsys.readouterr().out.splitlines()) == 2


def test_what_does_not_fit_is_refused_before_anything_compiles(tiny, tmp_path, capsys):
    words = ["train", str(tiny / "tiny.py"), "--workdir", str(tmp_path / "run")]
    assert main([*words, "--data.objective", "lm", "--data.targets-length", "20"]) == 64
    assert "or model.architecture = 'decoder_only'" in capsys.readouterr().err
    assert main([*words, "--data.loss-on-targets-only", "False"]) == 64
    assert "data.loss_on_targets_only = False has no effect" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_inspect_shows_rows_of_one_stack(tiny, capsys):
    words = [str(tiny / "tiny.py"), "--model.architecture", "prefix_lm", *ONE_DECODER]
    assert main(["inspect", "data", *words, "--rows", "1"]) == 0
    shown = capsys.readouterr().out
    prefix = next(line for line in shown.splitlines() if line.startswith("  prefix"))
    weights = next(line for line in shown.splitlines() if line.startswith("  weights"))
    # 61 inputs and the position that reads the last, which predicts the first of 14 targets.
    assert prefix.split() == ["prefix", "1x62", "0x13"]
    assert weights.split() == ["weights", "0x61", "1x14"]
    assert main(["inspect", "model", *words]) == 0
    assert "per step of 16 rows, 75 tokens" in capsys.readouterr().out
