"""A model whose ids are permuted (padding 1, EOS 2, unknown 0, start 1) is the same model: losses,
greedy outputs, beams and scores, through the rows of the pipeline."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from flax import nnx

from t5jax.data.objectives import SpanCorruption
from t5jax.data.pipeline.converters import convert
from t5jax.data.pipeline.example_rows import ExampleRows
from t5jax.data.pipeline.text_rows import TextRows
from t5jax.data.registry.row_format import RowFormat
from t5jax.data.store.reader import TokenStream
from t5jax.data.vocabularies import ByteVocabulary
from t5jax.decoding import DecodingConfig
from t5jax.decoding.decode_state import Request
from t5jax.decoding.generator import decode_batch
from t5jax.decoding.scoring import score_targets
from t5jax.errors import ConfigError
from t5jax.model.config import T5Config
from t5jax.model.registry import abstract_model, init_params
from t5jax.training.losses import CrossEntropy

PAD, EOS, UNK, START = 1, 2, 0, 1
TO = np.arange(359)
TO[[0, 1, 2]] = PAD, EOS, UNK  # new id of each old one; the old start was padding
SENTINEL = 258  # of bytes with 100 extra ids
CFG = T5Config(
    vocab_size=365, emb_dim=21, num_heads=3, head_dim=5, mlp_dim=26, num_encoder_layers=2,
    num_decoder_layers=3, dtype="float32",
)  # fmt: skip
PERMUTED = dataclasses.replace(CFG, pad_id=PAD, eos_id=EOS, decoder_start_id=START)


class Permuted(ByteVocabulary):
    """Bytes and 100 sentinels with the special ids of another program."""

    pad_id, eos_id, unk_id = PAD, EOS, UNK


VOCABULARIES = {"t5": ByteVocabulary(extra_ids=100), "permuted": Permuted(extra_ids=100)}
RULES = {"t5": (0, 1, 0), "permuted": (PAD, EOS, START)}


def params() -> tuple[dict, dict]:
    """Of both models: the second one's tables have their rows where its ids are."""
    one = jax.tree.map(np.array, init_params(CFG, jax.random.key(3)))
    one["logits_dense"][:, 1] += 0.9  # some outputs end
    rows = np.arange(CFG.vocab_size)
    rows[TO] = np.arange(len(TO))  # old id of each new one
    other = {**one, "token_embedder": one["token_embedder"][rows]}
    other["logits_dense"] = one["logits_dense"][:, rows]
    return one, other


def documents(rng: np.random.Generator, count: int, longest: int) -> list[np.ndarray]:
    """Ids of the first vocabulary: bytes and, often, the unknown piece."""
    made = [rng.integers(2, 12, rng.integers(1, longest)) for _ in range(count)]
    return [np.where(ids > 2, ids + 60, 2).astype(np.uint16) for ids in made]


def stream(of: list[np.ndarray], which: str) -> TokenStream:
    new = of if which == "t5" else [TO[ids].astype(np.uint16) for ids in of]
    return TokenStream.of_documents(new)


def batch(which: str, kind: str) -> dict:
    """Eight rows of a task with examples, packed or not, or of spans of plain text."""
    rng = np.random.default_rng(5)
    pad, eos, start = RULES[which]
    lengths = {"inputs_length": 19, "targets_length": 11}
    rows_of = RowFormat(converter="encoder_decoder", **lengths, pad_id=pad, start_id=start)
    if kind == "text":
        text = documents(rng, 9, 40)
        rows = TextRows(
            stream(text, which), SpanCorruption(), VOCABULARIES[which], **lengths, seed=4,
            prefix_ids=np.array([70, 71], np.int32),
        )  # fmt: skip
    else:
        pairs = documents(rng, 30, 14), documents(rng, 30, 9)
        streams = {"inputs": stream(pairs[0], which), "targets": stream(pairs[1], which)}
        rows = ExampleRows(
            streams, **lengths, vocab_size=359, seed=4, pack=kind == "packed", pad_id=pad,
            eos_id=eos,
        )  # fmt: skip
    return convert(rows.read(np.arange(8)), rows_of)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["examples", "packed", "text"])
