"""Greedy decoding and sampling: stopping, padding, top-k and top-p."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5jax.decoding import DecodingConfig
from t5jax.model.layers import TransformerBlock
from t5jax.types import EOS_ID
from tests.decoding.tiny_decoding import CFG, inputs, params, run, teacher_forced
from tests.model import tiny_t5

MAX_LENGTH = 17


def decode(tokens, num_ids=CFG.vocab_size, cfg=CFG, weights=None):
    outputs, scores = run(tokens, DecodingConfig(max_length=MAX_LENGTH), num_ids, cfg, weights)
    assert outputs.shape == (len(tokens), 1, MAX_LENGTH)
    assert outputs.dtype == jnp.int32
    assert scores.shape == (len(tokens), 1)
    return outputs[:, 0]


def by_teacher_forcing(tokens):
    """Without a cache: the whole model on the output so far, again for every token."""
    model = jax.jit(lambda weights, batch: tiny_t5.build(CFG, weights)(batch))
    output = np.zeros((len(tokens), MAX_LENGTH), np.int32)
    ended = np.zeros(len(tokens), bool)
    for index in range(MAX_LENGTH):
        batch = {
            "encoder_input_tokens": tokens,
            "decoder_input_tokens": np.pad(output, ((0, 0), (1, 0)))[:, :-1],
            "decoder_target_tokens": np.ones_like(output),  # no position is padding
        }
        choice = np.argmax(model(params(), batch)[:, index], axis=-1)
        output[:, index] = np.where(ended, 0, choice)
        ended |= choice == EOS_ID
    return output


@pytest.fixture(scope="module")
def outputs():
    return decode(inputs())


def test_equals_decoding_without_a_cache(outputs):
    np.testing.assert_array_equal(outputs, by_teacher_forcing(inputs()))
    assert len(np.unique(outputs, axis=0)) > 5


def test_ends_with_eos_and_zeros(outputs):
    ends = (outputs == EOS_ID).argmax(axis=1)
    has_end = (outputs == EOS_ID).any(axis=1)
    assert 0 < has_end.sum() < len(outputs)
    for row, end in zip(outputs[has_end], ends[has_end], strict=True):
        assert (row[end + 1 :] == 0).all()
        assert (row == EOS_ID).sum() == 1


@pytest.mark.slow
def test_batch_and_padding_do_not_matter(outputs):
    """A row alone, in another place, padded further: the same output."""
    tokens = inputs()
    longer = np.pad(tokens[::-1], ((0, 0), (0, 6)))
    np.testing.assert_array_equal(decode(longer)[::-1], outputs)
    np.testing.assert_array_equal(decode(tokens[4:5]), outputs[4:5])


def test_padding_rows_have_empty_outputs(outputs):
    tokens = inputs()
    tokens[[0, 3]] = 0
    got = decode(tokens)
    assert not got[[0, 3]].any()
    rest = [1, 2, *range(4, len(tokens))]
    np.testing.assert_array_equal(got[rest], outputs[rest])
    assert not decode(np.zeros_like(tokens)).any()  # nothing to do at all, and it ends


@pytest.mark.slow
def test_spare_rows_of_the_table_are_never_chosen():
    """The result is that of a table which ends with the vocabulary."""
    num_ids = 40
    tokens = np.minimum(inputs(), num_ids - 1)
    assert (decode(tokens) >= num_ids).any()
    got = decode(tokens, num_ids=num_ids)
    weights = {
        **params(),
        "token_embedder": params()["token_embedder"][:num_ids],
        "logits_dense": params()["logits_dense"][:, :num_ids],
    }
    cut = dataclasses.replace(CFG, vocab_size=num_ids)
    np.testing.assert_array_equal(got, decode(tokens, num_ids, cut, weights))


@pytest.mark.slow
def test_stops_when_all_rows_have_ended(outputs, monkeypatch):
    """Not at `MAX_LENGTH`: as many steps as the longest output has tokens."""
    steps = []
    decode_block = TransformerBlock.decode

    def counted(self, *arguments):
        jax.debug.callback(lambda: steps.append(1))
        return decode_block(self, *arguments)

    monkeypatch.setattr(TransformerBlock, "decode", counted)
    jax.clear_caches()
    ending = (outputs == EOS_ID).any(axis=1)
    got = decode(inputs()[ending])
    jax.effects_barrier()
    np.testing.assert_array_equal(got, outputs[ending])
    assert (
        len(steps) / CFG.num_decoder_layers
        == (got > 0).any(axis=0).nonzero()[0].max() + 1
        < MAX_LENGTH
    )


# ---- samples


@pytest.mark.slow
def test_sample_frequencies_are_the_probabilities():
    """First tokens of many rows with one input, against the probabilities of teacher forcing."""
    num, temperature = 4000, 0.7
    row = inputs()[2]
    tokens = np.repeat(row[None], num, axis=0)
    config = DecodingConfig(max_length=1, temperature=temperature, seed=3)
    first = run(tokens, config)[0][:, 0, 0]
    logprobs = teacher_forced(params(), row[None], np.zeros((1, 1), np.int32))[0, 0]
    wanted = np.exp(logprobs / temperature)
    wanted /= wanted.sum()
    found = np.bincount(first, minlength=CFG.vocab_size) / num
    error = np.sqrt(wanted * (1 - wanted) / num)
    assert (np.abs(found - wanted) < 5 * error + 1e-3).all()
    assert (found > 0).sum() > 5


@pytest.mark.slow
def test_samples_belong_to_their_rows():
    """Row number and seed decide, not the place in the batch."""
    config = DecodingConfig(max_length=6, temperature=1.0, num_outputs=4)
    numbers = np.arange(9) + 30
    got, scores = run(inputs(), config, row_ids=numbers)
    order = np.random.default_rng(0).permutation(9)
    again, _ = run(inputs()[order], config, row_ids=numbers[order])
    np.testing.assert_array_equal(again, got[order])
    assert (run(inputs(), config)[0] != got).any()
    other_seed = dataclasses.replace(config, seed=1)
    assert (run(inputs(), other_seed, row_ids=numbers)[0] != got).any()
    assert len({tuple(sample) for row in got for sample in row}) > 25
    for row, samples, of_row in zip(inputs(), got, scores, strict=True):
        forced = teacher_forced(params(), np.repeat(row[None], 4, axis=0), samples)
        own = np.take_along_axis(forced, samples[..., None], axis=2)[..., 0]
        is_output = np.cumsum(samples == EOS_ID, axis=1) - (samples == EOS_ID) == 0
        np.testing.assert_allclose(np.where(is_output, own, 0).sum(axis=1), of_row, atol=1e-4)


@pytest.mark.slow
def test_top_k_and_top_p():
    """With one candidate left a sample is the greedy choice."""
    greedy = decode(inputs())
    for rule in ({"top_k": 1}, {"top_p": 1e-6}):
        config = DecodingConfig(max_length=MAX_LENGTH, temperature=2.0, **rule)
        np.testing.assert_array_equal(run(inputs(), config)[0][:, 0], greedy)


# ---- where an output ends


@pytest.mark.slow
def test_stop_sequences(outputs):
    """Behind two tokens in a row that the greedy output has, or behind one."""
    row = next(r for r in range(len(outputs)) if outputs[r, 5] and outputs[r, 4])
    pair, one = tuple(map(int, outputs[row, 4:6])), int(outputs[row, 2])
    config = DecodingConfig(max_length=MAX_LENGTH, stop=(pair, (one,)))
    got = run(inputs(), config)[0][:, 0]
    for output, before in zip(got, outputs, strict=True):
        ends = [i for i, token in enumerate(before) if token == one]
        ends += [i for i in range(1, MAX_LENGTH) if tuple(before[i - 1 : i + 1]) == pair]
        end = min(ends, default=MAX_LENGTH - 1)
        np.testing.assert_array_equal(output[: end + 1], before[: end + 1])
        assert not output[end + 1 :].any()
    alone = run(inputs(), DecodingConfig(max_length=MAX_LENGTH, stop=(pair,)))[0][:, 0]
    assert not alone[row, 6:].any()
    assert alone[row, 5] == pair[1]
