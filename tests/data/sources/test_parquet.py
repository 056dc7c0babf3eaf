"""Parquet files: which columns are read, and what becomes of every type of column."""

import datetime
import decimal
import json
import uuid

import pyarrow
import pyarrow.parquet
import pytest

from t5jax.data.config import DataConfig
from t5jax.data.records import BadRecord
from t5jax.data.registry import add_task, find_task, names
from t5jax.data.registry.texts import TaskDocuments
from t5jax.data.sources import Parquet
from t5jax.data.tasks.task import ExampleTask
from t5jax.data.vocabularies import ByteVocabulary
from t5jax.errors import DataError

NANOSECONDS = 1_577_836_800_000_000_001  # 2020-01-01 00:00:00.000000001


def write(path, **columns):
    pyarrow.parquet.write_table(pyarrow.table(columns), path, write_page_checksum=True)
    return str(path)


def records_of(source):
    return [r for shard in source.shards("train") for r in source.records("train", shard)]


def data_config(path, **settings):
    settings = {"vocabulary": ByteVocabulary(extra_ids=29), "cache_dir": None} | settings
    return DataConfig(**{"mixture": "parquet:span_corruption", "train_files": (path,)} | settings)


def test_plain_text_reads_its_column_alone(tmp_path):
    """A page of the other column is damaged, which nobody sees who does not read it."""
    mark = b"a page of the other column"
    path = write(tmp_path / "a.parquet", text=["one", "two"], other=[mark, mark])
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    content[content.index(mark)] ^= 1
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(DataError, match="unreadable parquet"):
        records_of(Parquet(train_files=(path,)))
    documents = TaskDocuments("parquet:span_corruption", data_config(path))
    assert list(documents.documents("train", path)) == [{"text": "one"}, {"text": "two"}]
    settings = documents.identity()["source"]
    assert settings["columns"] == []  # a store of before is the same store


def test_a_text_column_of_another_name(tmp_path):
    path = write(tmp_path / "a.parquet", body=["one"], text=[1])
    data = data_config(path, text_column="body")
    documents = TaskDocuments("parquet:span_corruption", data)
    assert list(documents.documents("train", path)) == [{"text": "one"}]
    absent = TaskDocuments("parquet:span_corruption", data_config(path, text_column="page"))
    with pytest.raises(DataError, match=r"a\.parquet: no column 'page'; there are \['body', 'te"):
        list(absent.documents("train", path))


def test_a_task_states_the_columns_that_it_reads(tmp_path, monkeypatch):
    monkeypatch.setattr(names, "_own", {})
    path = write(tmp_path / "a.parquet", q=["what"], a=["that"], vector=[[0.5] * 4])
    seen = []

    def examples(row):
        seen.append(sorted(row))
        yield {"inputs": row["q"], "targets": row["a"]}

    for name, columns in (("some", ("q", "a")), ("all", ())):
        source = lambda data: Parquet(train_files=(path,))
        add_task(
            ExampleTask(
                name=name, description="", source=source, examples=examples, columns=columns
            )
        )
        data = data_config(path, mixture=name, train_files=())
        assert find_task(name, data).columns == columns
        assert list(TaskDocuments(name, data).documents("train", path)) == [
            {"inputs": "what", "targets": "that"}
        ]
    assert seen == [["a", "q"], ["a", "q", "vector"]]


