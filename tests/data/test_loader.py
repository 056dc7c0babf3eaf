"""The loader: every token once per epoch, the same rows for any hosts, batches and restarts."""

import itertools
import json
import threading
import time
import traceback

import numpy as np
import pytest

from t5jax.data.cache import TokenCache, build_cache
from t5jax.data.counter_rng import Permutation
from t5jax.data.loader import Loader, Prefetcher
from t5jax.data.objectives import SpanCorruption
from t5jax.data.vocabularies import ByteVocabulary
from t5jax.errors import ConfigError, DataError

TOKENS = 10_007  # a prime: no row length divides it
FIRST_SENTINEL = 20_000


class Numbers(ByteVocabulary):
    """Texts are numbers, so that every token of a store can be told from every other."""

    vocab_size = FIRST_SENTINEL + 100
    num_sentinels = 100

    def encode(self, text, *, sentinels=True):
        return np.array(text.split(), np.int32)


class NumberSource:
    def shards(self, split):
        return [f"{split}-{number}" for number in range(5)]

    def documents(self, split, shard):
        numbers = np.arange(3, TOKENS + 3)
        borders = [0, 1900, 1907, 6000, 6000, TOKENS]  # one shard of 7 tokens and an empty one
        index = int(shard[-1])
        for document in np.array_split(numbers[borders[index] : borders[index + 1]], 9):
            yield " ".join(map(str, document))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    directory = tmp_path_factory.mktemp("store")
    build_cache(NumberSource(), "train", directory, vocabulary=Numbers())
    return TokenCache.open(directory)


def loader_of(cache, **changes):
    settings = {"batch_size": 13, "inputs_length": 96, "targets_length": 27, "seed": 5}
    return Loader(cache, SpanCorruption(), Numbers(), **(settings | changes))


def text_tokens(batch):
    both = [batch["encoder_input_tokens"].ravel(), batch["decoder_target_tokens"].ravel()]
    ids = np.concatenate(both)
    return ids[(ids > 1) & (ids < FIRST_SENTINEL)]


def recovered(batch, row):
    """The text of a row: inputs with each sentinel replaced by what follows it in the targets."""
    hidden, text = {}, []
    for token in batch["decoder_target_tokens"][row].tolist():
        if token >= FIRST_SENTINEL:
            hidden[token] = current = []
        elif token > 1:
            current.append(token)
    for token in batch["encoder_input_tokens"][row].tolist():
        if token > 1:
            text += hidden[token] if token >= FIRST_SENTINEL else [token]
    return text


def assert_same(batch, other):
    assert batch.keys() == other.keys()
    for key in batch:
        np.testing.assert_array_equal(batch[key], other[key], err_msg=key)


