"""What a mixture is made of: rates from sizes, and the record that training reads instead."""

import json

import numpy as np
import pytest

from t5jax.data import registry
from t5jax.data.config import DataConfig
from t5jax.data.objectives import OBJECTIVES, PrefixLM, SpanCorruption
from t5jax.data.records import Row
from t5jax.data.registry import add_mixture, add_task
from t5jax.data.registry.mixture_record import (
    MixtureRecord,
    cached_sizes,
    make_record,
    record_of,
    record_path,
    task_record,
    write_record,
)
from t5jax.data.tasks import Custom, ExampleTask, Mixture, Proportional, Scheduled, TextTask
from t5jax.data.vocabularies import ByteVocabulary
from t5jax.errors import ConfigError, DataError
from tests.data.rows_in_memory import Rows

VOCABULARY = ByteVocabulary(extra_ids=100)


@pytest.fixture(autouse=True)
def own_tasks(monkeypatch):
    """Two tasks and a mixture whose rates change; forgotten afterwards."""
    monkeypatch.setattr(registry, "_own", {})
    source = Rows({"train": [[Row({"text": "one"}, "a")]]})
    for name in ("first_text", "second_text"):
        add_task(
            TextTask(
                name=name,
                description="",
                corpus="shared",
                source=lambda data: source,
                objective=PrefixLM(),
                prefix="[S] " if name == "second_text" else "",
            )
        )
    add_task(
        ExampleTask(
            name="only_evaluated",
            description="",
            source=lambda data: source,
            examples=lambda row: [],
            splits=("validation",),
        )
    )
    rate = Scheduled(
        stages=(
            (0, Custom(weights={"first_text": 3.0, "second_text": 1.0, "only_evaluated": 0.0})),
            (70, Proportional()),
        )
    )
    add_mixture(
        Mixture(name="changing", tasks=("first_text", "second_text", "only_evaluated"), rate=rate)
    )


def config(mixture="changing", **settings):
    settings = {"cache_dir": "cache", "targets_length": 64, "inputs_length": 64} | settings
    return DataConfig(mixture=mixture, vocabulary=VOCABULARY, **settings)


def test_the_record_of_a_mixture():
    record = make_record(config(), {"first_text": 30, "second_text": 10, "only_evaluated": 0})
    assert [task.name for task in record.tasks] == ["first_text", "second_text", "only_evaluated"]
    assert [task.corpus for task in record.tasks] == ["shared", "shared", "only_evaluated"]
    assert [task.name for task in record.trained_on] == ["first_text", "second_text"]
    (first, shares), (second, later) = record.phases
    assert (first, second) == (0, 70)
    assert shares == {"first_text": 0.75, "second_text": 0.25}
    assert later == {"first_text": 0.75, "second_text": 0.25}
    assert config().prefix_ids(record.tasks[1]).tolist() == VOCABULARY.encode("[S] ").tolist()
    assert config().prefix_ids(record.tasks[0]).tolist() == []


def test_the_record_of_a_single_task():
    record = make_record(config("first_text"), {"first_text": 5})
    assert record.phases == ((0, {"first_text": 1.0}),)
    assert record.tasks == record.trained_on


def forgotten(monkeypatch):
    """As in a process that has not imported the user's module."""
    monkeypatch.setattr(registry, "_own", {})


def test_a_record_comes_back_as_it_was_written(tmp_path, monkeypatch):
    data = config(cache_dir=str(tmp_path))
    record = make_record(data, {"first_text": 30, "second_text": 11, "only_evaluated": 0})
    write_record(data, record)
    assert [path.name for path in tmp_path.iterdir()] == ["changing.mixture.json"]
    forgotten(monkeypatch)
    assert record_of(data) == record
    assert isinstance(record_of(data), MixtureRecord)
    objective = data.objective_for(record_of(data).tasks[0])
    assert objective == PrefixLM()
    assert data.objective_for(record_of(data).tasks[2]) is None


def test_the_configs_objective_stands_for_the_tasks_own():
    task = task_record(registry.find_task("first_text", config()))
    for name, objective in OBJECTIVES.items():
        assert config(objective=name).objective_for(task) == objective
    given = config(objective="span_corruption(mean_noise_span_length=5.0)")
    assert given.objective_for(task) == SpanCorruption(mean_noise_span_length=5.0)


def test_a_record_that_is_not_there_or_damaged_is_refused(tmp_path, monkeypatch):
    data = config(cache_dir=str(tmp_path))
    write_record(data, make_record(data, {"first_text": 1, "second_text": 1, "only_evaluated": 0}))
    forgotten(monkeypatch)
    with pytest.raises(DataError, match=r"changing was not cached in .*t5jax cache CONFIG"):
        record_of(config(cache_dir=str(tmp_path / "elsewhere")))
    path = record_path(data)
    content = path.read_text()
    path.write_text(content[:-40])
    with pytest.raises(DataError, match=r"changing.mixture.json is damaged"):
        record_of(data)
    for change in ({"format": "else"}, {"format_version": 99}):
        path.write_text(json.dumps(json.loads(content) | change))
        with pytest.raises(DataError, match="is not of this t5jax"):
            record_of(data)


def test_sizes_are_those_of_the_stores(tmp_path):
    from t5jax.data.store.build import build_cache, cache_directory
    from tests.data.number_stores import numbered, texts_of_shards

    data = config(cache_dir=str(tmp_path))
    tasks = [registry.find_task(name, data) for name in ("first_text", "only_evaluated")]
    with pytest.raises(DataError, match="t5jax cache"):
        cached_sizes(tasks, data)
    directory = cache_directory(tmp_path, "shared", "train")
    texts = texts_of_shards([numbered([3, 0, 7], first=5), numbered([2] * 9, first=20)])
    build_cache(texts, "train", directory, vocabulary=VOCABULARY)
    assert cached_sizes(tasks, data) == {"first_text": 12, "only_evaluated": 0}
    assert np.sum(list(cached_sizes(tasks, data).values())) == 12


def test_rates_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match=r"training examples of second_text, only_evaluated is"):
        make_record(config(), {"first_text": 30})
    with pytest.raises(ConfigError, match="draws nothing at step 0"):
        make_record(config(), dict.fromkeys(("first_text", "second_text", "only_evaluated"), 0))
