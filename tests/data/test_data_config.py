"""The data section: every setting is checked before anything is read."""

import dataclasses
import json

import pytest

from t5jax.data.config import DataConfig, objective_of, source_of
from t5jax.data.objectives import SpanCorruption
from t5jax.data.sources import C4Tfds, Docstrings, JsonLines, Parquet, TextFiles
from t5jax.data.tasks.builtin import BUILTIN_TASKS, check_task_name
from t5jax.data.tasks.registry import list_tasks
from t5jax.data.vocabularies import ByteVocabulary, SentencePieceVocabulary
from t5jax.errors import ConfigError

FILES = {"train_files": ("a.json",), "validation_files": ("b.json",)}


def config(mixture="docstrings_span_corruption", **settings) -> DataConfig:
    settings = {"vocabulary": ByteVocabulary(), "cache_dir": "cache"} | settings
    return DataConfig(mixture=mixture, **settings)


@pytest.mark.parametrize(
    ("mixture", "settings", "source"),
    [
        ("docstrings_span_corruption", {}, Docstrings()),
        ("c4_v220_span_corruption", {"tfds_data_dir": "d"}, C4Tfds(data_dir="d")),
        ("c4_json_span_corruption", FILES, JsonLines(**FILES)),
        (
            "jsonl_span_corruption",
            FILES | {"text_column": "c"},
            JsonLines(**FILES, text_column="c"),
        ),
        (
            "parquet_span_corruption",
            FILES | {"text_column": "c"},
            Parquet(**FILES, text_column="c"),
        ),
        ("text_span_corruption", FILES, TextFiles(**FILES)),
    ],
)
def test_builtin_tasks_make_their_sources(mixture, settings, source):
    data = config(mixture, **settings)
    data.check()
    assert source_of(data) == source
    assert objective_of(data) == SpanCorruption(noise_density=0.15, mean_noise_span_length=3.0)


def test_every_builtin_task_is_listed_once():
    rows = list_tasks()
    assert [row.name for row in rows] == list(BUILTIN_TASKS)
    for row in rows:
        check_task_name(row.name)
        assert row.splits == ("train", "validation")
        assert "noise_density=0.15" in row.objective


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mixture": "docstring_span_corruption"}, "did you mean docstrings_span_corruption"),
        ({"mixture": "mine"}, "data.modules"),
        ({"mixture": "../up", "modules": ("m",)}, "task name '../up'"),
        ({"mixture": "a..b", "modules": ("m",)}, "task name"),
        ({"mixture": "name\n", "modules": ("m",)}, "task name"),
        ({"modules": ("m",)}, "data.modules=.* has no effect"),
        ({"train_files": ("a",)}, "data.train_files=.* has no effect on docstrings"),
        ({"validation_files": ("a",)}, "data.validation_files=.* has no effect"),
        ({"text_column": "body"}, "data.text_column='body' has no effect"),
        ({"tfds_data_dir": "d"}, "data.tfds_data_dir='d' has no effect"),
        ({"mixture": "c4_v220_span_corruption", "train_files": ("a",)}, "no effect on c4_v220"),
        ({"mixture": "text_span_corruption"}, "data.train_files is empty"),
        ({"mixture": "text_span_corruption", "train_files": "a.txt"}, "a tuple of strings"),
        ({"mixture": "c4_json_span_corruption", **FILES, "text_column": "x"}, "has no effect"),
        ({"mixture": "mine", "modules": ("m",), "train_files": ("a",)}, "has no effect on mine"),
        ({"cache_dir": ""}, "data.cache_dir is empty"),
        ({"seed": -1}, "data.seed=-1"),
        ({"inputs_length": 2}, "inputs_length=2"),
        ({"targets_length": 113}, "targets_length=113.*= 114.*set targets_length=114"),
        ({"inputs_length": 2048}, "inputs_length=2048 needs 114 sentinels.*has 100"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        config(**settings).check()


def test_targets_length_is_the_objectives_unless_given():
    data = config()
    assert data.targets_length_for(SpanCorruption()) == 114
    assert data.targets_length_for(SpanCorruption(mean_noise_span_length=10)) == 99
    longer = dataclasses.replace(data, targets_length=128)
    longer.check()
    assert longer.targets_length_for(SpanCorruption()) == 128


def test_checks_open_no_file(tmp_path):
    missing = SentencePieceVocabulary(path=str(tmp_path / "none.model"))
    config("text_span_corruption", train_files=("none.txt",), vocabulary=missing).check()


def test_the_source_of_a_config_reads_its_files(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"body": "A text."}) + "\n")
    data = config("jsonl_span_corruption", train_files=(str(path),), text_column="body")
    source = source_of(data)
    assert source.splits() == ("train",)
    assert list(source.documents("train", source.shards("train")[0])) == ["A text."]
