"""Token embedding: looking vectors up in a sharded table, with a gradient summed in float32.

Shape suffixes: V vocab, D emb_dim.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from t5jax.sharding import constrain, mesh_axes, on_shards

_TABLE = ("vocab", "embed")


def embed_tokens(table_VD: jax.Array, tokens: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """`table_VD[tokens]` in `dtype`, [*tokens.shape, D]; the rows of `tokens` are the batch's.

    Vectors are looked up before they are cast, so that the table's gradient is summed in the
    table's dtype: a bfloat16 sum over the occurrences of a frequent token stops growing. Devices
    exchange the vectors of tokens, in `dtype`, and never the table.
    """
    axes = _Axes(mesh_axes("batch"), mesh_axes("vocab"), mesh_axes("embed"))
    if not any(axes):
        return table_VD[tokens].astype(dtype)
    if axes.rows[len(axes.rows) - len(axes.embed) :] != axes.embed:
        # The parts of a vector are not on devices that divide the rows: XLA's own way.
        table_VD = constrain(table_VD, "vocab", None)
        return constrain(table_VD[tokens].astype(dtype), "batch", *(None,) * tokens.ndim)
    return _embed(table_VD, tokens, jnp.dtype(dtype), axes)


class _Axes(NamedTuple):
    """The mesh axes, of more than one device, that divide rows, vocabulary and vectors; those of
    the vectors are the last ones of the rows."""

    rows: tuple[str, ...]
    vocab: tuple[str, ...]
    embed: tuple[str, ...]


# Under FSDP a device has a part of every vector: it looks up that part for the tokens of all the
# devices with which it shares vectors, then each part goes to the device that has the token.


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _embed(table_VD: jax.Array, tokens: jax.Array, dtype: jnp.dtype, axes: _Axes) -> jax.Array:
    def look_up(table_VD, tokens):
        places, is_here = _places(tokens, table_VD.shape[0], axes)
        x = table_VD[jnp.where(is_here, places, 0)].astype(dtype)
        x = jnp.where(is_here[..., None], x, 0)
        if axes.embed:
            x = jax.lax.all_to_all(x, axes.embed, 0, x.ndim - 1, tiled=True)
        # One of the devices that share the vocabulary has the vector, the others have zeros.
        return jax.lax.psum(x, axes.vocab) if axes.vocab else x

    rows = ("batch", *(None,) * (tokens.ndim - 1))
    return on_shards(look_up, (_TABLE, rows), (*rows, None))(
        table_VD, _not_negative(tokens, table_VD)
    )


def _embed_forward(table_VD, tokens, dtype, axes):
    return _embed(table_VD, tokens, dtype, axes), (table_VD, tokens)


def _embed_backward(dtype, axes, residuals, dx):
    def add_up(table_VD, tokens, dx):
        places, is_here = _places(tokens, table_VD.shape[0], axes)
        if axes.embed:
            dx = jax.lax.all_to_all(dx, axes.embed, dx.ndim - 1, 0, tiled=True)
        elsewhere = table_VD.shape[0]
        dtable_VD = jnp.zeros_like(table_VD).at[jnp.where(is_here, places, elsewhere)]
        dtable_VD = dtable_VD.add(dx.astype(table_VD.dtype), mode="drop")
        others = tuple(axis for axis in axes.rows if axis not in axes.embed)
        return jax.lax.psum(dtable_VD, others) if others else dtable_VD

    table_VD, tokens = residuals
    rows = ("batch", *(None,) * (tokens.ndim - 1))
    add_up = on_shards(add_up, (_TABLE, rows, (*rows, None)), _TABLE)
    return add_up(table_VD, _not_negative(tokens, table_VD), dx), None


_embed.defvjp(_embed_forward, _embed_backward)


def _places(tokens: jax.Array, num_here: int, axes: _Axes) -> tuple[jax.Array, jax.Array]:
    """On a device: rows of its part of the table, of the tokens for which it looks up; and whether
    they are in its part."""
    if axes.embed:
        tokens = jax.lax.all_gather(tokens, axes.embed, tiled=True)
    places = tokens - num_here * jax.lax.axis_index(axes.vocab) if axes.vocab else tokens
    return places, (places >= 0) & (places < num_here)


def _not_negative(tokens: jax.Array, table_VD: jax.Array) -> jax.Array:
    """Padding of -1 reads the last vector, as it does on one device."""
    return jnp.where(tokens < 0, tokens + table_VD.shape[0], tokens)
