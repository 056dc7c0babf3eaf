"""What happens while a run is evaluated loses no step: errors, signals, kills (multiprocess/)."""

import json
import os
import pathlib
import signal

import pytest

from t5jax.checkpoints import committed_steps, read_record
from t5jax.cli import main
from t5jax.evaluation.loss import SplitLosses

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("default_signals")]


def train(tiny: pathlib.Path, workdir: pathlib.Path, *more: str) -> int:
    flags = ["--workdir", str(workdir), "--train.num-train-steps", "6"]
    flags += ["--train.eval-every-steps", "3", "--checkpoints.save-every-steps", "6"]
    flags += ["--tracking.tensorboard", "False", "--tracking.plot", "False"]
    return main(["train", str(tiny / "tiny.py"), *flags, *more])


def lines(workdir: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def numbers(workdir: pathlib.Path) -> list[tuple]:
    """Kind, step and bits of every loss, sorted: each once where no step was lost."""
    key = {"train": "train/loss_hex", "evaluation": "eval/validation/loss_hex"}
    found = [(x["kind"], x["step"], x[key[x["kind"]]]) for x in lines(workdir) if x["kind"] in key]
    return sorted(found)


def events(workdir: pathlib.Path) -> list[tuple]:
    others = ("train", "evaluation", "compiled", "started", "goodput", "recorded")
    return [(x["kind"], x["step"]) for x in lines(workdir) if x["kind"] not in others]


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory) -> list[tuple]:
    """The losses of the uninterrupted run."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    assert train(tiny, workdir) == 0
    assert events(workdir) == [("saved", 6), ("finished", 6)]
    assert read_record(workdir / "checkpoints", 6).metrics["validation/num_rows"] == 37
    return numbers(workdir)


@pytest.fixture
def in_evaluation(monkeypatch):
    """Does something after the first batch of the next evaluation, or of the second."""

    def do(action, number: int = 1) -> None:
        begun = []

        def sums(self, program, params, after_batch=lambda: None):
            begun.append(1)
            batches = []

            def after() -> None:
                batches.append(1)
                if len(begun) == number and len(batches) == 1:
                    action()
                after_batch()

            found = ordinary(self, program, params, after)
            assert len(batches) > 1, "the split has several batches"
            return found

        monkeypatch.setattr(SplitLosses, "sums", sums)

    ordinary = SplitLosses.sums
    return do


def out_of_memory() -> None:
    raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 7 bytes")


def two_signals() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)


def ended(tiny, workdir, whole) -> bool:
    """The run goes on to its end with the losses of the other one, every step once."""
    steps = committed_steps(workdir / "checkpoints")
    assert read_record(workdir / "checkpoints", steps[-1]).awaits_metrics
    assert train(tiny, workdir) == 0
    assert numbers(workdir) == whole
    return not any(read_record(workdir / "checkpoints", step).awaits_metrics for step in (3, 6))


def test_signals_in_one_evaluation_and_too_little_memory_in_the_last(
    tiny, whole, tmp_path, in_evaluation
):
    workdir = tmp_path / "run"
    in_evaluation(two_signals)
    assert train(tiny, workdir) == 143
    first = [("saved", 3), ("preempted", 3)]
    assert events(workdir) == first, "the step was only to be evaluated"
    in_evaluation(out_of_memory, number=2)
    assert train(tiny, workdir) == 70
    second = [("resumed", 3), ("evaluating_again", 3), ("saved", 6)]
    assert events(workdir) == [*first, *second]
    in_evaluation(lambda: None)
    assert ended(tiny, workdir, whole)
    third = [("resumed", 6), ("evaluating_again", 6), ("finished", 6)]
    assert events(workdir) == [*first, *second, *third], "nothing but the evaluation was left"


def test_too_little_memory_and_a_signal_when_it_is_evaluated_again(
    tiny, whole, tmp_path, in_evaluation
):
    workdir = tmp_path / "run"
    in_evaluation(out_of_memory)
    assert train(tiny, workdir) == 70
    assert events(workdir) == [("saved", 3)], "the step was only to be evaluated"
    in_evaluation(two_signals)
    assert train(tiny, workdir) == 143
    before = [("saved", 3), ("resumed", 3), ("evaluating_again", 3), ("preempted", 3)]
    assert events(workdir) == before
    in_evaluation(lambda: None)
    assert ended(tiny, workdir, whole)
    assert events(workdir) == [
        *before, ("resumed", 3), ("evaluating_again", 3), ("saved", 6), ("finished", 6)
    ]  # fmt: skip


def test_saves_by_minutes_and_steps_that_are_never_deleted(tiny, whole, tmp_path):
    workdir = tmp_path / "run"
    flags = ["--checkpoints.save-every-minutes", "1e-9", "--checkpoints.keep-newest", "1"]
    assert train(tiny, workdir, *flags, "--checkpoints.keep-steps", "2", "3") == 0
    assert events(workdir) == [*(("saved", step) for step in range(1, 7)), ("finished", 6)]
    assert committed_steps(workdir / "checkpoints") == [2, 3, 6]
    assert numbers(workdir) == whole
