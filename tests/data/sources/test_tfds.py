"""Prepared TFDS data sets: the same rows as TFDS's own readers give, and damage noticed."""

import json
import pathlib
import pickle
import shutil
import subprocess
import sys

import fsspec
import pytest

from t5jax.data.records import BadRecord, DamagedFile
from t5jax.data.sources import JsonLines, Tfds
from t5jax.errors import DataError

WORDS = ("no", "yes", "perhaps")


def examples(split: str) -> list[dict]:
    count = {"train": 47, "validation": 13}[split]
    return [
        {
            "id": f"{split} é {i}",
            "label": i % 3,
            "translation": {"de": f"ja {i}", "en": f"yes {i}"},
            "answers": {
                "text": [f"a{j}" for j in range(i % 3)],
                "answer_start": [5 * j for j in range(i % 3)],
            },
            "idx": {"paragraph": i - 3, "question": -i},
            "score": i / 4,
            "words": ["w"] * (i % 2),
            "good": i % 2 == 0,
        }
        for i in range(count)
    ]


def write_dataset(data_dir: pathlib.Path, file_format: str, splits: tuple[str, ...]) -> None:
    """A prepared data set `toy/plain:1.2.0`, by TFDS's own serialisation; two files a split."""
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordWriter

    from t5jax.data.tensorflow_import import import_tensorflow

    tf = import_tensorflow()
    features = tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "label": tfds.features.ClassLabel(names=WORDS),
            "translation": tfds.features.Translation(languages=("de", "en")),
            "answers": tfds.features.Sequence(
                {"text": tfds.features.Text(), "answer_start": tf.int32}
            ),
            "idx": {"paragraph": tf.int32, "question": tf.int32},
            "score": tf.float32,
            "words": tfds.features.Sequence(tfds.features.Text()),
            "good": tf.bool,
        }
    )
    folder = data_dir / "toy" / "plain" / "1.2.0"
    folder.mkdir(parents=True)
    identity = tfds.core.dataset_info.DatasetIdentity(
        name="toy", version="1.2.0", config_name="plain", data_dir=str(folder), module_name="toy"
    )
    info = tfds.core.DatasetInfo(builder=identity, features=features)
    made = []
    for split in splits:
        template = tfds.core.ShardedFileTemplate(
            dataset_name="toy", split=split, filetype_suffix=file_format, data_dir=folder
        )
        rows = [features.serialize_example(features.encode_example(e)) for e in examples(split)]
        shards = rows[:9], rows[9:]
        for i, shard in enumerate(shards):
            path = str(template.sharded_filepath(shard_index=i, num_shards=2))
            if file_format == "tfrecord":
                writer = tf.io.TFRecordWriter(path)
            else:
                writer = ArrayRecordWriter(path, "group_size:1")
            for row in shard:
                writer.write(row)
            writer.close()
        made.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[len(shard) for shard in shards],
                num_bytes=sum(map(len, rows)),
                filename_template=template,
            )
        )
    info.set_file_format(file_format)
    info.set_splits(tfds.core.splits.SplitDict(made))
    info.write_to_directory(folder)


@pytest.fixture(scope="module", params=["tfrecord", "array_record"])
def prepared(request, tmp_path_factory) -> pathlib.Path:
    data_dir = tmp_path_factory.mktemp(f"tfds_{request.param}")
    write_dataset(data_dir, request.param, ("train", "validation"))
    return data_dir


def read(source, split="train") -> list:
    return [row for shard in source.shards(split) for row in source.records(split, shard)]


def test_nested_features(prepared, monkeypatch):
    source = Tfds(name="toy/plain", data_dir=str(prepared))
    assert set(source.splits()) == {"train", "validation"}
    for split in source.splits():
        rows = read(source, split)
        assert rows == examples(split)
        assert rows[10]["answers"] == examples(split)[10]["answers"]
    assert json.loads(json.dumps(rows)) == rows  # plain values only, no NumPy
    assert rows[9].place.endswith("-00001-of-00002, record 0")
    assert read(pickle.loads(pickle.dumps(source)), "validation") == rows
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    assert Tfds(name="toy/plain", version="1.2.0").shards("train") == source.shards("train")


def test_tfds_own_reader_gives_the_same(prepared):
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(prepared / "toy" / "plain" / "1.2.0")
    source = Tfds(name="toy/plain", data_dir=str(prepared))
    shards = [str(path) for path in builder.info.splits["train"].filepaths]
    assert source.shards("train") == shards
    if "array" in prepared.name:
        theirs = list(builder.as_data_source("train"))
    else:
        theirs = list(tfds.as_numpy(builder.as_dataset("train", shuffle_files=False)))
    assert len(theirs) == 47
    for mine, other in zip(read(source), theirs, strict=True):
        assert mine["id"].encode() == other["id"]
        assert mine["translation"]["de"].encode() == other["translation"]["de"]
        assert mine["answers"]["answer_start"] == list(other["answers"]["answer_start"])
        assert (mine["label"], mine["idx"]["question"]) == (
            other["label"],
            other["idx"]["question"],
        )


