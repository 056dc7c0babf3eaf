"""The compiled programs of a run, with the layout of everything they touch.

One place that puts model, loss, optimizer and mesh together; training, evaluation, inspection and
benchmarks start from it.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from t5jax import sharding
from t5jax.model.architectures import abstract_model, init_params
from t5jax.model.config import T5Config
from t5jax.training.losses import Batch, CrossEntropy, LossSums
from t5jax.training.train_step import Params, TrainState, make_eval_step, make_train_step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """Jitted functions over one mesh. Arrays of a batch are laid out by `batch_sharding`."""

    model: T5Config
    loss: CrossEntropy
    tx: optax.GradientTransformation
    mesh_config: sharding.MeshConfig
    mesh: jax.sharding.Mesh
    num_microbatches: int = 1

    @functools.cached_property
    def model_def(self) -> nnx.GraphDef:
        return nnx.graphdef(abstract_model(self.model))

    @functools.cached_property
    def abstract_state(self) -> TrainState:
        """Shapes, dtypes and shardings of the whole state."""
        specs = sharding.param_specs(abstract_model(self.model), self.mesh_config.rules, self.mesh)
        shapes = jax.eval_shape(self._init, jax.random.key(0))
        shardings = sharding.state_shardings(shapes, specs, self.mesh)
        return jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings
        )

    @property
    def shardings(self) -> TrainState:
        return jax.tree.map(lambda x: x.sharding, self.abstract_state)

    @property
    def batch_sharding(self) -> jax.sharding.NamedSharding:
        return sharding.batch_sharding(self.mesh, self.mesh_config.rules)

    def init(self, seed: int) -> TrainState:
        """A fresh state, every device making only what it holds."""
        with self.in_use():
            key = jax.random.key(seed)
            return jax.jit(self._init, out_shardings=self.shardings)(key)

    def begin(self, params: Params) -> TrainState:
        """A state before step 0 with these parameters, and the optimizer's first slots."""
        with self.in_use():
            return jax.jit(self._begin, out_shardings=self.shardings)(params)

    def compile_train_step(self, abstract_batch, key: jax.Array) -> jax.stages.Compiled:
        """`train_step(state, batch, key) -> (state, metrics)`; the state passed in is consumed."""
        step = make_train_step(
            self.model_def,
            self.loss,
            self.tx,
            dtype=self.model.dtype,
            num_microbatches=self.num_microbatches,
            dropout=self.model.dropout_rate > 0,
        )
        # Pinned: otherwise the second step, whose input is the first's output, compiles again.
        replicated = jax.sharding.NamedSharding(self.mesh, jax.sharding.PartitionSpec())
        jitted = jax.jit(step, out_shardings=(self.shardings, replicated), donate_argnums=0)
        with self.in_use():
            return jitted.lower(self.abstract_state, abstract_batch, key).compile()

    @functools.cached_property
    def eval_step(self):
        """`eval_step(params, batch) -> LossSums`, jitted; of all rows together."""
        loss = dataclasses.replace(self.loss, num_tasks=0)
        step = make_eval_step(self.model_def, loss, dtype=self.model.dtype)
        replicated = jax.sharding.NamedSharding(self.mesh, jax.sharding.PartitionSpec())
        jitted = jax.jit(step, out_shardings=replicated)

        def call(params, batch: Batch) -> LossSums:
            with self.in_use():
                return jitted(params, batch)

        return call

    def abstract_batch(
        self, element_spec: dict[str, tuple[int, ...]], num_rows: int
    ) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of a batch whose rows have the shapes of `element_spec`."""
        return {
            name: jax.ShapeDtypeStruct((num_rows, *shape), np.int32, sharding=self.batch_sharding)
            for name, shape in element_spec.items()
        }

    def in_use(self):
        """Context in which the model's axis names mean this mesh."""
        return sharding.use(self.mesh, self.mesh_config.rules)

    def _init(self, key: jax.Array) -> TrainState:
        return self._begin(init_params(self.model, key))

    def _begin(self, params: Params) -> TrainState:
        zero = jnp.zeros((), jnp.int32)
        return TrainState(zero, params, self.tx.init(params), zero)
