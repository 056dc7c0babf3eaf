"""What is kept of a step that went wrong, and where a replay begins."""

import contextlib
import dataclasses
import errno
import json

import jax
import numpy as np
import pytest

from t5jax.checkpoints import checkpoint_directory
from t5jax.config import load_config
from t5jax.errors import CheckpointError, ConfigError, DataError
from t5jax.run.auto import Resolved
from t5jax.run.build import build_program, build_train_loader, resolve_mixture
from t5jax.run.flight_recorder import FlightRecorder
from t5jax.run.replay import ReplayedStep, find_source
from t5jax.tracking import Tracker, TrackingConfig, read_metrics

QUIET = TrackingConfig(progress="off", tensorboard=False, plot=False)


@pytest.fixture(scope="module")
def parts(tiny):
    """Config, loader and program of a small run; nothing compiles."""
    config = load_config(str(tiny / "tiny.py"))
    return config, build_train_loader(config, resolve_mixture(config)), build_program(config)


@pytest.fixture
def workdir(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def recorder(parts, workdir):
    config, loader, program = parts
    config = dataclasses.replace(config, workdir=str(workdir))
    clock = iter(range(0, 10_000, 4)).__next__
    with Tracker(workdir, QUIET, num_train_steps=30, is_primary=True) as tracker:
        yield FlightRecorder(
            Resolved(config, config, (), "8 x cpu"), program, loader, tracker, clock
        )


def recorded(workdir):
    return sorted(int(path.name) for path in (workdir / "flight").glob("[0-9]*"))


def test_a_bad_step_is_kept_with_its_rows_texts_places_keys_and_settings(recorder, parts, workdir):
    config, loader, _ = parts
    norms = {"weights": {"a": np.float32(0.5)}, "gradients": {"a": np.float32(np.nan)}}
    metrics = {"train/loss": float("nan"), "train/grad_norm": float("inf")}
    recorder.check(7, metrics, norms, bad_steps=1)
    folder = workdir / "flight" / "7"
    found = json.loads((folder / "step.json").read_text())
    assert (found["step"], found["reason"]) == (7, "loss or gradient not finite")
    assert found["metrics"] == {"train/loss": "nan", "train/grad_norm": "inf"}
    assert found["loss_hex"] == "nan"
    assert found["norms"] == {"norm/weights/a": 0.5, "norm/gradients/a": "nan"}
    key = jax.random.fold_in(jax.random.key(config.train.seed), 6)
    assert found["keys"]["of_step"] == jax.random.key_data(key).tolist()
    assert found["mesh"] == {"data": 8, "fsdp": 1, "tensor": 1}
    assert found["run"]["data"] == loader.state(6)
    assert found["run"]["environment"]["jax"] == jax.__version__
    assert any(name.startswith("XLA_FLAGS") for name in found["run"]["ambient"])
    rows = loader.rows(6)
    with np.load(folder / "batch.npz") as saved:
        assert {name: saved[name].tobytes() for name in saved} == {
            name: x.tobytes() for name, x in rows.items()
        }
    lines = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    assert [line["row"] for line in lines] == list(range(16))
    ids = rows["encoder_input_tokens"][5]
    assert lines[5]["encoder_input_tokens"] == loader.vocabulary.decode(ids[ids != 0])
    (place,) = {(x["source"], x["first_document"]) for x in lines[5]["from"][:1]}
    assert place[0].endswith(".txt")
    (event,) = [x for x in read_metrics(workdir / "metrics.jsonl") if x["kind"] == "recorded"]
    assert (event["step"], event["folder"]) == (7, str(folder))


def test_what_goes_on_going_wrong_is_not_kept_for_ever(recorder, workdir):
    for step in range(4, 9):
        recorder.check(step, {}, {}, bad_steps=step - 3)
    assert recorded(workdir) == [4, 5, 6]
    for step in range(20, 60, 2):
        recorder.check(step, {}, {}, bad_steps=1)
    assert len(recorded(workdir)) == 20


def test_a_step_is_kept_when_it_is_asked_for(recorder, workdir):
    recorder.check(1, {}, {}, bad_steps=0)
    request = workdir / "flight" / "request"
    request.parent.mkdir()
    request.touch()
    for step in (2, 3, 4, 5):  # it looks every five seconds
        recorder.check(step, {"train/loss": 1.5}, {}, bad_steps=0)
    (step,) = recorded(workdir)
    assert 2 <= step <= 4
    assert not request.exists()
    found = json.loads((workdir / "flight" / str(step) / "step.json").read_text())
    assert (found["reason"], found["loss_hex"], found["norms"]) == ("requested", (1.5).hex(), None)


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (RuntimeError("out of\n  memory"), [9]),
        (DataError("a bad row"), []),
        (OSError(errno.ENOSPC, "No space left on device", "x"), []),
        (SystemExit(1), []),
    ],
)
def test_a_crash_keeps_the_step_that_was_running(recorder, workdir, error, kept):
    recorder.running = 9
    with contextlib.suppress(BaseException), recorder.on_crash():
        raise error
    assert recorded(workdir) == kept
    if kept:
        reason = json.loads((workdir / "flight" / "9" / "step.json").read_text())["reason"]
        assert reason == "RuntimeError: out of memory"


