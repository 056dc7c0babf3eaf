"""The assumptions of a prediction, as sentences."""

from t5jax.config import RunConfig
from t5jax.planning.cost import (
    ATTENTION_BACKWARD,
    ATTENTION_FORWARD,
    MATRIX_SHARE,
    MEMORY_SHARE,
    ProgramCost,
)
from t5jax.planning.topology import Topology


def assumptions_of(
    topology: Topology, config: RunConfig, cost: ProgramCost | None
) -> tuple[str, ...]:
    """What the numbers of a plan rest on."""
    chip, dtype = topology.chip, config.model.dtype
    notes = [
        f"{chip.name}: {chip.peak_flops(dtype) / 1e12:.4g} TFLOP/s ({dtype}), "
        f"{chip.memory_bytes / 1e9:.1f} GB at {chip.memory_bandwidth / 1e9:.0f} GB/s a device; "
        f"{chip.link_bandwidth / 1e9:.3g} GB/s inside and {chip.network_bandwidth / 1e9:.3g} GB/s "
        f"between slices or hosts; {chip.source}",
        f"an operation takes the longest of its matrix products at {_matrix_share(topology):.0%} "
        f"of the peak, its HBM traffic at {MEMORY_SHARE:.0%} of the bandwidth"
        + (", and libtpu's cycles" if chip.clock_hz else "")
        + "; operations run one after another",
        *(
            ("copies started ahead of their use take the HBM bandwidth that is left beside them",)
            if chip.platform == "tpu"
            else ()
        ),
        "a collective runs beside what the compiler scheduled between its start and its end; the "
        "rest of it is waited for",
        "all positions count, padding too; input pipeline, compilation, evaluation and checkpoints "
        "are left out",
    ]
    if cost is not None and any(x.opcode == "custom-call" and x.flops for x in cost.operations):
        notes.append(
            "attention kernels take libtpu's static bundles of their tiles, one a cycle"
            if chip.platform == "tpu"
            else f"attention kernels reach {ATTENTION_FORWARD:.0%} forward and "
            f"{ATTENTION_BACKWARD:.0%} backward of the matrix peak"
        )
    return tuple(notes)


def _matrix_share(topology: Topology) -> float:
    return MATRIX_SHARE[topology.chip.platform]
