"""Labelled data sets in files: which file is meant, formats, official layouts, what is refused."""

import gzip
import json
import pickle
import types

import pyarrow
import pyarrow.parquet
import pytest

from t5jax.data.benchmarks import glue, superglue, translation
from t5jax.data.benchmarks.datasets import files_of_split
from t5jax.data.records import BadRecord, Row
from t5jax.data.sources import Tfds
from t5jax.errors import ConfigError, DataError


def data(folder):
    return types.SimpleNamespace(datasets_dir=str(folder), tfds_data_dir=None)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def rows(dataset, folder, split):
    source = dataset.source(data(folder))
    return [r for shard in source.shards(split) for r in source.records(split, shard)]


def test_glues_own_layouts(tmp_path):
    write(tmp_path / "glue/CoLA/train.tsv", "gj04\t1\t\tFine.\ngj04\t0\t*\tNot well.\n")
    write(tmp_path / "glue/CoLA/test.tsv", "index\tsentence\n0\tWho knows.\n")
    assert rows(glue.COLA, tmp_path, "train") == [
        {"sentence": "Fine.", "label": 1, "idx": 0},
        {"sentence": "Not well.", "label": 0, "idx": 1},
    ]
    assert rows(glue.COLA, tmp_path, "test") == [{"sentence": "Who knows.", "label": -1, "idx": 0}]
    assert glue.COLA.source(data(tmp_path)).splits() == ("train", "test")
    header = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
    write(tmp_path / "glue/MRPC/dev.tsv.gz", header + '1\t7\t8\tHe "ran.\tHe sat.\n')
    assert rows(glue.MRPC, tmp_path, "validation") == [
        {"sentence1": 'He "ran.', "sentence2": "He sat.", "label": 1, "idx": 0}
    ]
    header = "index\tsentence1\tsentence2\tlabel1\tgold_label\n"
    write(tmp_path / "glue/MNLI/dev_matched.tsv", header + "5\tP.\tH.\tneutral\tneutral\n")
    write(tmp_path / "glue/MNLI/dev_mismatched.tsv", header + "5\tQ.\tI.\tneutral\tentailment\n")
    expected = {"premise": "P.", "hypothesis": "H.", "label": 1, "idx": 0}
    assert rows(glue.MNLI, tmp_path, "validation_matched") == [expected]
    assert rows(glue.mnli_half("matched"), tmp_path, "validation") == [expected]
    (other,) = rows(glue.mnli_half("mismatched"), tmp_path, "validation")
    assert other["premise"] == "Q."
    write(tmp_path / "glue/STS-B/dev.tsv", "sentence1\tsentence2\tscore\nA\tB\t3.8\n")
    (scored,) = rows(glue.STSB, tmp_path, "validation")
    assert scored["label"] == 3.8


def test_rows_keep_their_place_in_the_file(tmp_path):
    write(tmp_path / "glue/CoLA/train.tsv", "a\t1\t\tOne.\na\t7\t\tBad label.\na\t0\t\tTwo.\n")
    first, bad, last = rows(glue.COLA, tmp_path, "train")
    assert isinstance(first, Row)
    assert first.place.endswith("train.tsv, line 1")
    assert isinstance(bad, BadRecord)
    assert bad.place.endswith("train.tsv, line 2")
    assert "'7'" in bad.reason
    assert last["idx"] == 2


def test_superglues_own_layout_and_any_format_under_the_tfds_name(tmp_path):
    line = {"question": "q", "passage": "p", "idx": 41, "label": True}
    write(tmp_path / "superglue/BoolQ/val.jsonl", json.dumps(line) + "\n")
    expected = {"question": "q", "passage": "p", "idx": 41, "label": 1}
    assert rows(superglue.BOOLQ, tmp_path, "validation") == [expected]
    folder = tmp_path / "more/super_glue/boolq"
    folder.mkdir(parents=True)
    table = pyarrow.table({"question": ["q"], "passage": ["p"], "idx": [41], "label": [1]})
    pyarrow.parquet.write_table(table, folder / "validation-00000-of-00002.parquet")
    pyarrow.parquet.write_table(table, folder / "validation-00001-of-00002.parquet")
    assert rows(superglue.BOOLQ, tmp_path / "more", "validation") == [expected, expected]
    write(folder / "train.csv", 'question,passage,label\n"a ""b"", c",p,False\n')
    assert rows(superglue.BOOLQ, tmp_path / "more", "train") == [
        {"question": 'a "b", c', "passage": "p", "idx": 0, "label": 0}
    ]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["train.tsv", "train_full.tsv"], ["train.tsv"]),
        (["train_64.jsonl.gz", "README", "training.tsv"], ["train_64.jsonl.gz"]),
        (["train-00001-of-00002.json", "train-00000-of-00002.json", "train-1.json"], None),
        (["test.tsv"], []),
    ],
)
def test_files_of_a_split_by_name(names, found):
    if found is None:
        found = ["train-00000-of-00002.json", "train-00001-of-00002.json"]
    assert files_of_split(names, ("train",)) == found


def test_ambiguous_files_are_refused(tmp_path):
    for names in (["train.tsv", "train.jsonl"], ["train_a.tsv", "train_b.tsv"]):
        with pytest.raises(DataError, match="which file is meant"):
            files_of_split(names, ("train",))


def test_missing_folders_and_splits_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"datasets_dir.*glue/CoLA or .*glue/cola"):
        rows(glue.COLA, tmp_path, "train")
    write(tmp_path / "glue/CoLA/dev.tsv", "a\t1\t\tOne.\n")
    with pytest.raises(DataError, match=r"train split of glue/cola.*dev.tsv"):
        rows(glue.COLA, tmp_path, "train")
    with pytest.raises(DataError, match="no split 'dev'"):
        rows(glue.COLA, tmp_path, "dev")


def test_without_files_tfds_is_read_where_it_has_the_data_set():
    settings = types.SimpleNamespace(datasets_dir=None, tfds_data_dir="/prepared")
    source = glue.COLA.source(settings)
    assert isinstance(source, Tfds)
    assert (source.name, source.data_dir) == ("glue/cola", "/prepared")
    with pytest.raises(ConfigError, match=r"data.datasets_dir.*translation/multi30k"):
        translation.MULTI30K.source(settings)
    assert translation.MULTI30K.required == ("datasets_dir",)


def test_sources_pickle_and_fingerprint_changed_files(tmp_path):
    path = tmp_path / "glue/CoLA/train.tsv"
    write(path, "a\t1\t\tOne.\n")
    source = pickle.loads(pickle.dumps(glue.COLA.source(data(tmp_path))))
    (shard,) = source.shards("train")
    assert len(list(source.records("train", shard))) == 1
    before = source.shard_fingerprint("train", shard)
    write(path, "a\t1\t\tOne.\na\t1\t\tTwo.\n")
    assert source.shard_fingerprint("train", shard) != before


def test_reads_any_file_system():
    import fsspec

    with fsspec.open("memory://sets/glue/SST-2/dev.tsv", "wb") as file:
        file.write(b"sentence\tlabel\ngood \t1\n")
    assert rows(glue.SST2, "memory://sets", "validation") == [
        {"sentence": "good ", "label": 1, "idx": 0}
    ]
