"""Live tasks: the order of a store's kind, found while reading; hosts, restarts, epochs, faults."""

import itertools
import json

import numpy as np
import pytest

from t5jax.data.objectives import FullLanguageModel, SpanCorruption
from t5jax.data.pipeline.example_rows import ExampleRows
from t5jax.data.pipeline.loader import Component, Loader
from t5jax.data.pipeline.mixing import Mixing, Phase
from t5jax.data.pipeline.streaming import Position, StreamingLoader, StreamingTask
from t5jax.data.pipeline.text_rows import TextRows
from t5jax.data.registry.row_format import RowFormat
from t5jax.errors import DataError
from tests.data.number_stores import (
    EOS,
    VOCABULARY,
    MemoryTexts,
    assert_same,
    examples_of_shards,
    numbered,
    random_examples,
    recovered,
    stream_of,
    text_tokens,
    texts_of_shards,
)
from tests.marks import slow_but

LENGTHS = {"inputs_length": 41, "targets_length": 17}
ROW_FORMAT = RowFormat(converter="encoder_decoder", **LENGTHS)
BLOCK = 601
DOCUMENTS = [3, 0, 411, 97, 1, 0, 800, 55, 0, 0, 333, 12, 29, 701]
TOKENS = sum(DOCUMENTS)


def text_shards():
    """Four shards, one empty."""
    documents = numbered(DOCUMENTS)
    return [documents[:4], [], documents[4:7], documents[7:]]


def example_shards():
    pairs = random_examples(83, 44, 18, seed=4, first=20_000)
    return [pairs[:17], pairs[17:50], pairs[50:]]


def text_rows(streams, seed):
    return TextRows(streams["text"], SpanCorruption(), VOCABULARY, **LENGTHS, seed=seed)


def example_rows(streams, seed, pack=True):
    size = VOCABULARY.vocab_size
    return ExampleRows(streams, **LENGTHS, vocab_size=size, seed=seed, pack=pack)


def text_task(name="text", texts=None, seed=1, **changes):
    settings = {"settings": {"kind": "text"}, "seed": seed, "block_tokens": BLOCK} | changes
    texts = texts or texts_of_shards(text_shards())
    return StreamingTask(name, texts, "train", VOCABULARY, text_rows, **settings)


def example_task(name="examples", texts=None, seed=2, rows=example_rows):
    texts = texts or examples_of_shards(example_shards())
    settings = {"settings": {}, "seed": seed, "block_tokens": 700}
    return StreamingTask(name, texts, "train", VOCABULARY, rows, **settings)


def loader_of(tasks, batch_size=12, phases=None):
    phases = phases or [Phase(0, (1.0,) * len(tasks))]
    mixing = Mixing(phases, [task.name for task in tasks])
    return StreamingLoader(
        tasks, VOCABULARY, batch_size=batch_size, mixing=mixing, row_format=ROW_FORMAT
    )


def text(batch_size=12):
    return loader_of([text_task()], batch_size)


def examples(batch_size=12):
    return loader_of([example_task()], batch_size)


def mixture(batch_size=12):
    tasks = [text_task("a"), example_task(), text_task("b", seed=9)]
    phases = [Phase(0, (2.0, 1.0, 1.0)), Phase(77, (1.0, 3.0, 0.0)), Phase(400, (1.0, 0.2, 1.0))]
    return loader_of(tasks, batch_size, phases)


MAKERS = pytest.mark.parametrize("make", [text, examples, mixture])
STEPS = 47  # several epochs of everything


# --- the same rows ----------------------------------------------------------------------------


SPLITS = ("blocks", "interleaved", "one has nothing", "backwards")


@pytest.mark.parametrize(
    ("make", "split"),
    slow_but(
        [(text, "blocks"), (examples, "interleaved"), (mixture, "one has nothing")],
        itertools.product((text, examples, mixture), SPLITS),
    ),
)
def test_the_same_rows_for_any_split_among_hosts(make, split):
    parts = {
        "blocks": [range(0, 4), range(4, 8), range(8, 12)],
        "interleaved": [range(host, 12, 4) for host in range(4)],
        "one has nothing": [range(0, 12), [], [5, 6]],
        "backwards": [range(11, 4, -1), [4, 0, 3, 1, 2]],
    }[split]
    whole, hosts = make(), [make() for _ in parts]
    for step in range(STEPS):
        batch = whole.rows(step)
        for host, indices in zip(hosts, parts, strict=True):
            assert_same(
                host.rows(step, indices),
                {name: array[np.array(indices, int)] for name, array in batch.items()},
            )
            assert host.state(step + 1) == whole.state(step + 1)