TIMES = pyarrow.array([NANOSECONDS, None, NANOSECONDS - 1], pyarrow.int64())
COLUMNS = {
    "timestamp[ns]": (
        TIMES.cast(pyarrow.timestamp("ns")),
        ["2020-01-01 00:00:00.000000001", None, "2020-01-01 00:00:00"],
    ),
    "timestamp[ns, UTC]": (
        TIMES.cast(pyarrow.timestamp("ns", "UTC")),
        ["2020-01-01 00:00:00.000000001+00:00", None, "2020-01-01 00:00:00+00:00"],
    ),
    "timestamp[us]": (
        pyarrow.array([datetime.datetime(1969, 12, 31, 23, 59, 59, 5), None]),
        ["1969-12-31 23:59:59.000005", None],
    ),
    "before 1970": (
        pyarrow.array([-1], pyarrow.int64()).cast(pyarrow.timestamp("ns")),
        ["1969-12-31 23:59:59.999999999"],
    ),
    "time64[ns]": (
        pyarrow.array([3_000_000_007], pyarrow.int64()).cast(pyarrow.time64("ns")),
        ["00:00:03.000000007"],
    ),
    "duration[ns]": (
        pyarrow.array([90_000_000_000_000, 1_000_000_012], pyarrow.duration("ns")),
        ["1 day, 1:00:00", "0:00:01.000000012"],
    ),
    "date": (pyarrow.array([datetime.date(1999, 12, 31)]), ["1999-12-31"]),
    "decimal128": (pyarrow.array([decimal.Decimal("1.50"), None]), ["1.50", None]),
    "decimal256": (
        pyarrow.array([decimal.Decimal(10) ** 45], pyarrow.decimal256(50, 0)),
        ["1" + "0" * 45],
    ),
    "null": (pyarrow.nulls(2), [None, None]),
    "dictionary": (pyarrow.array(["p", "q", None, "p"]).dictionary_encode(), ["p", "q", None, "p"]),
    "dictionary of decimals": (
        pyarrow.array([decimal.Decimal("2.5")]).dictionary_encode(),
        ["2.5"],
    ),
    "large_string": (pyarrow.array(["é", None], pyarrow.large_string()), ["é", None]),
    "binary": (pyarrow.array([b"\xff\x00"], pyarrow.binary()), [b"\xff\x00"]),
    "fixed_size_binary": (pyarrow.array([b"abc"], pyarrow.binary(3)), [b"abc"]),
    "float16": (pyarrow.array([1.5, None], pyarrow.float16()), [1.5, None]),
    "uint64": (pyarrow.array([2**63 + 1], pyarrow.uint64()), [2**63 + 1]),
    "list of dates": (
        pyarrow.array([[datetime.date(2020, 1, 2), None], [], None]),
        [["2020-01-02", None], [], None],
    ),
    "struct of times and decimals": (
        pyarrow.array([{"at": datetime.datetime(2020, 1, 2, 3), "price": decimal.Decimal("0.1")}]),
        [{"at": "2020-01-02 03:00:00", "price": "0.1"}],
    ),
    "list of whole timestamps[ns]": (
        pyarrow.array([[NANOSECONDS - 1]], pyarrow.list_(pyarrow.timestamp("ns"))),
        [["2020-01-01 00:00:00"]],
    ),
    "map": (
        pyarrow.array([[("a", 1), ("b", 2)]], pyarrow.map_(pyarrow.string(), pyarrow.int8())),
        [[["a", 1], ["b", 2]]],
    ),
    "uuid": (
        pyarrow.array([uuid.UUID(int=5).bytes], pyarrow.uuid()),
        ["00000000-0000-0000-0000-000000000005"],
    ),
    "fixed-size list": (
        pyarrow.array([[0.5, 0.25]], pyarrow.list_(pyarrow.float32(), 2)),
        [[0.5, 0.25]],
    ),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_every_type_becomes_plain_values(tmp_path, name):
    column, expected = COLUMNS[name]
    path = write(tmp_path / "a.parquet", value=column)
    values = [row["value"] for row in records_of(Parquet(train_files=(path,)))]
    assert values == expected
    assert [type(value) for value in values] == [type(value) for value in expected]
    if not isinstance(values[0], bytes):
        json.dumps(values)


def test_a_value_that_cannot_be_had_is_named_with_column_and_type(tmp_path):
    nested = pyarrow.array(
        [[NANOSECONDS], [NANOSECONDS - 1]], pyarrow.list_(pyarrow.timestamp("ns"))
    )
    path = write(tmp_path / "a.parquet", text=["one", "two"], seen=nested)
    bad, good = records_of(Parquet(train_files=(path,)))
    assert isinstance(bad, BadRecord)
    assert bad.place == f"{path}, row 0"
    assert bad.reason.startswith("column 'seen' of type list<element: timestamp[ns]>: a value can")
    assert good == {"text": "two", "seen": ["2020-01-01 00:00:00"]}
    assert records_of(Parquet(train_files=(path,), columns=("text",)))[0] == {"text": "one"}


def test_a_year_that_python_does_not_have(tmp_path):
    seconds = pyarrow.array([400_000_000_000, 0], pyarrow.int64()).cast(pyarrow.timestamp("s"))
    bad, good = records_of(Parquet(train_files=(write(tmp_path / "a.parquet", at=seconds),)))
    assert isinstance(bad, BadRecord)
    assert "column 'at' of type timestamp[" in bad.reason
    assert good == {"at": "1970-01-01 00:00:00"}


def test_two_columns_of_one_name(tmp_path):
    table = pyarrow.table([pyarrow.array([1]), pyarrow.array([2]), pyarrow.array(["x"])],
                          names=["n", "n", "text"])  # fmt: skip
    path = str(tmp_path / "a.parquet")
    pyarrow.parquet.write_table(table, path)
    with pytest.raises(DataError, match="two columns are named 'n'"):
        records_of(Parquet(train_files=(path,)))
    assert records_of(Parquet(train_files=(path,), columns=("text",))) == [{"text": "x"}]
