"""The loader: the same rows for any hosts, batches and restarts; mixtures row by row."""

import dataclasses
import itertools
import json
import time

import numpy as np
import pytest

from t5jax.data.objectives import FullLanguageModel, PackedPrefixLM, SpanCorruption
from t5jax.data.pipeline.example_rows import ExampleRows
from t5jax.data.pipeline.loader import Component, Loader
from t5jax.data.pipeline.mixing import Mixing, Phase
from t5jax.data.pipeline.text_rows import TextRows
from t5jax.data.registry.row_format import RowFormat
from t5jax.data.rng import Permutation, derive_seed
from t5jax.data.store.build import build_cache
from t5jax.data.store.reader import TokenStore
from t5jax.data.tensorflow_import import import_seqio, import_tensorflow
from t5jax.errors import ConfigError, DataError
from tests.data.number_stores import (
    VOCABULARY,
    assert_same,
    examples_of_shards,
    numbered,
    random_examples,
    recovered,
    text_tokens,
    texts_of_shards,
)

TOKENS = 10_007  # a prime: no row length divides it
LENGTHS = {"inputs_length": 96, "targets_length": 27}
ROW_FORMAT = RowFormat(converter="encoder_decoder", **LENGTHS)
FIRST_EXAMPLE_TOKEN = 30_000


def text_shards():
    """One shard of 7 tokens and an empty one."""
    documents, borders = numbered([TOKENS])[0], [0, 1900, 1907, 6000, 6000, TOKENS]
    return [np.array_split(documents[a:b], 9) for a, b in itertools.pairwise(borders)]


def example_shards():
    pairs = random_examples(151, 40, 14, seed=2, first=FIRST_EXAMPLE_TOKEN)
    return [pairs[:31], pairs[31:31], pairs[31:]]


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    found = {}
    for name, texts in (
        ("text", texts_of_shards(text_shards())),
        ("examples", examples_of_shards(example_shards())),
    ):
        directory = tmp_path_factory.mktemp(name)
        build_cache(texts, "train", directory, vocabulary=VOCABULARY)
        found[name] = TokenStore.open(directory)
    return found


def text_component(stores, name="text", objective=None, seed=5, **changes):
    rows = TextRows(
        stores["text"].streams["text"],
        objective or SpanCorruption(),
        VOCABULARY,
        **{**LENGTHS, "seed": derive_seed(seed, name)} | changes,
    )
    return Component(name=name, rows=rows, store=stores["text"])


def example_component(stores, name="examples", seed=5, **changes):
    settings = {**LENGTHS, "vocab_size": VOCABULARY.vocab_size, "seed": derive_seed(seed, name)}
    rows = ExampleRows(stores["examples"].streams, **settings | changes)
    return Component(name=name, rows=rows, store=stores["examples"])


def loader_of(components, mixing="equal", batch_size=13, **changes):
    names = [component.name for component in components]
    if mixing == "equal":
        mixing = Mixing([Phase(0, (1.0,) * len(names))], names)
    settings = {"batch_size": batch_size, "mixing": mixing, "row_format": ROW_FORMAT}
    return Loader(components, VOCABULARY, **settings | changes)


def single(stores, batch_size=13, **changes):
    return loader_of([text_component(stores, **changes)], batch_size=batch_size)


def mixture(stores, batch_size=13, seed=5, pack=True):
    components = [
        text_component(stores, "text", seed=seed),
        example_component(stores, seed=seed, pack=pack),
        text_component(
            stores,
            "prefixed",
            SpanCorruption(mean_noise_span_length=5.0),
            seed=seed,
            prefix_ids=np.array([59_001, 59_002]),
        ),
    ]
    phases = [Phase(0, (3.0, 2.0, 1.0)), Phase(101, (1.0, 5.0, 0.0)), Phase(997, (1.0, 1.0, 1.0))]
    mixing = Mixing(phases, [component.name for component in components])
    return loader_of(components, mixing, batch_size)


MAKERS = pytest.mark.parametrize("make", [single, mixture])


# --- the same rows, however they are asked for ------------------------------------------------


