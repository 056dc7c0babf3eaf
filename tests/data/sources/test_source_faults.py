"""Every fault of the input is refused with its place, or left out and counted: never silent."""

import dataclasses
import gzip
import json
import pathlib
import struct
import tempfile
from collections.abc import Callable
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from t5jax.data.records import BadRecordPolicy, DamagedFile, Rejected, Row
from t5jax.data.sources import ArrayRecord, JsonLines, Parquet, TextFiles, TfRecord, Tsv
from t5jax.data.sources.crc32c import masked_crc32c
from t5jax.data.sources.zstd import library
from t5jax.errors import DataError

TEXTS = [f"text {i}, which squared is {i * i}: " + "äx"[i % 2] * (7 * i % 53) for i in range(900)]


def json_lines(texts=TEXTS) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


def example(text: bytes) -> bytes:
    """A tf.train.Example with one feature, spelled out by hand."""

    def message(number: int, content: bytes) -> bytes:
        assert len(content) < 1 << 14
        size = (
            [len(content)] if len(content) < 128 else [len(content) & 127 | 128, len(content) >> 7]
        )
        return bytes([number << 3 | 2, *size]) + content

    entry = message(1, b"text") + message(2, message(1, message(1, text)))
    return message(1, message(1, entry))


def tfrecord(texts=TEXTS) -> bytes:
    content = b""
    for text in texts:
        data = example(text if isinstance(text, bytes) else text.encode())
        size = struct.pack("<Q", len(data))
        content += size + struct.pack("<I", masked_crc32c(size))
        content += data + struct.pack("<I", masked_crc32c(data))
    return content


def array_record(texts=TEXTS, options="group_size:1") -> bytes:
    from array_record.python.array_record_module import ArrayRecordWriter

    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/a"
        writer = ArrayRecordWriter(path, options)
        for text in texts:
            writer.write(text if isinstance(text, bytes) else text.encode())
        writer.close()
        return pathlib.Path(path).read_bytes()


def parquet(table: dict[str, Any]) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(
        pyarrow.table(table), sink, write_page_checksum=True, data_page_size=4096
    )
    return sink.getvalue().to_pybytes()


def zstd(content: bytes) -> bytes:
    return library.compress(content, options={library.CompressionParameter.checksum_flag: 1})


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :]


def with_line(content: bytes, number: int, line: bytes) -> bytes:
    lines = content.split(b"\n")
    return b"\n".join([*lines[: number - 1], line, *lines[number:]])


def rows_of(source, policy: str) -> tuple[list[Row], Rejected]:
    rejected = Rejected()
    accept = BadRecordPolicy(policy=policy, max_fraction=0.01).accept
    rows = [
        row
        for shard in source.shards("train")
        for row in accept(source.records("train", shard), rejected)
    ]
    return rows, rejected


@dataclasses.dataclass(frozen=True)
class Fault:
    name: str  # of the file
    content: Callable[[], bytes]
    message: str
    source: Callable[..., Any] = JsonLines
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    expected: list[str] = dataclasses.field(default_factory=lambda: TEXTS)

    def write(self, folder: pathlib.Path):
        (folder / self.name).write_bytes(self.content())
        return self.source(train_files=(str(folder / self.name),), **self.options)


ALL_BUT_7 = TEXTS[:6] + TEXTS[7:]  # without line 7, record 6
FRAME_6 = len(tfrecord(TEXTS[:6]))
TSV = "text\tn\n" + "".join(f"{text}\t{i}\n" for i, text in enumerate(TEXTS))
CSV = "text,n\n" + "".join(f'"{text}",{i}\n' for i, text in enumerate(TEXTS))
LONG = b'{"text": "' + b"y" * 5000 + b'"}'

