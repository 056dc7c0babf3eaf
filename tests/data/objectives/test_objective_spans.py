"""Span corruption against the published arithmetic, and the algorithm written out in loops."""

import math
import random

import numpy as np
import pytest
from objective_rows import EOS, VOCABULARY, tokens_of

from t5jax.data.objectives import (
    SpanCorruption,
    SpanLengths,
    objective_from_dict,
    random_spans,
    unique_sentinels,
)
from t5jax.errors import ConfigError

# inputs length, density, mean span -> raw, targets, noise tokens, spans (computed from the
# published `random_spans_helper`; 568/114 and 1137/229 are T5's and mT5's, 1193/189 is ByT5's).
LENGTHS = [
    (512, 0.15, 2, 552, 126, 83, 42),
    (512, 0.15, 3, 568, 114, 85, 28),
    (512, 0.15, 5, 581, 105, 87, 17),
    (512, 0.15, 8, 588, 100, 88, 11),
    (512, 0.15, 10, 591, 99, 89, 9),
    (512, 0.15, 64, 600, 92, 90, 1),
    (512, 0.50, 3, 766, 512, 383, 128),
    (512, 0.50, 8, 908, 512, 454, 57),
    (512, 0.50, 64, 1006, 512, 503, 8),
    (1024, 0.15, 3, 1137, 229, 171, 57),
    (1024, 0.15, 20, 1193, 189, 179, 9),
    (2048, 0.15, 3, 2274, 456, 341, 114),
]


# --- an independent implementation: lists, loops and Python's own random numbers --------------


def slow_segments(items, parts, rng):
    """A uniformly random way to cut `items` into `parts` positive pieces, as published: shuffle
    parts-1 ones among items-1 zeros; a one starts a new piece."""
    starts = [1] * (parts - 1) + [0] * (items - parts)
    rng.shuffle(starts)
    pieces = [1]
    for start in starts:
        if start:
            pieces.append(1)
        else:
            pieces[-1] += 1
    return pieces


def slow_counts(length, density, mean):
    noise = min(max(round(float(np.float32(length) * np.float32(density))), 1), length - 1)
    return noise, max(round(noise / mean), 1)


def slow_mask(length, density, mean, rng):
    noise, spans = slow_counts(length, density, mean)
    mask = []
    for text, hidden in zip(
        slow_segments(length - noise, spans, rng), slow_segments(noise, spans, rng), strict=True
    ):
        mask += [False] * text + [True] * hidden
    return mask


def slow_code(tokens, mask, vocab_size):
    """Runs of the mask become sentinels vocab_size-1, vocab_size-2, ...; EOS at the end."""
    out, sentinel, previous = [], vocab_size, False
    for token, hidden in zip(tokens, mask, strict=True):
        if not hidden:
            out.append(int(token))
        elif not previous:
            sentinel -= 1
            out.append(sentinel)
        previous = hidden
    return [*out, EOS]


def recover(inputs, targets, first_sentinel):
    """The text, from inputs and targets alone: each sentinel of the inputs is replaced by what
    follows it in the targets."""
    hidden, current = {}, None
    for token in targets:
        if token == EOS:
            break
        if token >= first_sentinel:
            current = token
            hidden[current] = []
        else:
            hidden[current].append(token)
    text = []
    for token in inputs:
        if token == EOS:
            break
        text += hidden[token] if token >= first_sentinel else [token]
    return text


def apply(objective, tokens_BL, row_ids_B, seed, lengths_B=None):
    coded = objective.apply(tokens_BL, row_ids_B, seed, VOCABULARY, lengths_B)
    assert coded[2:] == (None,) * 4
    return coded.inputs, coded.targets


# --- lengths ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "density", "mean", "raw", "targets", "noise", "spans"), LENGTHS)
def test_lengths_table(length, density, mean, raw, targets, noise, spans):
    objective = SpanCorruption(noise_density=density, mean_noise_span_length=float(mean))
    found = objective.lengths(length)
    assert found == SpanLengths(
        raw=raw, inputs=length, targets=targets, noise_tokens=noise, noise_spans=spans
    )
    if spans <= 100:
        inputs_BK, targets_BK = apply(objective, tokens_of(3, raw), np.arange(3), 5)
        assert inputs_BK.shape == (3, length)
        assert targets_BK.shape == (3, targets)
        assert (inputs_BK[:, -1] == EOS).all()
        assert (targets_BK[:, -1] == EOS).all()