@MAKERS
@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_same_global_order_for_any_number_of_hosts(stores, make, hosts):
    whole = make(stores, batch_size=12)
    for step in (0, 8, 9, 83, 10_000_019):
        parts = [make(stores, batch_size=12).rows(step, range(h, 12, hosts)) for h in range(hosts)]
        expected = whole.rows(step)
        merged = {key: np.zeros_like(value) for key, value in expected.items()}
        for host, part in enumerate(parts):
            for key in part:
                merged[key][host::hosts] = part[key]
        assert_same(merged, expected)


@MAKERS
def test_rows_in_any_order_and_number(stores, make):
    loader = make(stores, batch_size=200)
    whole = loader.rows(2)
    for rows in ([17], [199, 0, 64, 63, 65], [], np.random.default_rng(0).permutation(200)):
        part = loader.rows(2, rows)
        assert_same(part, {key: value[np.asarray(rows, int)] for key, value in whole.items()})
    for rows in ([200], [-1]):
        with pytest.raises(IndexError):
            loader.rows(2, rows)


@MAKERS
def test_batch_size_does_not_change_the_examples(stores, make):
    small, large = make(stores, batch_size=5), make(stores, batch_size=35)
    for step in range(4):
        parts = [small.rows(7 * step + part) for part in range(7)]
        joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        assert_same(joined, large.rows(step))


def test_seed_changes_everything(stores):
    one, other = single(stores, seed=5).rows(0), single(stores, seed=6).rows(0)
    same = one["encoder_input_tokens"] == other["encoder_input_tokens"]
    assert same.mean() < 0.1


def test_batches_are_pinned(stores):
    """The order of a seed must never change: a resumed run depends on it."""
    stream = stores["text"].streams["text"]
    rows = TextRows(stream, SpanCorruption(), VOCABULARY, **LENGTHS, seed=5)
    batch = rows.read(9 * 13 + np.arange(13))
    firsts = [recovered(*row)[0] for row in zip(batch.inputs, batch.targets, strict=True)]
    assert firsts == [302, 4797, 3376, 3694, 7871, 8401, 6811, 1680, 1256, 938, 6175, 1150, 4224]
    targets = "60099 7889 7890 7891 7892 7893 7894 60098 7944 7945 7946 60097 7948 7949 60096 7951"
    assert VOCABULARY.decode(batch.targets[4][:16]) == targets
    mixed = mixture(stores).rows(3)
    assert mixed["task_ids"].tolist() == [0, 1, 0, 0, 1, 2, 0, 1, 0, 0, 1, 2, 0]
    thirds = mixed["encoder_input_tokens"][:, 2].tolist()
    assert thirds == [
        4931,
        30544,
        7051,
        8005,
        31030,
        2515,
        6839,
        31743,
        6521,
        5461,
        31189,
        6692,
        5991,
    ]


# --- mixtures ---------------------------------------------------------------------------------


def test_rows_of_several_tasks_stand_where_the_mixing_says(stores):
    """Row by row against the tasks' own rows, read one at a time."""
    loader = mixture(stores)
    for step in (0, 7, 8, 76, 77):
        batch = loader.rows(step)
        ids = step * 13 + np.arange(13)
        tasks, within = loader.mixing(ids)
        np.testing.assert_array_equal(batch["task_ids"], tasks)
        for row in range(13):
            own = loader.components[tasks[row]].rows.read(within[[row]])
            np.testing.assert_array_equal(batch["encoder_input_tokens"][row], own.inputs[0])
            np.testing.assert_array_equal(batch["decoder_target_tokens"][row], own.targets[0])
            if own.inputs_segments is not None:
                segments = own.inputs_segments[0]
            else:  # one segment, as far as there are tokens
                segments = (own.inputs[0] != 0).astype(int)
                positions = np.arange(96) * segments
                np.testing.assert_array_equal(batch["encoder_positions"][row], positions)
            np.testing.assert_array_equal(batch["encoder_segment_ids"][row], segments)
    assert len(np.unique(batch["task_ids"])) > 1