@MAKERS
def test_any_state_gives_the_rest_again(make):
    loader, batches, states = make(), [], []
    for step in range(STEPS):
        states.append(json.loads(json.dumps(loader.state(step))))
        batches.append(loader.rows(step))
    for start in range(0, STEPS, 7):
        resumed = make()
        resumed.restore(states[start], start)
        for step in range(start, STEPS):
            assert_same(resumed.rows(step), batches[step])
            assert loader.state(step) == states[step] == resumed.state(step)
    position = Position(*states[-1]["positions"][0])
    assert position.epoch >= 2


def test_a_loader_that_has_read_can_go_back():
    loader = mixture()
    state, first = loader.state(0), loader.rows(0)
    loader.rows(1)
    loader.restore(state, 0)
    assert_same(loader.rows(0), first)


@MAKERS
def test_batch_size_does_not_change_the_rows(make):
    small, large = make(4), make(12)
    for step in range(9):
        parts = [small.rows(3 * step + part) for part in range(3)]
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        assert_same(joined, large.rows(step))


@MAKERS
def test_element_spec(make):
    loader = make()
    spec, batch = loader.element_spec, loader.rows(0)
    assert {k: (v.shape, v.dtype) for k, v in batch.items()} == {
        k: tuple(v) for k, v in spec.items()
    }


# --- epochs -----------------------------------------------------------------------------------


def rows_shown(task, epochs):
    """The tokens of each row of each epoch; an epoch ends where all tokens were shown."""
    shown = []
    for _ in range(epochs):
        rows, size = [], 0
        while size < TOKENS:
            got = task.read(np.ones(1, bool))
            rows.append(recovered(got.inputs[0], got.targets[0]))
            size += len(rows[-1])
        shown.append(rows)
    return shown


def test_an_epoch_shows_every_token_once_in_an_order_of_its_own():
    epochs = rows_shown(text_task(), 4)
    orders = []
    for rows in epochs:
        tokens = [token for row in rows for token in row]
        assert sorted(tokens) == list(range(3, TOKENS + 3))
        orders.append([row[0] for row in rows])
    for number, order in enumerate(orders):
        assert order != sorted(order)
        assert all(order != other for other in orders[:number])


def test_blocks_are_whole_documents_of_the_epochs_shards():
    """Rows of a block show its documents and no others; shards come in a new order."""
    starts = []
    task = text_task()
    for _ in range(40):
        position, block = task.position, task._current()
        starts.append((position.epoch, position.shard))
        assert block.num_tokens >= BLOCK or task._next_block.epoch > position.epoch
        task.read(np.zeros(block.num_rows, bool))
    orders = {}
    for epoch in range(6):
        firsts = [
            tuple(d["text"].tolist()[:2])
            for n in range(4)
            for d in task.documents_of_shard(epoch, n)
        ]
        assert sorted(firsts) == sorted(tuple(d.tolist()[:2]) for s in text_shards() for d in s)
        orders[epoch] = tuple(firsts)
    assert len(set(orders.values())) > 2
    assert len(set(starts)) > 10


@pytest.mark.parametrize("pack", [True, False])
def test_an_epoch_shows_every_example_once(pack):
    task = example_task(rows=lambda streams, seed: example_rows(streams, seed, pack))
    want = sorted(
        (x.tolist()[:40], y.tolist()[:16]) for shard in example_shards() for x, y in shard
    )
    for _ in range(3):
        found = []
        while len(found) < len(want):
            got = task.read(np.ones(1, bool))
            sides = [
                np.split(side[0], np.flatnonzero(side[0] == EOS) + 1)[:-1]
                for side in (got.inputs, got.targets)
            ]
            found += [(x[:-1].tolist(), y[:-1].tolist()) for x, y in zip(*sides, strict=True)]
        assert sorted(found) == want


def test_the_tokens_of_an_epoch_are_those_of_a_store_in_another_order():
    live = rows_shown(text_task(), 1)[0]
    rows = text_rows({"text": stream_of(text_shards())}, seed=1)
    got = rows.read(np.arange(rows.num_rows))
    stored = [recovered(*row) for row in zip(got.inputs, got.targets, strict=True)]
    assert sorted(t for row in live for t in row) == sorted(t for row in stored for t in row)
    assert [row[0] for row in live] != [row[0] for row in stored]


def test_full_language_model_has_every_eos():
    def rows(streams, seed):
        return TextRows(streams["text"], FullLanguageModel(), VOCABULARY, **LENGTHS, seed=seed)

    texts = texts_of_shards(text_shards())
    settings = {"settings": {}, "seed": 3, "block_tokens": BLOCK}
    task = StreamingTask("text", texts, "train", VOCABULARY, rows, **settings)
    shown = [np.zeros((1, 1), np.int32)]
    while len(text_tokens(*shown)) < TOKENS:
        shown.append(task.read(np.ones(1, bool)).targets)
    tokens = np.concatenate([rows.ravel() for rows in shown])
    assert sorted(text_tokens(tokens)) == list(range(3, TOKENS + 3))
    # Documents without tokens behind the last one that has some are nobody's: their EOS too.
    assert len(DOCUMENTS) - 4 <= (tokens == EOS).sum() <= len(DOCUMENTS)


