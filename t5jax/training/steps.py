"""Compiled initialization, train step and evaluation step, with the sharding of all they touch.

Model, loss, optimizer and mesh are combined here, for training, evaluation, inspection and
benchmarks.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from t5jax import sharding
from t5jax.model.computation import resolve_computation
from t5jax.model.config import T5Config
from t5jax.model.registry import abstract_model, init_params
from t5jax.training.compiler_options import Options, compile_lowered, compiler_options
from t5jax.training.losses import Loss, LossSums, with_run_settings
from t5jax.training.peft import AllParameters, Strategy, merge_trees, partition_params
from t5jax.training.train_step import TrainState, make_eval_step, make_train_step
from t5jax.types import Batch, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """Jitted functions over one mesh. Batches have the sharding `batch_sharding`."""

    model: T5Config
    loss: Loss
    tx: optax.GradientTransformation
    mesh_config: sharding.MeshConfig
    mesh: jax.sharding.Mesh
    num_microbatches: int = 1
    finetuning: Strategy = dataclasses.field(default_factory=AllParameters)
    tensor_norms: bool = False  # see `make_train_step`

    def __post_init__(self) -> None:
        platform = sharding.platform_of(self.mesh.devices.flat[0].platform)
        model = resolve_computation(self.model, platform)
        object.__setattr__(self, "model", model)  # frozen

    @functools.cached_property
    def model_def(self) -> nnx.GraphDef:
        return nnx.graphdef(abstract_model(self.model))

    @functools.cached_property
    def abstract_state(self) -> TrainState:
        """Shapes, dtypes and shardings of the whole state."""
        model = abstract_model(self.model)
        self.finetuning.check_parameters(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
        specs = sharding.param_specs(model, self.mesh_config.logical_axis_rules, self.mesh)
        specs = self.finetuning.add_parameter_specs(specs)
        shapes = jax.eval_shape(self._init, jax.random.key(0), {})
        shardings = sharding.state_shardings(shapes, specs, self.mesh)
        return jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings
        )

    @property
    def shardings(self) -> TrainState:
        return jax.tree.map(lambda x: x.sharding, self.abstract_state)

    @property
    def trained(self) -> Params:
        """The trainable part of the (abstract) parameters."""
        return partition_params(self.abstract_state.params, self.finetuning.is_trainable)[0]

    @functools.cached_property
    def without_peft(self) -> "Program":
        """The same for the parameters of the model alone, as `merge` returns them."""
        return dataclasses.replace(self, finetuning=AllParameters())

    def merge(self, params: Params) -> Params:
        """Parameters of the model alone, with LoRA factors merged into them."""
        if not self.finetuning.has_merge:
            return params
        with self.use_mesh():
            shardings = self.without_peft.shardings.params
            return jax.jit(self.finetuning.merge_parameters, out_shardings=shardings)(params)

    @property
    def batch_sharding(self) -> jax.sharding.NamedSharding:
        return sharding.batch_sharding(self.mesh, self.mesh_config.logical_axis_rules)

    @property
    def replicated(self) -> jax.sharding.NamedSharding:
        """Sharding of an array that every device has whole."""
        return jax.sharding.NamedSharding(self.mesh, jax.sharding.PartitionSpec())

    @property
    def replicas(self) -> int:
        """Number of shards of a batch's rows."""
        rows = self.batch_sharding.num_devices
        return rows // self.batch_sharding.shard_shape((rows,))[0]

    def init(self, seed: int, given: Params | None = None) -> TrainState:
        """A fresh state, sharded from the start; parameters that are `given`, a part of the tree,
        are taken as they are (and consumed)."""
        with self.use_mesh():
            init = jax.jit(self._init, out_shardings=self.shardings, donate_argnums=1)
            return init(jax.random.key(seed), given or {})

    def init_from_params(self, params: Params) -> TrainState:
        """A state before step 0 with these parameters and fresh optimizer state."""
        with self.use_mesh():
            return jax.jit(self._init_state, out_shardings=self.shardings)(params)

    def compile_train_step(self, abstract_batch, key: jax.Array) -> jax.stages.Compiled:
        """`train_step(state, batch, key) -> (state, metrics)`; the state passed in is consumed."""
        return compile_lowered(self.lower_train_step(abstract_batch, key), self.compiler_options)

    @property
    def compiler_options(self) -> Options:
        """XLA's options for the train step on this mesh."""
        with self.use_mesh():
            return compiler_options(
                sharding.platform_in_program(),
                num_devices=self.mesh.size,
                tensor_parallel=sharding.num_shards("heads") * sharding.num_shards("mlp") > 1,
                num_microbatches=self.num_microbatches,
            )

    def lower_train_step(
        self, abstract_batch, key: jax.Array | jax.ShapeDtypeStruct
    ) -> jax.stages.Lowered:
        """The train step, traced for the mesh."""
        step = make_train_step(
            self.model_def,
            self.loss,
            self.tx,
            dtype=self.model.dtype,
            num_microbatches=self.num_microbatches,
            dropout=self.model.dropout_rate > 0,
            finetuning=self.finetuning,
            pad_id=self.model.pad_id,
            tensor_norms=self.tensor_norms,
        )
        # Pinned: otherwise the second step, whose input is the first's output, compiles again.
        shardings = self.shardings, self.replicated
        jitted = jax.jit(step, out_shardings=shardings, donate_argnums=0)
        with self.use_mesh():
            return jitted.lower(self.abstract_state, abstract_batch, key)

    @functools.cached_property
    def eval_step(self):
        """`eval_step(params, batch) -> LossSums`, jitted; sums over all tasks."""

        def call(params, batch: Batch) -> LossSums:
            with self.use_mesh():
                return self._jitted_eval_step(params, batch)

        return call

    def lower_eval_step(self, abstract_batch) -> jax.stages.Lowered:
        """The evaluation step, traced for the mesh."""
        with self.use_mesh():
            return self._jitted_eval_step.lower(self.abstract_state.params, abstract_batch)

    @functools.cached_property
    def _jitted_eval_step(self):
        loss = with_run_settings(self.loss, num_tasks=0)
        step = make_eval_step(
            self.model_def, loss, dtype=self.model.dtype, finetuning=self.finetuning
        )
        return jax.jit(step, out_shardings=self.replicated)

    def abstract_batch(
        self, element_spec: dict[str, tuple[int, ...]], num_rows: int
    ) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of a batch whose rows have the shapes of `element_spec`."""
        return {
            name: jax.ShapeDtypeStruct((num_rows, *shape), np.int32, sharding=self.batch_sharding)
            for name, shape in element_spec.items()
        }

    def use_mesh(self):
        """Context in which the model's axis names are sharded over this mesh."""
        return sharding.use_mesh(self.mesh, self.mesh_config.logical_axis_rules)

    def _init(self, key: jax.Array, given: Params) -> TrainState:
        params = merge_trees(init_params(self.model, key), given)
        params = self.finetuning.add_parameters(params, jax.random.fold_in(key, 1))
        # Some of the added ones may be given, too.
        return self._init_state(merge_trees(params, given))

    def _init_state(self, params: Params) -> TrainState:
        trained, _ = partition_params(params, self.finetuning.is_trainable)
        zero = jnp.zeros((), jnp.int32)
        return TrainState(zero, params, self.tx.init(trained), zero)