def test_tasks_over_one_corpus_do_not_read_it_in_lockstep(stores):
    loader = loader_of([text_component(stores, f"task{i}") for i in range(3)], batch_size=30)
    firsts = {0: [], 1: [], 2: []}
    for step in range(7):
        batch = loader.rows(step)
        for row in range(30):
            text = recovered(
                batch["encoder_input_tokens"][row], batch["decoder_target_tokens"][row]
            )
            firsts[int(batch["task_ids"][row])].append(text[0] // 200)
    assert all(len(found) == 70 for found in firsts.values())
    for one, other in itertools.combinations(firsts.values(), 2):
        assert np.mean(np.array(one) == np.array(other)) < 0.15  # of 50 places, by chance 0.02


def test_every_row_of_every_task_is_shown_once_per_epoch(stores):
    loader = mixture(stores)
    seen = {number: [] for number in range(3)}
    steps = 2000 // 13
    for step in range(steps):
        tasks, within = loader.mixing(step * 13 + np.arange(13))
        for task, row in zip(tasks.tolist(), within.tolist(), strict=True):
            seen[task].append(row)
    for number, rows in seen.items():
        assert rows == list(range(len(rows)))
        assert len(rows) > 2 * loader.components[number].rows.num_rows > 0


# --- state ------------------------------------------------------------------------------------


@MAKERS
def test_resume_at_random_steps(stores, make):
    loader = make(stores)
    for step in np.random.default_rng(3).integers(0, 10**7, 9).tolist():
        state = json.loads(json.dumps(loader.state(step)))
        resumed = make(stores)
        resumed.restore(state, step)
        for ahead in range(3):
            assert_same(resumed.rows(step + ahead), loader.rows(step + ahead))
            assert resumed.state(step + ahead) == loader.state(step + ahead)


def test_state_of_twenty_tasks_is_small(stores):
    loader = loader_of([text_component(stores, f"a_task_number_{i}") for i in range(20)])
    assert len(json.dumps(loader.state(10**9))) < 1000


def test_resume_with_another_batch_size_loses_nothing(stores):
    before, after = single(stores, batch_size=13), single(stores, batch_size=9)
    after.restore(before.state(40), 40)  # 520 rows done; step numbers go on
    last = single(stores, batch_size=21)
    last.restore(after.state(47), 47)  # 63 more
    assert last.state(48)["next_row"] == 40 * 13 + 7 * 9 + 21
    rows = single(stores, batch_size=1)
    for loader, step, row, number in (
        (after, 40, 0, 520),
        (after, 46, 8, 582),
        (last, 47, 0, 583),
        (last, 49, 20, 583 + 62),
    ):
        assert_same(loader.rows(step, [row]), rows.rows(number))
    with pytest.raises(IndexError, match="step 14 lies before the restored position"):
        last.rows(14)


@pytest.mark.parametrize(
    ("other", "key"),
    [
        (lambda s: single(s, seed=6), "rows"),
        (lambda s: single(s, inputs_length=80), "rows"),
        (lambda s: single(s, shuffle=False), "rows"),
        (lambda s: single(s, objective=SpanCorruption(mean_noise_span_length=4.0)), "rows"),
        (lambda s: loader_of([text_component(s, "other")]), "tasks"),
        (mixture, "tasks"),
        (
            lambda s: loader_of(
                [dataclasses.replace(text_component(s), store=s["examples"])], batch_size=13
            ),
            "stores",
        ),
    ],
)
def test_state_of_another_run_is_refused(stores, other, key):
    state = single(stores).state(3)
    message = rf"saved with {key} = '[0-9a-f]+', this run has '.*Resume with the saved setting"
    with pytest.raises(DataError, match=f"(?s){message}"):
        other(stores).restore(state, 3)


def test_states_hash_the_packing_once(stores, monkeypatch):
    asked, identity = [], ExampleRows.identity
    monkeypatch.setattr(ExampleRows, "identity", lambda s: (asked.append(s), identity(s))[1])
    loader = loader_of([example_component(stores)])
    for step in range(5):
        loader.check_state(loader.state(step))
    assert len(asked) == 1


def test_state_of_other_rates_is_refused(stores):
    names = ("text", "examples")
    components = [text_component(stores), example_component(stores)]
    one, other = (
        loader_of(components, Mixing([Phase(0, rates)], names)) for rates in ((1, 2), (1, 3))
    )
    other.check_state(other.state(7))
    with pytest.raises(DataError, match="saved with rates"):
        other.check_state(one.state(7))


def test_broken_state_is_refused(stores):
    for broken in ({}, {"next_row": -1}, {"next_row": "39"}):
        with pytest.raises(DataError, match="no valid next_row"):
            single(stores).check_state(broken)


@MAKERS
def test_seeking_does_not_depend_on_the_distance(stores, make):
    loader = make(stores)
    loader.rows(0)
    loader.rows(10**9)  # the mixture's last phase

    def seconds(step):
        start = time.perf_counter()
        loader.rows(step)
        return time.perf_counter() - start

    assert min(seconds(10**9 + 10**6 * i) for i in range(9)) < 0.03


# --- the form of a batch ----------------------------------------------------------------------


@MAKERS
def test_element_spec(stores, make):
    loader = make(stores)
    batch = loader.rows(5)
    assert batch.keys() == loader.element_spec.keys()
    for key, (shape, dtype) in loader.element_spec.items():
        assert batch[key].shape == shape
        assert batch[key].dtype == dtype == np.int32
    assert ("task_ids" in batch) == ("encoder_segment_ids" in batch) == (make is mixture)
    assert loader.task_names == (("text",) if make is single else ("text", "examples", "prefixed"))


@pytest.mark.parametrize("objective", [FullLanguageModel(), PackedPrefixLM()])
def test_element_spec_of_other_objectives(stores, objective):
    lengths = {"inputs_length": 38, "targets_length": 38}
    component = text_component(stores, objective=objective, **lengths)
    loader = loader_of([component], row_format=RowFormat(converter="encoder_decoder", **lengths))
    batch = loader.rows(2)
    assert {k: v.shape for k, v in batch.items()} == {
        k: v.shape for k, v in loader.element_spec.items()
    }
    assert ("decoder_positions" in batch) == objective.packs


@pytest.mark.slow
def test_same_features_as_seqio(stores):
    """Right shift, weights and padding of seqio's own converter, given the same inputs/targets."""
    seqio, tf = import_seqio(), import_tensorflow()
    component = text_component(stores, targets_length=30, shuffle=False)
    rows = dataclasses.replace(ROW_FORMAT, targets_length=30)
    loader = loader_of([component], None, 95, row_format=rows)
    batch = loader.rows(0)
    examples = [
        {
            "inputs": batch["encoder_input_tokens"][row][batch["encoder_input_tokens"][row] > 0],
            "targets": batch["decoder_target_tokens"][row][batch["decoder_target_tokens"][row] > 0],
        }
        for row in range(95)
    ]
    spec = {key: tf.TensorSpec([None], tf.int32) for key in ("inputs", "targets")}
    dataset = tf.data.Dataset.from_generator(lambda: iter(examples), output_signature=spec)
    converter = seqio.EncDecFeatureConverter(pack=False)
    theirs = list(converter(dataset, {"inputs": 96, "targets": 30}).as_numpy_iterator())
    assert set(theirs[0]) == set(batch)
    for row, example in enumerate(theirs):
        for key, value in example.items():
            np.testing.assert_array_equal(batch[key][row], value, err_msg=f"{key} {row}")


def test_evaluation_is_one_pass(stores):
    loader = loader_of([text_component(stores, shuffle=False)], None, 40)
    assert (loader.num_rows, loader.num_steps) == (95, 3)
    batches = [loader.rows(step) for step in range(3)]
    arrays = [b[k] for b in batches for k in ("encoder_input_tokens", "decoder_target_tokens")]
    assert sorted(text_tokens(*arrays)) == list(range(3, TOKENS + 3))
    last = batches[-1]
    assert last["decoder_loss_weights"][:15].any(axis=1).all()
    assert all(not value[15:].any() for value in last.values())
    assert all(not value.any() for value in loader.rows(3).values())
    part = loader.rows(2, [39, 14, 15])
    assert_same(part, {key: value[[39, 14, 15]] for key, value in last.items()})
    again = loader_of([text_component(stores, shuffle=False)], None, 40)
    assert_same(again.rows(1), batches[1])


def test_several_tasks_are_evaluated_one_after_the_other(stores):
    components = [
        example_component(stores, shuffle=False, pack=False),
        text_component(stores, shuffle=False),
    ]
    loader = loader_of(components, None, 70)
    assert loader.num_rows == 151 + 95
    batches = [loader.rows(step) for step in range(loader.num_steps)]
    tasks = np.concatenate([batch["task_ids"] for batch in batches])
    assert tasks[: 151 + 95].tolist() == [0] * 151 + [1] * 95
    arrays = [b[k] for b in batches for k in ("encoder_input_tokens", "decoder_target_tokens")]
    shown = text_tokens(*arrays)
    assert np.array_equal(np.sort(shown[shown < FIRST_EXAMPLE_TOKEN]), np.arange(3, TOKENS + 3))
    assert not batches[-1]["decoder_loss_weights"][246 - 3 * 70 :].any()


# --- origins ----------------------------------------------------------------------------------


def test_origins_of_text_are_what_a_row_shows(stores):
    loader, store = single(stores), stores["text"]
    shards = [np.concatenate(shard) for shard in text_shards()]
    ends = [np.cumsum([len(d) for d in shard]) for shard in text_shards()]
    crossing = 0
    for step, row in itertools.product(range(8), range(13)):
        tokens, origins = [], loader.origins(step, row)
        for origin in origins:
            assert (origin.task, origin.feature) == ("text", "text")
            place = origin.place
            number = [shard.name for shard in store.info.shards].index(place.shard)
            assert place.source == f"part-{number}"
            span = slice(place.token_offset, place.token_offset + place.num_tokens)
            tokens += shards[number][span].tolist()
            for document, offset in (
                (place.first_document, place.token_offset),
                (place.last_document, place.token_offset + place.num_tokens - 1),
            ):
                assert np.searchsorted(ends[number], offset, side="right") == document
        batch = loader.rows(step, [row])
        shown = recovered(batch["encoder_input_tokens"][0], batch["decoder_target_tokens"][0])
        assert tokens == shown
        crossing += len(origins) > 1
    assert crossing > 1
    in_order = loader_of([text_component(stores, shuffle=False)], None)
    assert in_order.origins(100, 0) == []


@pytest.mark.parametrize("pack", [True, False])
def test_origins_of_examples_are_what_a_row_shows(stores, pack):
    loader = loader_of([example_component(stores, pack=pack)])
    content = {f"part-{i}": shard for i, shard in enumerate(example_shards())}
    seen = []
    for number in range(loader.num_rows):
        step, row = divmod(number, 13)
        want = {"inputs": [], "targets": []}
        for origin in loader.origins(step, row):
            pair = content[origin.place.source][origin.place.first_document]
            limit = LENGTHS[f"{origin.feature}_length"] - 1
            ids = pair[origin.feature == "targets"]
            want[origin.feature] += ids[:limit].tolist()
            if origin.feature == "inputs":
                seen.append((origin.place.source, origin.place.first_document))
            assert origin.place.first_document == origin.place.last_document
        batch = loader.rows(step, [row])
        assert text_tokens(batch["encoder_input_tokens"]).tolist() == want["inputs"]
        assert text_tokens(batch["decoder_target_tokens"]).tolist() == want["targets"]
    assert sorted(seen) == [(s, n) for s, pairs in content.items() for n in range(len(pairs))]


def test_origins_in_a_mixture_name_the_task(stores):
    loader = mixture(stores)
    for row, task in enumerate(loader.rows(3)["task_ids"].tolist()):
        assert {origin.task for origin in loader.origins(3, row)} == {loader.task_names[task]}


# --- refusals, permutation --------------------------------------------------------------------


def test_batch_size_is_checked(stores):
    with pytest.raises(ConfigError, match="batch_size=0"):
        single(stores, batch_size=0)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 97, 1000, 65_537])
def test_permutation_is_one(size):
    for epoch in range(4):
        permuted = Permutation(size, 3, epoch)(np.arange(size))
        np.testing.assert_array_equal(np.sort(permuted), np.arange(size))


def test_permutation_looks_random():
    size = 50_021
    order = np.stack([Permutation(size, 3, epoch)(np.arange(size)) for epoch in range(4)])
    uniform = order / size
    for row in uniform:
        assert abs(np.corrcoef(row, np.arange(size))[0, 1]) < 0.02
        assert abs(np.corrcoef(row[:-1], row[1:])[0, 1]) < 0.02
        assert abs(np.mean(np.diff(row) > 0) - 0.5) < 0.01
        counts = np.histogram2d(row[:-1], row[1:], bins=20)[0]  # neighbours fill the square evenly
        chi_square = np.sum((counts - counts.mean()) ** 2 / counts.mean())
        assert chi_square < 399 + 5 * np.sqrt(2 * 399)
    assert np.abs(np.corrcoef(uniform) - np.eye(4)).max() < 0.02