def test_rows_of_a_mixture_are_those_of_the_tasks_alone():
    loader, alone = mixture(), [text_task("a"), example_task(), text_task("b", seed=9)]
    for step in range(STEPS):
        batch = loader.rows(step)
        for row, number in enumerate(batch["task_ids"].tolist()):
            own = alone[number].read(np.ones(1, bool))
            np.testing.assert_array_equal(batch["encoder_input_tokens"][row], own.inputs[0])
            np.testing.assert_array_equal(batch["decoder_target_tokens"][row], own.targets[0])


# --- state and refusals -----------------------------------------------------------------------


def test_state_of_twenty_tasks_is_small():
    loader = loader_of([text_task(f"a_task_number_{i}", seed=i) for i in range(20)])
    for step in range(3):
        loader.rows(step)
    assert len(json.dumps(loader.state(3))) < 1000


def test_steps_that_were_made_ahead_keep_their_states():
    loader = text()
    for step in range(20):
        loader.rows(step)
    again = text()
    again.restore(loader.state(13), 13)
    assert again.state(14 - 1) == loader.state(13)


@pytest.mark.parametrize(
    ("other", "key"),
    [
        (lambda: loader_of([text_task(seed=2)]), "live_tasks"),
        (lambda: loader_of([text_task(settings={"kind": "other"})]), "live_tasks"),
        (lambda: loader_of([text_task(block_tokens=602)]), "live_tasks"),
        (lambda: loader_of([text_task(texts=texts_of_shards(text_shards()[1:]))]), "live_tasks"),
        (lambda: loader_of([text_task("other")]), "tasks"),
        (mixture, "live_tasks"),
    ],
)
def test_state_of_another_run_is_refused(other, key):
    state = text().state(0)
    with pytest.raises(DataError, match=f"saved with {key} = "):
        other().restore(state, 0)


def test_a_state_of_t5jax_0_1_is_taken():
    """It has a digest of byte code, which nothing can be compared with; all else has to agree."""
    loader = text()
    before = [loader.rows(step) for step in range(3)]
    state = loader.state(2)
    old = {key: value for key, value in state.items() if key != "live_tasks"} | {"live": "0" * 16}
    again = text()
    again.restore(old, 2)
    for name, array in again.rows(2).items():
        np.testing.assert_array_equal(array, before[2][name])
    with pytest.raises(DataError, match="saved with lengths = "):
        text().restore(old | {"lengths": [1, 2]}, 2)


def test_states_of_other_rates_and_stores_are_refused():
    tasks = [text_task(), example_task()]
    one = loader_of(tasks, phases=[Phase(0, (1.0, 1.0))])
    with pytest.raises(DataError, match="saved with rates"):
        loader_of(tasks, phases=[Phase(0, (1.0, 2.0))]).restore(one.state(0), 0)
    rows = text_rows({"text": stream_of(text_shards())}, seed=1)
    component = Component(name="text", rows=rows, store=None)
    settings = {"batch_size": 12, "mixing": one.mixing, "row_format": ROW_FORMAT}
    settings["mixing"] = Mixing([Phase(0, (1.0,))], ["text"])
    cached = Loader([component], VOCABULARY, **settings)
    with pytest.raises(DataError, match="no positions of live tasks"):
        text().restore(cached.state(3), 3)
    with pytest.raises(DataError, match="saved with"):
        cached.restore(text().state(0), 0)


def test_a_source_that_shrank_is_refused():
    texts = texts_of_shards([numbered([60] * 30)])
    loader = loader_of([text_task(texts=texts)])
    for step in range(3):
        loader.rows(step)
    state = loader.state(3)
    assert state["positions"][0][2] > 9
    shrunk = loader_of([text_task(texts=texts_of_shards([numbered([60] * 9)]))])
    shrunk.restore(state, 3)
    with pytest.raises(
        DataError, match=r"task text: the saved position is document \d+ of a shard"
    ):
        shrunk.rows(3)


def test_texts_without_tokens_are_refused():
    nothing = MemoryTexts({"a": [{"text": np.zeros(0, np.int32)}] * 3, "b": []})
    with pytest.raises(DataError, match="no tokens at all"):
        loader_of([text_task(texts=nothing)]).rows(0)


def test_texts_of_an_epoch_are_asked_for():
    """Texts that are made anew have `of_epoch`; its epochs are those of the position."""
    asked = []

    class Fresh(MemoryTexts):
        def of_epoch(self, epoch):
            asked.append(epoch)
            return self

    task = text_task(texts=Fresh(texts_of_shards(text_shards()).content))
    rows_shown(task, 3)
    assert asked[:4] == [0, 0, 0, 0]
    assert set(asked) >= {0, 1, 2}
    assert asked == sorted(asked)