def test_a_record_that_cannot_be_written_does_not_end_the_run(recorder, workdir):
    (workdir / "flight").write_text("a file in the way")
    recorder.check(3, {}, {}, bad_steps=1)
    (event,) = read_metrics(workdir / "metrics.jsonl")
    assert event["kind"] == "not_recorded"
    assert "flight" in event["error"]


def test_rows_of_a_stream_are_kept_as_they_come(parts, workdir):
    """They cannot be read again: a batch, and the position before it, wait for a few steps."""
    config, loader, program = parts

    class Stream:
        task_names, vocabulary, batch_size = loader.task_names, loader.vocabulary, 16

        def state(self, step):
            return {"position": step}

    config = dataclasses.replace(config, workdir=str(workdir))
    resolved = Resolved(config, config, (), "8 x cpu")
    with Tracker(workdir, QUIET, num_train_steps=30, is_primary=True) as tracker:
        recorder = FlightRecorder(resolved, program, Stream(), tracker)  # pyright: ignore
        for step in range(1, 13):
            rows = loader.rows(step - 1)
            assert recorder.keep(step, rows) is rows
        recorder.check(6, {}, {}, bad_steps=1)
        with np.load(workdir / "flight" / "6" / "batch.npz") as saved:
            expected = loader.rows(5)["decoder_target_tokens"]
            np.testing.assert_array_equal(saved["decoder_target_tokens"], expected)
    found = json.loads((workdir / "flight" / "6" / "step.json").read_text())
    assert found["run"]["data"] == {"position": 5}


# ---- where a replay begins


def test_a_replay_needs_a_checkpoint_or_a_record(recorder, workdir):
    with pytest.raises(ConfigError, match="--step 0: steps are counted from 1"):
        find_source(str(workdir), 0)
    with pytest.raises(CheckpointError, match="no checkpoint before step 4, and the step was not"):
        find_source(str(workdir), 4)
    recorder.check(4, {}, {}, bad_steps=1)
    source = find_source(str(workdir), 4)
    assert (source.step, source.recorded) == (None, workdir / "flight" / "4")
    assert source.content["data"]["next_row"] == 3 * 16
    assert not checkpoint_directory(str(workdir)).exists()


@pytest.mark.parametrize(
    ("values", "repeats"),
    [
        ((0.1, 0.5, 0.1, 0.5), True),
        ((0.1, 0.5, np.nextafter(np.float32(0.1), np.float32(1)), 0.5), False),
        ((0.1, 0.5, 0.1, 0.25), False),
        ((float("nan"), float("nan"), float("nan"), float("nan")), True),
        ((0.1, 0.5, None, None), None),
        ((0.1, 0.5, 0.1, None), True),
    ],
)
def test_a_step_repeats_when_every_bit_does(values, repeats):
    assert ReplayedStep(3, *values).repeats is repeats
