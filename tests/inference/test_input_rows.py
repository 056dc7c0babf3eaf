"""Rows of inputs: formats, places, and what is refused."""

import gzip
import io
import json
import sys

import pytest

from t5jax.data.sources.zstd import library
from t5jax.errors import ConfigError, DataError
from t5jax.inference.input_rows import InputFiles, check_column_names, scan_rows

ROWS = [{"id": 7, "input": "one", "more": [1, None]}, {"id": 8, "input": "", "more": {}}]


def write(path, text: str):
    data = text.encode()
    if path.suffix == ".gz":
        data = gzip.compress(data)
    if path.suffix == ".zst":
        data = library.compress(data)
    path.write_bytes(data)
    return str(path)


def read(*paths, columns=("input",), **settings) -> list[dict]:
    return [dict(row) for row in InputFiles(paths=paths, columns=columns, **settings).rows()]


@pytest.mark.parametrize("name", ["a.txt", "a.de", "a.txt.gz", "a.zst"])
def test_every_line_of_a_text_file_is_a_row(tmp_path, name):
    path = write(tmp_path / name, "first \n\n\tthird\n")
    assert read(path) == [{"input": "first "}, {"input": ""}, {"input": "\tthird"}]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json.gz", "a.jsonl.zst"])
def test_json_lines_keep_their_columns(tmp_path, name):
    path = write(tmp_path / name, "".join(json.dumps(row) + "\n" for row in ROWS))
    assert read(path) == ROWS


def test_tables(tmp_path):
    path = write(tmp_path / "a.tsv", 'input\ttarget\na "b"\tc\n')
    assert read(path, columns=("input", "target")) == [{"input": 'a "b"', "target": "c"}]
    path = write(tmp_path / "b.tsv", "x\ty\n")
    assert read(path, header=("input", "label")) == [{"input": "x", "label": "y"}]
    path = write(tmp_path / "c.csv", 'input,n\n"a, b",2\n')
    assert read(path) == [{"input": "a, b", "n": "2"}]


def test_files_follow_one_another_and_patterns_are_sorted(tmp_path):
    for name in ("b.txt", "a.txt", "c.jsonl"):
        write(tmp_path / name, '{"input": "c"}\n' if name == "c.jsonl" else name[0] + "\n")
    found = read(str(tmp_path / "c.jsonl"), str(tmp_path / "*.txt"))
    assert [row["input"] for row in found] == ["c", "a", "b"]


@pytest.mark.parametrize("compress", [lambda x: x, gzip.compress])
def test_standard_input(monkeypatch, compress):
    given = io.TextIOWrapper(io.BufferedReader(io.BytesIO(compress(b"one\ntwo\n"))))
    monkeypatch.setattr(sys, "stdin", given)
    inputs = InputFiles(paths=("-",), columns=("input",))
    assert inputs.from_stdin
    assert [(row["input"], row.place) for row in inputs.rows()] == [
        ("one", "standard input, line 1"),
        ("two", "standard input, line 2"),
    ]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.jsonl", '{"input": "x"}\n{"text": "y"}\n', "line 2: no column 'input'; there are text"),
        ("a.jsonl", '{"input": 3}\n', "line 1: column 'input' is int, not a string"),
        ("a.jsonl", '{"input": "x"}\nnonsense\n', "line 2: not valid JSON"),
        ("a.tsv", "input\ttarget\nx\n", "line 2: 1 fields where the columns are 2"),
        ("a.txt", "", "holds no records"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(tmp_path, name, text, said):
    path = write(tmp_path / name, text)
    with pytest.raises(DataError, match=said):
        read(path)


def test_a_text_that_is_not_utf_8(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"fine\n\xff\n")
    with pytest.raises(DataError, match=r"a\.txt, line 2: not valid UTF-8"):
        read(str(tmp_path / "a.txt"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"paths": ("a.txt",), "columns": ("input", "target")}, "a line of text is one column"),
        ({"paths": ("-", "a.txt"), "columns": ("x",)}, "no other --input"),
        ({"paths": ("a.parquet",), "columns": ("x",)}, "no file of lines"),
        ({"paths": ("a.tsv",), "columns": ("x", "x")}, "two different names"),
        ({"paths": ("a.txt",), "columns": ("x",), "header": ("x",)}, "is text"),
        ({"paths": ("a.txt",), "columns": ("x",), "format": "xml"}, "--format xml: one of text"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_unread(settings, said):
    with pytest.raises(ConfigError, match=said):
        InputFiles(**settings)


def test_scanning_counts_and_checksums_rows(tmp_path):
    inputs = InputFiles(paths=(write(tmp_path / "a.txt", "a\nb\n"),), columns=("input",))
    other = InputFiles(paths=(write(tmp_path / "b.txt", "a\nc\n"),), columns=("input",))
    one, two = (scan_rows(x.rows(), frozenset()) for x in (inputs, other))
    assert one.num_rows == two.num_rows == 2
    assert one.checksum != two.checksum


def test_a_column_with_the_name_of_a_result_is_refused(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"input": "x", "score": 1, "step": 2}\n')
    rows = InputFiles(paths=(path,), columns=("input",)).rows()
    with pytest.raises(DataError, match="line 1: the names score, step are those of results"):
        list(check_column_names(rows, frozenset(("score", "step", "output"))))
