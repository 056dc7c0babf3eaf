"""Noise masks and codes against their definitions written out in loops, and their statistics."""

import math

import numpy as np
import pytest
from objective_rows import EOS, VOCABULARY, tokens_of

from t5jax.data.objectives import Denoising, IidNoise, RandomSpans, RegularSpans, parse_objective
from t5jax.data.objectives.codes import INPUT_CODES, TARGET_CODES, limit_runs
from t5jax.data.vocabularies import ByteVocabulary
from t5jax.errors import ConfigError

FIRST = 32099  # <extra_id_0>


# --- codes in loops ---------------------------------------------------------------------------


def slow_runs(tokens, hidden, sentinels):
    """Every hidden run becomes the next of the sentinels."""
    out, previous = [], False
    for token, hide in zip(tokens, hidden, strict=True):
        if not hide:
            out.append(int(token))
        elif not previous:
            out.append(next(sentinels))
        previous = hide
    return out


def slow_code(code, tokens, hidden):
    if code == "full_text":
        return [int(t) for t in tokens]
    if code == "mask":
        return [FIRST if hide else int(t) for t, hide in zip(tokens, hidden, strict=True)]
    if code == "drop":
        return [int(t) for t, hide in zip(tokens, hidden, strict=True) if not hide]
    if code == "shared_sentinel":
        return slow_runs(tokens, hidden, iter([FIRST] * len(tokens)))
    if code == "unique_sentinels":
        return slow_runs(tokens, hidden, iter(range(FIRST, 0, -1)))
    raise AssertionError(code)


def rows_of(ids_BK):
    """The tokens of each row, without EOS and padding; checks that they end so."""
    found = []
    for row in ids_BK:
        tokens = row[row != 0].tolist()
        assert not tokens or tokens.pop() == EOS
        assert not row[len(tokens) + 1 :].any()
        found.append(tokens)
    return found


@pytest.mark.parametrize("targets_code", TARGET_CODES)
@pytest.mark.parametrize("inputs_code", ["mask", "drop", "shared_sentinel", "unique_sentinels"])
@pytest.mark.parametrize("mask", [IidNoise(), RandomSpans(), RegularSpans(noise_density=0.25)])
def test_equal_to_the_loops_given_the_mask(mask, inputs_code, targets_code):
    objective = Denoising(mask=mask, inputs_code=inputs_code, targets_code=targets_code)
    lengths_B = np.array([307, 1, 2, 0, 306, 99, 307, 40, 3, 17, 250])
    tokens_BL, ids_B = tokens_of(len(lengths_B), 307, seed=4), np.arange(11) * 13
    coded = objective.apply(tokens_BL, ids_B, 21, VOCABULARY, lengths_B)
    mask_BL = objective.noise_mask(ids_B, 21, 307, lengths_B)
    assert coded.inputs.dtype == coded.targets.dtype == np.int32
    inputs, targets = rows_of(coded.inputs), rows_of(coded.targets)
    assert any(mask_BL[row].any() for row in range(len(lengths_B)))
    for row, length in enumerate(lengths_B):
        tokens, hidden = tokens_BL[row, :length], mask_BL[row, :length]
        assert inputs[row] == slow_code(inputs_code, tokens, hidden)
        assert targets[row] == slow_code(targets_code, tokens, ~hidden)
        assert not mask_BL[row, length:].any()
        assert coded.inputs[row].any() == coded.targets[row].any() == (length > 0)


def test_mass_style_is_one_sentinel_per_token():
    tokens_BL = tokens_of(7, 511)
    coded = parse_objective("mass_style").apply(tokens_BL, np.arange(7), 3, VOCABULARY)
    mask_BL = IidNoise().draw(_keys(3, 7), 511)
    np.testing.assert_array_equal(coded.inputs[:, :-1][mask_BL], FIRST)
    np.testing.assert_array_equal(coded.inputs[:, :-1][~mask_BL], tokens_BL[~mask_BL])
    np.testing.assert_array_equal(coded.targets[:, :-1], tokens_BL)
    assert (coded.inputs[:, -1] == EOS).all()
    assert (coded.targets[:, -1] == EOS).all()


