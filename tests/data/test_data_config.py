"""The data section: every setting is checked before anything is read."""

import json

import pytest

from t5jax.data import objectives, registry
from t5jax.data.config import DataConfig
from t5jax.data.docstring_corpus import Docstrings
from t5jax.data.objectives import SpanCorruption
from t5jax.data.records import Rejected
from t5jax.data.registry import builtin
from t5jax.data.registry.names import find_definitions
from t5jax.data.registry.resolve import check_mixture, checked_tasks, resolve
from t5jax.data.registry.texts import task_documents
from t5jax.data.sources import JsonLines, Parquet, TextFiles, Tfds
from t5jax.data.tasks.mixture import Mixture
from t5jax.data.tasks.task import TextTask
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
        (
            "c4_v220_span_corruption",
            {"tfds_data_dir": "d"},
            Tfds(name="c4/en", data_dir="d"),
        ),
        ("c4_json_span_corruption", FILES, JsonLines(**FILES)),
        ("jsonl_span_corruption", FILES | {"text_column": "c"}, JsonLines(**FILES)),
        ("parquet:span_corruption", FILES | {"text_column": "c"}, Parquet(**FILES)),
        ("text_span_corruption", FILES, TextFiles(**FILES)),
    ],
)
def test_builtin_tasks_make_their_sources(mixture, settings, source):
    data = config(mixture, **settings)
    check_mixture(data)
    (task,) = checked_tasks(data)
    assert isinstance(task, TextTask)
    assert task.source(data) == source
    assert (task.column or data.text_column) == settings.get("text_column", "text")
    definitions = find_definitions(data)
    assert definitions.mixture is None
    assert definitions.tasks == (task,)


def test_every_builtin_name_is_found_and_can_name_a_folder():
    assert len(builtin.TABLE) > 60
    for name, entry in builtin.TABLE.items():
        registry.check_task_name(name)
        assert entry.name == name
        assert registry.find_builtin(name) is entry


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
        ({"test_files": ("a",)}, "data.test_files=.* has no effect"),
        ({"text_column": "body"}, "data.text_column='body' has no effect"),
        ({"tfds_data_dir": "d"}, "data.tfds_data_dir='d' has no effect"),
        ({"datasets_dir": "d"}, "data.datasets_dir='d' has no effect"),
        ({"huggingface_dataset": "d"}, "data.huggingface_dataset='d' has no effect"),
        ({"mixture": "c4_v220_span_corruption", "train_files": ("a",)}, "no effect on c4_v220"),
        ({"mixture": "text_span_corruption"}, "data.train_files is empty"),
        ({"mixture": "huggingface:prefix_lm"}, "data.huggingface_dataset is empty"),
        ({"mixture": "text_span_corruption", "train_files": "a.txt"}, "a tuple of strings"),
        ({"modules": "mine"}, "data.modules='mine': a tuple of strings"),
        ({"mixture": "c4_json_span_corruption", **FILES, "text_column": "x"}, "has no effect"),
        ({"cache_dir": ""}, "data.cache_dir is empty"),
        ({"seed": -1}, "data.seed=-1"),
        ({"inputs_length": 0}, "data.inputs_length=0"),
        ({"inputs_length": 2}, "inputs_length=2"),
        ({"max_text_tokens": 0}, "data.max_text_tokens=0"),
        ({"targets_length": 113}, "targets_length=113.*= 114.*set targets_length=114"),
        ({"inputs_length": 2048}, "inputs_length=2048 needs 114 sentinels.*has 100"),
        ({"on_bad_record": "ignore"}, "on_bad_record='ignore': choose one of error, skip"),
        ({"max_bad_fraction": 1.5}, "max_bad_fraction=1.5"),
        ({"objective": "prefix_ml"}, "prefix_lm"),
        ({"objective": "span_corruption(noise=1)"}, "noise"),
        ({"pack": False}, "data.pack=False has no effect on docstrings"),
        ({"mixture": "docstrings:no_such"}, "no_such"),
        ({"mixture": "glue_cola_v002"}, "data.targets_length is not set, and glue_cola_v002"),
        (
            {"mixture": "glue_cola_v002", "targets_length": 9, "max_text_tokens": 5},
            "data.max_text_tokens=5 has no effect on glue_cola_v002",
        ),
        (
            {"mixture": "glue_cola_v002", "targets_length": 9, "objective": "prefix_lm"},
            "data.objective='prefix_lm' has no effect on glue_cola_v002",
        ),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        check_mixture(config(**settings))


def test_targets_length_is_the_objectives_unless_given():
    def length(**settings):
        return resolve(config(cache_dir=None, **settings)).row_format.targets_length

    assert length() == 114
    assert length(objective="span_corruption(mean_noise_span_length=10)") == 99
    assert length(targets_length=128) == 128
    assert length(mixture="docstrings:prefix_lm") == 512


def test_a_prefix_takes_room_from_the_inputs():
    data = config(
        "docstrings:ul2",
        vocabulary=ByteVocabulary(extra_ids=100),
        inputs_length=403 + len("[NLU] "),
    )
    assert isinstance(find_definitions(data).mixture, Mixture)
    mixture = resolve(data)
    assert len(mixture.tasks) == 7
    assert all(len(task.prefix_ids) == len("[NLU] ") for task in mixture.tasks)
    needed = [task.objective.lengths(403).targets for task in mixture.tasks]
    assert mixture.row_format.targets_length == max(needed)


def test_the_configs_objective_stands_for_the_tasks_own():
    (task,) = resolve(config(objective="prefix_lm")).tasks
    assert task.objective == objectives.parse_objective("prefix_lm")
    assert task.own_objective == SpanCorruption()
    (cola,) = resolve(config("glue_cola_v002", targets_length=9)).tasks
    assert cola.objective is None


def test_checks_open_no_file(tmp_path):
    missing = SentencePieceVocabulary(path=str(tmp_path / "none.model"))
    check_mixture(config("text_span_corruption", train_files=("none.txt",), vocabulary=missing))


@pytest.mark.parametrize("mixture", ["jsonl_span_corruption", "jsonl:prefix_lm"])
def test_the_texts_of_a_config_are_those_of_its_files(tmp_path, mixture):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"body": "A text."}) + "\n")
    data = config(mixture, train_files=(str(path),), text_column="body")
    texts = task_documents(checked_tasks(data)[0], data)
    assert texts.splits() == ("train",)
    assert texts.features == ("text",)
    (shard,) = texts.shards("train")
    assert list(texts.documents("train", shard, Rejected())) == [{"text": "A text."}]


def test_ul2_refuses_inputs_that_need_more_sentinels():
    """Without the room that the mode token takes 403 would fit."""
    data = config("docstrings:ul2", vocabulary=ByteVocabulary(extra_ids=100), inputs_length=410)
    with pytest.raises(ConfigError, match="inputs_length=404 needs 101 sentinels"):
        check_mixture(data)
