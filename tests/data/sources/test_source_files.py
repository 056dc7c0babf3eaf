"""Which files a source reads: patterns, splits, remote stores, compressions."""

import gzip
import json
import pathlib
import pickle
import subprocess
import sys

import fsspec
import pytest

from t5jax.data.sources import ArrayRecord, JsonLines, Parquet, TextFiles, TfRecord, Tsv
from t5jax.data.sources.zstd import library
from t5jax.errors import ConfigError, DataError

TEXTS = ["A first text.", "Zwölf Boxkämpfer\njagen Viktor.", "A third; 日本語 too."]


def lines(texts=TEXTS) -> bytes:
    return "".join(
        json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(texts)
    ).encode()


def texts_of(source, split="train") -> list[str]:
    return [row["text"] for shard in source.shards(split) for row in source.records(split, shard)]


def frames(content: bytes) -> bytes:
    """Two zstd frames, as `zstd` makes of two files joined."""
    return library.compress(content[:31]) + library.compress(content[31:])


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("a.jsonl", bytes),
        ("a.json.gz", gzip.compress),
        ("members.gz", lambda raw: gzip.compress(raw[:31]) + gzip.compress(raw[31:])),
        ("a.json.zst", frames),
        ("zipped.json", gzip.compress),  # found by what is in it, not by its name
    ],
)
def test_compression_is_detected_by_magic_bytes(tmp_path, name, pack):
    path = tmp_path / name
    path.write_bytes(pack(lines()))
    source = JsonLines(train_files=(str(path),))
    assert source.splits() == ("train",)
    assert texts_of(source) == TEXTS
    assert texts_of(pickle.loads(pickle.dumps(source))) == TEXTS
    rows = list(source.records("train", str(path)))
    assert [row.place for row in rows] == [f"{path}, line {i}" for i in (1, 2, 3)]
    assert rows[2] == {"id": 2, "text": TEXTS[2]}


def test_a_large_zstd_file_is_read_in_pieces(tmp_path):
    texts = [f"{i}: " + "x" * (i % 997) for i in range(3000)]
    path = tmp_path / "a.zst"
    with library.open(path, "wb") as file:
        file.write(lines(texts))
    assert path.stat().st_size * 20 < len(lines(texts))
    assert texts_of(JsonLines(train_files=(str(path),))) == texts


def test_a_zstd_file_with_the_longest_window_is_read(tmp_path):
    """As `zstd --ultra --long=31` packs archives; the frame is spelled out, of one raw block."""
    content = lines()
    block = (len(content) << 3 | 1).to_bytes(3, "little")
    path = tmp_path / "a.jsonl.zst"
    window_of_2_gb = bytes([0, 21 << 3])
    path.write_bytes(b"\x28\xb5\x2f\xfd" + window_of_2_gb + block + content)
    assert texts_of(JsonLines(train_files=(str(path),))) == TEXTS


def test_patterns_expand_in_order_and_a_shard_is_a_file(tmp_path):
    for i in (2, 0, 1):
        folder = tmp_path / "deep" / "er" / str(i)
        folder.mkdir(parents=True)
        (folder / f"part-{i}.json.gz").write_bytes(gzip.compress(lines([f"text {i}"])))
    for split in ("validation", "test"):
        (tmp_path / f"{split}.json").write_bytes(lines([f"for {split}"]))
    source = JsonLines(
        train_files=(f"{tmp_path}/**/part-[12].json.gz", f"{tmp_path}/deep/*/0/*"),
        validation_files=(f"{tmp_path}/validation.json",),
        test_files=(f"{tmp_path}/t*.json",),
    )
    assert source.splits() == ("train", "validation", "test")
    names = [pathlib.Path(shard).name for shard in source.shards("train")]
    assert names == ["part-1.json.gz", "part-2.json.gz", "part-0.json.gz"]
    assert texts_of(source) == ["text 1", "text 2", "text 0"]
    assert texts_of(source, "validation") == ["for validation"]
    assert texts_of(source, "test") == ["for test"]