def test_half_density_special_case():
    """At 767 tokens the targets would be 513 for inputs of 512: the published code takes 766."""
    objective = SpanCorruption(noise_density=0.5)
    noise, spans = objective.counts(767)
    assert (767 - noise + spans + 1, noise + spans + 1) == (512, 513)
    assert objective.lengths(512).raw == 766


@pytest.mark.parametrize("density", [0.1, 0.15, 0.25, 0.5, 0.8])
@pytest.mark.parametrize("mean", [1.0, 3.0, 20.0])
def test_raw_is_the_longest_that_fits(density, mean):
    objective = SpanCorruption(noise_density=density, mean_noise_span_length=mean)
    for inputs_length in range(3, 300, 7):
        found = objective.lengths(inputs_length)
        assert found.inputs <= inputs_length
        assert found.noise_spans <= min(found.noise_tokens, found.raw - found.noise_tokens)
        if density != 0.5:
            noise, spans = objective.counts(found.raw + 1)
            assert found.raw + 1 - noise + spans + 1 > inputs_length


def test_counts_round_in_float32():
    """190 * 0.15 is 28.5 in float64 (rounds to 28) and a little more in float32."""
    objective = SpanCorruption()
    assert objective.counts(190)[0] == 29
    assert round(190 * 0.15) == 28
    differing = [n for n in range(2, 2000) if objective.counts(n)[0] != max(round(n * 0.15), 1)]
    assert differing[:5] == [190, 350, 390, 670, 710]
    assert not {256, 284, 512, 568, 1024, 1137} & set(differing)


def test_check_names_the_arithmetic():
    with pytest.raises(ConfigError, match=r"needs 128 sentinels, the vocabulary has 100 \(766 tok"):
        SpanCorruption(noise_density=0.5).check(
            inputs_length=512, targets_length=512, num_sentinels=100
        )
    with pytest.raises(ConfigError, match=r"85 noise tokens \+ 28 sentinels \+ EOS = 114"):
        SpanCorruption().check(inputs_length=512, targets_length=113, num_sentinels=100)
    SpanCorruption().check(inputs_length=512, targets_length=114, num_sentinels=28)
    with pytest.raises(ConfigError, match="needs 28 sentinels, the vocabulary has 27"):
        SpanCorruption().check(inputs_length=512, targets_length=114, num_sentinels=27)
    with pytest.raises(ConfigError, match="inputs_length=2"):
        SpanCorruption().lengths(2)


@pytest.mark.parametrize("density", [0.0, 1.0, -0.1, float("nan")])
def test_bad_density(density):
    with pytest.raises(ConfigError, match="noise_density"):
        SpanCorruption(noise_density=density)


def test_bad_mean_span():
    with pytest.raises(ConfigError, match="mean_noise_span_length"):
        SpanCorruption(mean_noise_span_length=0.5)


def test_dict_round_trip():
    objective = SpanCorruption(noise_density=0.3, mean_noise_span_length=8.0)
    assert objective_from_dict(objective.to_dict()) == objective
    with pytest.raises(ConfigError, match="'shuffling' is unknown"):
        objective_from_dict({"objective": "shuffling"})


# --- masks ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "density", "mean"),
    [(568, 0.15, 3.0), (97, 0.15, 3.0), (1193, 0.15, 20.0), (908, 0.5, 8.0), (2274, 0.15, 3.0)],
)
def test_mask_counts_and_ends(length, density, mean):
    objective = SpanCorruption(noise_density=density, mean_noise_span_length=mean)
    mask_BL = objective.noise_mask(np.arange(211), 3, length)
    noise, spans = slow_counts(length, density, mean)
    assert (mask_BL.sum(1) == noise).all()
    assert ((mask_BL[:, 1:] & ~mask_BL[:, :-1]).sum(1) == spans).all()
    assert not mask_BL[:, 0].any()
    assert mask_BL[:, -1].all()


