"""Train step and evaluation step: gradients summed over microbatches, divided once, one update."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from t5jax.sharding import sum_over_replicas
from t5jax.training.losses import (
    Loss,
    LossSums,
    call_loss,
    divisor_of,
    predicting_side,
    zero_sums,
)
from t5jax.training.peft import AllParameters, Strategy, merge_trees, partition_params
from t5jax.types import PAD_ID, Batch, Params

_EVERYTHING = AllParameters()


class TrainState(NamedTuple):
    """The state of training, besides the position in the data."""

    step: jax.Array  # int32: batches consumed, skipped ones included
    params: Params  # float32, frozen ones too
    opt_state: optax.OptState
    bad_steps: jax.Array  # int32: steps skipped in a row because loss or gradient was not finite


def row_keys(key: jax.Array, step: jax.Array, num_rows: int) -> jax.Array:
    """A dropout key per row of the global batch: the same for any mesh and microbatches."""
    key = jax.random.fold_in(key, step)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(num_rows))


def make_train_step(
    model_def: nnx.GraphDef,
    loss: Loss,
    tx: optax.GradientTransformation,
    *,
    dtype: str,
    num_microbatches: int = 1,
    dropout: bool,
    finetuning: Strategy = _EVERYTHING,
    pad_id: int = PAD_ID,
    tensor_norms: bool = False,
):
    """Returns `train_step(state, batch, key) -> (state, metrics)`, for the caller to jit.

    `batch` holds seqio's features, int32 [B, T]; B divides by `num_microbatches`. A step whose loss
    or gradient is not finite leaves parameters and optimizer as they were and is counted. Only
    trainable parameters of `finetuning` are differentiated and known to `tx`. With `tensor_norms`
    the metrics have `norms`: of each parameter before the step (`weights`), its gradient and its
    update, float32 scalars in trees like theirs.
    """
    num_tasks = getattr(loss, "num_tasks", 0)

    def loss_fn(trained: Params, frozen: Params, batch: Batch, keys_B: jax.Array | None):
        params = finetuning.merge_parameters(merge_trees(frozen, trained))
        sums = call_loss(loss, training_model(model_def, params, dtype), batch, keys_B)
        return sums.objective, sums

    grad_fn = jax.value_and_grad(loss_fn, has_aux=True)

    def train_step(state: TrainState, batch: Batch, key: jax.Array):
        num_rows = batch[f"{predicting_side(batch)}_target_tokens"].shape[0]
        keys_B = row_keys(key, state.step, num_rows) if dropout else None
        before, frozen = partition_params(state.params, finetuning.is_trainable)
        grads, sums = accumulate_gradients(
            grad_fn, (before, frozen), (batch, keys_B), num_microbatches, num_tasks
        )
        divisor = divisor_of(loss, sums.denominator)
        grads = jax.tree.map(lambda g: g / divisor, grads)
        grad_norm = optax.global_norm(grads)
        updates, opt_state = tx.update(grads, state.opt_state, before)
        trained = optax.apply_updates(before, updates)
        good = jnp.isfinite(sums.objective) & jnp.isfinite(grad_norm)
        trained, opt_state = jax.tree.map(
            lambda new, old: jnp.where(good, new, old),
            (trained, opt_state),
            (before, state.opt_state),
        )
        params = merge_trees(frozen, trained)
        bad_steps = jnp.where(good, 0, state.bad_steps + 1)
        metrics = {
            **mean_metrics(sums),
            **({"tasks": sums.tasks} if num_tasks else {}),
            "grad_norm": grad_norm,
            "param_norm": optax.global_norm(params),
            "bad_steps": bad_steps,
            **({"norms": norms_of(state.params, grads, updates)} if tensor_norms else {}),
            **token_counts(batch, pad_id),
        }
        return TrainState(state.step + 1, params, opt_state, bad_steps), metrics

    return train_step


def accumulate_gradients(
    grad_fn, params: tuple[Params, Params], rows, num_microbatches: int, num_tasks: int = 0
) -> tuple[Params, LossSums]:
    """Gradient accumulation: gradients and loss sums, added up over the microbatches of `rows`.

    `grad_fn(trained, frozen, *microbatch)` is a `value_and_grad` with LossSums beside its value;
    `params` are (trained, frozen).
    """
    if num_microbatches == 1:
        # XLA adds a layer's gradients up over the devices beside the work on the next layer.
        (_, sums), grads = grad_fn(*params, *rows)
        return grads, sums

    def accumulate(params, rows):
        def body(totals, microbatch):
            (_, sums), grads = grad_fn(*params, *microbatch)
            return jax.tree.map(jnp.add, totals, (grads, sums)), None

        zeros = jax.tree.map(jnp.zeros_like, (params[0], zero_sums(num_tasks)))
        # Interleaved, so that every device keeps the rows it already holds.
        interleave = lambda x: x.reshape(-1, num_microbatches, *x.shape[1:]).swapaxes(0, 1)
        return jax.lax.scan(body, zeros, jax.tree.map(interleave, rows))[0]

    return sum_over_replicas(accumulate, params, rows)


def make_eval_step(
    model_def: nnx.GraphDef, loss: Loss, *, dtype: str, finetuning: Strategy = _EVERYTHING
):
    """Returns `eval_step(params, batch) -> LossSums` without dropout, for the caller to jit."""

    def eval_step(params: Params, batch: Batch) -> LossSums:
        params = finetuning.merge_parameters(params)
        model = nnx.merge(model_def, cast_params(params, dtype))
        return call_loss(loss, model, batch, None)

    return eval_step


def cast_params(params: Params, dtype: str) -> Params:
    """Parameters in the compute dtype; cast before FSDP gathers them, to halve communication."""
    return jax.tree.map(lambda p: p.astype(dtype), params)


def training_model(model_def: nnx.GraphDef, params: Params, dtype: str) -> nnx.Module:
    """The model with parameters in the compute dtype, but for the token table, which it casts
    itself: its gradient is summed in the table's own dtype (see `model/embedding.py`)."""
    table = {name: value for name, value in params.items() if name == "token_embedder"}
    return nnx.merge(model_def, cast_params(params, dtype) | table)


