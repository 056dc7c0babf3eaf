"""Files and prepared TFDS data: what is read, and that nothing damaged passes for whole."""

import gzip
import json
import pathlib
import pickle
import shutil
import subprocess
import sys

import pyarrow
import pyarrow.parquet
import pytest

from t5jax.data.sources import C4Tfds, JsonLines, Parquet, TextFiles
from t5jax.errors import DataError

TEXTS = ["A first text.", "Zwölf Boxkämpfer\njagen Viktor.", "A third; 日本語 too."]


def write_json(path: pathlib.Path, texts=TEXTS, column="text") -> str:
    lines = "".join(json.dumps({"id": i, column: text}) + "\n" for i, text in enumerate(texts))
    raw = lines.encode()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return str(path)


def read(source, split="train") -> list[str]:
    return [text for shard in source.shards(split) for text in source.documents(split, shard)]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json.gz"])
def test_json_lines_give_their_texts(tmp_path, name):
    path = write_json(tmp_path / name)
    source = JsonLines(train_files=(path,))
    assert source.splits() == ("train",)
    assert read(source) == TEXTS
    assert read(pickle.loads(pickle.dumps(source))) == TEXTS


def test_globs_expand_in_order_and_a_shard_is_a_file(tmp_path):
    for i in (2, 0, 1):
        write_json(tmp_path / f"part-{i}.json.gz", [f"text {i}"])
    held_out = write_json(tmp_path / "val.json", ["held out"])
    source = JsonLines(train_files=(f"{tmp_path}/part-*.json.gz",), validation_files=(held_out,))
    assert [pathlib.Path(shard).name for shard in source.shards("train")] == [
        f"part-{i}.json.gz" for i in range(3)
    ]
    assert read(source) == ["text 0", "text 1", "text 2"]
    assert read(source, "validation") == ["held out"]


def test_shard_fingerprint_follows_the_file(tmp_path):
    path = write_json(tmp_path / "a.jsonl")
    source = JsonLines(train_files=(path,))
    before = source.shard_fingerprint("train", path)
    assert source.shard_fingerprint("train", path) == before
    write_json(tmp_path / "a.jsonl", [*TEXTS, "more"])
    assert source.shard_fingerprint("train", path) != before


def test_text_files_by_blank_lines_or_whole(tmp_path):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"\xef\xbb\xbfone\r\ntwo\r\n\r\n \n\nthree"))
    assert read(TextFiles(train_files=(str(path),))) == ["one\ntwo", "three"]
    whole = TextFiles(train_files=(str(path),), one_document_per_file=True)
    assert read(whole) == ["one\ntwo\n\n \n\nthree"]


def test_parquet_texts(tmp_path):
    path = str(tmp_path / "a.parquet")
    pyarrow.parquet.write_table(pyarrow.table({"body": TEXTS, "n": [1, 2, 3]}), path)
    assert read(Parquet(train_files=(path,), text_column="body")) == TEXTS
    with pytest.raises(DataError, match=r"a\.parquet: no column 'text'; there are \['body', 'n'\]"):
        read(Parquet(train_files=(path,)))
    with pytest.raises(DataError, match="column 'n' is int64, not a string"):
        read(Parquet(train_files=(path,), text_column="n"))


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pyarrow.array(["a", None, "c"]), "row 1: column 'text' is NoneType"),
        (pyarrow.array([b"a", b"\xff"]).view(pyarrow.string()), "row 1: not valid UTF-8"),
        (pyarrow.array([], pyarrow.string()), "holds no documents"),
    ],
)
def test_bad_parquet_rows_are_refused(tmp_path, column, message):
    path = str(tmp_path / "a.parquet")
    pyarrow.parquet.write_table(pyarrow.table({"text": column}), path)
    with pytest.raises(DataError, match=rf"a\.parquet.*{message}"):
        read(Parquet(train_files=(path,)))


def test_damaged_parquet_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    table = pyarrow.table({"text": [f"text number {i}" for i in range(500)]})
    pyarrow.parquet.write_table(table, path, write_page_checksum=True)
    whole = path.read_bytes()
    for damaged in (whole[:-40], whole[:200] + bytes([whole[200] ^ 1]) + whole[201:]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"a\.parquet, near row 0: unreadable parquet"):
            read(Parquet(train_files=(str(path),)))


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9, -1, -8])
def test_every_truncated_gzip_is_refused(tmp_path, kept):
    path = tmp_path / "a.json.gz"
    write_json(path, [f"text number {i}, which is {i * i} squared" for i in range(3000)])
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if kept >= 0 else kept])
    for source in (JsonLines(train_files=(str(path),)), TextFiles(train_files=(str(path),))):
        with pytest.raises(DataError, match=r"a\.json\.gz.*(truncated|empty or not in gzip)"):
            read(source)


