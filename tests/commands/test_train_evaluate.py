"""From text to filled-in blanks through the command line, as a user goes."""

import json
import math
import pathlib
import shutil

import pytest

from t5jax.cli import main
from t5jax.config import EVALUATION_METRICS, load_config
from t5jax.run.build import build_evaluation_loaders, build_train_loader, resolve_mixture
from t5jax.tracking.goodput import PARTS


@pytest.fixture(scope="module")
def finished(tiny) -> pathlib.Path:
    """The workdir of the run of tiny.py, which took 30 steps on eight devices."""
    assert main(["train", str(tiny / "tiny.py")]) == 0
    return tiny / "run"


def records(workdir: pathlib.Path, kind: str) -> list[dict]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


def losses(workdir: pathlib.Path) -> dict[int, str]:
    """Step -> exact bits of its loss, as the file says last."""
    return {record["step"]: record["train/loss_hex"] for record in records(workdir, "train")}


# ---- train


def test_every_step_is_recorded_with_what_was_promised(finished):
    steps = records(finished, "train")
    assert [record["step"] for record in steps] == list(range(1, 31))
    for record in steps:
        assert float.fromhex(record["train/loss_hex"]) == record["train/loss"]
        for name in ("loss", "text_loss", "accuracy", "grad_norm", "param_norm", "learning_rate"):
            assert math.isfinite(record[f"train/{name}"]), name
        assert record["train/learning_rate"] == pytest.approx(0.02)
        for side in ("inputs", "targets"):
            assert record[f"train/non_padding_{side}"] == pytest.approx(1.0)
        assert record["train/target_tokens"] == 16 * targets_length()
        assert "throughput/mfu" in record, "None where the peak of the device is not known"
    for name in ("tokens_per_second_per_device", "sequences_per_second_per_device"):
        assert all(record[f"throughput/{name}"] > 0 for record in steps[2:]), name
    early, late = (sum(r["train/loss"] for r in part) / 5 for part in (steps[:5], steps[-5:]))
    assert late < 0.9 * early, "thirty steps teach a little"


def targets_length() -> int:
    from t5jax.data.objectives import SpanCorruption

    return SpanCorruption().lengths(61).targets


def test_a_run_leaves_its_config_its_curve_and_its_events(finished, tiny):
    from t5jax.config import from_text, load_config

    assert from_text((finished / "config.txt").read_text()) == load_config(str(tiny / "tiny.py"))
    assert (finished / "loss.png").read_bytes().startswith(b"\x89PNG")
    (events,) = (finished / "tensorboard").iterdir()
    assert "tfevents" in events.name
    assert b"train/text_loss" in events.read_bytes()
    (started,) = records(finished, "started")
    assert (started["mesh"], started["devices"].split()[0]) == ("8x1x1", "8")
    assert started["parameters"] > 10_000
    assert [record["step"] for record in records(finished, "saved")] == [10, 20, 30]
    assert records(finished, "finished")[-1]["step"] == 30


def check_wall_time(workdir: pathlib.Path, ended: dict) -> dict:
    """The parts of the wall time add up to what the clock says from the first start on."""
    accounts = records(workdir, "goodput")
    last = [account for account in accounts if account["time"] <= ended["time"]][-1]
    wall = ended["time"] - accounts[0]["started"]
    parts = {name: last[f"goodput/{name}"] for name in PARTS}
    assert sum(parts.values()) == pytest.approx(wall, rel=0.01)
    assert min(parts.values()) >= 0
    assert parts["other"] < 0.3 * wall
    return parts


def test_the_wall_time_is_accounted_for(finished):
    (ended,) = [x for x in records(finished, "finished") if "note" not in x]
    parts = check_wall_time(finished, ended)
    for name in ("init", "compile", "data", "step", "evaluation", "save"):
        assert parts[name] > 0, name
    assert (parts["lost"], parts["down"]) == (0, 0)
    saves = [record["step"] for record in records(finished, "goodput")]
    at = "at its start, before each save, after each evaluation, at its end"
    assert saves == [0, 10, 15, 20, 30, 30, 30], at
    assert b"goodput/evaluation" in next((finished / "tensorboard").iterdir()).read_bytes()


def test_evaluations_are_recorded(finished):
    evaluations = records(finished, "evaluation")
    assert [(r["step"], r["split"]) for r in evaluations] == [
        (15, "validation"),
        (30, "validation"),
    ]
    first, last = (r["eval/validation/loss"] for r in evaluations)
    assert last < first
    assert {r["eval/validation/num_rows"] for r in evaluations} == {37}