def norms_of(weights: Any, gradients: Any, updates: Any) -> dict[str, Any]:
    """L2 norm of every tensor; the layers of a stack are one tensor."""
    norm = lambda x: jnp.sqrt(jnp.sum(jnp.square(x.astype(jnp.float32))))
    trees = {"weights": weights, "gradients": gradients, "updates": updates}
    return {name: jax.tree.map(norm, tree) for name, tree in trees.items()}


def mean_metrics(sums: LossSums) -> dict:
    """Means per token of summed losses; works on arrays and on numbers."""
    return {
        "loss": sums.loss / sums.weight,
        "text_loss": sums.text_loss / sums.text_weight,
        "z_loss": sums.z_loss / sums.weight,
        "accuracy": sums.correct / sums.weight,
        "target_tokens": sums.weight,
    }


def token_counts(batch: Batch, pad_id: int = PAD_ID) -> dict[str, jax.Array]:
    """Share of the encoder's (inputs) and the decoder's (targets) positions that are not padding,
    and the number of tokens without loss."""
    names = {"inputs": "encoder_input_tokens", "targets": "decoder_target_tokens"}
    real = {
        side: (batch[name] != pad_id).astype(jnp.float32)
        for side, name in names.items()
        if name in batch
    }
    has_loss = batch[f"{predicting_side(batch)}_loss_weights"] != 0
    without_loss = sum(map(jnp.sum, real.values())) - jnp.sum(has_loss.astype(jnp.float32))
    return {
        **{f"non_padding_{side}": jnp.mean(x) for side, x in real.items()},
        "input_tokens": jnp.asarray(without_loss),
    }
