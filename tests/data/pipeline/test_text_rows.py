"""Rows of text: every token once per epoch, EOS where documents end, prefixes, limits, refusals."""

import itertools

import numpy as np
import pytest

from t5jax.data.objectives import (
    FullLanguageModel,
    LanguageModel,
    PackedPrefixLM,
    PrefixLM,
    SpanCorruption,
    parse_objective,
)
from t5jax.data.pipeline.text_rows import TextRows, WithEos
from t5jax.data.store.reader import TokenStream
from t5jax.errors import ConfigError, DataError
from tests.data.number_stores import (
    EOS,
    FIRST_SENTINEL,
    VOCABULARY,
    numbered,
    recovered,
    stream_of,
    text_tokens,
)

LENGTHS = [57, 0, 131, 1, 2, 0, 893, 19, 305, 0, 44, 551]
SHARDS = [LENGTHS[:3], [], LENGTHS[3:6], LENGTHS[6:]]
TOKENS = sum(LENGTHS)


def shards():
    documents = iter(numbered(LENGTHS))
    return [[next(documents) for _ in lengths] for lengths in SHARDS]


def rows_of(objective=None, stream=None, **changes):
    settings = {"inputs_length": 96, "targets_length": 27, "seed": 5} | changes
    stream = stream or stream_of(shards())
    return TextRows(stream, objective or SpanCorruption(), VOCABULARY, **settings)


def epoch(rows, number):
    return rows.read(np.arange(number * rows.num_rows, (number + 1) * rows.num_rows))


# --- coverage ---------------------------------------------------------------------------------

