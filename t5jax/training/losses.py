"""Losses, `loss(model, batch, keys_B) -> LossSums`: cross-entropy, z-loss, label smoothing.

Losses return sums over tokens and never means, so that microbatches, hosts and evaluation batches
with different numbers of real tokens add up exactly; the caller divides once.

Shape suffixes: B rows, T target length, K tasks.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Protocol, get_args, runtime_checkable

import jax
import jax.numpy as jnp

from t5jax.errors import ConfigError, user_code
from t5jax.training.chunked_loss import summed_cross_entropy
from t5jax.types import EOS_ID, Batch


class LossSums(NamedTuple):
    """Float32 sums over target tokens (scalars, but for `tasks`): add freely, divide once."""

    objective: jax.Array  # what is minimised is objective / denominator
    denominator: jax.Array
    loss: jax.Array  # plain cross-entropy in nats: no z-loss, no smoothing
    z_loss: jax.Array
    correct: jax.Array
    weight: jax.Array  # target tokens that count
    text_loss: jax.Array  # cross-entropy on text: neither sentinels nor EOS
    text_weight: jax.Array
    tasks: Any = ()  # [K, 3]: loss, correct, weight of each task of a mixture; () with one task


def zero_sums(num_tasks: int) -> LossSums:
    """The initial value of a sum."""
    scalars = [jnp.float32(0.0)] * (len(LossSums._fields) - 1)
    return LossSums(*scalars, tasks=jnp.zeros((num_tasks, 3)) if num_tasks else ())


@runtime_checkable
class CustomLoss(Protocol):
    """A loss of a user's module: a function, or a dataclass that is called (docs/extending.md).

    It may have fields `first_sentinel_id`, `sentinel_ids` and `num_tasks`, which the run sets as it
    sets those of `CrossEntropy`, and a method `divisor`. `model.eos_id` is the id of EOS; padding
    has no loss weight.
    """

    def __call__(self, model: Any, batch: Batch, keys_B: jax.Array | None, /) -> LossSums: ...


def predicting_side(batch: Mapping[str, Any]) -> str:
    """The stack whose positions predict targets: the decoder, without one the encoder."""
    return "decoder" if "decoder_target_tokens" in batch else "encoder"


# What the summed objective is divided by: the target tokens that count, all target positions,
# each row's segments averaged first, nothing, or (with "constant") normalizing_factor.
Normalizer = Literal["target_tokens", "target_positions", "sequences", "sum", "constant"]


@dataclasses.dataclass(kw_only=True, slots=True)
class CrossEntropy:
    """Cross-entropy per token that counts, with T5's z-loss and T5X's label smoothing.

    objective = -Σ_v q_v log p_v - H(q) + z_loss · log²Z, where q puts 1 - label_smoothing on the
    target and shares the rest among the other rows of the table, H is its entropy (a perfect
    prediction scores 0) and Z the normaliser (T5X, `cross_entropy_with_logits`).
    """

    z_loss: float = 1e-4  # keeps the softmax normaliser near one
    label_smoothing: float = 0.0
    normalizer: Normalizer = "target_tokens"
    normalizing_factor: float | None = None  # e.g. 2048*114, for slots made by Mesh TensorFlow
    # In how many parts a device makes the logits of its tokens, one part at a time; "auto": by the
    # size of the logits.
    num_chunks: int | Literal["auto"] = "auto"
    first_sentinel_id: int | None = None  # None: taken from the vocabulary of the run
    sentinel_ids: tuple[int, ...] | None = None  # set by the run where not all are at the top
    num_tasks: int = 0  # of the mixture, set by the run; 0: no sums by task

    def __post_init__(self) -> None:
        if self.z_loss < 0:
            raise ConfigError(f"loss.z_loss = {self.z_loss}: must not be negative")
        if not 0.0 <= self.label_smoothing < 1.0:
            raise ConfigError(f"loss.label_smoothing = {self.label_smoothing}: must be in [0, 1)")
        chunks = self.num_chunks
        if chunks != "auto" and (not isinstance(chunks, int) or chunks < 1):
            raise ConfigError(f"loss.num_chunks = {chunks!r}: at least 1, or 'auto'")
        if self.normalizer not in get_args(Normalizer):
            choices = ", ".join(get_args(Normalizer))
            raise ConfigError(f"loss.normalizer = {self.normalizer!r}: choose one of {choices}")
        if self.normalizing_factor is not None and self.normalizing_factor <= 0:
            raise ConfigError(
                f"loss.normalizing_factor = {self.normalizing_factor}: must be above 0"
            )
        if (self.normalizer == "constant") != (self.normalizing_factor is not None):
            raise ConfigError(
                f"loss.normalizing_factor = {self.normalizing_factor} with loss.normalizer = "
                f"{self.normalizer!r}: the factor is for 'constant', which needs it"
            )

    def __call__(self, model, batch: Batch, keys_B: jax.Array | None) -> LossSums:
        hidden_BTD, table_DV = model.hidden_and_table(batch, keys_B)
        side = predicting_side(batch)
        targets_BT = batch[f"{side}_target_tokens"]
        weights_BT = batch[f"{side}_loss_weights"].astype(jnp.float32)
        scales_BT, denominator = self._normalization(batch, weights_BT)
        objective, (nll_BT, log_z_BT, correct_BT) = summed_cross_entropy(  # pyright: ignore
            hidden_BTD,
            table_DV,
            targets_BT,
            scales_BT,
            z_loss=self.z_loss,
            label_smoothing=self.label_smoothing,
            num_chunks=None if self.num_chunks == "auto" else self.num_chunks,
        )
        # A model of another program may have none: T5's.
        text_BT = weights_BT * (targets_BT != getattr(model, "eos_id", EOS_ID))
        if self.sentinel_ids is not None:
            text_BT *= ~jnp.isin(targets_BT, jnp.array(self.sentinel_ids))
        elif self.first_sentinel_id is not None:
            text_BT *= targets_BT < self.first_sentinel_id
        return LossSums(
            objective=objective,
            denominator=denominator,
            loss=jnp.sum(nll_BT * weights_BT),
            z_loss=jnp.sum(self.z_loss * log_z_BT**2 * weights_BT),
            correct=jnp.sum(correct_BT * weights_BT),
            weight=jnp.sum(weights_BT),
            text_loss=jnp.sum(nll_BT * text_BT),
            text_weight=jnp.sum(text_BT),
            tasks=self._by_task(batch, nll_BT * weights_BT, correct_BT * weights_BT, weights_BT),
        )

    def _by_task(self, batch: Batch, *tokens_BT: jax.Array) -> Any:
        """[num_tasks, 3]: the sums over each task's rows."""
        if not self.num_tasks:
            return ()
        rows_B3 = jnp.stack([x.sum(axis=1) for x in tokens_BT], axis=1)
        is_task_BK = batch["task_ids"][:, None] == jnp.arange(self.num_tasks)
        return jnp.einsum("BK,BC->KC", is_task_BK.astype(jnp.float32), rows_B3)

    def _normalization(self, batch: Batch, weights_BT: jax.Array):
        """Weight of each token in the objective [B, T], and what the sum is divided by."""
        if self.normalizer == "sequences":
            return _average_per_sequence(batch, weights_BT)
        denominator = {
            "target_tokens": lambda: jnp.sum(weights_BT),
            "target_positions": lambda: jnp.float32(weights_BT.size),
            # Shared evenly by rows, so that microbatches add up to the whole.
            "constant": lambda: jnp.float32(0.0),
            "sum": lambda: jnp.float32(0.0),
        }[self.normalizer]()
        return weights_BT, denominator

    def divisor(self, denominator: jax.Array) -> jax.Array:
        """What to divide the objective summed over the whole batch by."""
        if self.normalizer == "constant":
            assert self.normalizing_factor is not None
            return jnp.float32(self.normalizing_factor)
        return jnp.float32(1.0) if self.normalizer == "sum" else jnp.maximum(denominator, 1.0)