@pytest.mark.slow
def test_a_run_that_goes_on_from_a_checkpoint_has_the_same_losses(
    finished, tiny, capsys, monkeypatch
):
    monkeypatch.setenv("NCCL_ALGO", "Ring")  # without effect on a CPU
    again = shutil.copytree(finished, tiny / "again")
    for step in (20, 30):
        shutil.rmtree(again / "checkpoints" / str(step))
    monkeypatch.setattr("t5jax.run.flight_recorder._SECONDS_BETWEEN_LOOKS", 0.0)
    (again / "flight").mkdir()
    (again / "flight" / "request").touch()
    words = ["train", str(tiny / "tiny.py"), "--workdir", str(again), "--train.max-bad-steps", "9"]
    assert main([*words, "--profile-steps", "12:14"]) == 0
    (trace,) = (again / "profile").rglob("*.xplane.pb")
    assert b"jit_train_step" in trace.read_bytes()
    lines = [json.loads(line) for line in (again / "metrics.jsonl").read_text().splitlines()]
    (resumed,) = [line for line in lines if line["kind"] == "resumed"]
    assert resumed["step"] == 10
    assert resumed["changed"] == [
        f"workdir = '{again}'",
        "train.max_bad_steps = 9",
        "tracking.profile_steps = '12:14'",
    ]
    assert resumed["environment"] == ["NCCL_ALGO was not set, is Ring"]
    second_time = lines[lines.index(resumed) :]
    assert {
        line["step"]: line["train/loss_hex"] for line in second_time if line["kind"] == "train"
    } == {step: loss for step, loss in losses(finished).items() if step > 10}
    assert (again / "flight" / "11" / "step.json").is_file()
    parts = check_wall_time(again, lines[-1])
    assert parts["lost"] > 0
    assert parts["down"] > 0, "tests that ran between the two"
    said = capsys.readouterr().err
    assert said.startswith(f"workdir {again}\n")
    assert f"\n  train steps {'':18} {parts['step']:10.1f} s" in said
    assert "step 10  resumed\n" in said
    assert "\n  changed: train.max_bad_steps = 9\n" in said
    assert "\n  environment: NCCL_ALGO was not set, is Ring\n" in said