BAD_RECORDS = {
    "not UTF-8": Fault(
        "a.json", lambda: with_line(json_lines(), 7, b'{"text": "caf\xe9"}'),
        r"a\.json, line 7: not valid UTF-8 \(byte 14 of the line", expected=ALL_BUT_7,
    ),
    "not UTF-8, gzip": Fault(
        "a.json.gz", lambda: gzip.compress(with_line(json_lines(), 7, b'{"text": "\xff"}')),
        r"a\.json\.gz, line 7: not valid UTF-8", expected=ALL_BUT_7,
    ),
    "not JSON": Fault(
        "a.json", lambda: with_line(json_lines(), 7, b'{"text": "cut o'),
        r"a\.json, line 7: not valid JSON", expected=ALL_BUT_7,
    ),
    "nested too deep": Fault(
        "a.json", lambda: with_line(json_lines(), 7, b"[" * 200_000),
        r"a\.json, line 7: not valid JSON", expected=ALL_BUT_7,
    ),
    "empty line": Fault(
        "a.json", lambda: with_line(json_lines(), 7, b""),
        r"a\.json, line 7: not valid JSON", expected=ALL_BUT_7,
    ),
    "no object": Fault(
        "a.json", lambda: with_line(json_lines(), 7, b'["text"]'),
        r"a\.json, line 7: one JSON object a line is expected", expected=ALL_BUT_7,
    ),
    "over-long line": Fault(
        "a.json", lambda: with_line(json_lines(), 7, LONG),
        r"a\.json, line 7: longer than max_record_bytes = 4,096",
        options={"max_record_bytes": 4096}, expected=ALL_BUT_7,
    ),
    "over-long document": Fault(
        "a.txt", lambda: with_line(json_lines(), 7, b"y" * 900).replace(b"\n", b"\n\n"),
        r"a\.txt, line 13: longer than max_record_bytes = 600", TextFiles,
        {"max_record_bytes": 600}, [json.dumps({"text": text}) for text in ALL_BUT_7],
    ),
    "document of many lines": Fault(
        "a.txt", lambda: b"\n\n".join(b"short" if i != 6 else b"z\n" * 90 for i in range(900)),
        r"a\.txt, line 13: document longer than max_record_bytes = 150", TextFiles,
        {"max_record_bytes": 150}, ["short"] * 899,
    ),
    "document not UTF-8": Fault(
        "a.txt", lambda: b"\n\n".join(b"one\ntwo" if i != 6 else b"a\n\xc3\nc" for i in range(900)),
        r"a\.txt, line 20: not valid UTF-8", TextFiles, {}, ["one\ntwo"] * 899,
    ),
    "too few columns": Fault(
        "a.tsv", lambda: with_line(TSV.encode(), 8, b"only one"),
        r"a\.tsv, line 8: 1 fields where the columns are 2", Tsv, {}, ALL_BUT_7,
    ),
    "too many columns": Fault(
        "a.tsv", lambda: with_line(TSV.encode(), 8, b"a\tb\tc"),
        r"a\.tsv, line 8: 3 fields where the columns are 2", Tsv, {}, ALL_BUT_7,
    ),
    "CSV row with a stray quote": Fault(
        "a.csv", lambda: with_line(CSV.encode(), 8, b'"a"b,6'),
        r"a\.csv, line 8: not valid CSV", Tsv, {"delimiter": ",", "quoting": True}, ALL_BUT_7,
    ),
    "CSV not UTF-8 within a row": Fault(
        "a.csv", lambda: with_line(CSV.encode(), 8, b'"a\nb\xff\nc",6'),
        r"a\.csv, line 9: not valid UTF-8", Tsv, {"delimiter": ",", "quoting": True}, ALL_BUT_7,
    ),
    "TFRecord data flipped": Fault(
        "a.tfrecord", lambda: flipped(tfrecord(), FRAME_6 + 30),
        r"a\.tfrecord, record 6: its checksum is wrong", TfRecord, {}, ALL_BUT_7,
    ),
    "TFRecord not UTF-8": Fault(
        "a.tfrecord", lambda: tfrecord([*TEXTS[:6], b"\xff", *TEXTS[7:]]),
        r"a\.tfrecord, record 6: a feature is not valid UTF-8", TfRecord, {}, ALL_BUT_7,
    ),
    "TFRecord too long": Fault(
        "a.tfrecord", lambda: tfrecord([*TEXTS[:6], b"y" * 5000, *TEXTS[7:]]),
        r"a\.tfrecord, record 6: 5,\d{3} bytes, longer than max_record_bytes = 4,096", TfRecord,
        {"max_record_bytes": 4096}, ALL_BUT_7,
    ),
    "array_record no Example": Fault(
        "a.arrayrecord",
        lambda: array_record(
            [b"\x0f\xff" if i == 6 else example(t.encode()) for i, t in enumerate(TEXTS)]
        ),
        r"a\.arrayrecord, record 6: not a tf\.train\.Example", ArrayRecord, {}, ALL_BUT_7,
    ),
    "array_record not UTF-8": Fault(
        "a.arrayrecord", lambda: array_record([*TEXTS[:6], b"\xff", *TEXTS[7:]]),
        r"a\.arrayrecord, record 6: not valid UTF-8", ArrayRecord, {"content": "text"}, ALL_BUT_7,
    ),
    "parquet not UTF-8": Fault(
        "a.parquet",
        lambda: parquet({"text": pyarrow.array(
            [b"\xff" if i == 6 else t.encode() for i, t in enumerate(TEXTS)]
        ).view(pyarrow.string())}),
        r"a\.parquet, row 6: not valid UTF-8", Parquet, {}, ALL_BUT_7,
    ),
}  # fmt: skip

