"""Layer stacking: which parameters hold all layers of a stack in one array, layers first.

A parameter's path is its keys in the tree, joined by "/". `decoder/layers/mlp/wo` is one array
[L, F, D] over the decoder's L layers; `decoder/final_norm/scale` and the token table have no layers
axis. One layer's part of a stacked parameter is written `decoder/layers/3/mlp/wo`.
"""

from typing import Any

import jax

STACKS = ("encoder", "decoder")  # a stack's blocks are its attribute `layers`


def parameter_path(keys: tuple) -> str:
    """The path of a leaf, from the keys that JAX's `tree_map_with_path` gives."""
    return jax.tree_util.keystr(keys, simple=True, separator="/")


def parameters_by_path(params: Any) -> dict[str, Any]:
    """The leaves of the tree by path, in its order."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {parameter_path(keys): leaf for keys, leaf in leaves}


def stack_of(path: str) -> str | None:
    """The stack in whose layers a parameter lies, "encoder" or "decoder"; None: in no layer."""
    stack, layers, *_ = *path.split("/"), "", ""
    return stack if stack in STACKS and layers == "layers" else None


def layer_shape(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A parameter's shape without the layers axis."""
    return shape[1:] if stack_of(path) else shape


def layer_paths(path: str, shape: tuple[int, ...]) -> list[str]:
    """The paths of a stacked parameter's layers; of any other, its own."""
    stack = stack_of(path)
    if stack is None:
        return [path]
    rest = path.removeprefix(f"{stack}/layers/")
    return [f"{stack}/layers/{layer}/{rest}" for layer in range(shape[0])]


def unstack(tree, num: int) -> list:
    """The slices of a stacked pytree; by `split`, whose gradient is one concatenation."""
    leaves, structure = jax.tree.flatten(tree)
    slices = [[x[0] for x in jax.lax.split(leaf, (1,) * num)] for leaf in leaves]
    return [jax.tree.unflatten(structure, layer) for layer in zip(*slices, strict=True)]
