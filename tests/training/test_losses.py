"""Cross-entropy, z-loss and label smoothing against formulas written anew; chunks; normalizers."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.extend.core import jaxprs_in_params

from t5jax.errors import ConfigError
from t5jax.training.losses import CrossEntropy, LossSums
from t5jax.types import EOS_ID
from tests.marks import slow_but

B, T, D, V = 4, 13, 7, 37
SENTINEL = 30  # this and all ids above
SETTINGS = {
    "plain": {"z_loss": 0.0},
    "z-loss": {"z_loss": 0.01},
    "smoothed": {"z_loss": 0.0, "label_smoothing": 0.15},
    "both": {"z_loss": 0.01, "label_smoothing": 0.15},
}


class FixedModel:
    """Stands for a model: the loss needs no more of one."""

    def __init__(self, hidden, table):
        self.hidden, self.table = hidden, table

    def hidden_and_table(self, batch, keys_B):
        return self.hidden, self.table


def random_outputs(dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(B, T, D)).astype(dtype), rng.normal(size=(D, V)).astype(dtype)


def random_batch(seed=0):
    """Packed rows with padding at their ends, and a few tokens inside that do not count."""
    rng = np.random.default_rng((5, seed))
    lengths = [[5, 4, 2], [13], [1, 1, 8], [3]]
    segments = np.zeros((B, T), np.int32)
    for row, parts in zip(segments, lengths, strict=True):
        row[: sum(parts)] = np.repeat(np.arange(1, len(parts) + 1), parts)
    targets = np.where(segments > 0, rng.integers(2, V, (B, T)), 0).astype(np.int32)
    targets[0, [4, 8, 10]] = targets[1, 12] = targets[2, [0, 1]] = EOS_ID
    targets[1, [0, 3]] = SENTINEL, V - 1  # certainly sentinels
    weights = (segments > 0).astype(np.int32)
    weights[0, 1] = weights[2, 0] = 0  # row 2's first sequence has no token that counts
    return {
        "decoder_target_tokens": targets,
        "decoder_loss_weights": weights,
        "decoder_segment_ids": segments,
    }


def reference(hidden, table, targets, *, z_loss, label_smoothing=0.0):
    """Per token, float64: (objective, cross-entropy, z-loss, correct) from the definitions."""
    logits = np.asarray(hidden, np.float64) @ np.asarray(table, np.float64)
    log_z = np.log(np.exp(logits).sum(-1))
    log_p = logits - log_z[..., None]
    is_target = np.arange(logits.shape[-1]) == targets[..., None]
    q = np.where(is_target, 1.0 - label_smoothing, label_smoothing / (logits.shape[-1] - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.where(q > 0, q * np.log(q), 0.0).sum(-1)
    objective = -(q * log_p).sum(-1) - entropy + z_loss * log_z**2
    nll = -(is_target * log_p).sum(-1)
    return objective, nll, z_loss * log_z**2, log_p.argmax(-1) == targets


def call(loss, hidden, table, batch) -> LossSums:
    return loss(FixedModel(hidden, table), batch, None)


def with_gradients(loss, hidden, table, batch):
    """(LossSums, (d hidden, d table)) of the summed objective."""

    @jax.jit
    def run(hidden, table):
        def objective(hidden, table):
            sums = call(loss, hidden, table, batch)
            return sums.objective, sums

        return jax.value_and_grad(objective, argnums=(0, 1), has_aux=True)(hidden, table)

    (_, sums), gradients = run(hidden, table)
    return sums, gradients


def assert_close(got: LossSums, want: LossSums, rtol):
    """All sums but those of single tasks."""
    for name, x, y in zip(LossSums._fields[:-1], got[:-1], want[:-1], strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, err_msg=name)


@pytest.mark.parametrize("settings", SETTINGS)
def test_sums(settings):
    (hidden, table), batch = random_outputs(), random_batch()
    targets, weights = batch["decoder_target_tokens"], batch["decoder_loss_weights"]
    objective, nll, z, correct = reference(hidden, table, targets, **SETTINGS[settings])
    loss = CrossEntropy(**SETTINGS[settings], first_sentinel_id=SENTINEL)
    got = call(loss, hidden, table, batch)
    text = weights * (targets != EOS_ID) * (targets < SENTINEL)
    want = LossSums(
        objective=(objective * weights).sum(),
        denominator=weights.sum(),
        loss=(nll * weights).sum(),
        z_loss=(z * weights).sum(),
        correct=(correct * weights).sum(),
        weight=weights.sum(),
        text_loss=(nll * text).sum(),
        text_weight=text.sum(),
    )
    assert got.tasks == ()
    for name, x, y in zip(LossSums._fields[:-1], got[:-1], want[:-1], strict=True):
        assert x.dtype == jnp.float32
        assert x.shape == np.shape(y)
        np.testing.assert_allclose(x, y, rtol=1e-5, err_msg=name)
    assert 0 < want.text_weight < want.weight - 5  # EOS and sentinels do occur


@pytest.mark.parametrize("num_chunks", [1, 5])
def test_sums_of_each_task(num_chunks):
    """Loss, correct and weight of the rows of each task; one has two rows, one has none."""
    (hidden, table), batch = random_outputs(), random_batch()
    targets, weights = batch["decoder_target_tokens"], batch["decoder_loss_weights"]
    _, nll, _, correct = reference(hidden, table, targets, **SETTINGS["both"])
    tasks, num_tasks = np.array([2, 0, 4, 2], np.int32), 6
    want = np.zeros((num_tasks, 3))
    for row, task in enumerate(tasks):
        for column, per_token in enumerate((nll, correct, np.ones_like(nll))):
            want[task, column] += (per_token * weights)[row].sum()
    loss = CrossEntropy(**SETTINGS["both"], num_tasks=num_tasks, num_chunks=num_chunks)
    got, gradients = with_gradients(loss, hidden, table, batch | {"task_ids": tasks})
    assert (got.tasks.shape, got.tasks.dtype) == ((num_tasks, 3), jnp.float32)
    np.testing.assert_allclose(got.tasks, want, rtol=1e-5)
    totals = [got.loss, got.correct, got.weight]
    np.testing.assert_allclose(got.tasks.sum(axis=0), totals, rtol=1e-5)
    assert (want[:, 2] > 0).tolist() == [True, False, True, False, True, False]
    plain = CrossEntropy(**SETTINGS["both"], num_chunks=num_chunks)
    without, its_gradients = with_gradients(plain, hidden, table, batch)
    assert_close(without, got, rtol=1e-6)
    for x, y in zip(gradients, its_gradients, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def test_without_a_vocabulary_only_eos_is_not_text():
    batch = random_batch()
    got = call(CrossEntropy(), *random_outputs(), batch)
    counts = batch["decoder_loss_weights"] * (batch["decoder_target_tokens"] != EOS_ID)
    assert float(got.text_weight) == counts.sum()


@pytest.mark.parametrize("settings", SETTINGS)
def test_gradients_equal_automatic_ones(settings):
    """Of optax's cross-entropy with soft targets, differentiated by JAX."""
    (hidden, table), batch = random_outputs(), random_batch()
    options = {"label_smoothing": 0.0, **SETTINGS[settings]}
    off = options["label_smoothing"] / (V - 1)
    is_target = jax.nn.one_hot(batch["decoder_target_tokens"], V)
    q = is_target * (1.0 - options["label_smoothing"] - off) + off

    def automatic(hidden, table):
        logits = jnp.einsum("BTD,DV->BTV", hidden, table, precision="highest")
        per_token = optax.softmax_cross_entropy(logits, q)
        per_token += options["z_loss"] * jax.nn.logsumexp(logits, axis=-1) ** 2
        return jnp.sum(per_token * batch["decoder_loss_weights"])

    want = jax.jit(jax.grad(automatic, argnums=(0, 1)))(hidden, table)
    _, got = with_gradients(CrossEntropy(**SETTINGS[settings]), hidden, table, batch)
    for x, y in zip(got, want, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


def test_gradients_follow_the_chain_rule():
    (hidden, table), batch = random_outputs(), random_batch()
    thrice = lambda hidden: 3.0 * call(CrossEntropy(), hidden, table, batch).objective
    once = lambda hidden: call(CrossEntropy(), hidden, table, batch).objective
    np.testing.assert_allclose(jax.grad(thrice)(hidden), 3.0 * jax.grad(once)(hidden), rtol=1e-6)


def test_a_perfect_prediction_scores_zero():
    """With smoothing, too: the entropy of the smoothed target is subtracted."""
    size, smoothing = 11, 0.2
    q = np.full((1, size, size), smoothing / (size - 1), np.float32)
    q[0, np.arange(size), np.arange(size)] = 1.0 - smoothing
    batch = {
        "decoder_target_tokens": np.arange(size, dtype=np.int32)[None],
        "decoder_loss_weights": np.ones((1, size), np.int32),
    }
    loss = CrossEntropy(z_loss=0.0, label_smoothing=smoothing)
    got = call(loss, np.log(q), np.eye(size, dtype=np.float32), batch)
    assert float(got.objective) == pytest.approx(0.0, abs=1e-5)
    assert float(got.loss) == pytest.approx(-size * math.log(1.0 - smoothing), rel=1e-5)


# ---- chunks


@functools.cache
def unchunked():
    return with_gradients(
        CrossEntropy(**SETTINGS["both"], first_sentinel_id=SENTINEL),
        *random_outputs(),
        random_batch(),
    )


@pytest.mark.parametrize("num_chunks", slow_but([5, 13], [2, 5, 13, 20]))
def test_chunks_change_nothing(num_chunks):
    loss = CrossEntropy(**SETTINGS["both"], first_sentinel_id=SENTINEL, num_chunks=num_chunks)
    got, got_gradients = with_gradients(loss, *random_outputs(), random_batch())
    want, want_gradients = unchunked()
    assert_close(got, want, rtol=1e-6)
    for x, y in zip(got_gradients, want_gradients, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
    without_gradient = call(loss, *random_outputs(), random_batch())
    assert_close(without_gradient, want, rtol=1e-6)


def largest_array(jaxpr) -> int:
    """Elements of the largest array that a program makes, inside its loops too."""
    sizes = [0]
    for equation in jaxpr.eqns:
        sizes += [math.prod(getattr(x.aval, "shape", ())) for x in equation.outvars]
        sizes += [largest_array(inner) for inner in jaxprs_in_params(equation.params)]
    return max(sizes)


@pytest.mark.parametrize(("num_chunks", "holds_all"), [(1, True), (8, False), (9, False)])
def test_only_one_chunk_of_logits_exists_at_a_time(num_chunks, holds_all):
    rows, length, width, vocab = 3, 64, 5, 2048
    all_logits = rows * length * vocab
    batch = {
        "decoder_target_tokens": np.zeros((rows, length), np.int32),
        "decoder_loss_weights": np.ones((rows, length), np.int32),
    }
    loss = CrossEntropy(num_chunks=num_chunks)
    objective = lambda hidden, table: call(loss, hidden, table, batch).objective
    arguments = (
        jax.ShapeDtypeStruct((rows, length, width), jnp.float32),
        jax.ShapeDtypeStruct((width, vocab), jnp.float32),
    )
    gradient = jax.grad(objective, argnums=(0, 1))
    largest = largest_array(jax.make_jaxpr(gradient)(*arguments).jaxpr)
    assert (largest >= all_logits) == holds_all
    temporary = jax.jit(gradient).lower(*arguments).compile().memory_analysis().temp_size_in_bytes
    assert (temporary >= 4 * all_logits) == holds_all
    if not holds_all:  # a handful of arrays as large as a chunk's logits
        assert largest <= all_logits // 8
        assert temporary < 4 * all_logits // 2


# ---- normalizers

NORMALIZERS = {
    "target_tokens": {},
    "target_positions": {},
    "sequences": {},
    "sum": {},
    "constant": {"normalizing_factor": 17.0},
}


def normalized(loss, hidden, table, batch) -> float:
    sums = call(loss, hidden, table, batch)
    return float(sums.objective / loss.divisor(sums.denominator))


@pytest.mark.parametrize("normalizer", NORMALIZERS)
def test_normalizers(normalizer):
    (hidden, table), batch = random_outputs(), random_batch()
    weights, segments = batch["decoder_loss_weights"], batch["decoder_segment_ids"]
    per_token, *_ = reference(hidden, table, batch["decoder_target_tokens"], z_loss=0.01)
    sequences = []
    for row in range(B):
        for segment in range(1, segments[row].max() + 1):
            counts = weights[row] * (segments[row] == segment)
            if counts.any():
                sequences.append((per_token[row] * counts).sum() / counts.sum())
    assert len(sequences) == 7  # of 8: one has no token that counts
    total = (per_token * weights).sum()
    want = {
        "target_tokens": total / weights.sum(),
        "target_positions": total / (B * T),
        "sequences": np.mean(sequences),
        "sum": total,
        "constant": total / 17.0,
    }[normalizer]
    loss = CrossEntropy(z_loss=0.01, normalizer=normalizer, **NORMALIZERS[normalizer])
    assert normalized(loss, hidden, table, batch) == pytest.approx(want, rel=1e-5)


def test_sequences_without_segment_ids_are_rows():
    (hidden, table), batch = random_outputs(), random_batch()
    del batch["decoder_segment_ids"]
    weights = batch["decoder_loss_weights"]
    per_token, *_ = reference(hidden, table, batch["decoder_target_tokens"], z_loss=0.01)
    want = np.mean((per_token * weights).sum(1) / weights.sum(1))
    loss = CrossEntropy(z_loss=0.01, normalizer="sequences")
    assert normalized(loss, hidden, table, batch) == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("normalizer", slow_but(["target_tokens", "sequences"], NORMALIZERS))
def test_microbatches_add_up(normalizer):
    """Uneven parts, with different numbers of tokens that count: sums add, one division."""
    (hidden, table), batch = random_outputs(), random_batch()
    loss = CrossEntropy(
        normalizer=normalizer, first_sentinel_id=SENTINEL, **NORMALIZERS[normalizer]
    )
    whole = call(loss, hidden, table, batch)
    parts = [np.array([2]), np.array([3, 0, 1])]
    sums = [call(loss, hidden[p], table, {k: x[p] for k, x in batch.items()}) for p in parts]
    added = jax.tree.map(jnp.add, *sums)
    assert_close(added, whole, rtol=1e-5)
    divisors = loss.divisor(added.denominator), loss.divisor(whole.denominator)
    np.testing.assert_allclose(*divisors, rtol=1e-6)


def test_gradient_of_the_sequences_normalizer():
    """Every sequence weighs the same: the gradient of the mean of their means."""
    (hidden, table), batch = random_outputs(), random_batch()
    weights, segments = batch["decoder_loss_weights"], batch["decoder_segment_ids"]
    scales = np.zeros((B, T))
    for row in range(B):
        for segment in np.unique(segments[row]):
            same = segments[row] == segment
            scales[row, same] = weights[row, same] / max(weights[row, same].sum(), 1)

    def automatic(hidden):
        logits = jnp.einsum("BTD,DV->BTV", hidden, table, precision="highest")
        targets = batch["decoder_target_tokens"]
        return jnp.sum(optax.softmax_cross_entropy_with_integer_labels(logits, targets) * scales)

    loss = CrossEntropy(z_loss=0.0, normalizer="sequences")
    _, (got, _) = with_gradients(loss, hidden, table, batch)
    np.testing.assert_allclose(got, jax.grad(automatic)(hidden), rtol=1e-4, atol=1e-6)


def test_nothing_to_count():
    """A batch of padding alone: objective 0, no division by 0."""
    (hidden, table), batch = random_outputs(), random_batch()
    batch["decoder_loss_weights"] = np.zeros((B, T), np.int32)
    for normalizer in NORMALIZERS:
        loss = CrossEntropy(normalizer=normalizer, **NORMALIZERS[normalizer])
        assert normalized(loss, hidden, table, batch) == 0.0


def test_logits_of_bfloat16_are_float32():
    """Only the operands are rounded; sums, exponentials and the loss are not."""
    (hidden, table), batch = random_outputs(), random_batch()
    hidden, table = jnp.bfloat16(hidden), jnp.bfloat16(table)
    got, (dhidden, dtable) = with_gradients(CrossEntropy(z_loss=0.0), hidden, table, batch)
    targets, weights = batch["decoder_target_tokens"], batch["decoder_loss_weights"]
    _, nll, _, _ = reference(hidden, table, targets, z_loss=0.0)
    assert float(got.loss) == pytest.approx((nll * weights).sum(), rel=1e-5)
    assert dhidden.dtype == dtable.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"z_loss": -1e-4}, "loss.z_loss = -0.0001"),
        ({"label_smoothing": 1.0}, "loss.label_smoothing = 1.0"),
        ({"num_chunks": 0}, "loss.num_chunks = 0"),
        ({"num_chunks": "many"}, "loss.num_chunks = 'many'"),
        ({"normalizer": "constant"}, "normalizing_factor = None"),
        ({"normalizing_factor": 5.0}, "normalizing_factor = 5.0"),
        ({"normalizer": "constant", "normalizing_factor": 0.0}, "normalizing_factor = 0.0"),
        ({"normalizer": "tokens"}, "loss.normalizer = 'tokens'"),
    ],
)
def test_refuses(changes, message):
    with pytest.raises(ConfigError, match=message):
        CrossEntropy(**changes)


@pytest.mark.parametrize("normalizer", ["target_tokens", "sequences"])
def test_an_encoder_predicts_at_its_own_positions(normalizer):
    """The same sums, of features that are named for the encoder."""
    (hidden, table), batch = random_outputs(), random_batch()
    of_encoder = {name.replace("decoder", "encoder"): x for name, x in batch.items()}
    loss = CrossEntropy(normalizer=normalizer, first_sentinel_id=SENTINEL)
    got, want = (call(loss, hidden, table, features) for features in (of_encoder, batch))
    assert_close(got, want, rtol=0)
