"""`t5jax inspect model CONFIG`: every parameter, its shape and layout, and what it all takes."""

import math

import jax

from t5jax import runtime
from t5jax.config import RunConfig, load
from t5jax.data.config import tasks_of
from t5jax.data.pipeline.conversion import conversion_for
from t5jax.sharding import MESH_AXES
from t5jax.tracking import model_flops
from t5jax.training.program import Program
from t5jax.training.train_step import TrainState


def run(config_file: str, flags: list[str]) -> None:
    config = load(config_file, flags)
    runtime.start(config.runtime)
    num_devices = jax.device_count()
    config.check_mesh(num_devices)
    program = Program(
        model=config.model,
        loss=config.loss,
        tx=config.build_optimizer(),
        mesh_config=config.mesh,
        mesh=config.mesh.build(),
        num_microbatches=config.train.num_microbatches,
        finetuning=config.finetuning,
    )
    _print_parameters(program.abstract_state)
    _print_totals(config, program, num_devices)


def _print_parameters(state: TrainState) -> None:
    rows = [("parameter", "shape", "sharding", "per device", "count")]
    for path, x in jax.tree_util.tree_leaves_with_path(state.params):
        rows.append(
            (
                jax.tree_util.keystr(path, simple=True, separator="/"),
                _shape(x.shape),
                _spec(x),
                _shape(x.sharding.shard_shape(x.shape)),
                f"{x.size:,}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *middle, count in rows:
        cells = [name.ljust(widths[0])]
        cells += [cell.ljust(width) for cell, width in zip(middle, widths[1:-1], strict=True)]
        print("  ".join([*cells, count.rjust(widths[-1])]))


def _print_totals(config: RunConfig, program: Program, num_devices: int) -> None:
    state, trained = program.abstract_state, program.trained
    mesh = config.mesh.shape(num_devices)
    layout = " x ".join(f"{name}={n}" for name, n in zip(MESH_AXES, mesh, strict=True))
    print(f"\nparameters       {sum(x.size for x in jax.tree.leaves(state.params)):,}")
    if len(jax.tree.leaves(trained)) < len(jax.tree.leaves(state.params)):
        share = _whole(trained) / _whole(state.params)
        count = sum(x.size for x in jax.tree.leaves(trained))
        print(f"of them trained  {count:,} ({share:.3%})")
    print(f"mesh             {layout} over {num_devices} {jax.devices()[0].device_kind} device(s)")
    for name, tree in (("parameters", state.params), ("optimizer state", state.opt_state)):
        print(f"{name:16s} {_gigabytes(tree):8.3f} GB per device, {_whole(tree):8.3f} GB in all")
    print(f"gradients        {_gigabytes(trained):8.3f} GB per device")
    tasks = tasks_of(config.data)
    lengths = conversion_for(config.model.architecture, tasks, config.data).lengths
    flops = model_flops(config.model, config.train.batch_size, *lengths)
    sides = zip(lengths, ("inputs", "targets") if all(lengths) else ("tokens",) * 2, strict=True)
    shown = " and ".join(f"{length} {side}" for length, side in sides if length)
    print(f"FLOPs            {flops:.4g} per step of {config.train.batch_size} rows, {shown}")


def _gigabytes(tree) -> float:
    shards = [(x.sharding.shard_shape(x.shape), x.dtype.itemsize) for x in jax.tree.leaves(tree)]
    return sum(math.prod(shape) * size for shape, size in shards) / 1e9


def _whole(tree) -> float:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree)) / 1e9


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _spec(x) -> str:
    spec = tuple(x.sharding.spec) + (None,) * (len(x.shape) - len(x.sharding.spec))
    names = ["+".join(axes) if isinstance(axes, tuple) else axes for axes in spec]
    return ", ".join(name or "-" for name in names)
