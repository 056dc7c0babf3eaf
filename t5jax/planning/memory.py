"""Memory of a device: what parameters, optimizer, batch and activations take, before anything is
compiled; and with the compiler's numbers what a step takes in all."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from t5jax.planning.abstract_run import AbstractRun
from t5jax.training.losses import call_loss
from t5jax.training.memory import device_bytes
from t5jax.training.steps import Program
from t5jax.training.train_step import row_keys, training_model


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class MemoryEstimate:
    """Bytes of one device by arithmetic: nothing is compiled.

    `activations` are what autodiff keeps of one microbatch between the forward and the backward
    pass, `gradients` those of the trained parameters (twice where microbatches are summed up).
    """

    parameters: float
    optimizer: float
    batch: float
    gradients: float
    activations: float

    @property
    def total(self) -> float:
        return sum(getattr(self, field.name) for field in dataclasses.fields(self))


def estimate_memory(run: AbstractRun, program: Program, most: float = math.inf) -> MemoryEstimate:
    """The estimate for the train step. Traces the model forward and backward, but where the rest
    exceeds `most` bytes already."""
    state = program.abstract_state
    sums = 2 if program.num_microbatches > 1 else 1
    estimate = MemoryEstimate(
        parameters=device_bytes(state.params),
        optimizer=device_bytes(state.opt_state),
        batch=device_bytes(run.train_batch(program)),
        gradients=sums * device_bytes(program.trained),
        activations=0.0,
    )
    if estimate.total > most:
        return estimate
    return dataclasses.replace(estimate, activations=_activations(run, program))


def _activations(run: AbstractRun, program: Program) -> float:
    """Bytes that the backward pass of one microbatch reads, of one device.

    They grow with the rows, and weights and biases that are kept too do not: so the difference of
    two traces counts. What tensor parallelism divides is counted whole.
    """
    replicas = program.replicas
    of_one_row = (_kept(run, program, 2 * replicas) - _kept(run, program, replicas)) / replicas
    rows = run.config.train.batch_size / program.num_microbatches / replicas
    return of_one_row * rows


def _kept(run: AbstractRun, program: Program, rows: int) -> float:
    """Bytes that autodiff keeps for a batch of so many rows, on all devices together."""
    batch = program.abstract_batch(run.shapes, rows)
    keys = None
    if program.model.dropout_rate > 0:
        keys = jax.eval_shape(lambda: row_keys(jax.random.key(0), jnp.int32(0), rows))

    def residuals(params, batch, keys):
        def loss(params):
            merged = program.finetuning.merge_parameters(params)
            model = training_model(program.model_def, merged, program.model.dtype)
            return call_loss(program.loss, model, batch, keys).objective

        return jax.vjp(loss, params)[1]

    with program.use_mesh():
        kept = jax.eval_shape(residuals, program.abstract_state.params, batch, keys)
    return float(sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(kept)))