def test_mask_statistics_equal_the_published_algorithm():
    """Positional profile (which rises towards the end) and the lengths of spans."""
    rows, length = 6000, 97
    rng = random.Random(0)
    slow_BL = np.array([slow_mask(length, 0.15, 3.0, rng) for _ in range(rows)])
    fast_BL = SpanCorruption().noise_mask(np.arange(rows), 11, length)
    slow_L, fast_L = slow_BL.mean(0), fast_BL.mean(0)
    error_L = np.sqrt((slow_L * (1 - slow_L) + fast_L * (1 - fast_L)) / rows + 1e-9)
    z_L = (slow_L - fast_L) / error_L
    assert np.abs(z_L).max() < 4.5
    assert 0.7 < np.mean(z_L[1:-1] ** 2) < 1.4
    assert slow_L[-10:].mean() > 1.1 * slow_L.mean()  # the published tail bias is kept

    def histogram(mask_BL):
        flips = np.diff(np.pad(mask_BL, ((0, 0), (1, 1))).astype(np.int8), axis=1)
        lengths = np.nonzero(flips == -1)[1] - np.nonzero(flips == 1)[1]
        return np.bincount(lengths, minlength=16)[:16] / len(lengths)

    np.testing.assert_allclose(histogram(fast_BL), histogram(slow_BL), atol=0.01)


def test_all_compositions_equally_likely():
    """7 text tokens and 4 noise tokens in 3 spans: C(6,2) * C(3,2) = 45 masks, none preferred."""
    from t5jax.data.rng import keys_of_rows

    rows = 45 * 800
    mask_BL = random_spans(keys_of_rows(5, np.arange(rows)), 11, 4, 3)
    codes, counts = np.unique(mask_BL @ (1 << np.arange(11)), return_counts=True)
    assert len(codes) == 45 == math.comb(6, 2) * math.comb(3, 2)
    chi_square = np.sum((counts - 800) ** 2 / 800)
    assert chi_square < 44 + 5 * math.sqrt(2 * 44)


def test_rows_and_seeds_are_independent():
    objective = SpanCorruption()
    first_BL = objective.noise_mask(np.arange(3000), 1, 97)
    for other_BL in (
        objective.noise_mask(np.arange(3000) + 1, 1, 97),  # the next row
        objective.noise_mask(np.arange(3000) + 2**40, 1, 97),
        objective.noise_mask(np.arange(3000), 2, 97),  # the next seed
    ):
        overlap = (first_BL & other_BL).sum() / first_BL.sum()
        expected = np.mean(first_BL.mean(0) ** 2) / first_BL.mean()
        assert abs(overlap - expected) < 0.01


# --- codes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [2, 3, 5, 17, 190, 568, 1200])
def test_equal_to_the_loops_given_the_mask(length):
    objective = SpanCorruption()
    tokens_BL, ids_B = tokens_of(13, length), np.arange(13) * 7
    mask_BL = objective.noise_mask(ids_B, 23, length)
    inputs_BK, targets_BK = apply(objective, tokens_BL, ids_B, 23)
    for tokens, mask, inputs, targets in zip(
        tokens_BL, mask_BL, inputs_BK, targets_BK, strict=True
    ):
        assert inputs.tolist() == slow_code(tokens, mask, 32100)
        assert targets.tolist() == slow_code(tokens, ~mask, 32100)


def test_inputs_and_targets_interleave_text_and_noise():
    """text0 S0 text1 S1 ... EOS and S0 noise0 S1 ... EOS: no closing sentinel."""
    tokens_BL = tokens_of(29, 568)
    inputs_BK, targets_BK = apply(SpanCorruption(), tokens_BL, np.arange(29), 3)
    sentinels = list(range(32099, 32099 - 28, -1))
    for tokens, inputs, targets in zip(tokens_BL, inputs_BK, targets_BK, strict=True):
        assert inputs[0] == tokens[0]
        assert targets[0] == 32099
        assert inputs[inputs >= 32000].tolist() == sentinels
        assert targets[targets >= 32000].tolist() == sentinels
        assert inputs[-2] == sentinels[-1]
        assert targets[-2] == tokens[-1]
        assert inputs[-1] == targets[-1] == EOS


