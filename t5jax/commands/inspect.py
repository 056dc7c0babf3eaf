"""`t5jax inspect data | model | sharding CONFIG`: batches, parameters and layout of a run.

`data` shows the rows of a training step, decoded, with masks and the documents they come from.
Steps are counted from 1, as in the log of training: step 1 is the first that a run makes. `model`
shows every parameter with shape and sharding, memory per device and FLOPs per step. `sharding`
shows on which devices of a topology that is not there every parameter would lie.
"""

from collections.abc import Sequence

import jax
import numpy as np

from t5jax import runtime
from t5jax.config import RunConfig, load_config, read_config
from t5jax.data.pipeline.loader import Loader
from t5jax.data.records import counted
from t5jax.data.registry.resolve import defined_row_format
from t5jax.data.vocabularies.one_line import one_line
from t5jax.errors import ConfigError, DataError
from t5jax.model.layer_stack import parameter_path
from t5jax.planning.abstract_run import with_vocabulary
from t5jax.planning.settings import layout_on_topology
from t5jax.planning.topology import Topology, parse_topology, prepare_process
from t5jax.run.auto import local_machine, resolve_auto
from t5jax.run.build import (
    TrainLoader,
    build_evaluation_loaders,
    build_program_without_vocabulary,
    build_train_loader,
    resolve_mixture,
)
from t5jax.sharding import MESH_AXES
from t5jax.tracking import model_flops
from t5jax.training.losses import predicting_side
from t5jax.training.memory import device_bytes
from t5jax.training.state_layout import ParameterLayout, StateLayout, bytes_of
from t5jax.training.steps import Program
from t5jax.training.train_step import TrainState


def inspect_data_command(
    config_file: str, flags: list[str], *, split: str, step: int, num_rows: int
) -> None:
    for name, value, least in (("--step", step, 1), ("--rows", num_rows, 1)):
        if value < least:
            raise ConfigError(f"{name} {value}: at least {least}")
    config = load_config(config_file, flags)
    mixture = resolve_mixture(config)
    loaders: dict[str, TrainLoader] = {}
    if split == "train":
        loaders[""] = build_train_loader(config, mixture)
    else:
        loaders |= build_evaluation_loaders(config, mixture, split)
    if not loaders:
        raise DataError(
            f"no task of {config.data.mixture} has a split {split!r}; t5jax cache CONFIG"
        )
    for loader in loaders.values():
        if not isinstance(loader, Loader):
            raise ConfigError(
                "data.cache_dir is None: rows of a step can be asked for only where there is a "
                "store; set data.cache_dir and run t5jax cache"
            )
        _print_step(loader, step, num_rows)


def _print_step(loader: Loader, step: int, num_rows: int) -> None:
    for component in loader.components:
        directory = component.store.directory if component.store else "in memory"
        print(
            f"{component.name}: {directory}, {counted(component.rows.num_rows, 'row')} an epoch of "
            f"{component.rows.examples_per_row:.2f} examples"
        )
    if loader.mixing is not None and len(loader.components) > 1:
        for name, share in loader.mixing.shares((step - 1) * loader.batch_size).items():
            print(f"  {share:8.3%} of the rows at step {step}  {name}")
    print(
        f"{counted(loader.num_rows, 'row')}, {counted(loader.num_steps, 'step')} of "
        f"{counted(loader.batch_size, 'row')}"
    )
    rows = loader.rows(step - 1)
    for name, x in rows.items():
        print(f"  {name:24s} {x.dtype} {x.shape}, {np.mean(x != 0):6.1%} not 0")
    for row in range(min(num_rows, loader.batch_size)):
        _print_row(loader, {name: x[row] for name, x in rows.items()}, step, row)


def _print_row(loader: Loader, row: dict[str, np.ndarray], step: int, index: int) -> None:
    print(f"\nstep {step}, row {index}")
    stored = all(component.store for component in loader.components)
    for origin in loader.origins(step - 1, index) if stored else ():
        place = origin.place
        if origin.feature == "text":
            where = (
                f"documents {place.first_document} to {place.last_document}, "
                f"token {place.token_offset:,} on"
            )
        elif origin.feature == "inputs":
            where = f"example {place.first_document}"
        else:
            continue
        print(f"  from    {origin.task}, {place.source}: {where}")
    side = predicting_side(row)
    names = {"inputs": "encoder_input_tokens", "targets": f"{side}_target_tokens"}
    names = {name: key for name, key in names.items() if key in row}
    for name, key in names.items():
        ids, segments = row[key], row.get(f"{key.split('_')[0]}_segment_ids")
        for segment in [None] if segments is None else range(1, int(segments.max()) + 1):
            real = ids != loader.vocabulary.pad_id
            shown = ids[real] if segment is None else ids[segments == segment]
            text = one_line(loader.vocabulary.decode(shown))
            print(f"  {name:7s} {'' if segment is None else f'{segment}: '}{text}")
    legend = "   ('.' text, 'S' sentinel, 'E' EOS, '_' padding; x12: 12 of them)"
    for name, key in names.items():
        print(f"  {name:7s} {_kinds(loader, row[key])}{legend if name == 'targets' else ''}")
    print(f"  weights {_marks(row[f'{side}_loss_weights'])}")
    if "decoder_causal_attention" in row:
        print(f"  prefix  {_marks(row['decoder_causal_attention'])}")


