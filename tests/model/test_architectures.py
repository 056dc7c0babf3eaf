"""Shared stacks, language models, prefix LMs and encoders against NumPy; packed and decoded."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from t5jax.data.pipeline.converters import lm, prefix_lm
from t5jax.decoding import DecodingConfig
from t5jax.decoding.scoring import score_targets
from t5jax.model import matmul
from t5jax.model.attention import MASKED
from t5jax.model.config import Architecture, T5Config
from t5jax.model.decode_weights import decode_weights
from t5jax.model.registry import MODULES, abstract_model
from t5jax.types import EOS_ID
from tests.decoding import tiny_decoding
from tests.model import numpy_t5, tiny_t5
from tests.model.tiny_architectures import (
    CONVERTER,
    MASK_ID,
    PACKED_ROWS,
    VARIANTS,
    batch_of,
    config,
    examples,
    features,
)
from tests.model.tiny_t5 import assert_close

PARITY = 1e-5
CASES = [
    *VARIANTS.items(),
    *(
        pytest.param(*case, marks=pytest.mark.slow)
        for case in (
            ("shared_encoder_decoder", "umT5"),
            ("decoder_only", "umT5"),
            ("prefix_lm", "1.1"),
        )
    ),
]


@functools.cache
def in_rows(architecture: Architecture):
    """The same examples packed (and rows without any) and one in a row, with the examples and the
    (row, columns) where each of them is predicted when packed. One program takes both batches."""
    together = examples(architecture, PACKED_ROWS)
    alone = [[example] for row in together for example in row]
    places = []
    for row, of_row in enumerate(together):
        start = 0
        for inputs, targets in of_row:
            both = len(inputs) + len(targets)
            length = {"encoder": len(inputs), "prefix_lm": both}
            end = start + length.get(CONVERTER[architecture], len(targets))
            places.append((row, slice(start, end)))
            start = end
    empty = [[] for _ in range(len(alone) - len(together))]
    return (
        batch_of(architecture, together + empty, packed=True),
        batch_of(architecture, alone, packed=True),
        [example for (example,) in alone],
        places,
    )


@functools.cache
def runner(cfg_items):
    return tiny_t5.with_gradients(T5Config(**dict(cfg_items)))


def run(cfg, params, batch):
    """((loss, logits), gradients); compiled once for a config and the shapes of a batch."""
    return runner(tuple(dataclasses.asdict(cfg).items()))(params, batch)


def forward(cfg, params, batch):
    """Logits alone."""
    return jax.jit(lambda params, batch: tiny_t5.build(cfg, params)(batch))(params, batch)


def test_every_architecture_has_its_module():
    for architecture, module in MODULES.items():
        assert type(abstract_model(config(architecture))) is module
    paths = {
        architecture: {
            jax.tree_util.keystr(path[:1], simple=True)
            for path, _ in jax.tree_util.tree_leaves_with_path(
                tiny_t5.random_params(config(architecture, "1.1"))
            )
        }
        - {"token_embedder", "logits_dense"}
        for architecture in MODULES
    }
    assert paths == {
        "encoder_decoder": {"encoder", "decoder"},
        "shared_encoder_decoder": {"decoder"},
        "decoder_only": {"decoder"},
        "prefix_lm": {"decoder"},
        "encoder_only": {"encoder"},
    }


@pytest.mark.parametrize(("architecture", "variant"), CASES)
def test_packed_and_alone_equal_numpy(architecture, variant):
    """Logits of every example; the summed loss and its gradients do not depend on packing."""
    cfg = config(architecture, variant)
    params = tiny_t5.random_params(cfg)
    packed, alone, pairs, places = in_rows(architecture)
    (loss, logits), gradients = run(cfg, params, packed)
    (loss_alone, logits_alone), gradients_alone = run(cfg, params, alone)
    total = 0.0
    for number, (example, (row, where)) in enumerate(zip(pairs, places, strict=True)):
        want = numpy_t5.logits(cfg, params, *example)
        assert_close(logits[row, where], want, PARITY)
        assert_close(logits_alone[number, : len(want)], want, PARITY)
        total += reference_loss(architecture, want, *example)
    assert float(loss) == pytest.approx(total, rel=1e-5)
    assert float(loss_alone) == pytest.approx(total, rel=1e-5)
    assert_close(gradients, gradients_alone, PARITY)


def reference_loss(architecture, logits, inputs, targets) -> float:
    """Summed cross-entropy of what is to be predicted: the targets, or what is masked."""
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    if architecture == "encoder_only":
        masked = np.flatnonzero(inputs == MASK_ID)
        return -log_p[masked, targets[masked]].sum()
    return -log_p[np.arange(-len(targets), 0), targets].sum()


@pytest.mark.parametrize("converter", [prefix_lm, lm])
def test_a_language_model_without_segments(converter):
    """Rows that are not packed; with seqio's LM converter the targets alone."""
    cfg = config("decoder_only", "1.0")
    params = tiny_t5.random_params(cfg)
    _, _, pairs, _ = in_rows("decoder_only")
    batch = converter(features([[pair] for pair in pairs], packed=False))
    logits = forward(cfg, params, batch)
    for row, (inputs, targets) in enumerate(pairs):
        want = numpy_t5.logits(cfg, params, inputs if converter is prefix_lm else [], targets)
        assert_close(logits[row, : len(want)], want, PARITY)


