"""Validation loss and perplexity, with unigram and bigram baselines."""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from t5jax.data.pipeline.loader import Loader
from t5jax.data.pipeline.text_rows import TextRows
from t5jax.data.store.reader import TokenStream
from t5jax.errors import ConfigError
from t5jax.training.feeding import Feeder
from t5jax.training.losses import LossSums, predicting_side
from t5jax.training.steps import Program
from t5jax.training.train_step import mean_metrics


def evaluate_loss(
    program: Program,
    params,
    loader: Loader,
    num_rows: int | None = None,
    after_batch: Callable[[], None] = lambda: None,
) -> LossSums:
    """Sums in float64 over the first `num_rows` rows (None: all) of a pass, each once.

    `after_batch` is called when a batch has been computed. `loss_metrics` makes means of them.
    """
    feeder = Feeder(program.batch_sharding, loader.batch_size)
    num_rows = rows_to_read(loader, num_rows)
    totals = np.zeros(len(_SCALARS))
    pending: LossSums | None = None
    for step in range(math.ceil(num_rows / loader.batch_size)):
        rows = loader.rows(step, feeder.rows.tolist())
        beyond = step * loader.batch_size + feeder.rows >= num_rows
        rows[f"{predicting_side(rows)}_loss_weights"][beyond] = 0
        sums = program.eval_step(params, feeder.put(rows))
        if pending is not None:
            totals += _scalars(pending)
            after_batch()
        pending = sums
    assert pending is not None, "a split has at least one row"
    totals += _scalars(pending)
    return LossSums(*totals)  # pyright: ignore[reportArgumentType]


_SCALARS = LossSums._fields[:-1]  # without the sums by task: a split is evaluated task by task


def _scalars(sums: LossSums) -> np.ndarray:
    return np.array(jax.device_get(sums[:-1]), np.float64)


def add_loss_sums(sums: Sequence[LossSums]) -> LossSums:
    """The sums of several evaluations together."""
    return LossSums(*np.sum([x[:-1] for x in sums], axis=0))


def loss_metrics(sums: LossSums) -> dict[str, float]:
    """Means in nats per target token: loss, text_loss (on text tokens: no sentinels, no EOS),
    accuracy, perplexity, text_perplexity; and target_tokens."""
    metrics = {name: float(x) for name, x in mean_metrics(sums).items()}
    del metrics["z_loss"]
    return {
        **metrics,
        "perplexity": math.exp(min(metrics["loss"], 700.0)),
        "text_perplexity": math.exp(min(metrics["text_loss"], 700.0)),
    }


class SplitLosses:
    """Losses on a split, of one model after another; quantities of the data are computed once."""

    def __init__(self, loader: Loader, num_rows: int | None = None):
        self._loader, self._num_rows = loader, num_rows

    def sums(
        self, program: Program, params, after_batch: Callable[[], None] = lambda: None
    ) -> LossSums:
        """As `evaluate_loss`."""
        return evaluate_loss(program, params, self._loader, self._num_rows, after_batch)

    def metrics(self, sums: LossSums) -> dict[str, float]:
        """`loss_metrics`, how many rows they are over, and `unigram_entropy` beside them."""
        return loss_metrics(sums) | {
            "num_rows": rows_to_read(self._loader, self._num_rows),
            "unigram_entropy": self._unigram_entropy,
        }

    def baselines(self, train: Loader) -> "Baselines":
        """Losses of n-gram models counted on `train`."""
        return ngram_baselines(train, self._loader, self._num_rows)

    @functools.cached_property
    def _unigram_entropy(self) -> float:
        return unigram_entropy(self._loader, self._num_rows)


class Baselines(NamedTuple):
    """Cross-entropies of n-gram models, in nats per text token of a split's targets."""

    entropy: float  # of the tokens' own frequencies: a lower bound for any unigram model
    unigram: float  # frequencies of the training split, add-one smoothed
    bigram: float  # given the previous token; training counts, interpolated with the unigram


def unigram_entropy(loader: Loader, num_rows: int | None = None) -> float:
    """Entropy in nats of the text tokens among the targets of the first `num_rows` rows."""
    return _entropy(_text_counts(loader, num_rows))