def test_remote_files_equal_local_ones(tmp_path):
    store = fsspec.filesystem("memory")
    contents = {
        "/bucket/c4/a-0.json.gz": gzip.compress(lines(["zero", "nought"])),
        "/bucket/c4/deep/a-1.json.zst": frames(lines(["one, and some more of it"])),
        "/bucket/c4/other.json": lines(["held out"]),
        "/bucket/c4/rows.tsv": b"text\tn\nfrom a table\t1\n",
    }
    try:
        for name, content in contents.items():
            store.pipe(name, content)
        source = JsonLines(
            train_files=("memory://bucket/c4/**/a-*.json.*",),
            validation_files=("memory://bucket/c4/other.json",),
        )
        assert texts_of(source) == ["zero", "nought", "one, and some more of it"]
        assert texts_of(source, "validation") == ["held out"]
        assert texts_of(Tsv(train_files=("memory://bucket/c4/*.tsv",))) == ["from a table"]
        shard = source.shards("train")[0]
        before = source.shard_fingerprint("train", shard)
        assert before == source.shard_fingerprint("train", shard)
        store.pipe("/bucket/c4/a-0.json.gz", gzip.compress(lines(["zero", "nought", "null"]))[:-9])
        assert before != source.shard_fingerprint("train", shard)
        with pytest.raises(DataError, match=r"memory://.*a-0\.json\.gz, after line \d: truncated"):
            texts_of(source)
        with pytest.raises(DataError, match=r"memory://bucket/none.*: no such file"):
            JsonLines(train_files=("memory://bucket/none*",)).shards("train")
        with pytest.raises(DataError, match="read from local disks; copy or mount"):
            texts_of(ArrayRecord(train_files=(shard,)))
    finally:
        store.rm("/bucket", recursive=True)


def test_a_missing_driver_names_the_install(monkeypatch):
    for module, url, extra in (("gcsfs", "gs://b/x", "gcs"), ("s3fs", "s3://b/x", "s3")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ConfigError, match=rf"{url}: .*pip install 't5jax\[{extra}\]'"):
            JsonLines(train_files=(url,)).shards("train")
    with pytest.raises(ConfigError, match=r"foo://b/x: Protocol not known: foo"):
        JsonLines(train_files=("foo://b/x",)).shards("train")


def test_shard_fingerprint_follows_the_file(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines())
    source = JsonLines(train_files=(str(path),))
    before = source.shard_fingerprint("train", str(path))
    assert source.shard_fingerprint("train", str(path)) == before
    path.write_bytes(lines([*TEXTS, "more"]))
    assert source.shard_fingerprint("train", str(path)) != before


def test_invalid_file_lists_are_refused(tmp_path):
    path = str(tmp_path / "a.jsonl")
    pathlib.Path(path).write_bytes(lines())
    cases = [
        (JsonLines(train_files=(f"{tmp_path}/none-*.json",)), "train", "none-.*no such file"),
        (Parquet(train_files=(f"{tmp_path}/none",)), "train", "none: no such file"),
        (TextFiles(train_files=(f"{tmp_path}/*/",)), "train", "no such file"),
        (TextFiles(train_files=(str(tmp_path),)), "train", "is a folder; name its files"),
        (Tsv(), "train", "train split has no files: set data.train_files"),
        (TfRecord(train_files=(path,)), "test", "set data.test_files"),
        (JsonLines(train_files=(path,)), "dev", "no split 'dev'.*'validation', 'test'"),
        (JsonLines(train_files=(path, f"{tmp_path}/*.jsonl")), "train", "named twice"),
        (
            JsonLines(train_files=(path,), test_files=(path,)),
            "test",
            r"a\.jsonl is named in both test_files and train_files",
        ),
    ]
    for source, split, message in cases:
        with pytest.raises(DataError, match=message):
            source.shards(split)
    with pytest.raises(DataError, match="no split 'dev'"):
        JsonLines(train_files=(path,)).records("dev", path)
    with pytest.raises(DataError, match=r"gone\.json: No such file"):
        list(JsonLines(train_files=(path,)).records("train", f"{tmp_path}/gone.json"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: JsonLines(train_files="a.json"), "train_files='a.json': give a tuple"),  # pyright: ignore
        (lambda: JsonLines(max_record_bytes=0), "max_record_bytes=0: must be positive"),
        (lambda: TfRecord(max_record_bytes=-1), "max_record_bytes=-1: must be positive"),
        (lambda: TextFiles(document="page"), "document='page': choose one of blank lines, file"),
        (lambda: Tsv(delimiter=", "), "delimiter=', ': give one character"),
        (lambda: Tsv(columns=("a", "a")), "a name is there twice"),
        (lambda: ArrayRecord(content="xml"), "content='xml': choose one of example, json, text"),
        (lambda: ArrayRecord(content="json", lists=("a",)), "lists .* are of Examples"),
    ],
)
def test_invalid_source_settings_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_importing_sources_imports_no_framework():
    code = (
        "import sys, t5jax.data.sources\n"
        "heavy = {'tensorflow', 'tensorflow_datasets', 'seqio', 'jax', 'pyarrow', 'fsspec', "
        "'datasets', 'array_record', 'langdetect'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