@pytest.mark.parametrize("density", [0.15, 0.5, 0.8])
def test_round_trip_with_short_rows(density):
    objective = SpanCorruption(noise_density=density, mean_noise_span_length=4.0)
    length = 211
    lengths_B = np.array([211, 211, 1, 2, 3, 7, 210, 101, 0, 211, 101])
    tokens_BL = tokens_of(len(lengths_B), length)
    tokens_BL[np.arange(length) >= lengths_B[:, None]] = 0
    ids_B = np.arange(len(lengths_B)) + 90
    inputs_BK, targets_BK = apply(objective, tokens_BL, ids_B, 4, lengths_B)
    mask_BL = objective.noise_mask(ids_B, 4, length, lengths_B)
    for row, count in enumerate(lengths_B):
        inputs, targets = inputs_BK[row], targets_BK[row]
        if count == 0:
            assert not inputs.any()
            assert not targets.any()
            continue
        tokens, mask = tokens_BL[row, :count], mask_BL[row, :count]
        expected = slow_code(tokens, mask, 32100), slow_code(tokens, ~mask, 32100)
        assert inputs[inputs > 0].tolist() == expected[0]
        assert targets[targets > 0].tolist() == expected[1]
        assert not inputs[len(expected[0]) :].any()
        assert recover(inputs, targets, 32000) == tokens.tolist()
        assert not mask_BL[row, count:].any()


def test_short_rows_equal_rows_of_that_length():
    objective = SpanCorruption()
    tokens_BL, ids_B = tokens_of(6, 300), np.arange(6) + 1000
    lengths_B = np.array([300, 123, 300, 45, 123, 300])
    inputs_BK, targets_BK = apply(objective, tokens_BL, ids_B, 8, lengths_B)
    for row, count in enumerate(lengths_B):
        alone = apply(objective, tokens_BL[[row], :count], ids_B[[row]], 8)
        for padded, exact in zip((inputs_BK[row], targets_BK[row]), alone, strict=True):
            assert padded[: exact.shape[1]].tolist() == exact[0].tolist()
            assert not padded[exact.shape[1] :].any()


def test_single_token_has_no_noise():
    inputs_BK, targets_BK = apply(SpanCorruption(), np.array([[77]], np.uint16), np.array([4]), 0)
    assert inputs_BK[inputs_BK > 0].tolist() == [77, EOS]
    assert targets_BK[targets_BK > 0].tolist() == [32099, EOS]


def test_independent_of_batch_composition():
    objective = SpanCorruption()
    tokens_BL, ids_B = tokens_of(37, 568), np.random.default_rng(1).permutation(10**6)[:37]
    whole = apply(objective, tokens_BL, ids_B, 6)
    order = np.random.default_rng(2).permutation(37)
    for part in (order[:1], order[:5], order[5:], order):
        for rows, all_rows in zip(
            apply(objective, tokens_BL[part], ids_B[part], 6), whole, strict=True
        ):
            np.testing.assert_array_equal(rows, all_rows[part])


def test_masks_are_pinned():
    """The numbers of a seed must never change: a resumed run depends on them."""
    mask_BL = SpanCorruption().noise_mask(np.array([0, 1, 10**12]), 42, 40)
    assert ["".join(map(str, row)) for row in mask_BL.astype(int)] == [
        "0000000000000011110000000000000000000011",
        "0000000000000000000000001111000000000011",
        "0000000000000000000000000000011100000111",
    ]


def test_code_counts_runs_of_any_mask():
    """The codes take other masks too: noise first, uneven counts, a closing sentinel."""
    tokens_BL = tokens_of(4, 23, seed=3)
    mask_BL = np.random.default_rng(5).random((4, 23)) < 0.4
    mask_BL[0], mask_BL[1] = False, True
    for mask in (mask_BL, ~mask_BL):
        coded_BK = unique_sentinels(tokens_BL, mask, 32099, 24)
        for tokens, row, coded in zip(tokens_BL, mask, coded_BK, strict=True):
            expected = slow_code(tokens, row, 32100)
            assert coded.tolist() == expected + [0] * (24 - len(expected))