def test_rows_are_mapped_and_losses_equal(kind):
    one, other = batch("t5", kind), batch("permuted", kind)
    assert one.keys() == other.keys()
    for name, x in one.items():
        expected = TO[x] if name.endswith("_tokens") else x
        np.testing.assert_array_equal(other[name], expected, err_msg=name)
    assert (one["encoder_input_tokens"] == 2).any()  # an unknown piece: 0 there, and real
    losses = [
        loss_of(nnx.graphdef(abstract_model(cfg)), weights, rows)
        for cfg, weights, rows in zip((CFG, PERMUTED), params(), (one, other), strict=True)
    ]
    for name in ("loss", "objective", "weight", "text_weight", "text_loss", "correct"):
        a, b = (float(getattr(x, name)) for x in losses)
        assert a == pytest.approx(b, rel=2e-6), name
    assert float(losses[0].weight) > float(losses[0].text_weight) > 0


@functools.partial(jax.jit, static_argnums=0)
def loss_of(definition: nnx.GraphDef, weights: dict, rows: dict):
    return CrossEntropy(first_sentinel_id=259)(nnx.merge(definition, weights), rows, None)


def build(cfg: T5Config, weights: dict):
    return nnx.merge(nnx.graphdef(abstract_model(cfg)), weights)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_beams": 3, "num_outputs": 2, "min_length": 2},
        {"num_beams": 2, "beam_rule": "huggingface", "repetition_penalty": 1.3},
        {"no_repeat_ngram": 2, "stop": ((64, 65),)},
    ],
)
def test_outputs_are_mapped_and_scores_equal(settings):
    one, prefix = batch("t5", "examples")["encoder_input_tokens"], np.zeros((8, 2), np.int32)
    one[3] = 0  # a row without an input
    prefix[0], prefix[1, 0] = (66, 2), 67
    mapped = dict(settings)
    found = []
    for cfg, weights, to in zip((CFG, PERMUTED), params(), (np.arange(359), TO), strict=True):
        request = Request(to[one], to[prefix], np.arange(8, dtype=np.int32))
        config = DecodingConfig(max_length=9, **mapped)
        definition = nnx.graphdef(abstract_model(cfg))
        tokens, scores = decode_batch((definition,), (weights,), request, config, 359)
        targets = np.asarray(tokens)[:, 0]
        likelihoods = score_targets((definition,), (weights,), to[one], targets)
        found.append((np.asarray(tokens), np.asarray(scores), np.asarray(likelihoods)))
    (tokens, scores, likelihoods), other = found
    np.testing.assert_array_equal(other[0], TO[tokens])
    np.testing.assert_allclose(other[1], scores, atol=2e-5)
    np.testing.assert_allclose(other[2], likelihoods, atol=2e-5)
    assert (tokens[3] == 0).all()
    assert (other[0][3] == PAD).all()
    if not settings:
        is_one = tokens[:, 0] != 0
        assert 0 < (tokens[:, 0] == 1).sum() < len(tokens)  # some end, some do not
        total = np.where(is_one, likelihoods, 0).sum(axis=1)
        np.testing.assert_allclose(total[2:], scores[2:, 0], atol=2e-5)  # one normaliser


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pad_id": 1}, "model.pad_id = -1"),
        ({"pad_id": 365}, "from -1 to 364"),
        ({"eos_id": -1}, "from 0 to 364"),
        ({"decoder_start_id": 400}, "model.decoder_start_id = 400"),
        ({"softmax_size": 366}, "softmax_size = 366"),
    ],
)
def test_ids_that_cannot_be(fields, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(CFG, **fields)


@pytest.mark.slow
def test_a_softmax_without_spare_rows_is_that_of_a_smaller_table():
    """In the loss and in scores; by default both count the spare rows, as transformers does."""
    weights, _ = params()
    cut = {
        **weights,
        "token_embedder": weights["token_embedder"][:359],
        "logits_dense": weights["logits_dense"][:, :359],
    }
    rows = batch("t5", "examples")
    masked = dataclasses.replace(CFG, softmax_size=359)
    small = dataclasses.replace(CFG, vocab_size=359)
    inputs, targets = rows["encoder_input_tokens"], rows["decoder_target_tokens"]

    def both(cfg, weights):
        model = build(cfg, weights)
        loss = float(CrossEntropy(z_loss=0.0)(model, rows, None).loss)
        definition = nnx.graphdef(abstract_model(cfg))
        return loss, -float(score_targets((definition,), (weights,), inputs, targets).sum())

    for cfg, own in ((CFG, weights), (masked, weights), (small, cut)):
        loss, score = both(cfg, own)
        assert loss == pytest.approx(score, rel=1e-6)
    assert both(masked, weights)[0] == pytest.approx(both(small, cut)[0], rel=1e-6)
    assert both(CFG, weights)[0] > both(masked, weights)[0] + 0.1
