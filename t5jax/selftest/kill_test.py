"""Kill test: a tiny run gets `kill -9` at random moments on this host and resumes; every loss that
it logs is compared with that of a run which nothing interrupted, bit for bit.

The runs are programs of their own, on one CPU device each, below the workdir: what is tried is its
disk, or its bucket.
"""

import contextlib
import itertools
import os
import pathlib
import pydoc_data.topics
import random
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from t5jax.buckets import delete_folder, in_bucket, run_files
from t5jax.errors import message_of
from t5jax.runtime import ExitCode, Watchdog, probe_file
from t5jax.runtime.distributed import ENVIRONMENT
from t5jax.runtime.exits import exit_code
from t5jax.selftest.check import Check, Outcome, failed
from t5jax.tracking import read_metrics
from t5jax.tracking.jsonl import TRAIN

SECONDS_PER_START = 300.0  # of a program, before it counts as hanging
_STEPS_PER_KILL = 30
_MOST_STEPS_BEFORE = 20  # that a program runs before it is killed
_CONFIG = """
from t5jax.checkpoints import CheckpointConfig
from t5jax.config import RunConfig, TrainConfig
from t5jax.data.config import DataConfig
from t5jax.data.vocabularies import ByteVocabulary
from t5jax.model.config import T5Config
from t5jax.runtime import RuntimeConfig
from t5jax.tracking import TrackingConfig


def config() -> RunConfig:
    return RunConfig(
        workdir={workdir!r},
        model=T5Config(
            vocab_size=384, emb_dim=24, num_heads=4, head_dim=6, mlp_dim=40,
            num_encoder_layers=1, num_decoder_layers=1, dropout_rate=0.1, dtype="float32",
        ),
        data=DataConfig(
            mixture="text_span_corruption", train_files=({folder!r} + "/text.txt",),
            vocabulary=ByteVocabulary(extra_ids=100), inputs_length=61,
            cache_dir={folder!r} + "/cache",
        ),
        train=TrainConfig(num_train_steps={steps}, batch_size=8, eval_every_steps=0),
        checkpoints=CheckpointConfig(save_every_steps=5),
        tracking=TrackingConfig(tensorboard=False, plot=False, seconds_between_lines=0),
        runtime=RuntimeConfig(detect_cluster=False, compilation_cache={folder!r} + "/compiled"),
    )
"""


class Loss(NamedTuple):
    """A line of the log: the step, and the bits of its loss."""

    step: int
    bits: str


class KillTest(NamedTuple):
    """What became of a run that was killed so many times, beside one that was not."""

    kills: int
    loss_lines: int  # steps that were done again included
    differing: int
    missing_steps: int

    @property
    def problem(self) -> bool:
        return bool(self.differing or self.missing_steps)

    @property
    def text(self) -> str:
        return (
            f"{self.kills} kills, {self.loss_lines:,} loss lines, {self.differing} differ, "
            f"{self.missing_steps} steps missing"
        )


def check_kills(workdir: str | None, number: int, watchdog: Watchdog) -> Check:
    """`number` kills of a run on this host; called by a process that is alone."""
    begun = time.monotonic()
    try:
        with watchdog.suspended((number + 4) * SECONDS_PER_START):
            found = kill_and_resume(workdir, number)
    except Exception as error:
        return failed("kills", exit_code(error), message_of(error))
    return Check(
        name="kills",
        outcome=Outcome.FAILED if found.problem else Outcome.OK,
        value=f"{found.text}; {(time.monotonic() - begun) / 60:.1f} minutes",
        code=ExitCode.INTERNAL if found.problem else ExitCode.DONE,
        numbers=found._asdict(),
    )


