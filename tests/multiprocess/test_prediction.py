"""Whole jobs of `t5jax predict` as real processes: killed, taken away, on several hosts."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from tests.commands.saved_runs import save_run
from tests.multiprocess import tiny_run
from tests.multiprocess.test_launch_local import codes, local

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("default_signals")]
ROWS = 3000
SETTINGS = ("--decoding.max-length", "8", "--decoding.num-beams", "2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """A run with random parameters, and texts of many lengths."""
    from t5jax.config import load_config

    folder = tmp_path_factory.mktemp("tiny")
    config = load_config(str(tiny_run.write_config(folder, 1)))
    save_run(config, folder / "run", steps=(5,))
    with open(folder / "in.jsonl", "w") as file:
        for i in range(ROWS):
            print(json.dumps({"id": i, "input": f"text {i} " * (1 + i * 7 % 5)}), file=file)
    return folder


def command(folder, output, *words) -> list[str]:
    program = [sys.executable, "-m", "t5jax", "predict", str(folder / "run")]
    program += ["--input", str(folder / "in.jsonl"), "--output", str(output), *words]
    return [*program, "--batch-size", "4", *SETTINGS]


def environment(devices: int = 1) -> dict[str, str]:
    root = pathlib.Path(__file__).resolve().parents[2]
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "PYTHONPATH": str(root),
    }


def run(folder, output, *words, **settings) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(folder, output, *words), env=environment(**settings), capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def whole(folder) -> bytes:
    """The output of a job that nothing interrupted."""
    ended = run(folder, folder / "whole.jsonl")
    assert ended.returncode == 0, ended.stderr
    return (folder / "whole.jsonl").read_bytes()


def interrupt(folder, output, number: int, at_lines: int) -> int:
    """The exit code of a job that got a signal when its output had so many lines."""
    job = subprocess.Popen(command(folder, output), env=environment(), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while job.poll() is None and time.monotonic() < deadline:
        if output.exists() and output.read_bytes().count(b"\n") >= at_lines:
            job.send_signal(number)
            break
        time.sleep(0.01)
    return job.wait(timeout=60)


def test_a_job_that_is_killed_and_taken_away_ends_as_if_it_had_not_been(folder, whole, tmp_path):
    output = tmp_path / "out.jsonl"
    assert interrupt(folder, output, signal.SIGKILL, 1) == -signal.SIGKILL
    after_kill = output.read_bytes().count(b"\n")
    assert 0 < after_kill < ROWS
    with open(output, "ab") as file:
        file.write(b'{"id": 12, "inp')  # as a machine may leave it
    assert interrupt(folder, output, signal.SIGTERM, after_kill + 1) == 143
    after_notice = output.read_bytes().count(b"\n")
    assert after_kill < after_notice < ROWS
    ended = run(folder, output)
    assert ended.returncode == 0, ended.stderr
    assert f"resuming after {after_notice:,} existing rows" in ended.stderr
    assert output.read_bytes() == whole


def test_two_hosts_answer_as_one(folder, whole, tmp_path):
    output = tmp_path / "out.jsonl"
    words = command(folder, output)
    fault = local.Fault(process=0, signal=signal.SIGKILL, when=" rows")
    outcome = local.Job(words, 2, devices=2, faults=(fault,)).wait(timeout_seconds=240)
    print("\n".join(outcome.lines))
    assert 0 not in codes(outcome).values(), "one host takes the other along"
    assert 0 < output.read_bytes().count(b"\n") < ROWS
    outcome = local.Job(words, 2, devices=2).wait(timeout_seconds=240)
    print("\n".join(outcome.lines))
    assert codes(outcome) == {0: 0, 1: 0}
    same(output.read_bytes(), whole)


@pytest.mark.long
def test_shards_and_devices_do_not_matter(folder, whole, tmp_path):
    for part in range(2):
        ended = run(folder, tmp_path / "out.jsonl", "--shard", f"{part}/2", devices=4)
        assert ended.returncode == 0, ended.stderr
    parts = [tmp_path / f"out-0000{part}-of-00002.jsonl" for part in range(2)]
    first, second = (part.read_bytes().splitlines(keepends=True) for part in parts)
    both = [line for pair in zip(first, second, strict=True) for line in pair]
    same(b"".join(both), whole)


def same(found: bytes, expected: bytes) -> None:
    """The same texts; other batches round the last bits of scores otherwise."""
    ours, theirs = (list(map(json.loads, x.splitlines())) for x in (found, expected))
    for one, other in zip(ours, theirs, strict=True):
        assert one.pop("score") == pytest.approx(other.pop("score"), abs=1e-4)
        assert one == other


def test_hosts_with_different_inputs_refuse(folder, tmp_path):
    program = (
        "import os, runpy, sys; host = os.environ['T5JAX_PROCESS_ID']; "
        f"path = '{tmp_path}/in-' + host + '.txt'; "
        "open(path, 'w').write('text ' + host + chr(10)); "
        f"sys.argv = ['t5jax', 'predict', '{folder}/run', '--input', path, '--output', "
        f"'{tmp_path}/out.jsonl']; runpy.run_module('t5jax', run_name='__main__')"
    )
    outcome = local.Job([sys.executable, "-c", program], 2, devices=1).wait(timeout_seconds=120)
    assert set(codes(outcome).values()) == {64}
    assert any("the input differs between hosts" in line for line in outcome.lines)
    assert not (tmp_path / "out.jsonl").exists()