@pytest.mark.slow
def test_shared_stacks_are_two_equal_ones():
    """An encoder-decoder whose encoder is a copy has the same loss; the gradient of a shared weight
    is the sum of those of both copies."""
    cfg = config("shared_encoder_decoder")
    apart = dataclasses.replace(cfg, architecture="encoder_decoder")
    params = tiny_t5.random_params(cfg)
    layers = params["decoder"]["layers"]
    encoder = {
        **params["decoder"],
        "layers": {name: x for name, x in layers.items() if not name.startswith("cross")},
    }
    _, alone, _, _ = in_rows("shared_encoder_decoder")
    (loss, logits), gradients = run(cfg, params, alone)
    (want, want_logits), of_both = run(apart, {**params, "encoder": encoder}, alone)
    assert float(loss) == pytest.approx(float(want), rel=1e-6)
    assert_close(logits, want_logits, PARITY)
    of_encoder = of_both.pop("encoder")
    for name in of_both["decoder"]["layers"]:
        if name.startswith("cross"):
            zeros = jax.tree.map(jnp.zeros_like, of_both["decoder"]["layers"][name])
            of_encoder["layers"][name] = zeros
    of_both["decoder"] = jax.tree.map(jnp.add, of_both["decoder"], of_encoder)
    assert_close(gradients, of_both, PARITY)


# ---- decoding

DECODED = [  # on one CPU weights are laid out for few rows
    pytest.param("shared_encoder_decoder", "1.0", False, marks=pytest.mark.slow),
    ("shared_encoder_decoder", "1.0", True),
    ("decoder_only", "1.0", False),
    pytest.param("decoder_only", "umT5", True, marks=pytest.mark.slow),
    pytest.param("prefix_lm", "1.1", False, marks=pytest.mark.slow),
    ("prefix_lm", "umT5", True),
]
INPUTS = (1, 9, 4, 13, 6)  # tokens of each row's inputs
OUTPUTS = 11


@pytest.mark.parametrize(("architecture", "variant", "one_cpu"), DECODED)
def test_decoding_step_by_step_equals_teacher_forcing(architecture, variant, one_cpu, monkeypatch):
    """Rows of different lengths in one batch, wider than the longest."""
    monkeypatch.setattr(matmul, "devices_in_program", lambda: 1 if one_cpu else 8)
    cfg = config(architecture, variant)
    params = tiny_t5.random_params(cfg)
    rows = examples(architecture, [[(length, OUTPUTS)] for length in INPUTS])
    tokens = np.zeros((len(rows), max(INPUTS) + 3), np.int32)
    output = np.zeros((len(rows), OUTPUTS), np.int32)
    for row, ((inputs, targets),) in enumerate(rows):
        tokens[row, : len(inputs)], output[row] = inputs, targets
    read = np.pad(output, ((0, 0), (1, 0)))[:, :-1]

    batch = batch_of(architecture, rows, packed=False)

    @jax.jit
    def run_both(params):
        model, length = tiny_t5.build(cfg, params), OUTPUTS + 4
        layout = decode_weights(model, len(tokens))
        decode, kv_cache = model.start_decoding(layout, jnp.asarray(tokens), length)

        def step(kv_cache, index_and_tokens):
            index, tokens_B = index_and_tokens
            mask = jnp.where(jnp.arange(length) <= index, 0.0, MASKED)[None, None, :, None]
            logits_B1V, kv_cache = decode(tokens_B[:, None], index, kv_cache, mask)
            return kv_cache, logits_B1V[:, 0]

        _, logits_TBV = jax.lax.scan(step, kv_cache, (jnp.arange(OUTPUTS), read.T))
        return logits_TBV.swapaxes(0, 1), model(batch)

    got, whole = run_both(params)
    for row, ((inputs, targets),) in enumerate(rows):
        first = len(inputs) if CONVERTER[architecture] == "prefix_lm" else 0
        assert_close(got[row], whole[row, first : first + OUTPUTS], PARITY)
        want = numpy_t5.logits(cfg, params, inputs, targets)
        assert_close(got[row], want[-OUTPUTS:], PARITY)


