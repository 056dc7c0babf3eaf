"""Plan: whether a run fits a topology, and its predicted memory, time, MFU and cost."""

import dataclasses
import math
from typing import Any

from t5jax.config import RunConfig
from t5jax.planning.abstract_run import AbstractRun, abstract_run
from t5jax.planning.assumptions import assumptions_of
from t5jax.planning.collectives import Collective, MeshNetwork
from t5jax.planning.compilation import (
    CompiledStep,
    OutOfMemory,
    Step,
    compile_step,
    decoded_rows,
)
from t5jax.planning.cost import OperationKind, ProgramCost, program_cost
from t5jax.planning.hlo import parse_module, unknown_loops
from t5jax.planning.layout_warnings import warnings_of
from t5jax.planning.memory import MemoryEstimate, estimate_memory
from t5jax.planning.settings import resolve_for_topology
from t5jax.planning.topology import Topology
from t5jax.sharding import MESH_AXES
from t5jax.tracking import model_flops
from t5jax.training.steps import Program

GB = 1e9  # as everywhere in t5jax's logs
_NUM_LARGEST = 10


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """One step of a run on one topology. Memory, bytes and FLOPs are of one device.

    Attributes:
      memory_gb: the most that a device holds at once: compiled, or what libtpu says it would need.
      hbm_gb: what a device has for programs.
      cost: None where the program does not fit, and then the fields that follow from it too.
      estimate: of the train step, by arithmetic.
    """

    fits: bool
    memory_gb: float
    hbm_gb: float
    step_seconds: float | None
    mfu: float | None
    model_tflops: float
    hlo_tflops: float | None
    collectives_gb: float | None
    topology: Topology
    mesh: dict[str, int]
    assumptions: tuple[str, ...]
    step: Step
    config: RunConfig
    written: RunConfig  # the same with its "auto"
    lengths: tuple[int, int]
    rows: int  # of the step's batch
    compiled: CompiledStep | None
    cost: ProgramCost | None
    estimate: MemoryEstimate | None
    warnings: tuple[str, ...] = ()
    refused: OutOfMemory | None = None
    price_per_chip_hour: float | None = None

    @property
    def tokens_per_second(self) -> float | None:
        """Positions of inputs and targets of the batch, padding included."""
        return self.step_seconds and self.rows * sum(self.lengths) / self.step_seconds

    @property
    def days(self) -> float | None:
        """Of all training steps, without compiling, evaluating, saving and failures."""
        if self.step != "train" or self.step_seconds is None:
            return None
        return self.step_seconds * self.config.train.num_train_steps / 86_400

    @property
    def chip_hours(self) -> float | None:
        return None if self.days is None else self.days * 24 * self.topology.num_chips

    @property
    def price(self) -> float | None:
        """Of all training steps, in the currency of `price_per_chip_hour`."""
        if self.chip_hours is None or self.price_per_chip_hour is None:
            return None
        return self.chip_hours * self.price_per_chip_hour

    @property
    def largest(self) -> list[OperationKind]:
        """The kinds of operations that take the most time."""
        return self.cost.largest(_NUM_LARGEST) if self.cost else []

    def as_json(self) -> dict[str, Any]:
        """The plan as JSON values; GB are 10^9 bytes and, as TFLOPs, of one device and one step."""
        return {
            "fits": self.fits,
            "memory_gb": _rounded(self.memory_gb),
            "hbm_gb": _rounded(self.hbm_gb),
            "step_seconds": _rounded(self.step_seconds, 6),
            "mfu": _rounded(self.mfu, 4),
            "model_tflops": _rounded(self.model_tflops),
            "hlo_tflops": _rounded(self.hlo_tflops),
            "collectives_gb": _rounded(self.collectives_gb),
            "topology": str(self.topology),
            "mesh": self.mesh,
            "assumptions": list(self.assumptions),
            **self._more(),
        }

    def _more(self) -> dict[str, Any]:
        estimate, cost = self.estimate, self.cost
        return {
            "step": self.step,
            "warnings": list(self.warnings),
            "chips": self.topology.num_chips,
            "devices": self.topology.num_devices,
            "batch_rows": self.rows,
            "lengths": list(self.lengths),
            "num_microbatches": self.config.train.num_microbatches,
            "remat": self.config.model.remat,
            "attention": self.config.model.attention,
            "unroll_layers": self.config.model.unroll_layers,
            "parameters_gb": estimate and _rounded(estimate.parameters / GB),
            "optimizer_gb": estimate and _rounded(estimate.optimizer / GB),
            "activations_gb": estimate and _rounded(estimate.activations / GB),
            "temporaries_gb": self.compiled and _rounded(self.compiled.memory.temporaries / GB),
            "hbm_traffic_gb": cost and _rounded(cost.nbytes / GB),
            "exposed_collective_seconds": cost and _rounded(cost.exposed_seconds, 6),
            "collectives_gb_by_kind_and_axis": cost and _gigabytes(cost, by_kind_and_axis),
            "collectives_gb_by_network": cost and _gigabytes(cost, by_network),
            "tokens_per_second": _rounded(self.tokens_per_second, 1),
            "days": _rounded(self.days),
            "chip_hours": _rounded(self.chip_hours, 1),
            "price": _rounded(self.price, 2),
            "compile_seconds": self.compiled and _rounded(self.compiled.seconds, 1),
            "seconds_by_bound": cost
            and {name: round(x, 6) for name, x in cost.seconds_by_bound.items()},
            "largest_operations": [_as_json(x) for x in self.largest],
        }


