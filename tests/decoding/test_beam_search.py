"""Beam search against one in NumPy without KV cache and batches."""

import numpy as np
import pytest

from t5jax.decoding import DecodingConfig
from t5jax.types import EOS_ID
from tests.decoding import tiny_decoding
from tests.decoding.tiny_decoding import inputs, params, run, teacher_forced

LENGTH = 9
BEAMS = DecodingConfig(max_length=LENGTH, num_beams=3, num_outputs=3, length_penalty=0.6)


def reference(row, beams=3, alpha=0.6, length=LENGTH, prefix=()):
    """[(score, ids)] of T5X's rules, for one input; the whole model again at every position."""
    penalty = lambda n: ((5.0 + n) / 6.0) ** alpha
    live, finished = [(0.0, ())], []
    for index in range(length):
        history = np.zeros((len(live), length), np.int32)
        for i, (_, ids) in enumerate(live):
            history[i, : len(ids)] = ids
        log_probs = teacher_forced(params(), np.repeat(row[None], len(live), 0), history)[:, index]
        if index < len(prefix):
            candidates = [(0.0, (*live[0][1], prefix[index]))]
        else:
            candidates = [
                (score + log_probs[i, token], (*ids, token))
                for i, (score, ids) in enumerate(live)
                for token in range(log_probs.shape[1])
            ]
        candidates = sorted(candidates, reverse=True)[: 2 * beams]
        own_length = index + 1 - len(prefix)
        finished += [
            (score / penalty(own_length), ids) for score, ids in candidates if ids[-1] == EOS_ID
        ]
        finished = sorted(finished, reverse=True)[:beams]
        live = [one for one in candidates if one[1][-1] != EOS_ID][:beams]
        best_possible = live[0][0] / penalty(length - len(prefix))
        if len(finished) == beams and finished[-1][0] >= best_possible:
            break
    return [*finished, *live][:beams]


@pytest.fixture(scope="module")
def found():
    return run(inputs(), BEAMS)


def test_equals_beam_search_in_numpy(found):
    tokens, scores = found
    ended = 0
    for row, history, of_row in zip(inputs(), tokens, scores, strict=True):
        wanted = reference(row)
        for (score, ids), got, got_score in zip(wanted, history, of_row, strict=False):
            assert tuple(got[: len(ids)]) == ids
            assert not got[len(ids) :].any()
            assert got_score == pytest.approx(score, abs=1e-4)
        ended += wanted[0][1][-1] == EOS_ID
    assert 0 < ended < len(tokens)
    assert (tokens[:, 0] != tokens[:, 1]).any(axis=1).all()


@pytest.mark.slow
def test_beats_greedy_decoding(found):
    """The best of the beams are likelier, somewhere much, than the likeliest steps."""
    config = DecodingConfig(max_length=LENGTH, num_beams=3, length_penalty=0.0)
    greedy = run(inputs(), DecodingConfig(max_length=LENGTH))
    tokens, scores = run(inputs(), config)
    both = (greedy[0] == EOS_ID).any(axis=(1, 2)) & (tokens == EOS_ID).any(axis=(1, 2))
    assert both.any()
    assert (scores[both] >= greedy[1][both] - 1e-4).all()
    assert (scores > greedy[1] + 0.1).any()


@pytest.mark.slow
def test_batch_padding_and_other_rows_do_not_matter(found):
    tokens = inputs()
    longer = np.pad(tokens[::-1], ((0, 0), (0, 6)))
    again = run(longer, BEAMS)
    np.testing.assert_array_equal(again[0][::-1], found[0])
    np.testing.assert_allclose(again[1][::-1], found[1], atol=1e-5)
    np.testing.assert_array_equal(run(tokens[4:5], BEAMS)[0], found[0][4:5])


def test_rows_without_input_have_empty_outputs(found):
    tokens = inputs()
    tokens[[0, 3]] = 0
    got, _ = run(tokens, BEAMS)
    assert not got[[0, 3]].any()
    rest = [1, 2, *range(4, len(tokens))]
    np.testing.assert_array_equal(got[rest], found[0][rest])


@pytest.mark.slow
def test_a_prefix_begins_the_output_and_is_not_scored():
    tokens, prefix = inputs(), np.zeros((9, 3), np.int32)
    prefix[2], prefix[5, :1] = (17, 31, 8), 23
    got, scores = run(tokens, BEAMS, prefix=prefix)
    for row, ids in ((2, (17, 31, 8)), (5, (23,)), (1, ())):
        wanted = reference(tokens[row], prefix=ids)
        assert all(tuple(one[: len(ids)]) == ids for one in got[row])
        np.testing.assert_array_equal(got[row, 0][: len(wanted[0][1])], wanted[0][1])
        assert scores[row, 0] == pytest.approx(wanted[0][0], abs=1e-4)


@pytest.mark.slow
def test_beam_search_with_an_ensemble():
    """Equal models give what one gives; the logits of different ones are averaged."""
    one, other = params(), params(seed=9)
    alone = run(inputs(), BEAMS)
    twice = run(inputs(), BEAMS, weights=(one, one))
    np.testing.assert_array_equal(twice[0], alone[0])
    both = run(inputs(), BEAMS, weights=(one, other))
    assert (both[0] != alone[0]).any()
    assert tiny_decoding.CFG.vocab_size > both[0].max()