GENERATING = [pytest.param("decoder_only", marks=pytest.mark.slow), "prefix_lm"]


def generating(architecture):
    """Parameters with which outputs end early and late, and inputs of different lengths; the last
    row fills a batch."""
    cfg = config(architecture, "1.1")
    params = tiny_t5.random_params(cfg, seed=3)
    params["logits_dense"][:, EOS_ID] *= 2.0
    rows = examples(architecture, [[(length, 2)] for length in INPUTS])
    inputs = [inputs for ((inputs, _),) in rows]
    tokens = np.zeros((len(rows) + 1, max(INPUTS)), np.int32)
    for row, ids in zip(tokens, inputs, strict=False):
        row[: len(ids)] = ids
    return cfg, params, inputs, tokens


def log_probabilities(cfg, params, inputs, targets):
    """[T, V] of the targets, from NumPy."""
    logits = numpy_t5.logits(cfg, params, inputs, targets)[-len(targets) :]
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@pytest.mark.parametrize("architecture", GENERATING)
def test_greedy_equals_the_argmax_of_teacher_forcing(architecture):
    """Without a cache, example by example, the likeliest token again and again."""
    cfg, params, inputs, tokens = generating(architecture)
    decoding = DecodingConfig(max_length=8)
    got, scores = tiny_decoding.run(tokens, decoding, cfg=cfg, weights=params)
    want, want_scores = np.zeros_like(got[:, 0]), np.zeros(len(tokens))
    for row, ids in enumerate(inputs):
        outputs: list[int] = []
        while len(outputs) < 8 and EOS_ID not in outputs:
            last = log_probabilities(cfg, params, ids, [*outputs, 0])[-1]
            outputs.append(int(last.argmax()))
            want_scores[row] += last.max()
        want[row, : len(outputs)] = outputs
    np.testing.assert_array_equal(got[:, 0], want)
    np.testing.assert_allclose(scores[:, 0], want_scores, atol=1e-4)
    assert len(np.unique(want[:-1], axis=0)) > 2


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["decoder_only", "prefix_lm"])
def test_beams_have_the_scores_of_their_outputs(architecture):
    """Beams that share the inputs and change places, against the whole model on what they say; and
    the scores of given targets."""
    cfg, params, inputs, tokens = generating(architecture)
    decoding = DecodingConfig(max_length=8, num_beams=3, num_outputs=3, length_penalty=0.0)
    got, scores = tiny_decoding.run(tokens, decoding, cfg=cfg, weights=params)
    assert not got[-1].any()
    greedy, _ = tiny_decoding.run(tokens, DecodingConfig(max_length=8), cfg=cfg, weights=params)
    assert (got[:, 0] != greedy[:, 0]).any()
    definition, num_scored = (nnx.graphdef(abstract_model(cfg)),), 0
    for beam in range(3):
        scored = score_targets(definition, (params,), tokens, got[:, beam])
        for row, ids in enumerate(inputs):
            output = np.trim_zeros(got[row, beam], "b")
            if not len(output):  # fewer than three have ended
                continue
            log_p = log_probabilities(cfg, params, ids, output)[np.arange(len(output)), output]
            assert scores[row, beam] == pytest.approx(log_p.sum(), abs=1e-4)
            if output.all():  # 0 among given targets is padding, though random weights may say it
                np.testing.assert_allclose(scored[row, : len(output)], log_p, atol=1e-5)
                assert not np.any(scored[row, len(output) :])
                num_scored += 1
    assert num_scored > 5
