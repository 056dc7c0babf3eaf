"""Each format against another reader or writer of it, and on genuine files."""

import csv
import datetime
import decimal
import gzip
import io
import json
import struct

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from t5jax.data.records import BadRecord
from t5jax.data.sources import ArrayRecord, JsonLines, Parquet, TextFiles, TfRecord, Tsv
from t5jax.data.sources.crc32c import crc32c, masked_crc32c


def rows_of(source, split="train") -> list[dict]:
    rows = [row for shard in source.shards(split) for row in source.records(split, shard)]
    assert not [row for row in rows if isinstance(row, BadRecord)]
    return rows


def test_text_files_by_blank_lines_whole_or_by_line(tmp_path):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"\xef\xbb\xbfone\r\ntwo\r\n\r\n \n\nthree"))

    def texts(document):
        return [
            (row["text"], row.place.rpartition(" ")[2])
            for row in rows_of(TextFiles(train_files=(str(path),), document=document))
        ]

    assert texts("blank lines") == [("one\ntwo", "1"), ("three", "6")]
    assert texts("file") == [("one\ntwo\n\n \n\nthree", "1")]
    assert texts("line") == [("one", "1"), ("two", "2"), ("three", "6")]


def test_tsv_keeps_quotes_and_needs_no_header(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_bytes('id\ttext\n1\tsays "so\n2\t"stray" \x85 \u2028 é\n'.encode())
    assert rows_of(Tsv(train_files=(str(path),))) == [
        {"id": "1", "text": 'says "so'},
        {"id": "2", "text": '"stray" \x85 \u2028 é'},
    ]
    named = rows_of(Tsv(train_files=(str(path),), columns=("n", "body")))
    assert named[0] == {"n": "id", "body": "text"}
    assert [row.place[-6:] for row in named] == ["line 1", "line 2", "line 3"]


def test_csv_equals_the_csv_module(tmp_path):
    rng = np.random.default_rng(3)
    cells = np.array(["plain", 'a "quote"', "two\nlines", "a, comma", "", "é", "x" * 200_000])
    table = [[str(cell) for cell in rng.choice(cells, 3)] for _ in range(60)]
    out = io.StringIO()
    csv.writer(out).writerows([["a", "b", "c"], *table])
    path = tmp_path / "a.csv"
    path.write_bytes(out.getvalue().encode())
    rows = rows_of(Tsv(train_files=(str(path),), delimiter=",", quoting=True))
    assert [list(row.values()) for row in rows] == table
    first_lines = np.cumsum([2, *(1 + sum(c.count("\n") for c in row) for row in table)])[:-1]
    assert [int(row.place.rpartition(" ")[2]) for row in rows] == first_lines.tolist()


def test_parquet_columns_become_plain_values(tmp_path):
    path = str(tmp_path / "a.parquet")
    table = pyarrow.table(
        {
            "text": ["a", "é", None],
            "n": [1, 2, 3],
            "raw": [b"\xff", b"", None],
            "answers": [{"text": ["x"], "start": [4]}, None, {"text": [], "start": []}],
            "when": [datetime.date(2020, 1, 2), None, datetime.date(1999, 12, 31)],
            "price": [decimal.Decimal("1.50"), decimal.Decimal("2.25"), None],
            "kind": pyarrow.array(["p", "q", "p"]).dictionary_encode(),
        }
    )
    pyarrow.parquet.write_table(table, path, row_group_size=2)
    rows = rows_of(Parquet(train_files=(path,)))
    assert rows[0] == {
        "text": "a",
        "n": 1,
        "raw": b"\xff",
        "answers": {"text": ["x"], "start": [4]},
        "when": "2020-01-02",
        "price": "1.50",
        "kind": "p",
    }
    assert rows[2]["when"] == "1999-12-31"
    assert rows[2]["price"] is None
    chosen = rows_of(Parquet(train_files=(path,), columns=("n", "text")))
    assert chosen == [{"n": 1, "text": "a"}, {"n": 2, "text": "é"}, {"n": 3, "text": None}]
    assert [row.place for row in chosen] == [f"{path}, row {i}" for i in range(3)]


def bitwise_crc32c(data: bytes) -> int:
    """The definition, one bit at a time."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_crc32c_is_the_published_checksum():
    assert crc32c(b"123456789") == 0xE3069283  # RFC 3720, B.4 and the test vectors there
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    rng = np.random.default_rng(0)
    for size in (0, 1, 3, 31, 32, 33, 1023, 1024, 1025, 2047, 5001):
        data = rng.integers(0, 256, size, dtype=np.uint8).tobytes()
        assert crc32c(data) == bitwise_crc32c(data), size
    data = rng.integers(0, 256, 70_001, dtype=np.uint8).tobytes()  # more than are done at once
    assert crc32c(data) == bitwise_crc32c(data)


@pytest.fixture(scope="module")
def written_by_tensorflow(tmp_path_factory):
    """A TFRecord file by TensorFlow's own writer, with what was put into it."""
    from t5jax.data.tensorflow_import import import_tensorflow

    tf = import_tensorflow()
    rng = np.random.default_rng(5)
    examples = []
    for i in range(37):
        examples.append(
            {
                "text": [f"text {i} é".encode() * int(rng.integers(1, 400))],
                "raw": [rng.integers(0, 256, i, dtype=np.uint8).tobytes()],
                "ids": rng.integers(-(2**63), 2**63 - 1, i % 4).tolist(),
                "label": [int(i) - 7],
                "scores": rng.normal(size=i % 3).astype(np.float32).tolist(),
            }
        )
    path = str(tmp_path_factory.mktemp("tf") / "a.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        for example in examples:
            feature = {}
            for name, values in example.items():
                if name in ("text", "raw"):
                    kind = {"bytes_list": tf.train.BytesList(value=values)}
                elif name == "scores":
                    kind = {"float_list": tf.train.FloatList(value=values)}
                else:
                    kind = {"int64_list": tf.train.Int64List(value=values)}
                feature[name] = tf.train.Feature(**kind)
            features = tf.train.Features(feature=feature)
            writer.write(tf.train.Example(features=features).SerializeToString())
    return path, examples


def test_tfrecord_equals_what_tensorflow_wrote(written_by_tensorflow):
    path, examples = written_by_tensorflow
    source = TfRecord(train_files=(path,), lists=("ids", "scores", "text"), bytes_columns=("raw",))
    rows = rows_of(source)
    assert len(rows) == len(examples) == 37
    for i, (row, example) in enumerate(zip(rows, examples, strict=True)):
        assert row.place == f"{path}, record {i}"
        assert row["text"] == [value.decode() for value in example["text"]]
        assert row["raw"] == example["raw"][0]
        assert row["label"] == i - 7
        assert (row["ids"], row["scores"]) == (example["ids"], example["scores"])
    plain = rows_of(TfRecord(train_files=(path,), bytes_columns=("raw",)))
    assert [type(row["ids"]) for row in plain[:4]] == [list, int, list, list]
    assert isinstance(plain[5]["text"], str)


def test_unpacked_numbers_are_read_too(tmp_path):
    def field(number, content):
        return bytes([number << 3 | 2, len(content)]) + content

    floats = field(2, b"\x0d" + struct.pack("<f", 1.5) + b"\x0d" + struct.pack("<f", -2.0))
    integers = field(3, b"\x08\x07\x08" + b"\xff" * 9 + b"\x01")  # 7 and -1
    entries = [field(1, b"f") + field(2, floats), field(1, b"i") + field(2, integers)]
    data = field(1, b"".join(field(1, entry) for entry in entries))
    size = struct.pack("<Q", len(data))
    path = tmp_path / "a"
    path.write_bytes(
        size
        + struct.pack("<I", masked_crc32c(size))
        + data
        + struct.pack("<I", masked_crc32c(data))
    )
    assert rows_of(TfRecord(train_files=(str(path),))) == [{"f": [1.5, -2.0], "i": [7, -1]}]


def test_array_records_of_each_content(tmp_path, written_by_tensorflow):
    from array_record.python.array_record_module import ArrayRecordWriter

    from t5jax.data.sources.tfrecord import framed_records

    objects = [{"text": f"é {i}", "n": i} for i in range(700)]
    contents = {
        "json": [json.dumps(o).encode() for o in objects],
        "text": [o["text"].encode() for o in objects],
        "example": [data for _, data in framed_records(written_by_tensorflow[0], 1 << 20)],
    }
    for content, records in contents.items():
        for options in ("group_size:1", "group_size:13,zstd:5"):
            path = str(tmp_path / content)
            writer = ArrayRecordWriter(path, options)
            for record in records:
                writer.write(record)
            writer.close()
            bytes_columns = ("raw",) if content == "example" else ()
            source = ArrayRecord(train_files=(path,), content=content, bytes_columns=bytes_columns)
            rows = rows_of(source)
            assert [row.place for row in rows] == [
                f"{path}, record {i}" for i in range(len(records))
            ]
            if content == "example":
                expected = TfRecord(
                    train_files=(written_by_tensorflow[0],), bytes_columns=bytes_columns
                )
                assert rows == rows_of(expected)
            else:
                assert rows == [o if content == "json" else {"text": o["text"]} for o in objects]


# ---- genuine files -------------------------------------------------------------------------------


def test_allenai_c4_lines_are_the_published_rows(real_data):
    folder = real_data / "text" / "c4" / "en"
    source = JsonLines(
        train_files=(f"{folder}/c4-train.*.json.gz",),
        validation_files=(f"{folder}/c4-validation.*.json.gz",),
    )
    rows = rows_of(source)
    assert (len(rows), len(rows_of(source, "validation"))) == (904, 899)
    assert sorted(rows[0]) == ["text", "timestamp", "url"]
    with gzip.open(source.shards("train")[1], "rt", encoding="utf-8") as file:
        assert rows[226:452] == [json.loads(line) for line in file]


def test_a_genuine_tfds_file_reads_as_tensorflow_reads_it(real_data):
    from t5jax.data.tensorflow_import import import_tensorflow

    tf = import_tensorflow()
    path = str(next((real_data / "text" / "c4_tfds").iterdir()))
    rows = rows_of(TfRecord(train_files=(path,)))
    theirs = [
        tf.train.Example.FromString(data).features.feature["text"].bytes_list.value[0].decode()
        for data in tf.data.TFRecordDataset(path).as_numpy_iterator()
    ]
    assert [row["text"] for row in rows] == theirs
    assert len(theirs) == 125


@pytest.mark.parametrize(
    ("name", "columns", "rows", "first"),
    [
        ("CoLA/train", ("source", "label", "mark", "sentence"), 8102, {"label": "1"}),
        ("MRPC/train", (), None, {"Quality": "1"}),
        ("SST-2/train", (), 63878, {}),
    ],
)
def test_glue_tables_are_read_whole(real_data, name, columns, rows, first):
    path = str(real_data / "glue" / f"{name}.tsv.gz")
    found = rows_of(Tsv(train_files=(path,), columns=columns))
    with gzip.open(path, "rb") as file:
        lines = file.read().count(b"\n")
    assert len(found) == (rows or lines - 1)
    assert first.items() <= found[0].items()
