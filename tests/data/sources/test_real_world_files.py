"""Whole files as they are found: none of them is called damaged; what is refused has its reason."""

import bz2
import gzip
import io
import json
import lzma
import math
import struct
import tarfile
import zipfile

import pytest

from t5jax.data.records import BadRecord, DamagedFile
from t5jax.data.sources import JsonLines, Parquet, TextFiles, TfRecord, Tsv
from t5jax.data.sources.zstd import library
from t5jax.errors import ConfigError, DataError

TEXTS = ["one", "zwei Bären", "три", "四 four"]
JSON = "".join(json.dumps({"text": t}, ensure_ascii=False) + "\n" for t in TEXTS)
PLAIN = "\n\n".join(TEXTS) + "\n"
TSV = "text\tn\n" + "".join(f"{t}\t{n}\n" for n, t in enumerate(TEXTS))
CSV = "text,n\n" + "".join(f'"{t}",{n}\n' for n, t in enumerate(TEXTS))
KINDS = {
    "jsonl": (JSON, JsonLines, {}),
    "txt": (PLAIN, TextFiles, {}),
    "lines.txt": ("\n".join(TEXTS) + "\n", TextFiles, {"document": "line"}),
    "tsv": (TSV, Tsv, {}),
    "csv": (CSV, Tsv, {"delimiter": ",", "quoting": True}),
}


def records(tmp_path, name, content, kind, **options):
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(kind(train_files=(str(path),), **options).records("train", str(path)))


def texts(tmp_path, name, content, kind, **options):
    return [row["text"] for row in records(tmp_path, name, content, kind, **options)]


def skippable(size: int, kind: int = 0) -> bytes:
    return bytes([0x50 + kind]) + b"\x2a\x4d\x18" + struct.pack("<I", size) + b"s" * size


