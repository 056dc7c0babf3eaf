"""metrics.jsonl: whole lines after kill -9, valid JSON for any number, the exact bits of a loss."""

import json
import math
import random
import signal
import subprocess
import sys
import time

import jax.numpy as jnp
import numpy as np
import pytest

from t5jax.errors import DataError
from t5jax.tracking import current_records, read_metrics
from t5jax.tracking.jsonl import RecordLog, cut_torn_line, make_record, python_scalars

WRITE_FOREVER = """
import itertools, os, pathlib, sys
from t5jax.tracking.jsonl import RecordLog, make_record
log = RecordLog(pathlib.Path(sys.argv[1]))
for step in itertools.count(int(sys.argv[2])):
    fields = {"train/loss": 1.0 / step, "train/note": "x" * (step % 301)}
    log.append(make_record("train", step, fields))
    os.write(1, b"%d\\n" % step)
"""


def train(step, **metrics):
    return make_record("train", step, python_scalars({f"train/{k}": x for k, x in metrics.items()}))


def test_nothing_appended_is_lost_or_torn_by_kill_9(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rng = random.Random(7)
    for _ in range(3):
        first = len(read_metrics(path)) + 1 if path.exists() else 1
        before = path.stat().st_size if path.exists() else 0
        command = [sys.executable, "-c", WRITE_FOREVER, path, str(first)]
        appended = tmp_path / "appended"
        with open(appended, "wb") as stdout:
            process = subprocess.Popen(command, stdout=stdout)
        deadline = time.monotonic() + 20
        while not path.exists() or path.stat().st_size < before + 30_000:
            assert time.monotonic() < deadline, "the writer wrote nothing"
            time.sleep(0.005)
        time.sleep(rng.random() * 0.05)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        steps = [record["step"] for record in read_metrics(path)]
        assert steps == list(range(1, len(steps) + 1))
        last_appended = int(appended.read_text().splitlines()[-1])
        assert first < last_appended <= steps[-1]


@pytest.mark.parametrize("torn", ['{"kind": "train", "st', "\0" * 70_001, "{}", "é"])
def test_a_torn_last_line_is_left_out_and_cut_off_on_reopening(tmp_path, torn):
    path = tmp_path / "metrics.jsonl"
    log = RecordLog(path)
    log.append(train(1, loss=2.0))
    log.close()
    whole = path.read_bytes()
    path.write_bytes(whole + torn.encode())
    assert [record["step"] for record in read_metrics(path)] == [1]
    assert cut_torn_line(path) == len(torn.encode())
    assert path.read_bytes() == whole

    path.write_bytes(whole + torn.encode())
    log = RecordLog(path)
    log.append(train(2, loss=1.5))
    log.close()
    assert [record["step"] for record in read_metrics(path)] == [1, 2]


def test_a_file_that_is_one_torn_line_becomes_empty_and_a_whole_one_stays(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"x" * 200_003)
    assert cut_torn_line(path) == 200_003
    assert path.read_bytes() == b""
    assert cut_torn_line(path) == 0
    path.write_bytes(b"{}\n")
    assert cut_torn_line(path) == 0
    assert cut_torn_line(tmp_path / "absent") == 0


def test_damage_before_the_last_line_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    good = json.dumps(train(1, loss=2.0))
    path.write_text(f'{good}\n{{"kind": "tra\n{good}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl, line 2: not JSON"):
        read_metrics(path)
    path.write_text(f"{good}\n{good}\n[1]\n")
    with pytest.raises(DataError, match="line 3: no record"):
        read_metrics(path)


def test_numbers_that_are_not_finite_are_valid_json_and_come_back(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = RecordLog(path)
    values = {"a": float("nan"), "b": np.float32("inf"), "c": -math.inf, "d": None, "e": 3}
    log.append(train(5, loss=math.nan, **values))
    log.close()

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    raw = json.loads(path.read_text(), parse_constant=refuse)
    assert [raw[f"train/{name}"] for name in "abcde"] == ["nan", "inf", "-inf", None, 3]
    assert raw["train/loss_hex"] == "nan"
    (record,) = read_metrics(path)
    assert math.isnan(record["train/a"])
    assert math.isnan(record["train/loss"])
    assert [record[f"train/{name}"] for name in "bcd"] == [math.inf, -math.inf, None]


def test_the_bits_of_every_float32_loss_survive(tmp_path):
    path = tmp_path / "metrics.jsonl"
    bits = np.random.default_rng(3).integers(0, 2**32, 500, dtype=np.uint32)
    losses = bits.view(np.float32)
    losses = losses[np.isfinite(losses)]
    assert len(losses) > 450
    log = RecordLog(path)
    for step, loss in enumerate(losses, start=1):
        # As the loop may hold them: NumPy scalar, rank-0 array, array on the device, number.
        forms = (loss, np.array(loss), jnp.asarray(loss), float(loss))
        log.append(train(step, loss=forms[step % 4] if step < 40 else loss))
    log.close()
    records = read_metrics(path)
    hexes = [record["train/loss_hex"] for record in records]
    back = np.array(list(map(float.fromhex, hexes))).astype(np.float32)
    np.testing.assert_array_equal(back.view(np.uint32), losses.view(np.uint32))
    as_decimal = np.array([record["train/loss"] for record in records]).astype(np.float32)
    np.testing.assert_array_equal(as_decimal.view(np.uint32), losses.view(np.uint32))


def test_a_metric_may_not_take_a_name_of_the_record():
    with pytest.raises(AssertionError, match="step"):
        make_record("train", 1, {"train/loss": 1.0, "step": 3})
    with pytest.raises(AssertionError, match="group/name"):
        make_record("train", 1, {"train/loss": 1.0, "loss": 1.0})


def test_after_a_resume_later_steps_of_before_are_history():
    first_life = [train(step, loss=float(step)) for step in range(1, 8)]
    validation = [
        make_record("evaluation", step, {"eval/val/loss": 9.0}, split="val") for step in (3, 6)
    ]
    other_split = make_record("evaluation", 3, {"eval/test/loss": 8.0}, split="test")
    saved = [make_record("saved", 3, {}), make_record("saved", 6, {})]
    resumed = make_record("resumed", 3, {})
    second_life = [train(4, loss=40.0), train(5, loss=50.0)]
    records = [*first_life, *validation, other_split, *saved, resumed, *second_life]
    current = current_records(records)
    losses = {r["step"]: r["train/loss"] for r in current if r["kind"] == "train"}
    assert losses == {1: 1.0, 2: 2.0, 3: 3.0, 4: 40.0, 5: 50.0}
    splits = sorted((r["step"], r["split"]) for r in current if r["kind"] == "evaluation")
    assert splits == [(3, "test"), (3, "val")]
    assert [r["step"] for r in current if r["kind"] == "saved"] == [3]


def test_of_two_lines_about_a_step_the_later_one_counts():
    current = current_records([train(2, loss=1.0), train(1, loss=3.0), train(2, loss=5.0)])
    assert [(r["step"], r["train/loss"]) for r in current] == [(1, 3.0), (2, 5.0)]