def test_no_tensorflow_is_imported(prepared):
    code = (
        "import sys; from t5jax.data.sources import Tfds\n"
        f"s = Tfds(name='toy/plain', data_dir={str(prepared)!r})\n"
        "rows = [r for shard in s.shards('train') for r in s.records('train', shard)]\n"
        "assert len(rows) == 47, rows\n"
        "sys.exit('tensorflow' in sys.modules or 'apache_beam' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_a_remote_data_set_is_read_too(prepared):
    store = fsspec.filesystem("memory")
    try:
        for path in prepared.rglob("*.*"):
            if path.is_file():
                store.pipe(f"/tfds/{path.relative_to(prepared)}", path.read_bytes())
        source = Tfds(name="toy/plain", data_dir="memory://tfds")
        assert len(source.shards("train")) == 2
        if "array" in prepared.name:
            with pytest.raises(DataError, match="ArrayRecord files are read from local disks"):
                read(source)
        else:
            assert read(source) == examples("train")
    finally:
        store.rm("/tfds", recursive=True)


def test_damage_is_detected(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path / "tfds")
    source = Tfds(name="toy/plain", data_dir=str(tmp_path / "tfds"))
    shard = source.shards("train")[1]
    path, whole = pathlib.Path(shard), pathlib.Path(shard).read_bytes()
    fingerprint = source.shard_fingerprint("train", shard)

    def records(content):
        path.write_bytes(content)
        return list(source.records("train", shard))

    with pytest.raises(DamagedFile, match="00001-of-00002"):
        records(whole[:-9])
    if "array" not in prepared.name:
        flipped = records(whole[:40] + bytes([whole[40] ^ 4]) + whole[41:])
        assert [i for i, r in enumerate(flipped) if isinstance(r, BadRecord)] == [0]
        first = 16 + int.from_bytes(whole[:8], "little")
        with pytest.raises(DataError, match=r"37 records, but dataset_info\.json says 38"):
            records(whole[first:])
    other = pathlib.Path(source.shards("train")[0]).read_bytes()
    with pytest.raises(DataError, match=r"9 records, but dataset_info\.json says 38"):
        records(other)
    assert source.shard_fingerprint("train", shard) != fingerprint
    with pytest.raises(DataError, match="not a file of the train split of toy/plain"):
        list(source.records("train", "elsewhere"))
    path.unlink()
    with pytest.raises(DataError, match=r"00001-of-00002: [Nn]o such file"):
        list(source.records("train", shard))


def test_an_unprepared_data_set_names_the_command(prepared, tmp_path):
    for source in (
        Tfds(name="squad/v1.1", data_dir=str(tmp_path)),
        Tfds(name="toy/plain", data_dir=str(prepared), version="2.2.0"),
        Tfds(name="toy", data_dir=str(prepared)),
        Tfds(name="c4/realnewslike", data_dir="memory://none"),
    ):
        with pytest.raises(
            DataError, match=r"is not prepared under .*data\.tfds_data_dir"
        ) as raised:
            source.shards("train")
        assert f"tfds build {source.name}" in str(raised.value)
        assert ("c4_json_span_corruption" in str(raised.value)) == source.name.startswith("c4")
    with pytest.raises(DataError, match=r"no split 'test' in toy/plain: .*'train', 'validation'"):
        Tfds(name="toy/plain", data_dir=str(prepared)).shards("test")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a description that TFDS wrote"),
        ('{"name": "toy"}', "not a description that TFDS wrote.*KeyError"),
        ('{"name": "toy", "fileFormat": "riegeli", "splits": []}', "format 'riegeli'"),
    ],
)
def test_unreadable_dataset_info(tmp_path, content, message):
    folder = tmp_path / "toy" / "1.0.0"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text(content)
    with pytest.raises(DataError, match=message):
        Tfds(name="toy", data_dir=str(tmp_path)).splits()


def test_the_newest_version_is_taken(prepared, tmp_path):
    for version in ("1.9.0", "1.10.0", "2.0.0"):
        folder = tmp_path / "toy" / "plain" / version
        shutil.copytree(prepared / "toy" / "plain" / "1.2.0", folder)
    (tmp_path / "toy/plain/2.0.0/dataset_info.json").unlink()  # TFDS writes it last
    source = Tfds(name="toy/plain", data_dir=str(tmp_path))
    assert "/1.10.0/" in source.shards("train")[0]
    assert read(source) == examples("train")


# ---- C4 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", ["en", "multilingual"])
def test_c4_of_tfds_gives_the_documents_of_c4_json(real_data, tmp_path, config):
    import tensorflow_datasets as tfds

    from t5jax.data.tensorflow_import import import_tensorflow

    tf = import_tensorflow()
    folder = real_data / "text" / "c4" / "en"
    rows = JsonLines(train_files=(f"{folder}/c4-train.*.json.gz",))
    # The registered builder's own name, version and features; its splits are made here.
    info = tfds.builder(f"c4/{config}", data_dir=str(tmp_path), file_format="tfrecord").info
    pathlib.Path(info.data_dir).mkdir(parents=True)
    split = "train" if config == "en" else "de"
    template = tfds.core.ShardedFileTemplate(
        dataset_name="c4", split=split, filetype_suffix="tfrecord", data_dir=info.data_dir
    )
    shards = rows.shards("train")
    lengths = []
    for i, shard in enumerate(shards):
        with tf.io.TFRecordWriter(
            str(template.sharded_filepath(shard_index=i, num_shards=len(shards)))
        ) as writer:
            lengths.append(0)
            for row in rows.records("train", shard):
                columns = dict.fromkeys(info.features, "x") | {"text": row["text"]}
                writer.write(info.features.serialize_example(info.features.encode_example(columns)))
                lengths[-1] += 1
    info.set_file_format(tfds.core.FileFormat.TFRECORD)
    made = tfds.core.SplitInfo(
        name=split, shard_lengths=lengths, num_bytes=1, filename_template=template
    )
    info.set_splits(tfds.core.splits.SplitDict([made]))
    info.write_to_directory(info.data_dir)

    source = Tfds(name=f"c4/{config}", data_dir=str(tmp_path))
    assert source.splits() == (split,)
    for ours, theirs in zip(source.shards(split), shards, strict=True):
        texts = [row["text"] for row in source.records(split, ours)]
        assert texts == [row["text"] for row in rows.records("train", theirs)]
        assert len(texts) == 226
