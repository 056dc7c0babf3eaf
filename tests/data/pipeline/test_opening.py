"""From a config to batches, with stores and without: the same tasks, rates and prefixes."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from t5jax.data import registry
from t5jax.data.config import DataConfig
from t5jax.data.objectives import UL2_DENOISERS, SpanCorruption
from t5jax.data.pipeline.loader import Loader
from t5jax.data.pipeline.streaming import StreamingLoader
from t5jax.data.records import Row
from t5jax.data.registry import add_mixture, add_task, names
from t5jax.data.registry.resolve import checked_tasks, resolve
from t5jax.data.registry.resolved_task import resolve_task
from t5jax.data.registry.texts import task_documents
from t5jax.data.store.build import build_cache
from t5jax.data.tasks import Custom, ExampleTask, Mixture, Proportional, TextTask
from t5jax.data.vocabularies import ByteVocabulary
from t5jax.errors import ConfigError, DataError
from tests.data.number_stores import assert_same
from tests.data.pipeline.loaders import open_in_order, open_loader, write_mixture
from tests.data.rows_in_memory import Rows

VOCABULARY = ByteVocabulary(extra_ids=100)
WORDS = ["the", "rows", "of", "a", "table", "are", "read", "in", "their", "order", "and", "each"]


def documents(count, seed):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(0, 60))) for _ in range(count)]


def pairs_of(row):
    text = row.text("text")
    return [{"inputs": f"reverse: {text[:33]}", "targets": text[::-1][:9]}]


def rows_of(texts, shards):
    return [
        [Row({"text": t}, f"line {n}") for n, t in enumerate(texts)][s::shards]
        for s in range(shards)
    ]


SOURCE = Rows({"train": rows_of(documents(71, 1), 3), "validation": rows_of(documents(13, 2), 2)})
TRAIN_ONLY = Rows({"train": rows_of(documents(37, 3), 2)})
EMPTY = Rows({"train": [[]], "validation": [[]]})


@pytest.fixture(autouse=True)
def own_tasks(monkeypatch):
    monkeypatch.setattr(names, "_own", {})

    def text(name, source=SOURCE, corpus="prose", **changes):
        add_task(
            TextTask(
                name=name, description="", corpus=corpus, source=lambda data: source, **changes
            )
        )

    text("plain")
    text("marked", objective=SpanCorruption(mean_noise_span_length=5.0), prefix="[R] ")
    text("nothing", EMPTY, "nothing")
    for name, source in (("reverse", SOURCE), ("train_only", TRAIN_ONLY)):
        add_task(
            ExampleTask(
                name=name,
                description="",
                source=lambda data, source=source: source,
                examples=pairs_of,
                num_examples=71 if name == "reverse" else None,
                splits=source.splits(),
            )
        )
    three = {"plain": 2.0, "marked": 1.0, "reverse": 3.0, "train_only": 1.0}
    add_mixture(Mixture(name="three", tasks=tuple(three), rate=Custom(weights=three)))
    add_mixture(Mixture(name="by_size", tasks=("plain", "reverse"), rate=Proportional()))


def config(mixture="three", **settings):
    settings = {"cache_dir": None, "inputs_length": 87, "targets_length": 31, "seed": 4} | settings
    return DataConfig(mixture=mixture, vocabulary=VOCABULARY, **settings)


def cached(folder, mixture="three", **settings):
    """The config of a mixture whose stores are in a folder, made as `t5jax cache` makes them."""
    data = config(mixture, cache_dir=str(folder), **settings)
    for task in checked_tasks(data):
        texts = task_documents(task, data)
        for split in texts.splits():
            directory = folder / resolve_task(task, data).store / split
            build_cache(texts, split, directory, vocabulary=VOCABULARY)
    write_mixture(data)
    return data


def decoded(batch, row, side):
    name = {"inputs": "encoder_input_tokens", "targets": "decoder_target_tokens"}[side]
    return VOCABULARY.decode(batch[name][row])


# --- training ---------------------------------------------------------------------------------


@pytest.mark.parametrize("live", [False, True])
def test_tasks_of_a_mixture_come_at_their_rates(tmp_path, live):
    """Of examples: a packed row counts as many as are in it."""
    data = config() if live else cached(tmp_path)
    loader = open_loader(data, batch_size=19)
    assert isinstance(loader, StreamingLoader if live else Loader)
    assert loader.task_names == ("plain", "marked", "reverse", "train_only")
    counts, rows = np.zeros(4), np.zeros(4)
    for step in range(150):
        batch = loader.rows(step)
        examples = batch["decoder_segment_ids"].max(axis=1)
        counts += np.bincount(batch["task_ids"], examples, minlength=4)
        rows += np.bincount(batch["task_ids"], minlength=4)
    assert counts / counts.sum() == pytest.approx(np.array([2, 1, 3, 1]) / 7, abs=0.01)
    per_row = counts / rows
    assert per_row[0] == per_row[1] == 1 < min(per_row[2:]) / 1.5


@pytest.mark.parametrize("live", [False, True])
def test_rows_are_what_their_tasks_say(tmp_path, live):
    data = config() if live else cached(tmp_path)
    loader, names = open_loader(data, batch_size=19), ("plain", "marked", "reverse", "train_only")
    shown = dict.fromkeys(names, 0)
    for step in range(5):
        batch = loader.rows(step)
        for row, task in enumerate(batch["task_ids"].tolist()):
            inputs, targets = (decoded(batch, row, side) for side in ("inputs", "targets"))
            shown[names[task]] += 1
            if names[task] in ("plain", "marked"):
                assert inputs.startswith("[R] ") == (names[task] == "marked")
                assert "<extra_id_0>" in inputs
                assert targets.startswith("<extra_id_0>")
            else:
                assert inputs.startswith("reverse: ")
    assert all(shown.values())


def test_seeds_of_tasks_are_their_own():
    tasks = (*resolve(config()).tasks, *resolve(config(seed=5)).tasks)
    assert len({task.seed for task in tasks}) == 8


def test_stores_need_no_modules_after_they_were_made(tmp_path):
    """Training opens the record and the stores, and asks nobody for the tasks."""
    data = cached(tmp_path)
    expected = open_loader(data, batch_size=7).rows(3)
    names._own.clear()
    assert_same(open_loader(data, batch_size=7).rows(3), expected)


def test_truncated_data_are_the_first_tokens_repeated(tmp_path):
    data = cached(tmp_path, "plain", targets_length=None, max_text_tokens=501)
    loader = open_loader(data, batch_size=11)
    assert loader.components[0].rows.num_tokens == 501
    places = [o.place for step in range(9) for row in range(11) for o in loader.origins(step, row)]
    assert {place.shard for place in places} == {"shard-00000"}
    assert max(place.token_offset + place.num_tokens for place in places) == 501
    with pytest.raises(ConfigError, match=r"max_text_tokens=501 with data.cache_dir = None"):
        open_loader(config("plain", targets_length=None, max_text_tokens=501), batch_size=11)
    whole = open_in_order(data, "validation", batch_size=5)["plain"]
    assert whole.components[0].rows.num_tokens > 501


def test_settings_reach_the_rows(tmp_path):
    data = cached(tmp_path)
    packed = open_loader(data, batch_size=7)
    alone = open_loader(config(cache_dir=str(tmp_path), pack=False), batch_size=7)
    assert packed.components[2].rows.num_rows < alone.components[2].rows.num_rows == 71
    assert "encoder_segment_ids" not in alone.element_spec
    other = open_loader(
        config(cache_dir=str(tmp_path), objective="prefix_lm", targets_length=90), batch_size=7
    )
    assert other.components[0].rows.objective.name == "prefix_lm"


def test_targets_are_as_long_as_the_objectives_make_them(tmp_path):
    data = cached(tmp_path, "plain", targets_length=None)
    loader = open_loader(data, batch_size=7)
    assert loader.row_format.targets_length == SpanCorruption().lengths(87).targets
    assert open_loader(config("plain", targets_length=None), batch_size=7).row_format == (
        loader.row_format
    )
    with pytest.raises(ConfigError, match="targets_length is not set, and reverse"):
        open_loader(config("reverse", targets_length=None), batch_size=7)


def test_rates_by_size_need_a_store(tmp_path):
    with pytest.raises(ConfigError, match="number of examples of plain, which is not known"):
        open_loader(config("by_size"), batch_size=7)
    record = open_loader(cached(tmp_path, "by_size"), batch_size=7)
    assert record.task_names == ("plain", "reverse")


def test_live_states_tell_settings_apart():
    state = open_loader(config(), batch_size=7).state(0)
    open_loader(config(), batch_size=7).check_state(json.loads(json.dumps(state)))
    for change in (
        {"seed": 5},
        {"inputs_length": 86},
        {"pack": False},
        {"objective": "span_corruption(mean_noise_span_length=4.0)"},
    ):
        with pytest.raises(DataError, match="data state was saved with"):
            open_loader(config(**change), batch_size=7).check_state(state)


# --- evaluation -------------------------------------------------------------------------------


def test_evaluation_without_stores_shows_the_same_rows(tmp_path):
    data = cached(tmp_path)
    stored = open_in_order(data, "validation", batch_size=5)
    in_memory = open_in_order(config(), "validation", batch_size=5)
    assert set(stored) == set(in_memory) == {"plain", "marked", "reverse"}
    for name, loader in stored.items():
        assert loader.num_rows == in_memory[name].num_rows > 0
        for step in range(loader.num_steps):
            assert_same(loader.rows(step), in_memory[name].rows(step))


def test_a_part_of_a_split_is_read_where_no_more_is_wanted():
    """As many rows as asked for are full, and are those of the whole split."""
    part = open_in_order(config("plain"), "train", batch_size=5, num_rows=10)["plain"]
    whole = open_in_order(config("plain"), "train", batch_size=5)["plain"]
    assert 10 <= part.num_rows < whole.num_rows
    for step in range(2):
        assert_same(part.rows(step), whole.rows(step))


def test_a_split_that_no_task_has_gives_no_loader(tmp_path):
    assert open_in_order(config(), "test", batch_size=5) == {}
    assert open_in_order(cached(tmp_path), "test", batch_size=5) == {}


def test_a_split_without_text_is_refused():
    for open_it in (
        lambda: open_in_order(config("nothing"), "validation", batch_size=5),
        lambda: open_loader(config("nothing"), batch_size=5).rows(0),
    ):
        with pytest.raises(DataError, match="no tokens"):
            open_it()


# --- stores that do not fit -------------------------------------------------------------------


def test_rates_edited_after_caching_are_the_new_ones(tmp_path, monkeypatch):
    """Where this process knows the mixture, its definition counts, not what `t5jax cache` wrote."""
    data = cached(tmp_path)
    before = open_loader(data, batch_size=5).mixing.shares(0)
    mixture = registry.find("three", data)
    weights = {name: 9.0**n for n, name in enumerate(mixture.tasks)}
    changed = dataclasses.replace(mixture, rate=Custom(weights=weights))
    monkeypatch.setattr(names, "_own", {**names._own, "three": changed})
    after = open_loader(data, batch_size=5).mixing.shares(0)
    assert list(after) == list(before)
    assert after != before
    assert max(after, key=after.get) == mixture.tasks[-1]


def test_a_task_that_has_changed_since_its_store_is_named(tmp_path, monkeypatch, caplog):
    data = cached(tmp_path)
    open_loader(data, batch_size=5)
    assert not caplog.records
    changed = dataclasses.replace(registry.find("reverse", data), examples=lambda row: [])
    monkeypatch.setattr(names, "_own", {**names._own, "reverse": changed})
    open_loader(data, batch_size=5)
    (said,) = caplog.messages
    assert said.startswith("task reverse has changed since its store")
    assert "t5jax cache CONFIG --overwrite" in said


def test_missing_stores_name_the_command(tmp_path):
    with pytest.raises(DataError, match=r"no tokenised store in .*t5jax cache CONFIG"):
        open_loader(config(cache_dir=str(tmp_path)), batch_size=5)
    data = cached(tmp_path)
    pathlib.Path(tmp_path / "reverse" / "train" / "META.json").unlink()
    with pytest.raises(DataError, match="is not finished; make it with: t5jax cache"):
        open_loader(data, batch_size=5)


def test_a_store_of_another_kind_or_vocabulary_is_refused(tmp_path, monkeypatch):
    data = cached(tmp_path)
    monkeypatch.setattr(names, "_own", {})  # the record that was written is read
    (tmp_path / "prose").rename(tmp_path / "away")
    (tmp_path / "reverse").rename(tmp_path / "prose")
    with pytest.raises(DataError, match="holds inputs, targets: it was made for another kind"):
        open_loader(data, batch_size=5)
    other = config("three", cache_dir=str(tmp_path))
    other.vocabulary = ByteVocabulary(extra_ids=99)
    with pytest.raises(DataError, match="was made with vocabulary"):
        open_loader(other, batch_size=5)


def test_ul2_works_with_and_without_a_store(tmp_path):
    """A built-in mixture over the user's files: seven denoisers read one corpus."""
    (tmp_path / "a.txt").write_text("\n\n".join(t for t in documents(90, 5) if t))
    settings = {
        "train_files": (str(tmp_path / "a.txt"),),
        "inputs_length": 128,
        "targets_length": None,
    }
    live = open_loader(config("text:ul2", **settings), batch_size=14)
    assert len(live.task_names) == 7
    data = config("text:ul2", cache_dir=str(tmp_path / "cache"), **settings)
    build_cache(
        task_documents(checked_tasks(data)[0], data),
        "train",
        tmp_path / "cache" / "text" / "train",
        vocabulary=VOCABULARY,
    )
    loader = open_loader(data, batch_size=14)
    assert loader.task_names == live.task_names
    assert loader.mixing.identity() == live.mixing.identity()
    batches = [loader.rows(step) for step in range(5)]
    inputs = [decoded(batch, row, "inputs") for batch in batches for row in range(14)]
    assert {text.split()[0] for text in inputs} == {d.mode for d in UL2_DENOISERS}
