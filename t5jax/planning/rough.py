"""Rough memory and time of a layout by arithmetic, before anything is compiled: the order in which
a search compiles. What is predicted comes from the compiled program alone.

Time of a step is that of its matrix products at a share of the peak, plus that of its HBM traffic
at a share of the bandwidth, plus a part of its collectives.
"""

import dataclasses
import math

import jax

from t5jax.config import RunConfig
from t5jax.model.config import T5Config
from t5jax.model.registry import abstract_model
from t5jax.planning.candidates import Candidate
from t5jax.planning.cost import MATRIX_SHARE, MEMORY_SHARE
from t5jax.planning.topology import Topology
from t5jax.run.build import build_program_without_vocabulary
from t5jax.sharding import MESH_AXES, MeshConfig, param_specs, state_shardings
from t5jax.tracking import model_flops
from t5jax.training.memory import activation_bytes, device_bytes, step_bytes, stores_scores
from t5jax.training.peft import partition_params

# Every activation is written and read forward, and both it and its gradient backward.
_PASSES = 4.0
# A scan copies what it keeps into an array of all layers, and out of it again.
_SCAN_PASSES = 2.0
# Of the gradients' all-reduce, once a step; weights of FSDP and activations of tensor parallelism
# are waited for.
_EXPOSED = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class MeshWork:
    """What is the same for all layouts of a mesh.

    Attributes:
      state, gradients: bytes of one device.
      parameters: of the whole model, in number.
    """

    mesh: MeshConfig
    state: float
    gradients: float
    parameters: float


class StateShapes:
    """The state of a run, traced once, to be laid out over many meshes."""

    def __init__(self, config: RunConfig, topology: Topology):
        self._config, self._devices = config, topology.devices()
        self._model = abstract_model(config.model)
        sizes = {"data": 1, "fsdp": 1, "tensor": 1, "dcn_data": None, "dcn_fsdp": None}
        alone = dataclasses.replace(config, mesh=dataclasses.replace(config.mesh, **sizes))
        mesh = alone.mesh.build(self._devices[:1])
        program = build_program_without_vocabulary(alone, mesh)
        self._state, self._trained = program.abstract_state, config.finetuning.is_trainable

    def over(self, mesh: MeshConfig) -> MeshWork:
        """Raises ConfigError where a parameter does not divide among the mesh's devices."""
        placed = mesh.build(self._devices)
        specs = param_specs(self._model, mesh.logical_axis_rules, placed)
        specs = self._config.finetuning.add_parameter_specs(specs)
        state = jax.tree.map(
            lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            self._state,
            state_shardings(self._state, specs, placed),
        )
        return MeshWork(
            mesh=mesh,
            state=device_bytes(state),
            gradients=device_bytes(partition_params(state.params, self._trained)[0]),
            parameters=sum(x.size for x in jax.tree.leaves(state.params)),
        )