def _marks(flags: np.ndarray) -> str:
    return _runs("".join("1" if flag else "0" for flag in flags))


def _kinds(loader: Loader, ids: np.ndarray) -> str:
    vocabulary = loader.vocabulary
    ends, padding = ids == vocabulary.eos_id, ids == vocabulary.pad_id
    special = np.where(padding, "_", np.where(ends, "E", "S"))
    kinds = np.where(vocabulary.is_text(ids), ".", special)
    return _runs("".join(kinds.tolist()))


def _runs(marks: str) -> str:
    """Runs of the same mark, the long ones as a mark and a count."""
    pieces, start = [], 0
    for i in range(1, len(marks) + 1):
        if i == len(marks) or marks[i] != marks[start]:
            length = i - start
            pieces.append(marks[start] * length if length < 4 else f"{marks[start]}x{length} ")
            start = i
    return "".join(pieces)


def inspect_model_command(config_file: str, flags: list[str]) -> None:
    config = load_config(config_file, flags)
    runtime.start_distributed(config.runtime)
    num_devices = jax.device_count()
    config.check_mesh(num_devices)
    resolved = resolve_auto(config, local_machine())
    config = resolved.config
    config.check_mesh(num_devices)
    program = build_program_without_vocabulary(config)
    _print_parameters(program.abstract_state)
    _print_totals(config, program, num_devices)
    for choice in resolved.choices:
        print(f"auto             {choice}")


def _print_parameters(state: TrainState) -> None:
    rows = [("parameter", "shape", "sharding", "per device", "count")]
    for path, x in jax.tree_util.tree_leaves_with_path(state.params):
        rows.append(
            (
                parameter_path(path),
                _shape(x.shape),
                _spec(x),
                _shape(x.sharding.shard_shape(x.shape)),
                f"{x.size:,}",
            )
        )
    _print_table(rows)


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    """The first row is the heading; the last column stands to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for *cells, last in rows:
        aligned = [cell.ljust(width) for cell, width in zip(cells, widths[:-1], strict=True)]
        print("  ".join([*aligned, last.rjust(widths[-1])]))


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
        part, whole = device_bytes(tree) / 1e9, _whole(tree)
        print(f"{name:16s} {part:8.3f} GB per device, {whole:8.3f} GB in all")
    print(f"gradients        {device_bytes(trained) / 1e9:8.3f} GB per device")
    lengths = defined_row_format(config.data, config.model.architecture).lengths
    flops = model_flops(config.model, config.train.batch_size, *lengths)
    sides = zip(lengths, ("inputs", "targets") if all(lengths) else ("tokens",) * 2, strict=True)
    shown = " and ".join(f"{length} {side}" for length, side in sides if length)
    print(f"FLOPs            {flops:.4g} per step of {config.train.batch_size} rows, {shown}")


def inspect_sharding_command(
    config_file: str, flags: list[str], *, topology: str, slices: int
) -> None:
    target = parse_topology(topology, slices)
    prepare_process(target)
    config = read_config(config_file, flags)
    with_vocabulary(config)[0].check()
    layout = layout_on_topology(config, target)
    rows = [("parameter", "shape", "sharding", "per device", "copies", "MB per device")]
    rows += [_layout_row(x) for x in layout.parameters]
    _print_table(rows)
    _print_layout(layout, target)


def _layout_row(x: ParameterLayout) -> tuple[str, ...]:
    sharding = ", ".join(x.spec) or "-"
    shown = f"{x.shard_bytes / 1e6:.3f}"
    return x.name, _shape(x.shape), sharding, _shape(x.shard), str(x.copies), shown


def _print_layout(layout: StateLayout, topology: Topology) -> None:
    mesh = " x ".join(f"{name}={size}" for name, size in layout.mesh.items())
    print(f"\nmesh             {mesh} over {topology}")
    for name, nbytes in (
        ("parameters", layout.parameter_bytes),
        ("optimizer state", layout.optimizer_bytes),
        ("of them whole", layout.replicated_bytes),
    ):
        print(f"{name:16s} {nbytes / 1e9:8.3f} GB per device")
    whole = layout.whole_by_reason
    print("\nwhole on every device" + ("" if whole else ": none"))
    for why, parameters in whole.items():
        print(f"  {bytes_of(parameters) / 1e6:10.3f} MB in {len(parameters)}, because {why}")
    if warning := layout.warning(topology.chip.memory_bytes):
        print(f"\nwarning: {warning}")


def _whole(tree) -> float:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree)) / 1e9


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _spec(x) -> str:
    spec = tuple(x.sharding.spec) + (None,) * (len(x.shape) - len(x.sharding.spec))
    names = ["+".join(axes) if isinstance(axes, tuple) else axes for axes in spec]
    return ", ".join(name or "-" for name in names)