def kill_and_resume(workdir: str | None, number: int, seed: int = 0) -> KillTest:
    """The runs, below the workdir (None: in a temporary folder), and what they logged.

    Raises OSError where they cannot be written, RuntimeError where one ends with an error.
    """
    folder = pathlib.Path(tempfile.mkdtemp(prefix="t5jax-selftest-"))
    unique = f"kills_{secrets.token_hex(4)}"
    place = str(folder / "runs") if workdir is None else probe_file(workdir, unique)
    steps = _STEPS_PER_KILL * (number + 1)
    with _removed(folder, place):
        text = "\n\n".join(itertools.islice(pydoc_data.topics.topics.values(), 40))
        (folder / "text.txt").write_text(text, encoding="utf-8")
        config = folder / "tiny.py"
        config.write_text(_CONFIG.format(workdir=place, folder=str(folder), steps=steps))
        _run_to_end(["cache", str(config), "--split", "train"])
        whole, killed = f"{place}/whole", f"{place}/killed"
        _run_to_end(["train", str(config), "--workdir", whole])
        done = _kill(["train", str(config), "--workdir", killed], number, random.Random(seed))
        _run_to_end(["train", str(config), "--workdir", killed])
        return compare(done, losses(whole), losses(killed), steps)


def compare(kills: int, whole: Sequence[Loss], killed: Sequence[Loss], steps: int) -> KillTest:
    """Every line of the killed run with the step's of the whole one."""
    expected = dict(whole)
    differing = [line for line in killed if expected.get(line.step) != line.bits]
    missing = set(range(1, steps + 1)) - ({line.step for line in killed} & expected.keys())
    return KillTest(kills, len(killed), len(differing), len(missing))


def losses(workdir: str) -> list[Loss]:
    """Of every line of a run's log, in the order in which they were written."""
    files = run_files(workdir)
    files.fetch("metrics.jsonl")
    records = read_metrics(files.folder / "metrics.jsonl")
    return [Loss(x["step"], x["train/loss_hex"]) for x in records if x["kind"] == TRAIN]


def _kill(words: Sequence[str], number: int, generator: random.Random) -> int:
    """Starts the run and kills it, again and again; the number of kills."""
    for done in range(number):
        lines, wait = generator.randrange(_MOST_STEPS_BEFORE), generator.uniform(0.0, 0.1)
        with _program(words) as process:
            assert process.stdout is not None
            for line in process.stdout:
                lines -= line.startswith("step ")
                if lines < 0:
                    time.sleep(wait)
                    break
            else:
                if process.wait() == ExitCode.DONE:
                    return done
                raise RuntimeError(f"t5jax {' '.join(words)} ended with {process.returncode}")
    return number


def _run_to_end(words: Sequence[str]) -> None:
    with _program(words) as process:
        output = process.communicate()[0]
    if process.returncode:
        raise RuntimeError(
            f"t5jax {' '.join(words)} ended with {process.returncode}: {output[-300:]}"
        )


@contextlib.contextmanager
def _program(words: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """A t5jax of its own; killed at the end of the block, and when it takes too long."""
    process = subprocess.Popen(
        [sys.executable, "-m", "t5jax", *words],
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    timer = threading.Timer(SECONDS_PER_START, process.kill)
    timer.start()
    try:
        yield process
    finally:
        timer.cancel()
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _environment() -> dict[str, str]:
    """This one's, for a process that is alone and computes on one CPU device."""
    left_out = (*ENVIRONMENT, "T5JAX_FLAGS", "LIBTPU_INIT_ARGS")
    environment = {name: x for name, x in os.environ.items() if name not in left_out}
    paths = [str(pathlib.Path(__file__).parents[2]), *filter(None, [environment.get("PYTHONPATH")])]
    return environment | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "1",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",  # they compile longer than they compute
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
    }


@contextlib.contextmanager
def _removed(folder: pathlib.Path, place: str) -> Iterator[None]:
    """Removes what was written at the end of the block."""
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if in_bucket(place):
            with contextlib.suppress(OSError):
                delete_folder(place)
        else:
            shutil.rmtree(place, ignore_errors=True)