OBJECTIVES = [
    (SpanCorruption(), 96, 27),
    (PrefixLM(), 53, 53),
    (LanguageModel(), 1, 71),
    (FullLanguageModel(), 1, 67),
    (PackedPrefixLM(), 38, 38),
    (parse_objective("iid_15_d_d"), 85, 83),
]


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(("objective", "inputs", "targets"), OBJECTIVES)
@pytest.mark.parametrize("limit", [None, 1009, TOKENS - 1])
def test_every_token_once_per_epoch(objective, inputs, targets, shuffle, limit):
    rows = rows_of(
        objective, inputs_length=inputs, targets_length=targets, shuffle=shuffle, num_tokens=limit
    )
    ring = np.concatenate([np.append(d, EOS) for shard in shards() for d in shard])
    if not objective.documents_end_with_eos:
        ring = ring[ring != EOS]
    ring = ring[:limit]
    assert rows.num_tokens == len(ring)
    assert rows.num_rows == -(-len(ring) // rows.raw)
    assert rows.num_rows >= 10
    for number in range(3 if shuffle else 1):
        got = epoch(rows, number)
        assert sorted(text_tokens(got.inputs, got.targets)) == sorted(ring[ring != EOS])
        if objective.documents_end_with_eos:
            assert (got.inputs == EOS).sum() + (got.targets == EOS).sum() == (ring == EOS).sum()


def test_a_row_is_a_piece_of_the_ring_in_order():
    rows = rows_of()
    assert rows.raw == SpanCorruption().lengths(96).raw
    for number in range(2):
        got = epoch(rows, number)
        texts = [recovered(*row) for row in zip(got.inputs, got.targets, strict=True)]
        for text in texts:
            steps = np.diff(text)
            assert ((steps == 1) | (steps == 1 - TOKENS)).all()
        rest = TOKENS - (rows.num_rows - 1) * rows.raw
        assert sorted(map(len, texts)) == [rest] + [rows.raw] * (rows.num_rows - 1)


def test_order_borders_and_masks_are_fresh_in_each_epoch():
    rows = rows_of()
    epochs = [epoch(rows, number) for number in range(4)]
    firsts = [[recovered(*row)[0] for row in zip(e.inputs, e.targets, strict=True)] for e in epochs]
    hidden = [set(text_tokens(e.targets).tolist()) for e in epochs]
    for one, other in itertools.combinations(range(4), 2):
        assert len(set(firsts[one]) & set(firsts[other])) < 6
        assert 0.04 < len(hidden[one] & hidden[other]) / len(hidden[one]) < 0.3  # 15 % by chance
    assert firsts[0] != sorted(firsts[0])


def test_a_row_is_a_function_of_its_number():
    rows = rows_of()
    ids = np.random.default_rng(2).integers(0, 10**12, 300)  # more than are worked on at once
    together = rows.read(ids)
    for place in (0, 127, 128, 299):
        alone = rows.read(ids[[place]])
        np.testing.assert_array_equal(alone.inputs[0], together.inputs[place])
        np.testing.assert_array_equal(alone.targets[0], together.targets[place])


@pytest.mark.parametrize("inputs_length", [96, 40])
def test_text_smaller_than_a_row(inputs_length):
    stream = stream_of([numbered([50])])
    rows = rows_of(stream=stream, inputs_length=inputs_length)
    assert rows.num_rows == (1 if inputs_length == 96 else 2)
    got = rows.read(np.arange(28))
    assert len({row.tobytes() for row in got.targets}) > 25
    if rows.num_rows == 1:
        for row in zip(got.inputs, got.targets, strict=True):
            assert sorted(recovered(*row)) == list(range(3, 53))


# --- EOS after documents ----------------------------------------------------------------------


def test_eos_stands_where_documents_end():
    """Against the documents and their EOS written out one after the other, as a ring."""
    stream, rng = stream_of(shards()), np.random.default_rng(1)
    ring = np.concatenate([np.append(d, EOS) for shard in shards() for d in shard])
    with_eos = WithEos(stream, VOCABULARY)
    assert with_eos.num_tokens == len(ring) == TOKENS + len(LENGTHS)
    for length in (1, 2, 3, 61, TOKENS - 1, TOKENS, TOKENS + 1, len(ring)):
        starts = np.concatenate([rng.integers(0, len(ring), 23), [0, 57, 58, len(ring) - 1]])
        want = ring[(starts[:, None] + np.arange(length)) % len(ring)]
        np.testing.assert_array_equal(with_eos.read_rows(starts, length), want)
    for start, length in zip(rng.integers(0, 1900, 50), rng.integers(0, 100, 50), strict=True):
        plain, count = with_eos.plain(int(start), int(length))
        shown = ring[start : start + length]
        np.testing.assert_array_equal(np.arange(plain, plain + count) + 3, shown[shown != EOS])


def test_full_language_model_shows_the_ring():
    rows = rows_of(FullLanguageModel(), inputs_length=1, targets_length=67, shuffle=False)
    ring = np.concatenate([np.append(d, EOS) for shard in shards() for d in shard])
    got = rows.read(np.arange(rows.num_rows + 2)).targets
    np.testing.assert_array_equal(got.ravel()[: len(ring)], ring)
    assert not got.ravel()[len(ring) :].any()


# --- prefixes and limits ----------------------------------------------------------------------


def test_prefix_stands_before_inputs_and_counts():
    prefix = np.array([59_001, 59_002, 59_003], np.int32)
    rows = rows_of(prefix_ids=prefix, shuffle=False)
    assert rows.raw == SpanCorruption().lengths(93).raw
    got = rows.read(np.arange(rows.num_rows + 3))
    full = got.inputs[: rows.num_rows]
    np.testing.assert_array_equal(full[:, :3], np.tile(prefix, (rows.num_rows, 1)))
    assert not (full[:, 3:] == 59_001).any()
    assert (full[: rows.num_rows - 1] != 0).all()
    assert not got.inputs[rows.num_rows :].any()
    assert not got.targets[rows.num_rows :].any()
    plain = rows_of(inputs_length=93, shuffle=False).read(np.arange(rows.num_rows))
    np.testing.assert_array_equal(full[:, 3:], plain.inputs)
    np.testing.assert_array_equal(got.targets[: rows.num_rows], plain.targets)


@pytest.mark.parametrize("objective", [PackedPrefixLM(), LanguageModel(), FullLanguageModel()])
def test_a_prefix_without_a_place_is_refused(objective):
    with pytest.raises(ConfigError, match="prefix before its inputs"):
        rows_of(objective, inputs_length=41, targets_length=38, prefix_ids=np.array([7, 8, 9]))


def test_only_the_first_tokens_are_shown_with_a_limit():
    rows = rows_of(num_tokens=777)
    seen = np.concatenate([text_tokens(*epoch(rows, n)[:2]) for n in range(5)])
    tokens, counts = np.unique(seen, return_counts=True)
    np.testing.assert_array_equal(tokens, np.arange(3, 780))
    assert (counts == 5).all()


def test_targets_of_random_length_are_cut_with_eos():
    """The number of hidden tokens is drawn: some rows' targets are longer than the row."""
    objective = parse_objective("iid_15_u_u")
    need = objective.lengths(96).targets
    wide = rows_of(objective, targets_length=need + 40).read(np.arange(400)).targets
    for targets_length in range(need, 5, -1):
        try:
            rows = rows_of(objective, targets_length=targets_length)
        except ConfigError:
            break
        least = targets_length
    rows = rows_of(objective, targets_length=least)
    got = rows.read(np.arange(400)).targets
    longer = (wide != 0).sum(1) > least
    assert 5 < longer.sum() < 395
    np.testing.assert_array_equal(got[~longer], wide[~longer, :least])
    np.testing.assert_array_equal(got[longer, : least - 1], wide[longer, : least - 1])
    assert (got[longer, least - 1] == EOS).all()


# --- where tokens come from -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("objective", "changes"),
    [
        (SpanCorruption(), {}),
        (SpanCorruption(), {"num_tokens": 777}),
        (FullLanguageModel(), {"inputs_length": 1, "targets_length": 67}),
        (FullLanguageModel(), {"inputs_length": 1, "targets_length": 67, "num_tokens": 999}),
    ],
)
def test_stretches_are_what_a_row_shows(objective, changes):
    rows = rows_of(objective, **changes)
    around_the_end = 0
    for row_id in range(3 * rows.num_rows):
        shown = []
        for feature, start, length, example in rows.stretches(row_id):
            assert (feature, example) == ("text", None)
            shown += range(start + 3, start + 3 + length)
        got = rows.read(np.array([row_id]))
        if isinstance(objective, FullLanguageModel):
            assert shown == text_tokens(got.targets).tolist()
        else:
            assert shown == recovered(got.inputs[0], got.targets[0])
        around_the_end += shown != sorted(shown)
    assert around_the_end == 3  # in every epoch one row crosses the end of the ring
    assert rows_of(shuffle=False).stretches(10**6) == []


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [0, 1, FIRST_SENTINEL + 100, 65535])
def test_bad_ids_are_named(bad):
    content = shards()
    content[2][1] = content[2][1].copy()
    content[2][1][1] = bad  # after 57 + 131 + 1 + 1 tokens
    rows = rows_of(stream=stream_of(content))
    with pytest.raises(DataError, match=rf"id {bad} at token 190 .* \(2 to 60099\)"):
        epoch(rows, 0)


def test_text_without_tokens_is_refused():
    with pytest.raises(DataError, match="no tokens"):
        rows_of(stream=TokenStream.of_documents([np.zeros(0, np.int32)] * 3))


def test_settings_that_do_not_fit():
    with pytest.raises(ConfigError, match="targets_length=21 is too short"):
        rows_of(targets_length=21)
    with pytest.raises(ConfigError, match="needs 114 sentinels, the vocabulary has 100"):
        rows_of(inputs_length=2048, targets_length=456)


def test_identity_tells_settings_apart():
    variants = [
        rows_of(),
        rows_of(seed=6),
        rows_of(inputs_length=95),
        rows_of(targets_length=28),
        rows_of(shuffle=False),
        rows_of(num_tokens=1000),
        rows_of(prefix_ids=np.array([9])),
        rows_of(SpanCorruption(mean_noise_span_length=4.0)),
    ]
    assert len({str(rows.identity()) for rows in variants}) == len(variants)
    assert rows_of().identity() == variants[0].identity()