def test_bert_style_shares():
    rows, length = 400, 511
    tokens_BL = np.full((rows, length), 7, np.uint16)
    objective = parse_objective("bert_style")
    coded = objective.apply(tokens_BL, np.arange(rows), 5, VOCABULARY)
    mask_BL = objective.noise_mask(np.arange(rows), 5, length)
    inputs_BL = coded.inputs[:, :-1]
    hidden = inputs_BL[mask_BL]
    np.testing.assert_array_equal(inputs_BL[~mask_BL], 7)
    np.testing.assert_array_equal(coded.targets[:, :-1], 7)
    drawn = hidden[hidden != FIRST]
    share, error = len(drawn) / len(hidden), math.sqrt(0.09 / len(hidden))
    assert abs(share - 0.1) < 5 * error
    assert drawn.min() >= 3
    assert drawn.max() < VOCABULARY.first_sentinel_id == 32000
    counts = np.bincount((drawn - 3) * 8 // 31997, minlength=8)
    assert np.sum((counts - len(drawn) / 8) ** 2 / (len(drawn) / 8)) < 7 + 5 * math.sqrt(14)


def test_random_tokens_are_text():
    coded = parse_objective("iid_50_r_f").apply(tokens_of(60, 511), np.arange(60), 5, VOCABULARY)
    ids = coded.inputs[:, :-1]
    assert 3 <= ids.min() <= ids.max() < 32000


def test_gathered_tokens_come_from_the_row_itself():
    lengths_B = np.array([97, 31, 97, 1])
    tokens_BL = np.arange(4 * 97).reshape(4, 97) + 100
    objective = Denoising(mask=IidNoise(noise_density=0.5), inputs_code="gather")
    coded = objective.apply(tokens_BL, np.arange(4), 8, VOCABULARY, lengths_B)
    mask_BL = objective.noise_mask(np.arange(4), 8, 97, lengths_B)
    for row, length in enumerate(lengths_B):
        own = set(tokens_BL[row, :length].tolist())
        assert set(coded.inputs[row, :length].tolist()) <= own
        shown = ~mask_BL[row, :length]
        np.testing.assert_array_equal(
            coded.inputs[row, :length][shown], tokens_BL[row, :length][shown]
        )
    assert (coded.inputs[0, :97] != tokens_BL[0]).sum() > 30


def test_deshuffling_permutes_the_whole_row():
    lengths_B = np.array([203, 3, 0, 1, 77])
    tokens_BL = np.arange(5 * 203).reshape(5, 203) + 100
    coded = parse_objective("deshuffling").apply(tokens_BL, np.arange(5), 8, VOCABULARY, lengths_B)
    inputs, targets = rows_of(coded.inputs), rows_of(coded.targets)
    for row, length in enumerate(lengths_B):
        assert targets[row] == tokens_BL[row, :length].tolist()
        assert sorted(inputs[row]) == targets[row]
    assert inputs[0] != targets[0]
    assert np.mean(np.array(inputs[0]) == targets[0]) < 0.05


def test_all_orders_are_equally_likely():
    rows = 24 * 500
    tokens_BL = np.tile(np.arange(4) + 10, (rows, 1))
    coded = parse_objective("deshuffling").apply(tokens_BL, np.arange(rows), 2, VOCABULARY)
    _, counts = np.unique(coded.inputs @ [1, 100, 10**4, 10**6, 0], return_counts=True)
    assert len(counts) == 24
    assert np.sum((counts - 500) ** 2 / 500) < 23 + 5 * math.sqrt(46)


def test_permuting_moves_noise_tokens_only():
    tokens_BL = np.arange(3 * 120).reshape(3, 120) + 100
    objective = parse_objective("iid_50_p_f")
    coded = objective.apply(tokens_BL, np.arange(3), 6, VOCABULARY)
    mask_BL = objective.noise_mask(np.arange(3), 6, 120)
    np.testing.assert_array_equal(coded.inputs[:, :-1][~mask_BL], tokens_BL[~mask_BL])
    for tokens, inputs, hidden in zip(tokens_BL, coded.inputs[:, :-1], mask_BL, strict=True):
        assert sorted(inputs[hidden]) == tokens[hidden].tolist() != inputs[hidden].tolist()


# --- masks ------------------------------------------------------------------------------------


def _keys(seed, rows):
    from t5jax.data.rng import keys_of_rows

    return keys_of_rows(seed, np.arange(rows))


@pytest.mark.parametrize("density", [0.1, 0.15, 0.5])
def test_iid_noise_is_independent(density):
    rows, length = 3000, 101
    mask_BL = IidNoise(noise_density=density).draw(_keys(4, rows), length)
    error = math.sqrt(density * (1 - density) / mask_BL.size)
    assert abs(mask_BL.mean() - density) < 5 * error
    both = (mask_BL[:, 1:] & mask_BL[:, :-1]).mean()
    assert abs(both - density**2) < 6 * density * error / math.sqrt(density)
    z_L = (mask_BL.mean(0) - density) / math.sqrt(density * (1 - density) / rows)
    assert np.abs(z_L).max() < 4.5
    assert 0.6 < np.mean(z_L**2) < 1.5


@pytest.mark.parametrize("density", [0.1, 0.15, 0.25, 0.5])
def test_iid_counts_and_their_quantile(density):
    """`expected` and `excess` against drawn masks: 3.25 deviations leave one row in a thousand."""
    rows, length = 6000, 511
    mask = IidNoise(noise_density=density)
    mask_BL = mask.draw(_keys(9, rows), length)
    noise_B = mask_BL.sum(1)
    runs_B = mask_BL[:, 0] + (mask_BL[:, 1:] & ~mask_BL[:, :-1]).sum(1)
    noise, runs = mask.expected(length)
    for drawn_B, mean, excess in (
        (noise_B, noise, mask.excess(length, spans=False)),
        (noise_B + runs_B, noise + runs, mask.excess(length, spans=True)),
    ):
        deviation = drawn_B.std()
        assert abs(drawn_B.mean() - mean) < 5 * deviation / math.sqrt(rows)
        assert excess == pytest.approx(3.25 * deviation, rel=0.05)
        assert np.mean(drawn_B > mean + excess) < 0.002


@pytest.mark.parametrize(("density", "least", "most"), [(0.25, 2, 2), (0.15, 1, 5), (0.5, 3, 4)])
def test_regular_masks_have_one_period(density, least, most):
    mask = RegularSpans(noise_density=density, min_span_length=least, max_span_length=most)
    length, seen = 130, set()
    for row in mask.draw(_keys(3, 300), length):
        fits = [
            (span, offset)
            for span in range(least, most + 1)
            for offset in range(round(span / density))
            if all(row[i] == ((i + offset) % round(span / density) < span) for i in range(length))
        ]
        assert len(fits) == 1
        seen.add(fits[0])
    assert len(seen) > 0.6 * sum(round(span / density) for span in range(least, most + 1))
    excess = mask.excess(length, spans=True)
    for row in mask.draw(_keys(4, 300), length):
        runs = row[0] + (row[1:] & ~row[:-1]).sum() + 1
        assert row.sum() + runs <= sum(mask.expected(length)) + 1 + excess


def test_limit_runs_leaves_rows_that_fit_alone():
    rng = np.random.default_rng(0)
    mask_BL = rng.random((300, 61)) < rng.uniform(0.02, 0.98, (300, 1))
    lengths_B = rng.integers(0, 62, 300)
    mask_BL &= np.arange(61) < lengths_B[:, None]
    limited_BL = limit_runs(mask_BL, 7, lengths_B)
    changed = 0
    for row, limited, length in zip(mask_BL, limited_BL, lengths_B, strict=True):
        for hidden in (limited[:length], ~limited[:length]):
            starts = hidden & ~np.concatenate([[False], hidden[:-1]])
            assert starts.sum() <= 7
        both = [
            sum(1 for i in range(length) if h[i] and (i == 0 or not h[i - 1])) for h in (row, ~row)
        ]
        assert (limited == row).all() or max(both) > 7
        assert not (limited & ~row).any()
        first = np.flatnonzero(limited != row)
        changed += len(first) > 0
        if len(first):  # all that follows the first change is text
            assert not limited[first[0] :].any()
    assert 20 < changed < 280


@pytest.mark.parametrize("name", ["iid_50_u_u", "iid_25_u_u", "reg_1_50_u_u"])
def test_sentinels_never_run_into_ordinary_ids(name):
    """At half noise, 511 tokens have 128 runs on average: 28 more than there are sentinels."""
    tokens_BL = np.full((80, 511), 5, np.uint16)
    coded = parse_objective(name).apply(tokens_BL, np.arange(80), 1, VOCABULARY)
    all_used = 0
    for ids_BK in (coded.inputs, coded.targets):
        special = ids_BK[(ids_BK > 5)]
        assert special.min() >= VOCABULARY.first_sentinel_id
        for row in ids_BK:
            found = row[row > 5].tolist()
            assert found == list(range(FIRST, FIRST - len(found), -1))
            all_used += len(found) == 100
    assert all_used > 10
    lone = parse_objective(name).apply(
        tokens_BL[:, :9], np.arange(80), 1, ByteVocabulary(extra_ids=2)
    )
    top = ByteVocabulary(extra_ids=2).vocab_size
    assert set(np.unique(lone.inputs)) <= {0, 1, 5, top - 1, top - 2}


# --- lengths ----------------------------------------------------------------------------------

# Inputs of 512 tokens: the published configurations' targets, and ours.
PUBLISHED = [
    ("iid_15_r10s90_f", 512, 512),
    ("deshuffling", 512, 512),
    ("iid_15_m_f", 512, 512),
    ("iid_15_u_u", 192, 190),
    ("iid_15_d_d", 104, 104),
    ("iid_10_u_u", 103, 140),
    ("iid_25_u_u", 256, 276),
]


@pytest.mark.parametrize(("name", "published", "ours"), PUBLISHED)
def test_published_lengths_are_accepted(name, published, ours):
    objective = parse_objective(name)
    found = objective.lengths(512)
    assert (found.raw, found.inputs, found.targets) == (511, 512, ours)
    objective.check(inputs_length=512, targets_length=published, num_sentinels=100)
    rows = 1500
    coded = objective.apply(tokens_of(rows, 511), np.arange(rows), 2, VOCABULARY)
    assert (coded.inputs.shape, coded.targets.shape) == ((rows, 512), (rows, ours))
    assert np.mean(coded.targets[:, -1] != 0) < 0.01 or objective.targets_code == "full_text"
    trimmed = coded.trimmed(512, published)
    assert trimmed.targets.shape[1] <= published
    assert trimmed.inputs is coded.inputs
    cut_B = (coded.targets != 0).sum(1) > published
    # With noise of 25 % the sentinels end before the targets are too long.
    assert cut_B.any() == (name == "iid_10_u_u")
    assert (trimmed.targets[cut_B, -1] == EOS).all()
    np.testing.assert_array_equal(
        trimmed.targets[~cut_B], coded.targets[~cut_B, : trimmed.targets.shape[1]]
    )


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        (
            "iid_50_u_u",
            {},
            r"needs 128 sentinels, the vocabulary has 100 \(511 tokens x .* 128.0 sp",
        ),
        ("iid_15_u_u", {"num_sentinels": 65}, "needs 66 sentinels"),
        ("iid_15_u_u", {"targets_length": 143}, r"76.65 noise .* \+ 65.17 sentinels \+ a closing"),
        ("iid_15_d_d", {"targets_length": 77}, r"76.65 noise tokens \+ EOS = 78"),
        ("bert_style", {"targets_length": 511}, r"full text of 511 tokens \+ EOS = 512"),
        ("span_3_15_s_s", {"targets_length": 113}, r"85 noise tokens \+ 28 sentinels \+ EOS = 114"),
        ("span_3_50_u_u", {}, "needs 128 sentinels"),
        ("reg_1_50_u_u", {}, "needs 256 sentinels"),
        ("iid_15_u_u", {"inputs_length": 2}, "inputs_length=2"),
    ],
)
def test_check_names_the_arithmetic(text, settings, message):
    lengths = {"inputs_length": 512, "targets_length": 512, "num_sentinels": 100} | settings
    with pytest.raises(ConfigError, match=message):
        parse_objective(text).check(**lengths)


