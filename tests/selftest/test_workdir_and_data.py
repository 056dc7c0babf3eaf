"""Workdir and data of a self-test: seen by all hosts or not, and slow disks."""

import os

import pytest

from t5jax.config import RunConfig, TrainConfig
from t5jax.data.config import DataConfig
from t5jax.data.vocabularies import ByteVocabulary
from t5jax.errors import ConfigError
from t5jax.model.config import T5Config
from t5jax.selftest import Outcome, check_data, check_workdir, files
from tests.selftest.hosts_of_texts import answer, same


@pytest.fixture(autouse=True)
def few_bytes(monkeypatch):
    monkeypatch.setattr(files, "_BYTES", 70_001)


def run_config(**data) -> RunConfig:
    data = {"cache_dir": None, **data}
    return RunConfig(
        workdir="nowhere",
        model=T5Config(),
        data=DataConfig(mixture=None, vocabulary=ByteVocabulary(), **data),
        train=TrainConfig(num_train_steps=3),
    )


def test_a_workdir_is_made_written_read_and_left_empty(tmp_path):
    visible, speed = check_workdir(f"{tmp_path}/new/run")
    assert visible.outcome is Outcome.OK
    assert visible.value == f"{tmp_path}/new/run: what host 0 writes all 1 host read"
    assert "MB/s written, " in speed.value
    assert set(speed.numbers) == {"write_bytes_per_second", "read_bytes_per_second"}
    assert os.listdir(tmp_path / "new/run") == []


def test_without_a_workdir_nothing_is_checked():
    [check] = check_workdir(None)
    assert check.outcome is Outcome.LEFT_OUT


@pytest.mark.parametrize("folder", ["file", "file/run"])
def test_a_workdir_that_cannot_be_written_is_73(tmp_path, folder):
    (tmp_path / "file").write_text("")
    [check] = check_workdir(f"{tmp_path}/{folder}")
    assert (check.outcome, check.code) == (Outcome.FAILED, 73)
    assert f"{tmp_path}/file: Not a directory" in check.value


def test_a_workdir_that_is_not_shared_is_64(tmp_path, monkeypatch):
    def unshared(workdir):
        raise ConfigError(f"workdir {workdir} is not shared: host 1 of 2 cannot read")

    monkeypatch.setattr(files, "check_shared_directory", unshared)
    [check] = check_workdir(str(tmp_path))
    assert (check.outcome, check.code) == (Outcome.FAILED, 64)
    assert "host 1 of 2 cannot read" in check.value


def test_bytes_that_come_back_otherwise_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "read_file", lambda path: bytes(files._BYTES))
    [check] = check_workdir(str(tmp_path))
    assert (check.outcome, check.code) == (Outcome.FAILED, 70)
    assert "other bytes are read than host 0 wrote" in check.value
    assert os.listdir(tmp_path) == []


def test_the_slowest_host_decides_and_slow_is_a_warning(monkeypatch):
    monkeypatch.setattr(files, "_BYTES", 10**8)
    fast = files._speeds([0.5, 1.0], [0.25, 0.2])
    assert fast.outcome is Outcome.OK
    assert fast.value == ("100 MB/s written, 400 MB/s read by the slowest of 2 hosts at once")
    slow = files._speeds([20.0], [0.1])
    assert slow.outcome is Outcome.WARNING
    assert "a host takes 200 s for a GB" in slow.value


def write(tmp_path, names=("a-1.txt", "a-2.txt", "b/c.txt")):
    for number, name in enumerate(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text" * (5 + number))


@pytest.mark.parametrize(("data", "number"), [("a-*.txt", 2), ("a-1.txt", 1), ("", 3)])
def test_data_of_a_path_a_pattern_and_a_folder(tmp_path, data, number):
    write(tmp_path)
    [check] = check_data(None, os.path.join(tmp_path, data))
    assert check.outcome is Outcome.OK
    assert f": {number} files, seen by 1 host; " in check.value


def test_data_of_a_config_are_its_files_and_the_store_that_is_there(tmp_path):
    write(tmp_path)
    files_of_run = (f"{tmp_path}/a-*.txt",)
    config = run_config(train_files=files_of_run, cache_dir=f"{tmp_path}/b")
    assert [x.name for x in check_data(config, None)] == ["data files", "data store"]
    config = run_config(train_files=files_of_run, cache_dir=f"{tmp_path}/not-yet")
    assert [x.name for x in check_data(config, None)] == ["data files"]
    [check] = check_data(run_config(), None)
    assert check.outcome is Outcome.LEFT_OUT


def test_missing_and_empty_data_are_65(tmp_path):
    [check] = check_data(None, f"{tmp_path}/a-*.txt")
    assert (check.outcome, check.code) == (Outcome.FAILED, 65)
    assert "no such file" in check.value
    (tmp_path / "a-1.txt").write_text("")
    [check] = check_data(None, f"{tmp_path}/a-*.txt")
    assert (check.outcome, check.code) == (Outcome.FAILED, 65)
    assert "are empty" in check.value


def test_a_host_that_sees_other_files_is_named(tmp_path, monkeypatch):
    write(tmp_path)
    answer(monkeypatch, same, {"files": 1, "digest": "0", "rate": 1.0})
    [check] = check_data(None, f"{tmp_path}/a-*.txt")
    assert (check.outcome, check.code) == (Outcome.FAILED, 65)
    assert "host 2 sees 1 files, host 0 2" in check.value


def test_the_same_names_with_other_content_are_other_files(tmp_path):
    write(tmp_path)
    before = files._listing([f"{tmp_path}/a-*.txt"])
    (tmp_path / "a-2.txt").write_text("longer than before" * 9)
    after = files._listing([f"{tmp_path}/a-*.txt"])
    assert before["files"] == after["files"] == 2
    assert before["digest"] != after["digest"]