def rows_of_epoch(loader, epoch):
    """The texts of one epoch's rows, in the order of training."""
    first, last = epoch * loader.num_rows, (epoch + 1) * loader.num_rows
    for step in range(first // loader.batch_size, (last - 1) // loader.batch_size + 1):
        batch = loader.rows(step)
        for row in range(loader.batch_size):
            if first <= step * loader.batch_size + row < last:
                yield recovered(batch, row)


# --- coverage ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shuffle", [True, False])
def test_every_token_once_per_epoch(cache, shuffle):
    loader = loader_of(cache, shuffle=shuffle)
    raw = SpanCorruption().lengths(96).raw
    assert loader.num_rows == -(-TOKENS // raw) == 95
    for epoch in range(3 if shuffle else 1):
        texts = list(rows_of_epoch(loader, epoch))
        assert sorted(itertools.chain(*texts)) == list(range(3, TOKENS + 3))
        lengths = sorted(map(len, texts))
        assert lengths == [TOKENS - 94 * raw] + [raw] * 94
        for text in texts:  # a row is a piece of the ring, in order
            steps = np.diff(text)
            assert ((steps == 1) | (steps == 1 - TOKENS)).all()


def test_order_borders_and_masks_are_fresh_in_each_epoch(cache):
    loader = loader_of(cache)
    firsts = [[text[0] for text in rows_of_epoch(loader, epoch)] for epoch in range(3)]
    for one, other in itertools.combinations(firsts, 2):
        assert len(set(one) & set(other)) < 20  # other borders: hardly a row begins where one did
    assert firsts[0] != sorted(firsts[0])
    # What is hidden changes too: about 15 % of what one epoch hides is hidden by the next.
    hidden = []
    for epoch in range(3):
        steps = range(epoch * 95 // 13 + 1, (epoch + 1) * 95 // 13)
        tokens = [loader.rows(step)["decoder_target_tokens"] for step in steps]
        ids = np.unique(np.concatenate(tokens))
        hidden.append(set(ids[(ids > 1) & (ids < FIRST_SENTINEL)].tolist()))
    for one, other in itertools.combinations(hidden, 2):
        assert 0.08 < len(one & other) / len(one) < 0.22


@pytest.mark.parametrize("inputs_length", [96, 40])
def test_store_smaller_than_a_row_and_a_batch(tmp_path, inputs_length):
    class Small(NumberSource):
        def documents(self, split, shard):
            numbers = np.arange(3, 53)[int(shard[-1]) * 10 :][:10]
            yield " ".join(map(str, numbers))

    build_cache(Small(), "train", tmp_path, vocabulary=Numbers())
    loader = loader_of(TokenCache.open(tmp_path), batch_size=7, inputs_length=inputs_length)
    assert loader.num_rows == (1 if inputs_length == 96 else 2)
    masks = set()
    for step in range(4):
        batch = loader.rows(step)
        for row in range(0, 7):
            masks.add(batch["decoder_target_tokens"][row].tobytes())
        if loader.num_rows == 1:
            for row in range(7):
                assert sorted(recovered(batch, row)) == list(range(3, 53))
    assert len(masks) > 25


# --- the same rows, however they are asked for ------------------------------------------------


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_same_global_order_for_any_number_of_hosts(cache, hosts):
    whole = loader_of(cache, batch_size=12)
    for step in (0, 3, 7, 8, 10_000_019):
        expected = whole.rows(step)
        parts = [
            loader_of(cache, batch_size=12).rows(step, range(h, 12, hosts)) for h in range(hosts)
        ]
        merged = {key: np.zeros_like(value) for key, value in expected.items()}
        for host, part in enumerate(parts):
            for key in part:
                merged[key][host::hosts] = part[key]
        assert_same(merged, expected)


def test_rows_in_any_order_and_number(cache):
    loader = loader_of(cache, batch_size=200)
    whole = loader.rows(2)
    for rows in ([17], [199, 0, 64, 63, 65], [], np.random.default_rng(0).permutation(200)):
        part = loader.rows(2, rows)
        assert_same(part, {key: value[np.asarray(rows, int)] for key, value in whole.items()})
    for rows in ([200], [-1]):
        with pytest.raises(IndexError):
            loader.rows(2, rows)


def test_batch_size_does_not_change_the_examples(cache):
    small, large = loader_of(cache, batch_size=5), loader_of(cache, batch_size=35)
    for step in range(4):
        parts = [small.rows(7 * step + part) for part in range(7)]
        joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        assert_same(joined, large.rows(step))


def test_seed_changes_everything(cache):
    one, other = loader_of(cache, seed=5).rows(0), loader_of(cache, seed=6).rows(0)
    same = one["encoder_input_tokens"] == other["encoder_input_tokens"]
    assert same.mean() < 0.1


def test_batches_are_pinned(cache):
    """The order of a seed must never change: a resumed run depends on it."""
    batch = loader_of(cache).rows(9)
    firsts = [recovered(batch, row)[0] for row in range(13)]
    assert firsts == [302, 4797, 3376, 3694, 7871, 8401, 6811, 1680, 1256, 938, 6175, 1150, 4224]
    targets = batch["decoder_target_tokens"][4]
    assert targets[:22].tolist() == [
        20099,
        7889,
        7890,
        7891,
        7892,
        7893,
        7894,
        20098,
        7944,
        7945,
        7946,
        20097,
        7948,
        7949,
        20096,
        7951,
        7952,
        7953,
        20095,
        7975,
        7976,
        1,
    ]


# --- state ------------------------------------------------------------------------------------


def test_resume_at_random_steps(cache):
    loader = loader_of(cache)
    for step in np.random.default_rng(3).integers(0, 10**7, 9).tolist():
        state = json.loads(json.dumps(loader.state(step)))
        assert len(json.dumps(state)) < 1000
        resumed = loader_of(cache)
        resumed.restore(state, step)
        for ahead in range(3):
            assert_same(resumed.rows(step + ahead), loader.rows(step + ahead))
            assert resumed.state(step + ahead) == loader.state(step + ahead)


def test_resume_with_another_batch_size_loses_nothing(cache):
    before = loader_of(cache, batch_size=13)
    after = loader_of(cache, batch_size=9)
    after.restore(before.state(40), 40)  # 520 examples done; step numbers go on
    last = loader_of(cache, batch_size=21)
    last.restore(after.state(47), 47)  # 63 more
    assert last.state(48)["next_example"] == 40 * 13 + 7 * 9 + 21
    single = loader_of(cache, batch_size=1)
    for loader, step, row, example in (
        (after, 40, 0, 520),
        (after, 46, 8, 582),
        (last, 47, 0, 583),
        (last, 49, 20, 583 + 62),
    ):
        assert_same(loader.rows(step, [row]), single.rows(example))
    with pytest.raises(IndexError, match="step 14 lies before the restored position"):
        last.rows(14)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 6}, "seed = 5, this run has 6"),
        ({"inputs_length": 80}, "inputs_length = 96, this run has 80"),
        ({"shuffle": False}, "shuffle = True"),
    ],
)
def test_state_of_another_run_is_refused(cache, change, message):
    with pytest.raises(DataError, match=message):
        loader_of(cache, **change).check_state(loader_of(cache).state(3))


