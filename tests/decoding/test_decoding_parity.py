"""The outputs and scores of `transformers`, for 200 inputs and every rule that both have."""

import dataclasses

import jax
import numpy as np
import pytest

from t5jax.decoding import DecodingConfig
from t5jax.decoding.logits_processors import top_k_top_p_filter
from t5jax.types import EOS_ID
from tests.decoding.tiny_decoding import run
from tests.model import tiny_t5

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch", reason="needs the `parity` extra")
transformers = pytest.importorskip("transformers", reason="needs the `parity` extra")
from tests.model.test_t5_parity import params_like, random_hf_model  # noqa: E402

ROWS, LENGTH = 200, 14


@pytest.fixture(scope="module", params=tiny_t5.VARIANTS)
def both(request):
    """Their model, our parameters, config and inputs of different lengths."""
    torch.set_num_threads(1)
    cfg, model = tiny_t5.config(request.param), random_hf_model(request.param)
    tokens = tiny_t5.random_batch(cfg, ROWS, 23, 1, seed=3)["encoder_input_tokens"]
    for row in tokens:
        row[np.flatnonzero(row)[-1]] = EOS_ID
    return model, params_like(model, request.param, lambda x: x.detach()), cfg, tokens


def theirs(both, **settings):
    model, _, _, tokens = both
    with torch.no_grad():
        outputs = model.generate(
            torch.from_numpy(np.int64(tokens)),
            attention_mask=torch.from_numpy(np.int64(tokens > 0)),
            max_new_tokens=LENGTH,
            do_sample=False,
            return_dict_in_generate=True,
            output_scores=True,
            **settings,
        )
    tokens = outputs.sequences.numpy()[:, 1:]
    tokens = np.pad(tokens, ((0, 0), (0, LENGTH - tokens.shape[1])))
    after_end = np.cumsum(tokens == EOS_ID, axis=1) - (tokens == EOS_ID) > 0
    return np.where(after_end, 0, tokens), outputs  # they fill up with EOS if padding is id 0


def ours(both, **settings):
    _, params, cfg, tokens = both
    config = DecodingConfig(max_length=LENGTH, beam_rule="huggingface", **settings)
    return run(tokens, config, cfg=cfg, weights=params)


def assert_same(got, wanted):
    different = np.flatnonzero((got != wanted).any(axis=1))
    assert not len(different), f"rows {different.tolist()} differ"


RULES = {
    "plain": ({}, {}),
    "min_length": ({"min_length": 6}, {"min_new_tokens": 6}),
    "repetition": ({"repetition_penalty": 1.7}, {"repetition_penalty": 1.7}),
    "ngram": ({"no_repeat_ngram": 2}, {"no_repeat_ngram_size": 2}),
    "all": (
        {"min_length": 4, "repetition_penalty": 1.3, "no_repeat_ngram": 3},
        {"min_new_tokens": 4, "repetition_penalty": 1.3, "no_repeat_ngram_size": 3},
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_greedy(both, rule):
    mine, its = RULES[rule]
    wanted, _ = theirs(both, **its)
    got, _ = ours(both, **mine)
    assert_same(got[:, 0], wanted)
    ends = (wanted == EOS_ID).any(axis=1)
    assert 0 < ends.sum() < ROWS or rule != "plain"


@pytest.mark.parametrize("rule", ["plain", "min_length", "all"])
@pytest.mark.parametrize("alpha", [1.0, 0.6])
def test_four_beams(both, rule, alpha):
    mine, its = RULES[rule]
    wanted, outputs = theirs(both, num_beams=4, length_penalty=alpha, **its)
    got, scores = ours(both, num_beams=4, length_penalty=alpha, **mine)
    assert_same(got[:, 0], wanted)
    np.testing.assert_allclose(scores[:, 0], outputs.sequences_scores.numpy(), atol=1e-4)


def test_all_four_beams_in_order(both):
    wanted, _ = theirs(both, num_beams=4, num_return_sequences=4)
    got, _ = ours(both, num_beams=4, num_outputs=4, length_penalty=1.0)
    different = (got.reshape(ROWS * 4, -1) != wanted).any(axis=1)
    assert different.mean() < 0.01


@pytest.mark.parametrize(("top_k", "top_p"), [(7, 1.0), (0, 0.6), (9, 0.8), (0, 0.999)])
def test_truncation(top_k, top_p):
    logits = np.random.default_rng(0).normal(size=(11, 53)).astype(np.float32) * 3
    wanted = torch.from_numpy(logits)
    if top_k:
        wanted = transformers.TopKLogitsWarper(top_k)(None, wanted)
    if top_p < 1:
        wanted = transformers.TopPLogitsWarper(top_p)(None, wanted)
    np.testing.assert_array_equal(
        jax.jit(top_k_top_p_filter, static_argnums=(1, 2))(logits, top_k, top_p), wanted
    )


def test_the_config_has_no_other_rule():
    """A new rule belongs into this comparison."""
    compared = {"max_length", "num_beams", "length_penalty", "beam_rule", "top_k", "top_p",
                "num_outputs", "min_length", "no_repeat_ngram", "repetition_penalty"}  # fmt: skip
    ours_alone = {"temperature", "stop", "seed", "logits_processors"}
    assert {f.name for f in dataclasses.fields(DecodingConfig)} == compared | ours_alone
