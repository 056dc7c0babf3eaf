"""Language models, prefix LM and packed prefix LM."""

import math

import numpy as np
import pytest
from objective_rows import EOS, VOCABULARY, tokens_of

from t5jax.data.objectives import FullLanguageModel, LanguageModel, PackedPrefixLM, PrefixLM
from t5jax.errors import ConfigError


def test_language_model_is_the_text():
    lengths_B = np.array([30, 7, 0, 1])
    tokens_BL = tokens_of(4, 30)
    coded = LanguageModel().apply(tokens_BL, np.arange(4), 0, VOCABULARY, lengths_B)
    assert coded.inputs.shape == (4, 0)
    for row, length in enumerate(lengths_B):
        expected = [*tokens_BL[row, :length], *([EOS] if length else [])]
        assert coded.targets[row].tolist() == expected + [0] * (31 - len(expected))
    assert LanguageModel().lengths(7, 31).raw == 30
    assert LanguageModel().lengths(7, 31).inputs == 0


def test_full_language_model_adds_no_eos():
    assert FullLanguageModel().documents_end_with_eos
    tokens_BL = tokens_of(3, 30)
    tokens_BL[:, 11] = EOS
    coded = FullLanguageModel().apply(tokens_BL, np.arange(3), 0, VOCABULARY, np.array([30, 12, 0]))
    np.testing.assert_array_equal(coded.targets[0], tokens_BL[0])
    assert coded.targets[1].tolist() == tokens_BL[1, :12].tolist() + [0] * 18
    assert not coded.targets[2].any()
    assert FullLanguageModel().lengths(7, 31).raw == 31


def test_language_models_require_targets_length():
    for objective in (LanguageModel(), FullLanguageModel()):
        with pytest.raises(ConfigError, match="targets_length is not set"):
            objective.lengths(512)
        with pytest.raises(ConfigError, match="targets_length=0"):
            objective.check(inputs_length=9, targets_length=0, num_sentinels=100)


@pytest.mark.parametrize("fraction", [0.5, 0.25, 0.1])
def test_prefix_and_rest_are_the_text(fraction):
    objective = PrefixLM(suffix_fraction=fraction)
    lengths_B = np.array([211, 211, 1, 2, 3, 0, 100, 5, 211])
    tokens_BL = tokens_of(9, 211)
    coded = objective.apply(tokens_BL, np.arange(9), 5, VOCABULARY, lengths_B)
    for row, length in enumerate(lengths_B):
        inputs = coded.inputs[row][coded.inputs[row] > 0].tolist()
        targets = coded.targets[row][coded.targets[row] > 0].tolist()
        if length == 0:
            assert inputs == targets == []
            continue
        assert inputs.pop() == targets.pop() == EOS
        assert inputs + targets == tokens_BL[row, :length].tolist()
        assert len(targets) >= 1
        assert len(inputs) >= 1 or length == 1
        assert not coded.inputs[row, len(inputs) + 1 :].any()
        assert not coded.targets[row, len(targets) + 1 :].any()


@pytest.mark.parametrize(("fraction", "longest"), [(0.5, 40), (0.25, 20), (0.12, 9)])
def test_suffixes_are_uniform(fraction, longest):
    """Of 41 tokens: 1 to 40 with T5's half, of mean 0.25 (41 + 1) with UL2's quarter."""
    rows = 400 * longest
    objective = PrefixLM(suffix_fraction=fraction)
    coded = objective.apply(np.full((rows, 41), 9), np.arange(rows), 3, VOCABULARY)
    counts = np.bincount((coded.targets == 9).sum(1), minlength=longest + 1)[1:]
    assert len(counts) == longest
    assert np.sum((counts - 400) ** 2 / 400) < longest - 1 + 5 * math.sqrt(2 * (longest - 1))


@pytest.mark.parametrize(("fraction", "targets", "longest"), [(0.5, 512, 511), (0.25, 256, 256)])
def test_prefix_lm_lengths(fraction, targets, longest):
    objective = PrefixLM(suffix_fraction=fraction)
    found = objective.lengths(512)
    assert (found.raw, found.inputs, found.targets) == (511, 512, targets)
    objective.check(inputs_length=512, targets_length=longest, num_sentinels=0)
    with pytest.raises(ConfigError, match=rf"EOS = {longest}; set targets_length={longest}"):
        objective.check(inputs_length=512, targets_length=longest - 1, num_sentinels=0)
    coded = objective.apply(tokens_of(2000, 511), np.arange(2000), 1, VOCABULARY)
    assert coded.targets.shape[1] == longest
    assert (coded.inputs != 0).sum(1).max() <= 512
    assert coded.targets[:, -1].any()


@pytest.mark.parametrize("fraction", [0.0, 0.6, float("nan")])
def test_suffix_fraction_out_of_range(fraction):
    with pytest.raises(ConfigError, match="suffix_fraction"):
        PrefixLM(suffix_fraction=fraction)


def slow_packed(first, second, shown_first, shown_second):
    """(tokens, segments, positions) of inputs and of targets, written out."""
    pieces = (
        ((first[:shown_first], 1), (second[:shown_second], 2)),
        ((first[shown_first:], 1), (second[shown_second:], 2)),
    )
    return [
        (
            [int(token) for piece, _ in side for token in piece],
            [number for piece, number in side for _ in piece],
            [place for piece, _ in side for place in range(len(piece))],
        )
        for side in pieces
    ]


def test_packed_prefix_lm_fills_both_sides():
    half, rows = 23, 200
    tokens_BL = tokens_of(rows, 2 * half)
    coded = PackedPrefixLM().apply(tokens_BL, np.arange(rows), 7, VOCABULARY)
    seen = set()
    for row in range(rows):
        shown = int((coded.inputs_segments[row] == 1).sum())
        seen.add(shown)
        inputs, targets = slow_packed(
            tokens_BL[row, :half], tokens_BL[row, half:], shown, half - shown
        )
        assert coded.inputs[row].tolist() == inputs[0]
        assert coded.inputs_segments[row].tolist() == inputs[1]
        assert coded.inputs_positions[row].tolist() == inputs[2]
        assert coded.targets[row].tolist() == targets[0]
        assert coded.targets_segments[row].tolist() == targets[1]
        assert coded.targets_positions[row].tolist() == targets[2]
    assert seen == set(range(1, half))
    assert PackedPrefixLM().lengths(half).raw == 2 * half
    with pytest.raises(ConfigError, match="set the same length"):
        PackedPrefixLM().check(inputs_length=512, targets_length=511, num_sentinels=100)


def test_short_rows_of_the_packed_prefix_lm_lose_nothing():
    lengths_B = np.array([46, 45, 17, 4, 3, 2, 1, 0])
    tokens_BL = tokens_of(8, 46)
    coded = PackedPrefixLM().apply(tokens_BL, np.arange(8), 7, VOCABULARY, lengths_B)
    assert all(x.shape == (8, 23) and x.dtype == np.int32 for x in coded)
    for row, length in enumerate(lengths_B):
        inputs, targets = coded.inputs_segments[row], coded.targets_segments[row]
        assert (inputs > 0).sum() + (targets > 0).sum() == length
        text = [
            token
            for segment in (1, 2)
            for token in (
                *coded.inputs[row][inputs == segment],
                *coded.targets[row][targets == segment],
            )
        ]
        assert text == tokens_BL[row, :length].tolist()
        if length >= 4:
            assert {1, 2} <= set(inputs.tolist()) & set(targets.tolist())