def test_state_of_other_data_is_refused(cache, tmp_path):
    state = loader_of(cache).state(3)
    with pytest.raises(DataError, match="cache = "):
        loader_of(cache).restore(state | {"cache": "0" * 64}, 3)
    with pytest.raises(DataError, match="objective = "):
        loader_of(cache).restore(
            state | {"objective": SpanCorruption(noise_density=0.5).to_dict()}, 3
        )
    for broken in ({}, {"next_example": -1}, {"next_example": "39"}):
        with pytest.raises(DataError, match="next_example"):
            loader_of(cache).check_state(broken)


def test_seeking_does_not_depend_on_the_distance(cache):
    loader = loader_of(cache)

    def seconds(step):
        start = time.perf_counter()
        loader.rows(step)
        return time.perf_counter() - start

    loader.rows(0)
    assert min(seconds(10**9 + 10**6 * i) for i in range(9)) < 0.03


# --- the form of a batch ----------------------------------------------------------------------


def test_element_spec(cache):
    loader = loader_of(cache, targets_length=41)
    batch = loader.rows(5)
    assert batch.keys() == loader.element_spec.keys()
    for key, (shape, dtype) in loader.element_spec.items():
        assert batch[key].shape == shape
        assert batch[key].dtype == dtype == np.int32


def test_same_features_as_seqio(cache):
    """Right shift, weights and padding of seqio's own converter, given the same inputs/targets."""
    seqio = pytest.importorskip("seqio")
    import tensorflow as tf

    loader = loader_of(cache, batch_size=95, inputs_length=96, targets_length=30, shuffle=False)
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
    converted = converter(dataset, {"inputs": 96, "targets": 30})
    theirs = list(converted.as_numpy_iterator())
    assert set(theirs[0]) == set(batch)
    for row, example in enumerate(theirs):
        for key, value in example.items():
            np.testing.assert_array_equal(batch[key][row], value, err_msg=f"{key} {row}")


def test_evaluation_is_one_pass(cache):
    loader = loader_of(cache, batch_size=40, shuffle=False)
    assert loader.num_steps == 3
    batches = [loader.rows(step) for step in range(3)]
    assert sorted(np.concatenate([text_tokens(b) for b in batches])) == list(range(3, TOKENS + 3))
    last = batches[-1]
    assert last["decoder_loss_weights"][:15].any(axis=1).all()
    assert all(not value[15:].any() for value in last.values())
    assert all(not value.any() for value in loader.rows(3).values())
    part = loader.rows(2, [39, 14, 15])
    assert_same(part, {key: value[[39, 14, 15]] for key, value in last.items()})
    assert_same(loader_of(cache, batch_size=40, shuffle=False).rows(1), batches[1])