class RoughModel:
    """Memory and time of the layouts of a run on a topology.

    `config` has no "auto" but in what a candidate sets; `lengths` are (encoder, decoder) positions
    of a row.
    """

    def __init__(self, config: RunConfig, topology: Topology, lengths: tuple[int, int]):
        self._config, self._topology, self._lengths = config, topology, lengths
        self._scores = stores_scores(topology.chip.platform, topology.num_devices)

    def memory(self, candidate: Candidate, work: MeshWork) -> float:
        """Bytes of one device."""
        return step_bytes(
            _part_of(self._config.model, candidate.tensor),
            self._config.loss,
            self._lengths,
            state=work.state,
            gradients=work.gradients,
            rows=self._rows_of_step(candidate) // candidate.num_microbatches,
            num_microbatches=candidate.num_microbatches,
            remat=candidate.remat,
            scores=self._scores,
        )

    def seconds(self, candidate: Candidate, work: MeshWork) -> float:
        """Of one step."""
        chip, dtype = self._topology.chip, self._config.model.dtype
        products = self._flops(candidate) / (chip.peak_flops(dtype) * MATRIX_SHARE[chip.platform])
        traffic = self._traffic(candidate, work) / (chip.memory_bandwidth * MEMORY_SHARE)
        return products + traffic + self._communication(candidate, work)

    def _rows_of_step(self, candidate: Candidate) -> int:
        replicas = math.prod(getattr(candidate, axis) for axis in self._config.mesh.batch)
        return self._config.train.batch_size // replicas

    def _activations(self, candidate: Candidate, remat: str) -> float:
        """Bytes that a device keeps of one row; tensor parallelism divides heads and MLP."""
        model = _part_of(self._config.model, candidate.tensor)
        return activation_bytes(model, *self._lengths, remat=remat, scores=self._scores)

    def _flops(self, candidate: Candidate) -> float:
        """Of one device, with what is computed again."""
        model, rows = self._config.model, self._config.train.batch_size
        flops = model_flops(model, rows, *self._lengths)
        if candidate.remat == "full":
            predicting = self._lengths[1] or self._lengths[0]
            flops += flops / 3 - 2.0 * rows * predicting * model.emb_dim * model.vocab_size
        return flops / self._topology.num_devices

    def _traffic(self, candidate: Candidate, work: MeshWork) -> float:
        """Bytes between HBM and a device."""
        item, shard = _itemsize(self._config.model), 4.0 * work.parameters
        whole = work.parameters / candidate.tensor
        shard /= candidate.tensor * candidate.fsdp
        # Cast once, read forward and twice backward; gradients are added to a sum.
        of_microbatch = (4 + 4 * item) * whole + 3 * shard
        everything, kept = (
            self._rows_of_step(candidate) * self._activations(candidate, remat)
            for remat in ("none", candidate.remat)
        )
        passes = _PASSES + (2.0 if candidate.remat == "full" else 0.0)
        copies = 1.0 if candidate.unrolled else 1.0 + _SCAN_PASSES
        update = 2 * work.state + 2 * work.gradients
        return (
            candidate.num_microbatches * of_microbatch
            + passes * everything
            + copies * kept
            + update
        )

    def _communication(self, candidate: Candidate, work: MeshWork) -> float:
        """Seconds of collectives that are waited for."""
        model, item = self._config.model, _itemsize(self._config.model)
        part = work.parameters / candidate.tensor
        # FSDP gathers weights forward and backward and scatters gradients, each microbatch; all
        # gradients are reduced over the data axis, twice around.
        gathered = candidate.num_microbatches * (2 * item + 4) * part
        sharded = self._ring("fsdp", candidate, gathered)
        replicated = self._ring("data", candidate, 2 * 4 * part / candidate.fsdp)
        inputs, targets = self._lengths
        layers = 4 * model.num_encoder_layers * inputs + 6 * model.num_decoder_layers * targets
        activations = self._rows_of_step(candidate) * layers * model.emb_dim * item
        tensor = self._ring("tensor", candidate, 2 * activations)
        return sharded + _EXPOSED * replicated + tensor

    def _ring(self, axis: str, candidate: Candidate, nbytes: float) -> float:
        """Seconds in which so many bytes go around the devices of an axis; between hosts (of GPUs)
        or slices those of one send side by side."""
        size, chip = getattr(candidate, axis), self._topology.chip
        if size == 1:
            return 0.0
        inner = math.prod(
            getattr(candidate, name) for name in MESH_AXES[MESH_AXES.index(axis) + 1 :]
        )
        part = self._topology.num_devices // self._topology.slices
        if chip.platform == "gpu":
            part = self._topology.shape[1]
        beside = min(size, max(1, part // inner))
        within = nbytes * (beside - 1) / beside / chip.link_bandwidth
        parts = size // beside
        return within + nbytes * (parts - 1) / parts / (chip.network_bandwidth * beside)


def _part_of(model: T5Config, tensor: int) -> T5Config:
    """The model that one device of so many computes: for counting alone."""
    if tensor == 1:
        return model
    return dataclasses.replace(
        model,
        num_heads=model.num_heads // tensor,
        mlp_dim=model.mlp_dim // tensor,
        vocab_size=model.vocab_size // tensor,
        softmax_size=0,
    )


def _itemsize(model: T5Config) -> int:
    return 4 if model.dtype == "float32" else 2
