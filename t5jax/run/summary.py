"""Sizes of a run as its log states them: parameters, layout, data, compiled memory, FLOPs of a
step."""

from collections.abc import Collection, Iterator
from typing import Any

import jax

from t5jax.config import RunConfig
from t5jax.data.pipeline.loader import Loader
from t5jax.run.build import TrainLoader
from t5jax.tracking import Throughput, measure_matmul_peak, model_flops, peak_flops
from t5jax.training.state_layout import bytes_of, state_layout
from t5jax.training.steps import Program

_MOST_REASONS = 3


def run_size(
    config: RunConfig, program: Program, loader: TrainLoader, evaluated: Collection[str]
) -> dict[str, Any]:
    """Fields of the event "started"; `evaluated` are the tasks that validation takes losses of."""
    params = jax.tree.leaves(program.abstract_state.params)
    mesh = "x".join(str(n) for n in program.mesh.shape.values())
    return {
        "parameters": sum(x.size for x in params),
        **_trained_size(program),
        "mesh": mesh,
        "devices": f"{jax.device_count()} {jax.devices()[0].device_kind}",
        **_data_size(config, loader, evaluated),
    }


def layout_lines(program: Program, memory_bytes: float) -> Iterator[str]:
    """The mesh of a run on several devices of so much memory, what each of them holds, and what is
    whole on every one and why; a warning where that takes more than plans tolerate."""
    if program.mesh.size == 1:
        return
    yield f"mesh {_mesh_text(program)}"
    layout = state_layout(program)
    yield (
        f"on each device {_megabytes(layout.parameter_bytes)} of parameters and "
        f"{_megabytes(layout.optimizer_bytes)} of optimizer state, of which "
        f"{_megabytes(layout.replicated_bytes)} are whole on every device"
    )
    reasons = layout.whole_by_reason
    for why, parameters in list(reasons.items())[:_MOST_REASONS]:
        others = f" and {len(parameters) - 1} more" if parameters[1:] else ""
        yield f"whole: {parameters[0].name}{others}, {_megabytes(bytes_of(parameters))}: {why}"
    if len(reasons) > _MOST_REASONS:
        left = sum(bytes_of(x) for x in list(reasons.values())[_MOST_REASONS:])
        yield f"whole for {len(reasons) - _MOST_REASONS} more reasons: {_megabytes(left)}"
    if warning := layout.warning(memory_bytes):
        yield f"warning: {warning}"


def _mesh_text(program: Program) -> str:
    devices, config = program.mesh.devices.flatten().tolist(), program.mesh_config
    text = " x ".join(f"{name}={size}" for name, size in program.mesh.shape.items())
    text += f" over {len(devices)} {devices[0].device_kind}"
    between = config.between_slices(devices)
    if between:
        text += ", slices along " + " x ".join(f"{name}={n}" for name, n in between.items())
    if config.shares_links(devices):
        text += "; an axis takes a part of one of the slice's own, whose links it shares"
    return text


def _megabytes(nbytes: float) -> str:
    return f"{nbytes / 1e9:.3g} GB" if nbytes >= 1e8 else f"{nbytes / 1e6:.3g} MB"


def compiled_memory(compiled: jax.stages.Compiled) -> dict[str, float]:
    """Of one device, in GB, as the compiler plans it."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return {}
    arguments = analysis.argument_size_in_bytes
    total = arguments + analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return {
        "state_gb": round(arguments / 1e9, 3),
        "peak_gb": round((total + analysis.temp_size_in_bytes) / 1e9, 3),
    }


def measure_throughput(config: RunConfig, program: Program, loader: TrainLoader) -> Throughput:
    """The meter of tokens a second and MFU, with the FLOPs of a row and the devices' peak."""
    device, dtype = jax.devices()[0], program.model.dtype
    peak = peak_flops(device.device_kind, dtype)
    if peak is None and device.platform == "cpu" and jax.device_count() == 1:
        peak = measure_matmul_peak(dtype, 0.5)
    if _trained_size(program):
        peak = None  # what a step costs without some of the gradients is not counted
    return Throughput(
        num_devices=jax.device_count(),
        flops_per_row=model_flops(config.model, 1, *loader.lengths),
        peak=peak,
    )


def _trained_size(program: Program) -> dict[str, int]:
    trained = jax.tree.leaves(program.trained)
    if len(trained) == len(jax.tree.leaves(program.abstract_state.params)):
        return {}
    return {"trained_parameters": sum(x.size for x in trained)}


def _data_size(
    config: RunConfig, loader: TrainLoader, evaluated: Collection[str]
) -> dict[str, Any]:
    size: dict[str, Any] = {"data": "tokenised while it is read"}
    if isinstance(loader, Loader):
        size = {"train_tokens": loader.num_tokens}
    if loader.mixing is not None and len(loader.task_names) > 1:
        shares = loader.mixing.shares(0)
        size |= {f"mixture/weight/{name}": round(share, 5) for name, share in shares.items()}
    without = set(loader.task_names) - set(evaluated)
    if config.train.eval_every_steps and without:
        size["tasks_without_validation_split"] = ", ".join(sorted(without))
    return size