def _as_json(kind: OperationKind) -> dict[str, Any]:
    return {
        "seconds": round(kind.seconds, 6),
        "times": kind.count,
        "bound": kind.bound,
        "what": kind.what,
    }


def by_kind_and_axis(collective: Collective) -> str:
    return f"{collective.kind} over {collective.axes}"


def by_network(collective: Collective) -> str:
    return "DCN" if collective.over_network else "ICI"


def _gigabytes(cost: ProgramCost, key) -> dict[str, float]:
    return {name: round(x / GB, 4) for name, x in cost.collective_bytes(key).items()}


def _rounded(value: float | None, digits: int = 3) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, digits)


def make_plan(
    config: RunConfig,
    topology: Topology,
    step: Step = "train",
    *,
    price_per_chip_hour: float | None = None,
) -> Plan:
    """Compiles a step of the config's run for the topology and predicts from the compiled text.

    A program that does not fit gives a plan with `fits` False. Raises ConfigError where config and
    topology do not go together, or what compiles for the topology is not installed.
    """
    config.check_mesh(topology.num_devices, trains=step == "train")
    run, resolved = resolve_for_topology(abstract_run(config), topology)
    config.check_mesh(topology.num_devices, trains=step == "train")
    written, config = config, run.config
    program = run.program(config.mesh.build(topology.devices()))
    estimate = estimate_memory(run, program) if step == "train" else None
    compiled, refused, cost = None, None, None
    try:
        compiled = compile_step(run, program, step, topology.chip.platform)
    except OutOfMemory as error:
        refused = error
    notes = [*(f"auto: {choice}" for choice in resolved.choices), *run.assumptions]
    if compiled is not None:
        module = parse_module(compiled.text)
        network = MeshNetwork(program.mesh, topology)
        cost = program_cost(module, topology.chip, network, config.model.dtype)
        notes += [f"loop {name} of unknown length counted once" for name in unknown_loops(module)]
    needed = _needed(compiled, refused, estimate)
    available = topology.chip.memory_bytes
    flops = step_model_flops(run, program, step) / topology.num_devices
    peak = topology.chip.peak_flops(config.model.dtype)
    return Plan(
        fits=compiled is not None and needed <= available,
        memory_gb=needed / GB,
        hbm_gb=available / GB,
        step_seconds=cost and cost.seconds,
        mfu=cost and flops / (cost.seconds * peak),
        model_tflops=flops / 1e12,
        hlo_tflops=cost and cost.flops / 1e12,
        collectives_gb=cost and sum(cost.collective_bytes().values()) / GB,
        topology=topology,
        mesh=dict(zip(MESH_AXES, config.mesh.shape(topology.num_devices), strict=True)),
        assumptions=(*assumptions_of(topology, config, cost), *notes),
        step=step,
        config=config,
        written=written,
        lengths=run.lengths,
        rows=_rows(run, program, step),
        compiled=compiled,
        cost=cost,
        estimate=estimate,
        warnings=tuple(warnings_of(run, program, topology, step, cost, needed)),
        refused=refused,
        price_per_chip_hour=price_per_chip_hour,
    )


def _needed(
    compiled: CompiledStep | None, refused: OutOfMemory | None, estimate: MemoryEstimate | None
) -> float:
    """Bytes of a device: compiled, as the compiler refused them, or of its message without numbers
    as estimated."""
    if compiled is not None:
        return compiled.memory.peak
    assert refused is not None
    arguments = estimate.parameters + estimate.optimizer + estimate.batch if estimate else 0.0
    if not math.isfinite(refused.needed):
        return estimate.total if estimate else math.nan
    return refused.needed + arguments * refused.temporaries_only


def _rows(run: AbstractRun, program: Program, step: Step) -> int:
    if step == "decode":
        return decoded_rows(run, program)
    if step == "evaluate":
        return next(iter(run.eval_batch(program).values())).shape[0]
    return run.config.train.batch_size


def step_model_flops(run: AbstractRun, program: Program, step: Step) -> float:
    """FLOPs that the model needs for a step on all devices: of training as `tracking.model_flops`
    counts, a third of that forward alone, and of decoding for every position of the outputs."""
    encoder_length, decoder_length = run.lengths
    rows = _rows(run, program, step)
    if step == "train":
        return model_flops(run.config.model, rows, encoder_length, decoder_length)
    if step == "decode":
        outputs = run.config.decoding.max_length
        rows *= run.config.decoding.width
        return model_flops(run.config.model, rows, encoder_length, outputs) / 3
    return model_flops(run.config.model, rows, encoder_length, decoder_length) / 3
