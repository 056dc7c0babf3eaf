"""Which devices decode a batch: all of the mesh, or one of each host's CPU, for few rows."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx

from t5jax.model.decode_weights import DecodeWeights, decode_weights
from t5jax.model.matmul import is_small_batch
from t5jax.training.steps import Program
from t5jax.types import Params

# Fewer rows than these, beams included, are decoded faster by all cores as one device than by cores
# that are a device each, of which each reads all weights: docs/benchmarks.md.
_FEW_ROWS = 16


class Placement:
    """Models, in the compute dtype, and the devices of a mesh that decode with them together."""

    def __init__(self, program: Program, params: tuple[Params, ...]):
        self.program, self.params = program, params
        self.model_defs = (program.model_def,) * len(params)
        self._replicated = all(x.is_fully_replicated for x in jax.tree.leaves(params))
        # The sharding of rows that each device decodes on its own, having all parameters.
        self.rows_per_device = program.batch_sharding if self._replicated else None
        # Copies results to every host.
        self._replicate = jax.jit(lambda arrays: arrays, out_shardings=program.replicated)
        self._transposed: tuple[DecodeWeights, ...] | None = None

    def for_rows(self, num_rows: int) -> "Placement":
        """That of a batch with so many rows, beams included.

        Of several hosts each decodes few rows itself: the program of one host, whose results are
        the same bits.
        """
        mesh = self.program.mesh
        on_cpu = mesh.devices.flat[0].platform == "cpu"
        few = num_rows < _FEW_ROWS and mesh.size > 1
        return self._one_device if few and on_cpu and self._replicated else self

    @functools.cached_property
    def _one_device(self) -> "Placement":
        config = dataclasses.replace(self.program.mesh_config, data=1, fsdp=1, tensor=1)
        mesh = config.build([self.program.mesh.local_devices[0]])
        program = dataclasses.replace(self.program, mesh_config=config, mesh=mesh)
        on_first = lambda x: jax.device_put(x.addressable_data(0), program.replicated)  # no copy
        return Placement(program, jax.tree.map(on_first, self.params))

    def put(self, rows: np.ndarray) -> jax.Array:
        """Every host has all rows and gives its devices theirs."""
        sharding = self.program.batch_sharding
        return jax.make_array_from_callback(rows.shape, sharding, lambda index: rows[index])

    def run(self, function: Callable, *arguments: Any) -> Any:
        """The result of a jitted `function(model_defs, params, *arguments, rows_per_device=…)`, as
        NumPy arrays that every host has whole."""
        with self.program.use_mesh():
            result = function(
                self.model_defs, self.params, *arguments, rows_per_device=self.rows_per_device
            )
        return jax.device_get(self._replicate(result))

    def decode_weights(self, num_rows: int) -> tuple[DecodeWeights, ...] | None:
        """The weights transposed for a small batch, kept for all batches; None for a larger one,
        for which they are only sliced. `num_rows` has beams included."""
        rows_of_device = num_rows // self.program.replicas
        devices = self.program.mesh.size if self.rows_per_device is None else 1
        with self.program.use_mesh():
            if not is_small_batch(rows_of_device, devices):
                return None
            if self._transposed is None:
                self._transposed = _transpose(self.model_defs, self.params, rows_of_device)
        return self._transposed


@functools.partial(jax.jit, static_argnums=(0, 2))
def _transpose(model_defs, params, num_rows) -> tuple[DecodeWeights, ...]:
    models = map(nnx.merge, model_defs, params)
    return tuple(decode_weights(model, num_rows, devices=1) for model in models)
