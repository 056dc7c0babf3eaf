"""Sharding rules: one mapping from the names of axes to mesh axes, with exceptions for single
parameters.

A key is the name of a logical axis, `"mlp"`, or of that axis in the parameters whose path matches a
regular expression (`re.search`), `"decoder/layers/mlp/wo$:mlp"`; of several that match the last
counts.
"""

import difflib
import re
from collections.abc import Mapping

from t5jax.errors import ConfigError

MESH_AXES = ("data", "fsdp", "tensor")
AxisRules = Mapping[str, tuple[str, ...]]
# Axes that have a field of their own in MeshConfig: of activations, and of parameters.
BUILT_IN = (
    *("batch", "length", "activation_embed"),
    *("vocab", "embed", "heads", "mlp", "relpos_buckets"),
)
_AXES_OF_ONE_ARRAY = (  # logits, token embedding, kernels, position bias, activations
    ("batch", "vocab"),
    ("vocab", "embed"),
    ("embed", "heads"),
    ("embed", "mlp"),
    ("heads", "relpos_buckets"),
    ("batch", "length"),
    ("batch", "activation_embed"),
    ("length", "activation_embed"),
)


def rule_of(rules: AxisRules, axis: str, path: str) -> tuple[str, ...]:
    """Mesh axes of an axis of the parameter at `path`. Raises ConfigError where it has no rule."""
    for key in reversed(list(rules)):
        pattern, name = _pattern_and_axis(key)
        if pattern and name == axis and re.search(pattern, path):
            return rules[key]
    if axis not in rules:
        raise ConfigError(
            f"mesh.rules: {path} has an axis {axis!r}, for which there is no rule; add "
            f"{{{axis!r}: ()}}, or the mesh axes that divide it"
        )
    return rules[axis]


def check_rules(rules: AxisRules) -> None:
    """Raises ConfigError for a mesh axis that is none, and for one that would divide an array
    twice."""
    for name, axes in rules.items():
        for axis in axes:
            if axis not in MESH_AXES:
                raise ConfigError(f"{_field(name)}: {axis!r} is not one of {MESH_AXES}")
        if len(set(axes)) < len(axes):
            raise ConfigError(f"{_field(name)} = {axes}: names an axis twice")
        try:
            re.compile(_pattern_and_axis(name)[0])
        except re.error as error:
            raise ConfigError(
                f"{_field(name)}: not a regular expression before the colon ({error})"
            ) from error
    for one, other in _AXES_OF_ONE_ARRAY:
        for axis in set(rules[one]) & set(rules[other]):
            raise ConfigError(
                f"mesh.{one} and mesh.{other} both use {axis!r}, but are axes of one array: "
                "a mesh axis can divide only one of them"
            )


def check_rules_of(rules: AxisRules, parameters: Mapping[str, tuple[str, ...]]) -> None:
    """Raises ConfigError for a rule of `mesh.rules` that concerns none of the parameters, whose
    axes `parameters` has by path."""
    named = {axis for axes in parameters.values() for axis in axes}
    for key in set(rules) - set(BUILT_IN):
        pattern, axis = _pattern_and_axis(key)
        if axis not in named:
            near = difflib.get_close_matches(axis, sorted(named), n=1)
            hint = f"did you mean {near[0]}?" if near else f"they have {', '.join(sorted(named))}"
            raise ConfigError(f"{_field(key)}: no parameter has an axis {axis!r}; {hint}")
        if pattern and not any(
            axis in axes and re.search(pattern, path) for path, axes in parameters.items()
        ):
            raise ConfigError(
                f"{_field(key)}: no parameter with an axis {axis!r} matches {pattern!r}; "
                "`t5jax inspect sharding` lists their paths"
            )


def _pattern_and_axis(key: str) -> tuple[str, str]:
    """("", axis) of a rule for every parameter."""
    pattern, _, axis = key.rpartition(":")
    return pattern, axis


def _field(name: str) -> str:
    return f"mesh.{name}" if name in BUILT_IN else f"mesh.rules[{name!r}]"
