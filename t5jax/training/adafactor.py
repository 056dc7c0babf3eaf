"""Adafactor (Shazeer and Stern 2018, arXiv:1804.04235) as T5X runs it, for stacked layers.

For every tensor, with gradient G, parameter P and step t = 0, 1, … (T5X: `t5x/adafactor.py`):

    β   = 1 - (max(t - step_offset, 0) + 1)^-decay_rate
    V   = β V + (1 - β) (G² + 1e-30)          whole, or, for a matrix large enough, only its means
                                              R over the larger and C over the smaller dimension
    U   = G / sqrt(V)                         factored: V ≈ R ⊗ C / mean(R)
    U   = U / max(1, RMS(U) / clipping_threshold)
    S   = rate(t) · max(RMS(P), 1e-3) · U     without parameter scale: rate(t) · U
    M   = beta1 M + (1 - beta1) S             with momentum; then M takes the place of S
    P   = P - S - weight_decay · rate(t)^weight_decay_exponent · P

For single tensors this equals `optax.adafactor`; over stacked layers that is another optimizer
(one scale and one clipping for all of them; relative error of the updates 0.5 to 15), and it has
no decay exponent. A matrix is factored as in T5X's unscanned network, whatever the stacking: where
both its sides are at least `min_dim_size_to_factor`.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from t5jax.model.layer_stack import layer_shape, parameter_path, stack_of
from t5jax.training.schedules import ScheduleFn

EPSILON_GRADIENT = 1e-30  # ε1: added to squared gradients
EPSILON_PARAMETER = 1e-3  # ε2: the least scale of a parameter


class AdafactorState(NamedTuple):
    """Slots in float32 (`m` in the momentum's type), each a tree with the parameters' structure.

    A slot that a tensor does not use is an array of shape (1,), as in T5X. In a stack every used
    slot has the leading layers axis of its parameter.
    """

    count: jax.Array  # int32 scalar: updates made so far
    v_row: optax.Updates  # [..., smaller dimension] of a factored matrix
    v_col: optax.Updates  # [..., larger dimension] of a factored matrix
    v: optax.Updates  # the parameter's shape where it is not factored
    m: optax.Updates  # the parameter's shape, with momentum


class _Rates(NamedTuple):
    """The scalars of one step."""

    learning_rate: jax.Array
    moment_decay: jax.Array  # β
    weight_decay: jax.Array | None


# The slots one tensor uses: {"v_row", "v_col"} or {"v"}, and perhaps "m".
_Slots = dict[str, jax.Array]
_SLOTS = ("v_row", "v_col", "v", "m")


def adafactor(
    schedule: ScheduleFn,
    *,
    beta1: float | None,
    momentum_dtype: str,
    decay_rate: float,
    step_offset: int,
    clipping_threshold: float | None,
    factored: bool,
    min_dim_size_to_factor: int,
    multiply_by_parameter_scale: bool,
    weight_decay: float,
    weight_decay_exponent: float,
) -> optax.GradientTransformation:
    """Adafactor with T5X's semantics; every layer of a stack is treated as its own tensor.

    The arguments are fields of `optimizers.Adafactor`, which has T5's defaults. `update` needs
    `params` and returns what is to be added to them, in their dtype.
    """
    used_slots = functools.partial(
        _used_slots,
        factored_from=min_dim_size_to_factor if factored else None,
        momentum=beta1 is not None,
    )
    update_tensor = functools.partial(
        _update_tensor,
        beta1=beta1,
        clipping_threshold=clipping_threshold,
        multiply_by_parameter_scale=multiply_by_parameter_scale,
    )

    def init(params: optax.Params) -> AdafactorState:
        make = lambda path, param: _init_slots(param, used_slots(path, param), momentum_dtype)
        slots = jax.tree_util.tree_map_with_path(lambda *leaf: _padded(make(*leaf)), params)
        count = jnp.zeros((), jnp.int32)
        return AdafactorState(count, *_transpose(params, len(_SLOTS), slots))

    def update(updates: optax.Updates, state: Any, params: optax.Params | None = None):
        if params is None:
            raise ValueError("Adafactor's steps are relative to the parameters: pass `params`")
        learning_rate = schedule(state.count)
        decay = weight_decay * learning_rate**weight_decay_exponent if weight_decay else None
        rates = _Rates(learning_rate, _moment_decay(state.count - step_offset, decay_rate), decay)

        def update_one(path, grad, param, *slots):
            used = used_slots(path, param)
            rule = functools.partial(update_tensor, rates)
            if stack_of(parameter_path(path)):
                rule = jax.vmap(rule)
            in_use = {name: slot for name, slot in zip(_SLOTS, slots, strict=True) if name in used}
            change, in_use = rule(grad, param, in_use)
            return (change, *_padded(in_use))

        results = jax.tree_util.tree_map_with_path(
            update_one, updates, params, state.v_row, state.v_col, state.v, state.m
        )
        changes, *slots = _transpose(updates, 1 + len(_SLOTS), results)
        return changes, AdafactorState(state.count + 1, *slots)

    return optax.GradientTransformation(init, update)


def _moment_decay(count: jax.Array, decay_rate: float) -> jax.Array:
    """β; before the offset (count < 0) there is no average yet: 0, as at the first step."""
    return 1.0 - (jnp.maximum(count, 0).astype(jnp.float32) + 1.0) ** -decay_rate


def _used_slots(
    path: tuple, param: jax.Array, *, factored_from: int | None, momentum: bool
) -> tuple[str, ...]:
    name = parameter_path(path)
    shape = layer_shape(name, param.shape)
    if factored_from is not None and len(shape) > 2:
        raise ValueError(
            f"{name} has shape {shape} per layer: "
            "which of its dimensions belong together is not to be guessed; keep kernels [in, out], "
            "stacked under 'layers', or set Adafactor.factored to False"
        )
    factored = factored_from is not None and len(shape) == 2 and min(shape) >= factored_from
    moments = ("v_row", "v_col") if factored else ("v",)
    return (*moments, "m") if momentum else moments


def _init_slots(param: jax.Array, used: tuple[str, ...], momentum_dtype: str) -> _Slots:
    slots = {}
    if "v_row" in used:
        *layers, row, column = *param.shape[:-2], *sorted(param.shape[-2:])
        slots["v_row"] = jnp.zeros((*layers, row), jnp.float32)
        slots["v_col"] = jnp.zeros((*layers, column), jnp.float32)
    else:
        # zeros_like keeps the sharding of the parameter where there is one.
        slots["v"] = jnp.zeros_like(param, jnp.float32)
    if "m" in used:
        slots["m"] = jnp.zeros_like(param, momentum_dtype)
    return slots


def _padded(slots: _Slots) -> tuple[jax.Array, ...]:
    return tuple(slots.get(name, jnp.zeros((1,), jnp.float32)) for name in _SLOTS)


def _transpose(tree, width: int, tuples) -> tuple:
    """A tree like `tree` with tuples of `width` at its leaves -> `width` trees."""
    inner = jax.tree.structure((0,) * width)
    return jax.tree.transpose(jax.tree.structure(tree), inner, tuples)


def _rms(x: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.mean(x * x))


def _update_tensor(
    rates: _Rates,
    grad: jax.Array,
    param: jax.Array,
    slots: _Slots,
    *,
    beta1: float | None,
    clipping_threshold: float | None,
    multiply_by_parameter_scale: bool,
) -> tuple[jax.Array, _Slots]:
    """The rule above for one tensor: (what to add to the parameter, its new slots)."""
    grad = grad.astype(jnp.float32)
    change, new_slots = _normalized(rates.moment_decay, grad, slots)
    if clipping_threshold is not None:
        change /= jnp.maximum(1.0, _rms(change) / clipping_threshold)
    scale = rates.learning_rate
    if multiply_by_parameter_scale:
        scale *= jnp.maximum(_rms(param.astype(jnp.float32)), EPSILON_PARAMETER)
    change *= scale
    if beta1 is not None:
        change = beta1 * slots["m"].astype(jnp.float32) + (1.0 - beta1) * change
        new_slots["m"] = change.astype(slots["m"].dtype)
    if rates.weight_decay is not None:
        change += rates.weight_decay * param
    return -change.astype(param.dtype), new_slots


def _normalized(decay: jax.Array, grad: jax.Array, slots: _Slots) -> tuple[jax.Array, _Slots]:
    """The gradient over the root of its second moments, and the new moments."""
    grad_squared = grad * grad + EPSILON_GRADIENT
    average = lambda old, new: decay * old + (1.0 - decay) * new
    if "v" in slots:
        v = average(slots["v"], grad_squared)
        return grad * jax.lax.rsqrt(v), {"v": v}
    # T5X's choice: the larger dimension is the column, of a square the second.
    row, column = (0, 1) if grad.shape[0] <= grad.shape[1] else (1, 0)
    v_row = average(slots["v_row"], jnp.mean(grad_squared, axis=column))
    v_col = average(slots["v_col"], jnp.mean(grad_squared, axis=row))
    # Roots before the division by the mean: v_row / mean(v_row) underflows for a row without
    # gradient among large ones. And the gradient first: 1 / sqrt(1e-30) twice would overflow.
    row_factor = jax.lax.rsqrt(v_row) * jnp.sqrt(jnp.mean(v_row))
    col_factor = jax.lax.rsqrt(v_col)
    change = grad * jnp.expand_dims(row_factor, column) * jnp.expand_dims(col_factor, row)
    return change, {"v_row": v_row, "v_col": v_col}
