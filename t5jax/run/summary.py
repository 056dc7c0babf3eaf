"""Sizes of a run as its log states them: parameters, data, compiled memory, FLOPs of a step."""

from collections.abc import Collection
from typing import Any

import jax

from t5jax.config import RunConfig
from t5jax.data.pipeline.loader import Loader
from t5jax.run.build import TrainLoader
from t5jax.tracking import Throughput, measure_matmul_peak, model_flops, peak_flops
from t5jax.training.steps import Program


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
