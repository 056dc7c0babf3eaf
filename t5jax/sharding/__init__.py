"""Sharding: device mesh, and sharding rules from logical axis names to mesh axes.

The model names the axes of its arrays ("embed", "heads", ...) and knows nothing of meshes. A run's
config sets the mesh shape and the rules (`MeshConfig`).

mesh.py          MeshConfig: the shape, and the rules
rules.py         the rules as one mapping, and their exceptions for single parameters
device_grid.py   devices in the shape of a mesh, within slices and across them; the nearest shape
placement.py     what is traced: constraints on activations, shard_map, collectives
state.py         parameters and optimizer state
"""

from t5jax.sharding.device_grid import divisors
from t5jax.sharding.mesh import MeshConfig
from t5jax.sharding.placement import (
    batch_sharding,
    constrain,
    device_kind_in_program,
    devices_in_program,
    mesh_axes,
    num_shards,
    on_each_device,
    on_shards,
    platform_in_program,
    platform_of,
    sum_over_replicas,
    use_mesh,
)
from t5jax.sharding.rules import BUILT_IN, MESH_AXES, AxisRules, rule_of
from t5jax.sharding.state import param_axes, param_specs, state_shardings

__all__ = [
    "BUILT_IN",
    "MESH_AXES",
    "AxisRules",
    "MeshConfig",
    "batch_sharding",
    "constrain",
    "device_kind_in_program",
    "devices_in_program",
    "divisors",
    "mesh_axes",
    "num_shards",
    "on_each_device",
    "on_shards",
    "param_axes",
    "param_specs",
    "platform_in_program",
    "platform_of",
    "rule_of",
    "state_shardings",
    "sum_over_replicas",
    "use_mesh",
]
