"""A T5 small enough to compile in a second: its variants, random parameters, random batches."""

import functools

import jax
import numpy as np
import optax
from flax import nnx

from t5jax.model.config import T5Config
from t5jax.model.encoder_decoder import EncoderDecoder
from t5jax.model.registry import abstract_model
from t5jax.training.losses import predicting_side

VARIANTS = {
    "1.0": {"mlp_activations": ("relu",), "tied_embeddings": True},
    "1.1": {},
    "umT5": {"per_layer_relative_bias": True},
}


def config(variant: str = "1.1", **changes) -> T5Config:
    """Odd sizes, pairwise different."""
    shape = {
        "vocab_size": 53,
        "emb_dim": 18,
        "num_heads": 3,
        "head_dim": 5,
        "mlp_dim": 22,
        "num_encoder_layers": 3,
        "num_decoder_layers": 2,
        "relpos_num_buckets": 8,
        "relpos_max_distance": 13,
        "dtype": "float32",
        "attention": "einsum",
        "unroll_layers": 1,  # compiles faster
    }
    return T5Config(**{**shape, **VARIANTS[variant], **changes})


def random_params(cfg: T5Config, seed: int = 0) -> dict:
    """Every parameter random, norm scales and bias tables too; NumPy, so that nothing compiles."""
    rng = np.random.default_rng(seed)

    def leaf(path, x):
        value = rng.normal(size=x.shape)
        if path[-1].key == "scale":
            value = 1.0 + 0.3 * value
        elif path[-1].key not in ("token_embedder", "embedding"):
            value *= x.shape[-2] ** -0.5
        return value.astype(np.float32)

    return jax.tree_util.tree_map_with_path(leaf, nnx.to_pure_dict(nnx.state(abstract_model(cfg))))


def random_batch(
    cfg: T5Config, rows: int, inputs: int, targets: int, *, padded: bool = True, seed: int = 0
) -> dict[str, np.ndarray]:
    """Unpacked rows of different lengths (or full ones), as seqio would make them."""
    rng = np.random.default_rng((7, seed))

    def tokens(length):
        ids = rng.integers(2, cfg.vocab_size, (rows, length)).astype(np.int32)
        lengths = rng.integers(1, length + 1, rows) if padded else np.full(rows, length)
        return np.where(np.arange(length) < lengths[:, None], ids, 0)

    target_tokens = tokens(targets)
    return {
        "encoder_input_tokens": tokens(inputs),
        "decoder_target_tokens": target_tokens,
        "decoder_input_tokens": np.pad(target_tokens, ((0, 0), (1, 0)))[:, :-1],
        "decoder_loss_weights": (target_tokens > 0).astype(np.int32),
    }


PACKED_ROWS = [[(5, 3), (4, 6), (3, 2)], [(7, 4), (6, 5)]]  # (inputs, targets) of each sequence
LENGTHS = (15, 12)  # one row is full on neither side


def place(batch, row: int, start: tuple[int, int], number: int, ids) -> None:
    """Writes one sequence, (inputs, targets), into a row."""
    inputs, targets = (slice(at, at + len(x)) for at, x in zip(start, ids, strict=True))
    batch["encoder_input_tokens"][row, inputs] = ids[0]
    batch["decoder_target_tokens"][row, targets] = ids[1]
    batch["decoder_input_tokens"][row, targets] = np.append(0, ids[1][:-1])
    batch["decoder_loss_weights"][row, targets] = 1
    batch["encoder_segment_ids"][row, inputs] = number
    batch["decoder_segment_ids"][row, targets] = number


def packed_and_alone(vocab_size: int):
    """The same sequences in two rows and in five; where each sequence's targets went."""
    rng = np.random.default_rng(11)
    sides = "input_tokens", "segment_ids", "target_tokens", "loss_weights"
    names = [f"{side}_{name}" for side in ("encoder", "decoder") for name in sides]
    del names[2:4]  # the encoder has no targets
    length = lambda name: LENGTHS[name.startswith("decoder")]
    blank = lambda rows: {name: np.zeros((rows, length(name)), np.int32) for name in names}
    packed, alone = blank(len(PACKED_ROWS)), blank(sum(map(len, PACKED_ROWS)))
    places = []
    for row, sequences in enumerate(PACKED_ROWS):
        start = (0, 0)
        for number, lengths in enumerate(sequences, 1):
            ids = [rng.integers(2, vocab_size, n) for n in lengths]
            place(packed, row, start, number, ids)
            place(alone, len(places), (0, 0), 1, ids)
            targets = slice(start[1], start[1] + lengths[1])
            places.append((row, targets, len(places), slice(0, lengths[1])))
            start = (start[0] + lengths[0], start[1] + lengths[1])
    del alone["encoder_segment_ids"], alone["decoder_segment_ids"]
    return packed, alone, places


def build(cfg: T5Config, params: dict) -> EncoderDecoder:
    return nnx.merge(nnx.graphdef(abstract_model(cfg)), params)


def loss_and_logits(cfg: T5Config, params: dict, batch: dict, keys_B=None):
    """Cross-entropy summed over target tokens, straight from the logits; (loss, logits)."""
    logits_BTV = build(cfg, params)(batch, keys_B)
    side = predicting_side(batch)
    targets_BT, weights_BT = batch[f"{side}_target_tokens"], batch[f"{side}_loss_weights"]
    nll_BT = optax.softmax_cross_entropy_with_integer_labels(logits_BTV, targets_BT)
    return (nll_BT * weights_BT).sum(), logits_BTV


def with_gradients(cfg: T5Config):
    """Jitted (params, batch, keys_B) -> ((loss, logits), gradients)."""
    return jax.jit(jax.value_and_grad(functools.partial(loss_and_logits, cfg), has_aux=True))


def assert_close(got, want, relative: float, what: str = "") -> None:
    """Trees of arrays, each within `relative` of its largest value."""
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(want), strict=True
    ):
        name = f"{what} {jax.tree_util.keystr(path, simple=True, separator='/')}"
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        assert x.shape == y.shape, name
        largest = np.abs(y).max()
        error = np.abs(x - y).max() / largest if largest else np.abs(x).max()
        assert error <= relative, f"{name}: relative error {error:.2e}, allowed {relative:.0e}"
