"""Data sets through the package `datasets`, where it is installed."""

import json
import pickle
import sys

import pytest

from t5jax.data.sources import HuggingFace, huggingface
from t5jax.errors import ConfigError, DataError

ROWS = {
    "train": [{"text": f"é {i}", "label": i % 2, "list": [i] * (i % 3)} for i in range(23)],
    "test": [{"text": "held out", "label": 1, "list": []}],
}


@pytest.fixture(autouse=True)
def _forget_loaded():
    huggingface._load.cache_clear()
    yield
    huggingface._load.cache_clear()


def read(source, split="train") -> list:
    return [row for shard in source.shards(split) for row in source.records(split, shard)]


def test_missing_datasets_package_names_the_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match="pip install datasets"):
        HuggingFace(path="glue").splits()


@pytest.fixture(params=["json", "saved"])
def folder(request, tmp_path, monkeypatch) -> str:
    """A local data set: files that `load_dataset` finds, or what `save_to_disk` wrote."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    path = tmp_path / "data"
    if request.param == "saved":
        label = datasets.ClassLabel(names=["no", "yes"])
        splits = {
            name: datasets.Dataset.from_list(rows).cast_column("label", label)
            for name, rows in ROWS.items()
        }
        datasets.DatasetDict(splits).save_to_disk(str(path))
    else:
        path.mkdir()
        for name, rows in ROWS.items():
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (path / f"{name}.jsonl").write_text(text)
    return str(path)


def test_rows_of_a_local_folder(folder, monkeypatch):
    monkeypatch.setattr(huggingface, "_ROWS_A_SHARD", 7)
    source = HuggingFace(path=folder)
    assert set(source.splits()) == {"train", "test"}
    assert source.shards("train") == ["0-6", "7-13", "14-20", "21-22"]
    rows = read(source)
    assert rows == ROWS["train"]
    assert rows[8].place == f"{folder}, train, row 8"
    assert read(pickle.loads(pickle.dumps(source)), "test") == ROWS["test"]
    assert source.shard_fingerprint("train", "0-6") != source.shard_fingerprint("test", "0-0")
    with pytest.raises(DataError, match=r"no split 'dev'; choose one of \['test', 'train'\]"):
        source.shards("dev")
    with pytest.raises(DataError, match="'0-7' is no shard of the train split"):
        next(source.records("train", "0-7"))


def test_streaming_gives_the_same(tmp_path):
    pytest.importorskip("datasets")
    for i, part in enumerate((ROWS["train"][:9], ROWS["train"][9:])):
        text = "".join(json.dumps(row) + "\n" for row in part)
        (tmp_path / f"train-{i}.jsonl").write_text(text)
    source = HuggingFace(path=str(tmp_path), streaming=True)
    assert source.shards("train") == ["0", "1"]
    assert read(source) == ROWS["train"]


def test_data_sets_that_cannot_be_loaded_are_refused(tmp_path):
    pytest.importorskip("datasets")
    with pytest.raises(DataError, match="cannot be loaded: "):
        HuggingFace(path=str(tmp_path / "none")).splits()