DAMAGED_FILES = {
    "gzip cut": Fault(
        "a.json.gz", lambda: gzip.compress(json_lines())[:-4000],
        r"a\.json\.gz, after line \d{2,3}: truncated compressed file",
    ),
    "gzip without its checksum": Fault(
        "a.json.gz", lambda: gzip.compress(json_lines())[:-8],
        r"a\.json\.gz, after line \d+: truncated compressed file",
    ),
    "zstd cut": Fault(
        "a.json.zst", lambda: zstd(json_lines(TEXTS[:500])) + zstd(json_lines(TEXTS[500:]))[:-900],
        r"a\.json\.zst, after line \d{3}: truncated compressed file",
    ),
    "zstd cut to its magic": Fault(
        "a.json.zst", lambda: zstd(json_lines(TEXTS[:500])) + zstd(json_lines(TEXTS[500:]))[:4],
        r"a\.json\.zst, after line 500: truncated compressed file",
    ),
    "CSV quote never closed": Fault(
        "a.csv", lambda: with_line(CSV.encode(), 901, b'"never closed,899'),
        r"a\.csv, line 901: a quote is opened here and never closed",
        Tsv, {"delimiter": ",", "quoting": True},
    ),
    "TFRecord length flipped": Fault(
        "a.tfrecord", lambda: flipped(tfrecord(), FRAME_6 + 1),
        r"a\.tfrecord, record 6: the checksum of its length is wrong", TfRecord,
    ),
    "TFRecord cut in data": Fault(
        "a.tfrecord", lambda: tfrecord()[: FRAME_6 + 40],
        r"a\.tfrecord, record 6: the file ends within it", TfRecord,
    ),
    "TFRecord cut in a header": Fault(
        "a.tfrecord", lambda: tfrecord()[: FRAME_6 + 11],
        r"a\.tfrecord, record 6: the file ends within it", TfRecord,
    ),
    "TFRecord cut in a record left out": Fault(
        "a.tfrecord", lambda: tfrecord([*TEXTS[:6], b"y" * 5000])[:-2],
        r"a\.tfrecord, record 6: the file ends within it", TfRecord, {"max_record_bytes": 4096},
    ),
    "TFRecord in gzip, cut": Fault(
        "a.tfrecord.gz", lambda: gzip.compress(tfrecord())[:-3000],
        r"a\.tfrecord\.gz, after record \d+: truncated compressed file", TfRecord,
    ),
    "array_record flipped": Fault(
        "a.arrayrecord", lambda: flipped(array_record(), 40_000),
        r"a\.arrayrecord, after record \d{3}: unreadable: Corrupted", ArrayRecord,
        {"content": "text"},
    ),
    "array_record cut": Fault(
        "a.arrayrecord", lambda: array_record()[:-100],
        r"a\.arrayrecord: cut short, or not an ArrayRecord file", ArrayRecord, {"content": "text"},
    ),
    "parquet cut": Fault(
        "a.parquet", lambda: parquet({"text": TEXTS})[:-40],
        r"a\.parquet, near row 0: unreadable parquet", Parquet,
    ),
    "parquet page flipped": Fault(
        "a.parquet", lambda: flipped(parquet({"text": TEXTS}), 9000),
        r"a\.parquet, near row \d+: unreadable parquet", Parquet,
    ),
}  # fmt: skip