@pytest.mark.slow
def test_a_step_is_run_again_from_the_checkpoint_before_it(finished, capsys):
    assert main(["replay", str(finished), "--step", "12"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{finished}: from the checkpoint of step 10, on 8 x cpu")
    assert said.count("as logged, bit for bit") == 2
    assert said.endswith("step 12 repeats bit for bit\n")
    assert main(["replay", str(finished), "--step", "11", "--train.seed", "1"]) == 1
    said = capsys.readouterr().out
    assert "step 11 does NOT repeat bit for bit, on the same kind of devices" in said
    assert main(["replay", str(finished), "--step", "10"]) == 66
    assert "no checkpoint before step 10" in capsys.readouterr().err


def test_a_finished_run_stays_as_it_is(finished, tiny, capsys):
    before = records(finished, "train")
    saved = sorted(path.name for path in (finished / "checkpoints").iterdir())
    assert main(["train", str(tiny / "tiny.py")]) == 0
    assert records(finished, "train") == before
    assert sorted(path.name for path in (finished / "checkpoints").iterdir()) == saved
    assert "nothing left to do" in capsys.readouterr().err


def test_another_folder_is_not_written_into(tiny, tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("years of work")
    words = ["train", str(tiny / "tiny.py"), "--workdir", str(tmp_path)]
    assert main(words) == 64
    assert "holds something other than a run; choose another" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_missing_store_names_the_command(tiny, tmp_path, capsys):
    words = ["train", str(tiny / "tiny.py"), "--workdir", str(tmp_path / "run")]
    assert main([*words, "--data.cache-dir", str(tmp_path)]) == 65
    assert "t5jax cache" in capsys.readouterr().err


def test_a_model_without_room_for_the_vocabulary(tiny, tmp_path, capsys):
    words = ["train", str(tiny / "tiny.py"), "--workdir", str(tmp_path / "run")]
    assert main([*words, "--model.vocab-size", "358"]) == 64
    assert "model.vocab_size = 358: the vocabulary has 359 ids" in capsys.readouterr().err


def test_more_chunks_than_targets(tiny, tmp_path, capsys):
    words = ["train", str(tiny / "tiny.py"), "--workdir", str(tmp_path / "run")]
    assert main([*words, "--loss.num-chunks", "999"]) == 64
    assert f"loss.num_chunks = 999: at most the {targets_length()} targets" in (
        capsys.readouterr().err
    )


@pytest.mark.slow
def test_steps_without_a_finite_loss_end_the_run(tiny, tmp_path, capsys):
    """The first update makes the parameters useless: every step after it is skipped."""
    words = ["train", str(tiny / "tiny.py"), "--workdir", str(tmp_path / "run")]
    words += ["--optimizer.learning-rate", "1e30", "--optimizer.clipping-threshold", "None"]
    assert main([*words, "--train.max-bad-steps", "3"]) == 65
    said = capsys.readouterr().err
    assert "not finite 3 steps in a row; the parameters are those after step" in said
    assert "step 2  recorded" in said
    kept = sorted(path.name for path in (tmp_path / "run" / "flight").iterdir())
    assert kept == ["2", "3", "4"]
    assert main(["replay", str(tmp_path / "run"), "--step", "2", "--norms"]) == 0
    said = capsys.readouterr().out
    assert "run: from its beginning, on 8 x cpu (the run's: 8 x cpu)\n" in said
    assert "  step 2  loss nan  grad_norm nan  as logged, bit for bit\n" in said
    assert "  the rows are those that were recorded\n" in said
    assert "  not finite: norm/gradients/" in said
    assert "  norm/weights/token_embedder\n" in said
    assert said.endswith("step 2 repeats bit for bit\n")
    skipped = [record["in_a_row"] for record in records(tmp_path / "run", "skipped_bad_step")]
    assert skipped == [1, 2, 3]


@pytest.mark.slow
def test_what_a_killed_start_leaves_does_not_stop_the_next(tiny, tmp_path):
    (tmp_path / ".shared_0123").write_text("0123")
    words = [str(tiny / "tiny.py"), "--workdir", str(tmp_path)]
    assert main(["train", *words, "--train.num-train-steps", "1"]) == 0
    assert (tmp_path / "config.txt").exists()


def test_evaluation_takes_no_more_rows_at_a_time_than_training(tiny):
    config = load_config(str(tiny / "tiny.py"), ["--train.num-microbatches", "2"])
    mixture = resolve_mixture(config)
    assert build_train_loader(config, mixture).batch_size == 16
    loaders = build_evaluation_loaders(config, mixture, "validation")
    assert [loader.batch_size for loader in loaders.values()] == [8]


# ---- cache


def test_cache_says_what_it_has_and_does_no_work_twice(tiny, capsys):
    words = ["cache", str(tiny / "tiny.py"), "--num-processes", "1"]
    tokens = tiny / "cache/text/train/shard-00000.text.tokens"
    before = tokens.stat().st_mtime_ns
    assert main([*words, "--split", "train"]) == 0
    assert "1.00 bytes a token" in capsys.readouterr().out
    assert tokens.stat().st_mtime_ns == before
    assert main([*words, "--split", "test"]) == 65
    assert "no split 'test'" in capsys.readouterr().err


# ---- evaluate


def test_evaluate_says_what_the_run_said(finished, capsys):
    assert main(["evaluate", str(finished), "--num-rows", "37", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    recorded = records(finished, "evaluation")[-1]
    for name in ("loss", "text_loss", "accuracy", "unigram_entropy", "num_rows"):
        assert said[name] == recorded[f"eval/validation/{name}"], name
    assert set(EVALUATION_METRICS) <= said.keys(), "what checkpoints.best_metric may name"
    assert said["perplexity"] == pytest.approx(math.exp(said["loss"]))
    assert (said["step"], said["split"]) == (30, "validation")
    assert 2.0 < said["unigram_entropy"] < math.log(256)


def test_evaluate_takes_any_batch_and_number_of_devices(finished, capsys):
    """The train step's 9 rows would not divide among 8 devices."""
    words = ["--num-rows", "37", "--json", "--train.batch-size", "9"]
    assert main(["evaluate", str(finished), *words]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["num_rows"] == 37
    logged = records(finished, "evaluation")[-1]["eval/validation/loss"]
    assert said["loss"] == pytest.approx(logged, rel=1e-6)


def test_evaluate_reads_well(finished, capsys):
    words = ["evaluate", str(finished), "--step", "10", "--split", "train", "--num-rows", "5"]
    assert main([*words, "--baselines"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"step 10 of {finished} on train of text_span_corruption")
    for word in ("loss", "perplexity", "entropy", "bigram_model", "nats per text token"):
        assert word in said


def test_evaluate_refuses_what_is_not_there(finished, tmp_path, capsys):
    assert main(["evaluate", str(tmp_path)]) == 66
    assert "holds no checkpoints" in capsys.readouterr().err
    assert main(["evaluate", str(finished), "--step", "7"]) == 66
    assert "7" in capsys.readouterr().err
    assert main(["evaluate", str(finished), "--split", "test"]) == 65
    assert "t5jax cache" in capsys.readouterr().err
    assert main(["evaluate", str(finished), "--workdir", str(tmp_path)]) == 64
    assert f"--workdir {tmp_path} has no effect here" in capsys.readouterr().err
    assert main(["evaluate", str(finished), "--num-rows", "0"]) == 64
    assert "--num-rows 0: at least 1" in capsys.readouterr().err


def test_another_vocabulary_than_the_runs_is_refused(finished, capsys):
    for command in (["evaluate", str(finished)], ["predict", str(finished), "A <extra_id_0>."]):
        assert main([*command, "--data.vocabulary.extra-ids", "90"]) == 64
        assert "is not the one that" in capsys.readouterr().err
