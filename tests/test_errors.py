"""The boundary around foreign code: every exception becomes one line with its place; errors of
t5jax and requests to stop pass."""

import contextlib
import functools
import gc
import pathlib
import resource

import pytest

from t5jax.data.atomic_files import write_file
from t5jax.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    foreign_code,
    foreign_items,
    message_of,
)
from t5jax.inference.output_file import OutputFile
from t5jax.runtime.exits import ExitCode, run_guarded
from t5jax.tracking.jsonl import RecordLog
from t5jax.tracking.writers import TensorBoardWriter
from tests.raising import EXCEPTIONS, raises


@pytest.mark.parametrize("kind", [DataError, ConfigError])
@pytest.mark.parametrize("name", EXCEPTIONS)
def test_every_exception_becomes_one_line_with_place_type_and_cause(name, kind):
    with pytest.raises(kind) as raised, foreign_code("task ratio", "r.jsonl, line 2", kind):
        raises(name)
    (line,) = str(raised.value).splitlines()
    assert line.startswith(f"r.jsonl, line 2: {name} in task ratio")
    assert "(test_errors.py, line " in line
    assert line.isprintable()
    assert type(raised.value.__cause__).__name__ == name


@pytest.mark.parametrize("kind", [ConfigError, DataError, CheckpointError])
def test_our_own_errors_pass_and_gain_the_place_once(kind):
    error = kind("vocabulary x: no such file")
    for _ in range(2):
        with pytest.raises(kind) as raised, foreign_code("task ratio", "r.jsonl, line 2"):
            raise error
        assert raised.value is error
    assert str(error) == "r.jsonl, line 2: vocabulary x: no such file"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
def test_requests_to_stop_pass(error):
    with pytest.raises(type(error)) as raised, foreign_code("task ratio", "r.jsonl, line 2"):
        raise error
    assert raised.value is error


def test_a_panic_of_rust_code_is_a_failure():
    panic = type("PanicException", (BaseException,), {})  # as PyO3's, no Exception
    message = r"line 7: PanicException in the vocabulary: index 3"
    with pytest.raises(DataError, match=message), foreign_code("the vocabulary", "line 7"):
        raise panic("index 3")


def test_a_long_message_is_cut():
    assert len(message_of(ValueError("x" * 100_000))) < 600


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_iteration_that_fails_says_how_far_it_came(name):
    def items():
        yield from range(3)
        raises(name)

    found = []
    with pytest.raises(DataError, match=r"^data\.bin, after 3 records: ") as raised:
        found.extend(foreign_items(items, "the source of task ratio", "data.bin"))
    assert found == [0, 1, 2]
    # Python itself makes a RuntimeError of a StopIteration inside a generator.
    assert f"{name if name != 'StopIteration' else 'RuntimeError'} in the source" in str(
        raised.value
    )


def test_items_that_cannot_be_made_at_all():
    with pytest.raises(DataError, match=r"^data\.bin: KeyError in the source"):
        next(foreign_items(functools.partial(raises, "KeyError"), "the source", "data.bin"))


@pytest.mark.parametrize("name", ["KeyError", "Unprintable"])
def test_the_last_line_is_the_message_and_the_traceback_is_for_debugging(name, capfd, monkeypatch):
    def command():
        with foreign_code("task ratio", "r.jsonl, line 2"):
            raises(name)

    monkeypatch.delenv("T5JAX_DEBUG", raising=False)
    assert run_guarded(command) == ExitCode.DATA
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"error: r.jsonl, line 2: {name} in task ratio")
    assert line.endswith("(T5JAX_DEBUG=1 shows the traceback)")
    monkeypatch.setenv("T5JAX_DEBUG", "1")
    assert run_guarded(command) == ExitCode.DATA
    shown = capfd.readouterr().err
    assert "Traceback (most recent call last)" in shown
    assert "in raises" in shown
    assert shown.splitlines()[-1].startswith(f"error: r.jsonl, line 2: {name} in task ratio")


@contextlib.contextmanager
def largest_file(num_bytes):
    """The operating system refuses to make files larger."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def fill_metrics(folder):
    log = RecordLog(folder / "metrics.jsonl")
    for step in range(10_000):
        log.append({"kind": "train", "step": step, "train/loss": 0.5})


def fill_tensorboard(folder):
    writer = TensorBoardWriter(folder)
    for step in range(10_000):
        writer.scalars(step, {"train/loss": 0.5})


def fill_output(folder):
    output = OutputFile(str(folder / "answers.jsonl"), {}, frozenset({"prediction"}))
    for number in range(10_000):
        output.write([{"text": f"text {number}", "prediction": "x" * 50}])


def fill_whole_file(folder):
    write_file(folder / "results.csv", b"x" * 10_000)


@pytest.mark.parametrize(
    ("fill", "name"),
    [
        (fill_metrics, "metrics.jsonl"),
        pytest.param(fill_tensorboard, "events.out.tfevents.", marks=pytest.mark.slow),
        pytest.param(fill_output, "answers.jsonl", marks=pytest.mark.slow),
        (fill_whole_file, "results.csv"),
    ],
    ids=["metrics", "TensorBoard", "predictions", "a whole file"],
)
def test_a_file_that_may_not_grow_is_named(tmp_path, fill, name, capfd):
    def command():
        with largest_file(5_000):
            fill(tmp_path)

    assert run_guarded(command) == ExitCode.CANNOT_WRITE
    gc.collect()  # a file that is given up must not try to write again
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path}/{name}")
    assert line.endswith(
        "File too large; this process may not write a file so large (ulimit -f): raise the limit, "
        "then start again"
    )


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="a device of Linux")
def test_a_log_on_a_full_disk_is_named(tmp_path, capfd):
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    assert run_guarded(lambda: fill_metrics(tmp_path)) == ExitCode.CANNOT_WRITE
    gc.collect()
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(
        f"error: {tmp_path}/metrics.jsonl: No space left on device; the disk is full: make room "
        f"(df -h {tmp_path} shows how much there is)"
    )


TENSORSTORE = (
    'RESOURCE_EXHAUSTED: Error writing "params/x" in OCDBT database at local file "/d/run/a/": '
    "Failed to write 16 bytes to file 9: No space left on device [os_error_code='28']"
)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OSError(28, "No space left on device", "/d/f"), 73, "/d/f: No space left on device; the"),
        (OSError(122, "Disk quota exceeded", "/d/f"), 73, "the quota on this disk is used up"),
        (ValueError(TENSORSTORE), 73, "/d/run/a/: No space left on device; the disk is full: make"),
        (OSError(28, "No space left on device"), 73, "error: No space left on device; the disk is"),
        (ValueError("another"), 70, "error: another"),
    ],
)
def test_what_the_operating_system_refuses(error, code, said, capfd):
    def command():
        raise error

    assert run_guarded(command) == code
    assert said in capfd.readouterr().err.splitlines()[-1]