def ngram_baselines(train: Loader, validation: Loader, num_rows: int | None = None) -> Baselines:
    """Losses of unigram and bigram models on the same target tokens as `evaluate_loss`.

    The unigram and bigram models count all tokens of the training store; the bigram is interpolated
    with the unigram by Witten-Bell smoothing (Witten & Bell 1991). A target token's predecessor is
    the one before it in the text, which the model sees only when it is not masked.
    """
    size = validation.vocabulary.vocab_size
    stream = _text_stream(train)
    tokens = stream.read_rows(np.array([0]), stream.num_tokens)[0].astype(np.int64)
    counts = np.bincount(tokens, minlength=size).astype(np.float64)
    unigram_V = (counts + 1.0) / (counts.sum() + size)
    pairs, pair_counts = np.unique(tokens[:-1] * size + tokens[1:], return_counts=True)
    first = pairs // size
    following = np.bincount(first, pair_counts, minlength=size)
    kinds = np.bincount(first, minlength=size)

    def log_p(previous: np.ndarray, token: np.ndarray) -> np.ndarray:
        place = np.minimum(np.searchsorted(pairs, previous * size + token), len(pairs) - 1)
        seen = np.where(pairs[place] == previous * size + token, pair_counts[place], 0)
        total = following[previous] + kinds[previous]
        backed_off = (seen + kinds[previous] * unigram_V[token]) / np.maximum(total, 1)
        return np.log(np.where(total > 0, backed_off, unigram_V[token]))

    target_counts = _text_counts(validation, num_rows)
    total = target_counts.sum()
    bigram = 0.0
    for rows in _batches(validation, num_rows):
        previous, token = _targets_in_context(rows, validation)
        bigram -= log_p(previous, token).sum()
    return Baselines(
        entropy=_entropy(target_counts),
        unigram=float(-(target_counts * np.log(unigram_V)).sum() / total),
        bigram=float(bigram / total),
    )


def _text_stream(loader: Loader) -> TokenStream:
    rows = loader.components[0].rows
    if len(loader.components) != 1 or not isinstance(rows, TextRows):
        raise ConfigError("baselines need a single task of plain text")
    if not isinstance(rows.stream, TokenStream):
        raise ConfigError(
            f"baselines count text alone, and objective {rows.objective} has EOS in it: take "
            "another, or leave --baselines out"
        )
    return rows.stream


def _targets_in_context(rows: dict, loader: Loader) -> tuple[np.ndarray, np.ndarray]:
    """(previous token of the text, token) of every text token with a loss weight.

    A span's first token follows, in the text, the last token before its sentinel in the inputs,
    which in the rows of a language model stand before the targets (where the token before the first
    of a suffix is that before the inputs' EOS).
    """
    side = predicting_side(rows)
    targets, weights = rows[f"{side}_target_tokens"], rows[f"{side}_loss_weights"]
    separate = side == "decoder" and "encoder_input_tokens" in rows
    shown = rows["encoder_input_tokens"] if separate else targets
    is_text, previous, token = loader.vocabulary.is_text, [], []
    for inputs_S, targets_T, weights_T in zip(shown, targets, weights, strict=True):
        pairs = [(int(s), int(t)) for t, s in itertools.pairwise(inputs_S)]
        before = dict(reversed(pairs))  # of a sentinel or EOS, its first occurrence
        for i in np.flatnonzero(is_text(targets_T) & (weights_T > 0)):
            last = int(targets_T[i - 1]) if i else 0
            previous.append(last if is_text(np.array([last]))[0] else before.get(last, 0))
            token.append(int(targets_T[i]))
    return np.array(previous, np.int64), np.array(token, np.int64)


def rows_to_read(loader: Loader, num_rows: int | None) -> int:
    """How many rows an evaluation of at most `num_rows` has."""
    return loader.num_rows if num_rows is None else min(num_rows, loader.num_rows)


def _batches(loader: Loader, num_rows: int | None):
    num_rows = rows_to_read(loader, num_rows)
    for step in range(math.ceil(num_rows / loader.batch_size)):
        rows = loader.rows(step)
        keep = num_rows - step * loader.batch_size
        yield {name: x[:keep] for name, x in rows.items()}


def _text_counts(loader: Loader, num_rows: int | None) -> np.ndarray:
    counts = np.zeros(loader.vocabulary.vocab_size)
    for rows in _batches(loader, num_rows):
        side = predicting_side(rows)
        targets = rows[f"{side}_target_tokens"]
        weighted = rows[f"{side}_loss_weights"] > 0
        text = targets[weighted & loader.vocabulary.is_text(targets)]
        counts += np.bincount(text, minlength=len(counts))
    return counts


def _entropy(counts: np.ndarray) -> float:
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log(p)).sum())