def halves(content: bytes) -> tuple[bytes, bytes]:
    return content[: len(content) // 3], content[len(content) // 3 :]


def zstd_members(content: bytes) -> bytes:
    return b"".join(library.compress(part) for part in halves(content))


def pzstd(content: bytes) -> bytes:
    """As pzstd writes: before each frame a skippable one with the frame's size."""
    frames = (library.compress(part) for part in halves(content))
    return b"".join(skippable(4) + frame for frame in frames)


def empty_frames(content: bytes) -> bytes:
    nothing = library.compress(b"")
    frames = (library.compress(part) for part in halves(content))
    return nothing + b"".join(frame + nothing + skippable(0, 15) for frame in frames) + nothing


def empty_members(content: bytes) -> bytes:
    nothing = gzip.compress(b"")
    return nothing + b"".join(gzip.compress(part) + nothing for part in halves(content))


def long_window(content: bytes) -> bytes:
    """As `zstd --ultra --long=31` packs, one raw block."""
    block = (len(content) << 3 | 1).to_bytes(3, "little")
    return b"\x28\xb5\x2f\xfd" + bytes([0, 21 << 3]) + block + content


PACKED = {
    "zstd of two frames": (".zst", zstd_members),
    "pzstd": (".zst", pzstd),
    "frames of nothing": (".zst", empty_frames),
    "window of 2 GB": (".zst", long_window),
    "gzip of two members": (".gz", lambda c: b"".join(map(gzip.compress, halves(c)))),
    "members of nothing": (".gz", empty_members),
    "gzip padded with zeros": (".gz", lambda c: gzip.compress(c) + bytes(512)),
}


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("name", KINDS)
def test_compressed_files_of_every_make_are_read(tmp_path, name, packed):
    content, kind, options = KINDS[name]
    suffix, pack = PACKED[packed]
    data = pack(content.encode())
    assert texts(tmp_path, name + suffix, data, kind, **options) == TEXTS
    assert texts(tmp_path, name, data, kind, **options) == TEXTS  # whatever its name


@pytest.mark.parametrize("packed", [p for p in PACKED if "padded" not in p and "nothing" not in p])
def test_a_file_of_that_make_that_is_cut_is_refused(tmp_path, packed):
    suffix, pack = PACKED[packed]
    whole = pack(JSON.encode())
    for cut in (1, 3, len(whole) // 3):
        with pytest.raises(DamagedFile, match="truncated compressed file"):
            texts(tmp_path, "a.jsonl" + suffix, whole[:-cut], JsonLines)
    with pytest.raises(DamagedFile, match="truncated compressed file"):
        texts(tmp_path, "a.jsonl.zst", pzstd(JSON.encode()) + skippable(9)[:-1], JsonLines)


CHANGES = {
    "byte order mark": lambda text: "\ufeff" + text,
    "line ends of Windows": lambda text: text.replace("\n", "\r\n"),
    "line ends of the old Mac": lambda text: text.replace("\n", "\r"),
    "both ends and a mark": lambda text: "\ufeff" + text.replace("\n", "\r\n"),
    "no end of the last line": lambda text: text.removesuffix("\n"),
    "blank lines at the end": lambda text: text + "\n\n\n",
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", KINDS)
def test_text_files_of_every_make_are_read(tmp_path, name, change):
    content, kind, options = KINDS[name]
    assert texts(tmp_path, name, CHANGES[change](content), kind, **options) == TEXTS


def test_lines_of_the_old_mac_are_counted_and_limited(tmp_path):
    content = f'{{"text": "{"x" * 70_000}"}}\r{{"text": "b"}}\r{{"text": "{"y" * 200_000}"}}\r\r'
    found = records(tmp_path, "a.jsonl", content, JsonLines, max_record_bytes=100_000)
    assert [type(one).__name__ for one in found] == ["Row", "Row", "BadRecord"]
    assert found[1].place.endswith("line 2")
    assert found[2].reason == "longer than max_record_bytes = 100,000"


def test_a_carriage_return_inside_a_line_ends_nothing(tmp_path):
    assert texts(tmp_path, "a.txt", "10%\r20%\ndone\n", TextFiles) == ["10%\r20%\ndone"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", KINDS)
def test_other_encodings_are_refused_by_name(tmp_path, name, encoding):
    content, kind, options = KINDS[name]
    data = content.encode(encoding)
    if encoding.endswith("be"):
        data = b"\xfe\xff" + data
    wanted = f"byte order mark of {encoding[:6].upper()}.*iconv -f {encoding[:6].upper()} -t UTF-8"
    with pytest.raises(DataError, match=wanted):
        records(tmp_path, name, data, kind, **options)


def test_files_joined_with_their_marks(tmp_path):
    joined = "\ufeff" + JSON + "\ufeff" + JSON
    assert texts(tmp_path, "a.jsonl", joined, JsonLines) == TEXTS * 2


def test_blank_lines_by_policy(tmp_path):
    middle = JSON.replace("\n", "\n \n\n", 1)
    found = records(tmp_path, "a.jsonl", middle, JsonLines)
    assert [type(one).__name__ for one in found] == ["Row", *["BadRecord"] * 2, *["Row"] * 3]
    assert found[1].place.endswith("a.jsonl, line 2")
    assert found[2].place.endswith("a.jsonl, line 3")
    assert "a blank line; data.blank_lines = 'skip'" in found[1].reason
    assert texts(tmp_path, "a.jsonl", middle, JsonLines, blank_lines="skip") == TEXTS
    for name in ("tsv", "csv"):
        content, kind, options = KINDS[name]
        gap = content.replace("\n", "\n\n", 2)
        bad = [r for r in records(tmp_path, name, gap, kind, **options) if isinstance(r, BadRecord)]
        assert [one.place.rpartition(" ")[2] for one in bad] == ["2", "4"]
        assert texts(tmp_path, name, gap, kind, **options, blank_lines="skip") == TEXTS
    # One column: a blank line is the empty string.
    assert texts(tmp_path, "one.tsv", "text\na\n\nb\n", Tsv) == ["a", "", "b"]


EMPTY = {
    "a.jsonl": (b"", JsonLines), "b.jsonl": (b"\n\n", JsonLines), "c.jsonl.gz": (b"", JsonLines),
    "d.jsonl.zst": (library.compress(b""), JsonLines), "e.txt": (b" \n", TextFiles),
    "f.tsv": (b"text\tn\n", Tsv), "g.tfrecord": (b"", TfRecord), "h.parquet": (b"", Parquet),
}  # fmt: skip


@pytest.mark.parametrize("name", EMPTY)
def test_empty_files_by_policy(tmp_path, name, caplog):
    content, kind = EMPTY[name]
    with pytest.raises(DataError, match=r"holds no records|is empty|unreadable parquet"):
        records(tmp_path, name, content, kind)
    assert records(tmp_path, name, content, kind, empty_files="skip") == []
    assert f"{name}: the file holds no records: it is left out" in caplog.text


def test_a_nul_byte_is_no_text(tmp_path):
    for name, (content, kind, options) in KINDS.items():
        found = records(tmp_path, name, content.replace("три", "т\0и"), kind, **options)
        bad = [one for one in found if isinstance(one, BadRecord)]
        assert len(bad) == 1, name
        assert "NUL byte" in bad[0].reason
        assert [r["text"] for r in found if r not in bad] == [TEXTS[0], TEXTS[1], TEXTS[3]]
    # Escaped in JSON it is a character of the text.
    assert texts(tmp_path, "a.jsonl", '{"text": "a\\u0000b"}\n', JsonLines) == ["a\0b"]


def test_numbers_that_python_writes(tmp_path):
    (row,) = records(tmp_path, "a.jsonl", '{"text": "a", "x": NaN, "y": -Infinity}\n', JsonLines)
    assert math.isnan(row["x"])
    assert row["y"] == -math.inf


def test_a_key_with_two_values_is_a_bad_record(tmp_path):
    content = (
        '{"text": "a", "id": 1, "text": "a"}\n'
        '{"text": "b", "text": "c"}\n'
        '{"text": "d", "of": {"x": NaN, "x": NaN}}\n'
        '{"text": "e", "of": [{"x": 1, "x": true}]}\n'
    )
    found = records(tmp_path, "a.jsonl", content, JsonLines)
    assert [type(one).__name__ for one in found] == ["Row", "BadRecord", "Row", "BadRecord"]
    assert found[1].reason.endswith("key 'text' is there twice, with different values")
    assert found[3].place.endswith("line 4")


@pytest.mark.parametrize(
    "make",
    [lambda: JsonLines(blank_lines="keep"), lambda: Parquet(empty_files="yes")],
)
def test_unknown_policies_are_refused(make):
    with pytest.raises(ConfigError, match="choose one of error, skip"):
        make()


@pytest.mark.parametrize("content", ['[\n {"text": "a"},\n {"text": "b"}\n]\n', '[{"text": "a"}]'])
def test_a_file_that_is_one_array_is_told_apart(tmp_path, content):
    first = records(tmp_path, "a.json", content, JsonLines)[0]
    assert isinstance(first, BadRecord)
    assert "jq -c '.[]' FILE > NEW` makes lines of a file that is one JSON array" in first.reason


def archive(kind: str, content: bytes) -> bytes:
    stream = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(stream, "w") as file:
            file.writestr("a.jsonl", content)
    else:
        with tarfile.open(fileobj=stream, mode=kind) as file:
            member = tarfile.TarInfo("a.jsonl")
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return stream.getvalue()


@pytest.mark.parametrize("kind", [JsonLines, TextFiles])
@pytest.mark.parametrize(
    ("pack", "message"),
    [
        (bz2.compress, "bzip2: bunzip2 .*a.jsonl; gzip and zstd are read"),
        (lzma.compress, "xz: unxz"),
        (lambda x: lzma.compress(x, format=lzma.FORMAT_ALONE), "lzma: unlzma"),
        (lambda x: gzip.compress(gzip.compress(x)), "gzip in a compressed file"),
        (lambda x: gzip.compress(library.compress(x)), "zstd in a compressed file"),
        (lambda x: archive("zip", x), "a zip archive: unpack it"),
        (lambda x: archive("w", x), "a tar archive: unpack it"),
        (lambda x: archive("w:gz", x), "a tar archive: unpack it"),
        (lambda x: b"PAR1" + x, "parquet: its source is Parquet"),
        (lambda x: b"%PDF-1.7\n" + x, "PDF"),
    ],
)
def test_other_formats_are_named_whatever_the_file_is_called(tmp_path, kind, pack, message):
    with pytest.raises(DataError, match=f"a.jsonl is no text but {message}"):
        records(tmp_path, "a.jsonl", pack(JSON.encode()), kind)


def test_an_object_over_several_lines_is_said(tmp_path):
    first, *_ = records(tmp_path, "a.json", json.dumps({"text": "one"}, indent=2), JsonLines)
    assert isinstance(first, BadRecord)
    assert "`jq -c . FILE > NEW`" in first.reason