REFUSED = {
    "gzip flipped": Fault(
        "a.json.gz", lambda: flipped(gzip.compress(json_lines()), -3000),
        r"a\.json\.gz, after line \d+: the compressed data is damaged",
    ),
    "gzip with garbage after it": Fault(
        "a.json.gz", lambda: gzip.compress(json_lines()) + b"garbage",
        r"a\.json\.gz, after line 900: the compressed data is damaged",
    ),
    "zstd flipped": Fault(
        "a.json.zst",
        lambda: zstd(json_lines(TEXTS[:500])) + flipped(zstd(json_lines(TEXTS[500:])), -900),
        r"a\.json\.zst, after line \d+: the compressed data is damaged",
    ),
    "zstd with garbage after it": Fault(
        "a.json.zst", lambda: zstd(json_lines()) + b"garbage",
        r"a\.json\.zst, after line 900: the compressed data is damaged",
    ),
    "empty file": Fault("a.json", lambda: b"", r"a\.json: the file holds no records"),
    "gzip of nothing": Fault("a.json.gz", lambda: gzip.compress(b""), "holds no records"),
    "zstd of nothing": Fault("a.json.zst", lambda: zstd(b""), "holds no records"),
    "blank text": Fault("a.txt", lambda: b"\n \n\n", "holds no records", TextFiles),
    "header alone": Fault("a.tsv", lambda: b"text\tn\n", "holds no records", Tsv),
    "header twice the same": Fault("a.tsv", lambda: b"a\ta\n1\t2\n", "a name|one twice", Tsv),
    "header not UTF-8": Fault("a.tsv", lambda: b"a\t\xff\n1\t2\n", "line 1: .*header", Tsv),
    "empty TFRecord": Fault("a.tfrecord", lambda: b"", "holds no records", TfRecord),
    "parquet without rows": Fault(
        "a.parquet", lambda: parquet({"text": pyarrow.array([], pyarrow.string())}),
        r"a\.parquet: the file holds no records", Parquet,
    ),
    "parquet without the column": Fault(
        "a.parquet", lambda: parquet({"body": TEXTS}),
        r"a\.parquet: no column 'text'; there are \['body'\]", Parquet, {"columns": ("text",)},
    ),
    "named .gz": Fault("a.json.gz", json_lines, r"a\.json\.gz: named \.gz but"),
    "named .zst": Fault("a.json.zst", json_lines, r"a\.json\.zst: named \.zst but"),
    "bzip2": Fault("a.json.bz2", lambda: b"BZh9", r"a\.json\.bz2: this compression is not read"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD_RECORDS.values(), ids=BAD_RECORDS)
def test_a_bad_record_is_refused_or_counted(tmp_path, fault):
    source = fault.write(tmp_path)
    with pytest.raises(DataError, match=fault.message):
        rows_of(source, "error")
    rows, rejected = rows_of(source, "skip")
    assert [row["text"] for row in rows] == fault.expected
    assert (rejected.records, rejected.damaged_files) == (1, 0)
    assert rejected.places[0].startswith(f"{tmp_path}/{fault.name}, ")


@pytest.mark.parametrize("fault", DAMAGED_FILES.values(), ids=DAMAGED_FILES)
def test_a_file_that_breaks_off_is_refused_or_counted(tmp_path, fault):
    source = fault.write(tmp_path)
    with pytest.raises(DamagedFile, match=fault.message):
        rows_of(source, "error")
    rows, rejected = rows_of(source, "skip")
    texts = [row["text"] for row in rows]
    assert texts == TEXTS[: len(texts)]
    assert (rejected.records, rejected.damaged_files) == (0, 1)


@pytest.mark.parametrize("policy", ["error", "skip"])
@pytest.mark.parametrize("fault", REFUSED.values(), ids=REFUSED)
def test_damage_that_no_policy_accepts(tmp_path, fault, policy):
    with pytest.raises(DataError, match=fault.message) as raised:
        rows_of(fault.write(tmp_path), policy)
    assert not isinstance(raised.value, DamagedFile)


def test_too_many_bad_records_are_refused_under_skip(tmp_path):
    lines = json_lines().split(b"\n")
    lines[10:30] = [b"no json"] * 20
    path = tmp_path / "a.json"
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(DataError, match=r"20 of 900 records are bad.*a\.json, line 11"):
        rows_of(JsonLines(train_files=(str(path),)), "skip")


@pytest.mark.parametrize(
    ("name", "content", "source"),
    [
        ("a.json.gz", gzip.compress(json_lines(TEXTS[:9])), JsonLines),
        ("a.json.zst", zstd(json_lines(TEXTS[:9])), JsonLines),
        ("a.tfrecord", tfrecord(TEXTS[:5]), TfRecord),
    ],
)
def test_every_bit_flip_and_truncation_is_detected(tmp_path, name, content, source):
    path = tmp_path / name
    path.write_bytes(content)
    files = source(train_files=(str(path),))
    whole = rows_of(files, "error")[0]
    assert len(whole) > 3
    harmless = 0
    for damaged in [
        *(flipped(content, place) for place in range(len(content))),
        *(content[:length] for length in range(len(content))),
    ]:
        path.write_bytes(damaged)
        rows, message = rows_or_message(files)
        if message:
            assert name in message
            continue
        # A TFRecord file that ends between two records is a whole, shorter one.
        assert rows == whole or (source is TfRecord and rows == whole[: len(rows)])
        harmless += 1
    assert harmless <= (len(whole) if source is TfRecord else 16)  # the time in gzip's header


def rows_or_message(source) -> tuple[list[Row], str]:
    try:
        return rows_of(source, "error")[0], ""
    except DataError as error:
        return [], str(error)


def test_missing_and_wrong_columns_are_bad_records_with_their_place(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'{"text": "a"}\n{"body": "b"}\n{"text": null}\n{"text": "\\ud800"}\n')
    source = JsonLines(train_files=(str(path),))
    rows = rows_of(source, "error")[0]
    messages = []
    for row in rows[1:]:
        with pytest.raises(ValueError) as raised:
            row.text("text")
        messages.append(f"{row.place}: {raised.value}")
    assert messages == [
        f"{path}, line 2: no column 'text'; there are body",
        f"{path}, line 3: column 'text' is NoneType, not a string",
        f"{path}, line 4: column 'text' holds half of a surrogate pair",
    ]
