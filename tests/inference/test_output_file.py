"""Interrupted batch jobs, with a model that upper-cases: output as of an uninterrupted one."""

import json

import pytest

from t5jax.data.records import Row
from t5jax.errors import ConfigError, DataError
from t5jax.inference.batch_job import parse_shard, run_batch_job
from t5jax.inference.output_file import OutputFile, json_line, shard_path

WINDOW = 4
JOB = {"command": "test", "decoding": {"num_beams": 2}, "steps": [3]}


def rows(number: int = 11):
    for i in range(number):
        yield Row({"id": i, "input": f"text {i}", "odd": float("nan")}, f"line {i + 1}")


class UpperCaseModel:
    """Records its windows; the score depends on the window, as the last bits of scores do on the
    batch. Killed after `max_windows`."""

    def __init__(self, max_windows: int = 1000):
        self.windows: list[list[int]] = []
        self.max_windows = max_windows

    def __call__(self, batch, numbers):
        if len(self.windows) == self.max_windows:
            raise KeyboardInterrupt
        self.windows.append(list(numbers))
        return [
            {**row, "output": row["input"].upper(), "score": numbers[0] / len(batch)}
            for row in batch
        ]


def run(path, model=None, *, given=None, job=JOB, overwrite=False, shard=(0, 1)):
    model = model or UpperCaseModel()
    output = OutputFile(str(path), job, frozenset(("output", "score")), overwrite=overwrite)
    run_batch_job(rows() if given is None else given, model, output, window=WINDOW, shard=shard)
    return model


@pytest.fixture
def whole(tmp_path):
    run(tmp_path / "whole.jsonl")
    return (tmp_path / "whole.jsonl").read_bytes()


def test_every_row_has_its_record_in_its_place(whole):
    records = [json.loads(line) for line in whole.splitlines()]
    assert [record["id"] for record in records] == list(range(11))
    assert [record["output"] for record in records] == [f"TEXT {i}" for i in range(11)]


@pytest.mark.parametrize("max_windows", [0, 1, 2])
def test_a_killed_job_resumes(tmp_path, whole, max_windows):
    path = tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run(path, UpperCaseModel(max_windows))
    assert len(path.read_bytes().splitlines()) == max_windows * WINDOW
    model = run(path)
    assert model.windows[0][0] == max_windows * WINDOW, "nothing is computed twice"
    assert path.read_bytes() == whole


@pytest.mark.parametrize("kept", [0, 1, 30, 200, 333, -1, -30])
def test_a_truncated_file_is_completed(tmp_path, whole, kept):
    path = tmp_path / "out.jsonl"
    run(path)
    path.write_bytes(whole[:kept])
    run(path)
    assert path.read_bytes() == whole


def test_a_finished_job_does_nothing(tmp_path, whole):
    path = tmp_path / "out.jsonl"
    run(path)
    assert run(path).windows == []
    assert path.read_bytes() == whole


def test_lines_of_two_jobs_are_not_mixed(tmp_path):
    path = tmp_path / "out.jsonl"
    run(path)
    before = path.read_bytes()
    with pytest.raises(
        ConfigError, match=r"decoding was \{'num_beams': 2\}, is \{'num_beams': 4\}"
    ):
        run(path, job={**JOB, "decoding": {"num_beams": 4}})
    assert path.read_bytes() == before
    run(path, job={**JOB, "steps": [4]}, overwrite=True)
    assert json.loads((tmp_path / "out.jsonl.job.json").read_text())["steps"] == [4]


def test_another_input_is_refused(tmp_path):
    path = tmp_path / "out.jsonl"
    run(path)
    changed = list(rows())
    changed[6] = Row({**changed[6], "input": "another"}, "line 7")
    with pytest.raises(DataError, match="line 7 does not match line 7"):
        run(path, given=iter(changed))
    with pytest.raises(DataError, match="more lines than the input has rows"):
        run(path, given=rows(5))


def test_a_job_of_version_0_1_is_resumed(tmp_path, whole):
    path = tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run(path, UpperCaseModel(1))
    (tmp_path / "out.jsonl.job.json").write_text(
        '{"act": "test", "decoding": {"num_beams": 2}, "steps": [3]}\n'
    )
    with pytest.raises(ConfigError, match="command was 'test', is 'score'"):
        run(path, job={**JOB, "command": "score"})
    run(path)
    assert path.read_bytes() == whole


def test_an_input_that_has_grown_is_resumed(tmp_path):
    path = tmp_path / "out.jsonl"
    run(path, given=rows(8))
    assert run(path).windows == [[8, 9, 10]]


def test_files_of_no_job_are_left_alone(tmp_path):
    (tmp_path / "thesis.jsonl").write_text("years of work\n")
    with pytest.raises(ConfigError, match="no job's output"):
        run(tmp_path / "thesis.jsonl")
    assert (tmp_path / "thesis.jsonl").read_text() == "years of work\n"
    with pytest.raises(ConfigError, match="there is no folder"):
        run(tmp_path / "none" / "out.jsonl")
    with pytest.raises(ConfigError, match=r"'s3://bucket/out.jsonl': s3:// is not written"):
        OutputFile("s3://bucket/out.jsonl", JOB, frozenset())


def test_shards_are_all_rows_each_once(tmp_path):
    numbers = []
    for part in range(3):
        path = tmp_path / f"{part}.jsonl"
        with pytest.raises(KeyboardInterrupt):
            run(path, UpperCaseModel(0), shard=(part, 3))
        model = run(path, shard=(part, 3))
        assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == [
            number for window in model.windows for number in window
        ]
        numbers += [number for window in model.windows for number in window]
    assert sorted(numbers) == list(range(11))
    assert shard_path("a/out.jsonl", (1, 3)) == "a/out-00001-of-00003.jsonl"


@pytest.mark.parametrize("text", ["3/3", "1", "-1/2", "a/b", "0/0"])
def test_invalid_shards_are_refused(text):
    with pytest.raises(ConfigError, match="I/N"):
        parse_shard(text)


def test_no_more_than_a_window_is_read_ahead(tmp_path):
    read = []

    def counted():
        for row in rows(1000):
            read.append(row)
            yield row

    class Watching(UpperCaseModel):
        def __call__(self, given, numbers):
            # One row is read to know whether the input goes on.
            assert len(read) <= numbers[-1] + 2
            return super().__call__(given, numbers)

    run(tmp_path / "out.jsonl", Watching(), given=counted())
    assert len(read) == 1000


def test_half_a_surrogate_pair_survives():
    record = {"input": "fine", "other": "\ud800", "word": "häh"}
    assert json.loads(json_line(record)) == record
    assert "ä".encode() in json_line({"word": "ä"})