def test_documents_of(cache):
    loader = loader_of(cache)
    seen_across = 0
    for step, row in itertools.product(range(8), range(13)):
        places = loader.documents_of(step, row)
        tokens = []
        for place in places:
            number = [shard.name for shard in cache.info.shards].index(place.shard)
            start = sum(shard.tokens for shard in cache.info.shards[:number]) + place.token_offset
            tokens += range(start + 3, start + 3 + place.num_tokens)
            ends = [0, *cache.document_ends(number).tolist()]
            assert ends[place.first_document] <= place.token_offset < ends[place.first_document + 1]
            last = place.token_offset + place.num_tokens - 1
            assert ends[place.last_document] <= last < ends[place.last_document + 1]
        assert tokens == recovered(loader.rows(step, [row]), 0)
        seen_across += len(places) > 1
    assert seen_across > 0
    assert loader_of(cache, shuffle=False).documents_of(100, 0) == []


# --- refusals ---------------------------------------------------------------------------------


def test_settings_that_do_not_fit(cache):
    with pytest.raises(ConfigError, match="targets_length=21 is too short"):
        loader_of(cache, targets_length=21)
    with pytest.raises(ConfigError, match="batch_size=0"):
        loader_of(cache, batch_size=0)
    with pytest.raises(ConfigError, match="needs 114 sentinels, the vocabulary has 100"):
        loader_of(cache, inputs_length=2048, targets_length=456)
    with pytest.raises(DataError, match="was made with vocabulary"):
        Loader(
            cache,
            SpanCorruption(),
            ByteVocabulary(extra_ids=3),
            batch_size=2,
            inputs_length=96,
            targets_length=30,
            seed=0,
        )


@pytest.mark.parametrize("bad", [0, 1, FIRST_SENTINEL + 100, 65535])
def test_bad_ids_are_named(tmp_path, bad):
    build_cache(NumberSource(), "train", tmp_path, vocabulary=Numbers())
    path = tmp_path / "shard-00002.tokens"
    tokens = np.fromfile(path, np.uint16)
    tokens[1234] = bad
    tokens.tofile(path)
    loader = loader_of(TokenCache.open(tmp_path), batch_size=95)  # one epoch
    message = rf"feature text .* id {bad} at token 1234 of shard-00002 .* \(2 to 20099\)"
    with pytest.raises(DataError, match=message):
        loader.rows(0)


# --- permutation ------------------------------------------------------------------------------


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


# --- prefetching ------------------------------------------------------------------------------


def test_prefetcher_gives_the_same_batches(cache):
    loader = loader_of(cache)
    with Prefetcher(loader.rows, first_step=4, end_step=9, depth=3) as batches:
        for step in range(4, 9):
            assert batches.step == step
            assert loader.state(batches.step)["next_example"] == 13 * step
            assert_same(next(batches), loader.rows(step))
        assert batches.step == 9
        for _ in range(2):
            with pytest.raises(StopIteration):
                next(batches)


def test_prefetcher_stays_within_its_depth():
    produced, enough = [], threading.Event()

    def produce(step):
        produced.append(step)
        if len(produced) >= 3:
            enough.set()
        return {}

    batches = Prefetcher(produce, depth=3)
    assert enough.wait(10)
    time.sleep(0.05)
    assert produced == [0, 1, 2]
    next(batches)
    time.sleep(0.05)
    assert produced == [0, 1, 2, 3]
    batches.close()
    assert not batches._thread.is_alive()
    with pytest.raises(RuntimeError, match="closed"):
        next(batches)


def test_prefetcher_raises_at_the_right_step_with_the_traceback():
    def the_place_that_failed(step):
        raise DataError(f"step {step} is damaged")

    def produce(step):
        return {"step": step} if step < 12 else the_place_that_failed(step)

    batches = Prefetcher(produce, first_step=10, depth=8)
    assert [next(batches)["step"] for _ in range(2)] == [10, 11]
    for _ in range(2):
        with pytest.raises(DataError, match="step 12 is damaged") as caught:
            next(batches)
        frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert "the_place_that_failed" in frames
    assert batches.step == 12
    batches.close()


def test_prefetcher_wakes_a_waiting_consumer_when_closed():
    release = threading.Event()
    batches = Prefetcher(lambda step: {"waited": release.wait(20)})
    closer = threading.Timer(0.05, lambda: (release.set(), batches.close()))
    closer.start()
    outcome = []
    try:
        outcome.append(next(batches))
    except RuntimeError as error:
        outcome.append(error)
    closer.join()
    assert len(outcome) == 1
    assert not batches._thread.is_alive()


def test_prefetcher_depth():
    with pytest.raises(ConfigError, match="depth=0"):
        Prefetcher(lambda step: {}, depth=0)
