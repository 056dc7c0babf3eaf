"""What a data section resolves to: rates from sizes, and the serialised form of it."""

import dataclasses
import json

import pytest

from t5jax.data import registry
from t5jax.data.config import DataConfig
from t5jax.data.objectives import OBJECTIVES, PrefixLM, SpanCorruption
from t5jax.data.records import Row
from t5jax.data.registry import add_mixture, add_task, names
from t5jax.data.registry.names import find_definitions
from t5jax.data.registry.resolve import (
    find_sizes,
    find_stages,
    resolve,
    resolve_definitions,
    serialised_path,
    write_serialised,
)
from t5jax.data.registry.resolved_task import resolve_task
from t5jax.data.tasks import Custom, ExampleTask, Mixture, Proportional, Scheduled, TextTask
from t5jax.data.vocabularies import ByteVocabulary, SentencePieceVocabulary
from t5jax.errors import ConfigError, DataError
from tests.data.rows_in_memory import Rows

VOCABULARY = ByteVocabulary(extra_ids=100)


@pytest.fixture(autouse=True)
def own_tasks(monkeypatch):
    """Two tasks and a mixture whose rates change; forgotten afterwards."""
    monkeypatch.setattr(names, "_own", {})
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


def resolved(sizes, mixture="changing", **settings):
    """As if the stores of the tasks had these sizes."""
    data = config(mixture, **settings)
    definitions = find_definitions(data)
    mixture = resolve_definitions(definitions, data)
    return dataclasses.replace(mixture, sizes=sizes, stages=find_stages(definitions, sizes))


def test_a_mixture_resolves_to_tasks_stores_and_rates():
    mixture = resolved({"first_text": 30, "second_text": 10, "only_evaluated": 0})
    assert [task.name for task in mixture.tasks] == ["first_text", "second_text", "only_evaluated"]
    assert [task.store for task in mixture.tasks] == ["shared", "shared", "only_evaluated"]
    assert [task.name for task in mixture.trained] == ["first_text", "second_text"]
    (first, shares), (second, later) = mixture.rates()
    assert (first, second) == (0, 70)
    assert shares == {"first_text": 0.75, "second_text": 0.25}
    assert later == {"first_text": 0.75, "second_text": 0.25}
    assert list(mixture.tasks[1].prefix_ids) == VOCABULARY.encode("[S] ").tolist()
    assert mixture.tasks[0].prefix_ids == ()
    assert mixture.row_format.lengths == (64, 64)


def test_a_single_task_has_the_whole_rate():
    mixture = resolve(config("first_text"))
    assert mixture.rates() == ((0, {"first_text": 1.0}),)
    assert mixture.tasks == mixture.trained


def forgotten(monkeypatch):
    """As in a process that has not imported the user's module."""
    monkeypatch.setattr(names, "_own", {})


def test_the_serialised_form_comes_back_as_it_was_written(tmp_path, monkeypatch):
    sizes = {"first_text": 30, "second_text": 11, "only_evaluated": 0}
    mixture = resolved(sizes, cache_dir=str(tmp_path))
    write_serialised(mixture)
    assert [path.name for path in tmp_path.iterdir()] == ["changing.mixture.json"]
    forgotten(monkeypatch)
    again = resolve(mixture.data)
    assert again.tasks == mixture.tasks
    assert again.stages == mixture.stages
    assert again.row_format == mixture.row_format
    assert again.tasks[0].objective == PrefixLM()
    assert again.tasks[2].objective is None
    assert all(task.definition is None for task in again.tasks)


def test_the_serialised_form_has_the_tasks_own_objective(tmp_path, monkeypatch):
    """Another run may train with another objective on the same stores."""
    sizes = {"first_text": 30, "second_text": 11, "only_evaluated": 0}
    write_serialised(resolved(sizes, cache_dir=str(tmp_path), objective="bert_style"))
    forgotten(monkeypatch)
    assert resolve(config(cache_dir=str(tmp_path))).tasks[0].objective == PrefixLM()


def test_the_configs_objective_stands_for_the_tasks_own():
    task = registry.find_task("first_text", config())
    for name, objective in OBJECTIVES.items():
        assert resolve_task(task, config(objective=name)).objective == objective
    given = config(objective="span_corruption(mean_noise_span_length=5.0)")
    assert resolve_task(task, given).objective == SpanCorruption(mean_noise_span_length=5.0)


def test_a_serialised_form_that_is_missing_or_damaged_is_refused(tmp_path, monkeypatch):
    data = config(cache_dir=str(tmp_path))
    sizes = {"first_text": 1, "second_text": 1, "only_evaluated": 0}
    write_serialised(resolved(sizes, cache_dir=str(tmp_path)))
    forgotten(monkeypatch)
    with pytest.raises(DataError, match=r"changing was not cached in .*t5jax cache CONFIG"):
        resolve(config(cache_dir=str(tmp_path / "elsewhere")))
    path = serialised_path(data)
    content = path.read_text()
    path.write_text(content[:-40])
    with pytest.raises(DataError, match=r"changing.mixture.json is damaged"):
        resolve(data)
    for change in ({"format": "else"}, {"format_version": 99}):
        path.write_text(json.dumps(json.loads(content) | change))
        with pytest.raises(DataError, match="is not of this t5jax"):
            resolve(data)


def test_sizes_are_those_of_the_stores(tmp_path):
    from t5jax.data.store.build import build_cache
    from t5jax.data.store.directories import cache_directory
    from tests.data.number_stores import numbered, texts_of_shards

    data = config(cache_dir=str(tmp_path))
    tasks = tuple(registry.find_task(name, data) for name in ("first_text", "only_evaluated"))
    assert find_sizes(tasks, data) == {"first_text": None, "only_evaluated": 0}
    directory = cache_directory(tmp_path, "shared", "train")
    texts = texts_of_shards([numbered([3, 0, 7], first=5), numbered([2] * 9, first=20)])
    build_cache(texts, "train", directory, vocabulary=VOCABULARY)
    assert find_sizes(tasks, data) == {"first_text": 12, "only_evaluated": 0}


def test_sizes_read_no_vocabulary(tmp_path):
    """A mixture can be looked at before its vocabulary is there, prefixes or not."""
    data = config(cache_dir=str(tmp_path))
    data.vocabulary = SentencePieceVocabulary(path=str(tmp_path / "none.model"))
    tasks = (registry.find_task("second_text", data),)
    assert tasks[0].prefix
    assert find_sizes(tasks, data) == {"second_text": None}


def test_rates_that_cannot_be_are_refused():
    mixture = resolve(config())
    assert mixture.stages == ()
    with pytest.raises(ConfigError, match="number of examples of first_text, second_text, which"):
        mixture.rates()
    with pytest.raises(ConfigError, match="draws nothing at step 0"):
        resolved(dict.fromkeys(("first_text", "second_text", "only_evaluated"), 0))
