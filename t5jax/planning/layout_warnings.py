"""What a plan warns of: layouts that compile and fit, and waste the machine."""

import math
from collections.abc import Iterator

from t5jax.model.config import T5Config
from t5jax.planning.abstract_run import AbstractRun
from t5jax.planning.collectives import Collective
from t5jax.planning.compilation import Step
from t5jax.planning.cost import ProgramCost
from t5jax.planning.topology import Topology
from t5jax.training.state_layout import state_layout
from t5jax.training.steps import Program

MOST_PERMUTES = 10_000
_JAX_GPU_SHARE = 0.75  # what JAX reserves unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise


def warnings_of(
    run: AbstractRun,
    program: Program,
    topology: Topology,
    step: Step,
    cost: ProgramCost | None,
    memory_bytes: float,
) -> Iterator[str]:
    """The warnings, each one sentence with its numbers and what to do."""
    if cost is not None:
        yield from _of_collectives(cost)
    if of_state := state_layout(program).warning(topology.chip.memory_bytes):
        yield of_state
    if step == "train":
        yield from _of_small_microbatches(run, program, topology)
    available = topology.chip.memory_bytes
    if topology.chip.platform == "gpu" and available > memory_bytes > _JAX_GPU_SHARE * available:
        yield (
            f"JAX takes {_JAX_GPU_SHARE:.0%} of a GPU's memory by default and this needs "
            f"{memory_bytes / available:.0%}: set XLA_PYTHON_CLIENT_MEM_FRACTION=0.95"
        )


def _of_collectives(cost: ProgramCost) -> Iterator[str]:
    permutes = sum(n for x, n in cost.collectives if x.kind == "collective-permute")
    if permutes > MOST_PERMUTES:
        yield (
            f"{permutes:,.0f} collective-permutes a step: XLA has cut matrix products into pieces; "
            "fewer devices along mesh.fsdp, or LIBTPU_INIT_ARGS="
            "--xla_jf_spmd_threshold_for_windowed_einsum_mib=1000000"
        )


def whole_tables_of(model: T5Config, cost: ProgramCost) -> list[tuple[Collective, float]]:
    """Collectives that move a whole token or logits table, with how often they run."""
    table = {model.vocab_size, model.emb_dim}
    gathered = [
        (collective, count)
        for collective, count in cost.collectives
        if collective.kind in ("all-gather", "all-reduce") and table <= set(collective.shape)
    ]
    return sorted(gathered, key=lambda pair: -pair[0].nbytes * pair[1])


def _of_small_microbatches(run: AbstractRun, program: Program, topology: Topology) -> Iterator[str]:
    """A product with a weight reads the weight once for its tokens: below peak / bandwidth tokens
    it waits for memory."""
    microbatches = program.num_microbatches
    rows = run.config.train.batch_size / microbatches / program.replicas
    tokens = rows * max(run.lengths)
    chip = topology.chip
    least = chip.peak_flops(run.config.model.dtype) / chip.memory_bandwidth
    if chip.platform != "cpu" and tokens < 4 * least:
        fewer = math.gcd(microbatches, microbatches // 2 or 1)
        hint = f"train.num_microbatches = {fewer}, " if microbatches > 1 else ""
        yield (
            f"a device has {tokens:,.0f} tokens in a microbatch, and fills its matrix units from "
            f"about {4 * least:,.0f} on: {hint}fewer devices, or a larger train.batch_size"
        )