def test_shared_sentinels_do_not_run_out():
    parse_objective("iid_50_s_s").check(inputs_length=512, targets_length=512, num_sentinels=1)
    parse_objective("span_3_50_s_s").check(inputs_length=512, targets_length=512, num_sentinels=1)


@pytest.mark.parametrize("inputs_code", INPUT_CODES)
@pytest.mark.parametrize("density", [0.15, 0.5, 0.8])
def test_exact_masks_fill_the_inputs(inputs_code, density):
    mask = RandomSpans(noise_density=density, mean_noise_span_length=4.0)
    objective = Denoising(mask=mask, inputs_code=inputs_code)
    found = objective.lengths(97)
    coded = objective.apply(tokens_of(9, found.raw), np.arange(9), 0, VOCABULARY)
    assert coded.inputs.shape == (9, found.inputs)
    assert coded.targets.shape == (9, found.targets)
    assert 96 <= found.inputs <= 97
    assert (coded.inputs[:, -1] == EOS).all()
    assert (coded.targets[:, -1] == EOS).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: IidNoise(noise_density=0.0), "noise_density=0.0"),
        (lambda: IidNoise(noise_density=1.5), "noise_density=1.5"),
        (lambda: RegularSpans(noise_density=1.0), "noise_density=1.0"),
        (lambda: RegularSpans(noise_density=0.9), "noise_density=0.9: spans of 1"),
        (lambda: RegularSpans(min_span_length=3, max_span_length=2), "min_span_length=3"),
        (lambda: Denoising(inputs_code="drops"), "inputs_code='drops' .* did you mean drop"),
        (lambda: Denoising(targets_code="mask"), "targets_code='mask' is unknown"),
        (
            lambda: Denoising(mask=IidNoise(noise_density=1.0), inputs_code="drop"),
            "leaves no inputs",
        ),
    ],
)
def test_settings_out_of_range(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_masks_are_pinned():
    """The numbers of a seed must never change: a resumed run depends on them."""

    def shown(mask):
        return ["".join(map(str, row.astype(int))) for row in mask.draw(_keys(42, 2), 30)]

    assert shown(IidNoise(noise_density=0.3)) == PINNED_IID
    assert shown(RegularSpans(noise_density=0.3)) == PINNED_REGULAR


PINNED_IID = ["001100010110110100100100100011", "101000100111001000111100100101"]
PINNED_REGULAR = ["000001111000000000111100000000", "000000011100000001110000000111"]