Loss = CrossEntropy | CustomLoss


def call_loss(loss: Loss, model: Any, batch: Batch, keys_B: jax.Array | None) -> LossSums:
    """`loss(model, batch, keys_B)`. Raises ConfigError for whatever a user's loss raises, and for
    anything but LossSums of scalars."""
    with user_code(loss, "loss"):
        sums = loss(model, batch, keys_B)
    shapes = [jnp.shape(x) for x in sums[:-1]] if isinstance(sums, LossSums) else None
    if shapes is None or any(shapes):
        given = shapes and dict(zip(LossSums._fields, map(list, shapes), strict=False))
        name = getattr(loss, "__qualname__", type(loss).__qualname__)
        raise ConfigError(
            f"the loss {name} returned {given or type(sums).__name__}: t5jax.training.losses."
            "LossSums is expected, of sums over the batch's tokens (scalars)"
        )
    return sums


def with_run_settings(loss: Loss, **settings: Any) -> Loss:
    """The loss with the run's settings, as far as it has such fields."""
    if not dataclasses.is_dataclass(loss):
        return loss
    names = {field.name for field in dataclasses.fields(loss)} & settings.keys()
    return dataclasses.replace(loss, **{name: settings[name] for name in names})


def divisor_of(loss: Loss, denominator: jax.Array) -> jax.Array:
    """Divisor of the objective summed over the whole batch: the loss's own, or its denominator."""
    divisor = getattr(loss, "divisor", None)
    if divisor is not None:
        with user_code(loss, "loss"):
            return divisor(denominator)
    return jnp.maximum(denominator, 1.0)


def _average_per_sequence(batch: Batch, weights_BT: jax.Array):
    """Per-sequence mean: token weights divided by their segment's total weight."""
    side = predicting_side(batch)
    segments_BT = batch.get(f"{side}_segment_ids", jnp.ones_like(batch[f"{side}_target_tokens"]))
    same_BTT = (segments_BT[:, :, None] == segments_BT[:, None, :]).astype(jnp.float32)
    total_BT = jnp.einsum("BTU,BU->BT", same_BTT, weights_BT)
    scales_BT = weights_BT / jnp.maximum(total_BT, 1e-9)
    return scales_BT, jnp.sum(scales_BT)