def test_no_flipped_byte_in_a_gzip_changes_what_is_read(tmp_path):
    path = tmp_path / "a.json.gz"
    write_json(path)
    whole = path.read_bytes()
    refused = 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        texts, error = texts_or_error(JsonLines(train_files=(str(path),)))
        assert texts == TEXTS or "a.json.gz" in error  # the header's time, say, means nothing
        refused += bool(error)
    assert refused > len(whole) - 12


def texts_or_error(source):
    try:
        return read(source), ""
    except DataError as error:
        return None, str(error)


@pytest.mark.parametrize(
    ("second_line", "message"),
    [
        (b'{"text": "caf\xe9"}', r"line 2: not valid UTF-8 \(byte 14 of the line"),
        (b'{"text": "cut o', "line 2: not valid JSON"),
        (b"", "line 2: not valid JSON"),
        (b'["text"]', "line 2: one JSON object a line is expected"),
        (b'{"body": "b"}', r"line 2: no column 'text'; there are \['body'\]"),
        (b'{"text": null}', "line 2: column 'text' is NoneType, not a string"),
        (b'{"text": 7}', "line 2: column 'text' is int, not a string"),
        (b'{"text": "\\ud800 half"}', "line 2: column 'text' holds half of a surrogate pair"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_a_bad_line_is_refused_with_its_number(tmp_path, second_line, message, zipped):
    path = tmp_path / ("a.json.gz" if zipped else "a.json")
    raw = b'{"text": "first"}\n' + second_line + b'\n{"text": "third"}\n'
    path.write_bytes(gzip.compress(raw) if zipped else raw)
    with pytest.raises(DataError, match=rf"a\.json.*, {message}"):
        read(JsonLines(train_files=(str(path),)))


def test_empty_files_and_wrong_names_are_refused(tmp_path):
    (tmp_path / "empty.json").touch()
    (tmp_path / "blank.txt").write_text("\n \n\n")
    (tmp_path / "plain.json.gz").write_text('{"text": "not zipped"}\n')
    for name, kind in (("empty.json", JsonLines), ("blank.txt", TextFiles)):
        with pytest.raises(DataError, match=f"{name}: the file holds no documents"):
            read(kind(train_files=(str(tmp_path / name),)))
    with pytest.raises(DataError, match=r"plain\.json\.gz: named \.gz but"):
        read(JsonLines(train_files=(str(tmp_path / "plain.json.gz"),)))


def test_patterns_that_name_nothing_are_refused(tmp_path):
    path = write_json(tmp_path / "a.jsonl")
    cases = [
        (JsonLines(train_files=(f"{tmp_path}/none-*.json",)), "train", "none-.*no such file"),
        (JsonLines(train_files=(f"{tmp_path}/none.json",)), "train", "none.json: no such file"),
        (JsonLines(), "train", "train split has no files: set data.train_files"),
        (JsonLines(train_files=(path,)), "validation", "set data.validation_files"),
        (JsonLines(train_files=(path,)), "test", "no split 'test'"),
        (JsonLines(train_files=(path, f"{tmp_path}/*.jsonl")), "train", "named twice"),
        (JsonLines(train_files=(path,), validation_files=(path,)), "train", "in both train_files"),
        (JsonLines(train_files=("gs://bucket/a.json",)), "train", "only local files"),
    ]
    for source, split, message in cases:
        with pytest.raises(DataError, match=message):
            source.shards(split)
    with pytest.raises(DataError, match="not a file of the train split"):
        list(JsonLines(train_files=(path,)).documents("train", "/etc/hostname"))


def test_importing_sources_and_config_imports_no_framework():
    code = (
        "import sys, t5jax.data.config, t5jax.data.sources, t5jax.data.tasks.registry as r\n"
        "assert len(r.list_tasks()) >= 6\n"
        "heavy = {'tensorflow', 'seqio', 'jax', 'pyarrow'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


# ---- C4, as AllenAI and as TFDS lay it out -------------------------------------------------------


@pytest.fixture(scope="module")
def c4_json(real_data) -> JsonLines:
    folder = real_data / "text" / "c4" / "en"
    return JsonLines(
        train_files=(f"{folder}/c4-train.*.json.gz",),
        validation_files=(f"{folder}/c4-validation.*.json.gz",),
    )


@pytest.fixture(scope="module")
def prepared(c4_json, tmp_path_factory) -> pathlib.Path:
    """A TFDS directory of c4/en, made of the JSON lines' rows by TFDS's own serialisation."""
    from t5jax.data.tf_runtime import import_tensorflow, import_tfds

    tf, tfds = import_tensorflow(), import_tfds()
    data_dir = tmp_path_factory.mktemp("tfds")
    info = tfds.builder("c4/en", data_dir=str(data_dir), file_format="tfrecord").info
    pathlib.Path(info.data_dir).mkdir(parents=True)
    splits = []
    for split in ("train", "validation"):
        template = tfds.core.ShardedFileTemplate(
            dataset_name="c4", split=split, filetype_suffix="tfrecord", data_dir=info.data_dir
        )
        shards = c4_json.shards(split)
        lengths, size = [], 0
        for i, shard in enumerate(shards):
            path = str(template.sharded_filepath(shard_index=i, num_shards=len(shards)))
            lengths.append(0)
            with tf.io.TFRecordWriter(path) as writer:
                for text in c4_json.documents(split, shard):
                    row = dict.fromkeys(info.features, "x") | {"text": text}
                    record = info.features.serialize_example(info.features.encode_example(row))
                    writer.write(record)
                    lengths[-1] += 1
                    size += len(record)
        splits.append(
            tfds.core.SplitInfo(
                name=split, shard_lengths=lengths, num_bytes=size, filename_template=template
            )
        )
    info.set_file_format(tfds.core.FileFormat.TFRECORD)
    info.set_splits(tfds.core.splits.SplitDict(splits))
    info.write_to_directory(info.data_dir)
    return data_dir


def test_c4_json_is_the_published_rows(c4_json):
    texts = read(c4_json)
    assert (len(texts), len(read(c4_json, "validation"))) == (904, 899)
    with gzip.open(c4_json.shards("train")[1], "rt", encoding="utf-8") as file:
        assert texts[226:452] == [json.loads(line)["text"] for line in file]


def test_c4_tfds_gives_the_documents_of_c4_json(c4_json, prepared, monkeypatch):
    source = C4Tfds(data_dir=str(prepared))
    assert set(source.splits()) == {"train", "validation"}
    for split in ("train", "validation"):
        assert len(source.shards(split)) == len(c4_json.shards(split))
        for ours, theirs in zip(source.shards(split), c4_json.shards(split), strict=True):
            assert list(source.documents(split, ours)) == list(c4_json.documents(split, theirs))
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    assert C4Tfds(version="3.1.0").shards("train") == source.shards("train")


def test_damaged_tfds_files_are_refused(prepared, tmp_path):
    copy = tmp_path / "tfds"
    shutil.copytree(prepared, copy)
    source = C4Tfds(data_dir=str(copy))
    shard = pathlib.Path(source.shards("train")[1])
    whole = shard.read_bytes()
    first = 16 + int.from_bytes(whole[:8], "little")  # bytes of one whole record
    damages = {
        "flipped": whole[:5000] + bytes([whole[5000] ^ 4]) + whole[5001:],
        "cut within a record": whole[:-7],
        "cut between records": whole[:first],
    }
    for content in damages.values():
        shard.write_bytes(content)
        with pytest.raises(DataError, match="tfrecord-00001"):
            list(source.documents("train", str(shard)))
    shard.write_bytes(whole)
    assert len(list(source.documents("train", str(shard)))) == 226


def test_c4_that_is_not_prepared_says_what_to_do(tmp_path, prepared):
    for source in (
        C4Tfds(data_dir=str(tmp_path)),
        C4Tfds(data_dir=str(prepared), version="2.2.0"),
        C4Tfds(data_dir=str(prepared), config="realnewslike"),
    ):
        with pytest.raises(
            DataError, match=r"is not prepared under .*data\.tfds_data_dir.*c4_json_span"
        ):
            source.shards("train")
    with pytest.raises(DataError, match="no split 'test' in c4/en"):
        C4Tfds(data_dir=str(prepared)).shards("test")
