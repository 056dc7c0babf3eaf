"""t5jax inspect model, t5jax inspect data, t5jax inspect sharding."""

import argparse

from t5jax.cli.command import Command, call
from t5jax.cli.plan import topology_options


def _data_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--split", default="train", help="split to read (train)")
    parser.add_argument("--step", type=int, default=1, help="training step, counted from 1 (1)")
    parser.add_argument(
        "--rows", dest="num_rows", metavar="ROWS", type=int, default=2,
        help="rows of the batch to show (2)",
    )  # fmt: skip


def _model(a: argparse.Namespace, flags: list[str]) -> None:
    from t5jax.commands.inspect import inspect_model_command

    call(inspect_model_command, a, flags)


def _data(a: argparse.Namespace, flags: list[str]) -> None:
    from t5jax.commands.inspect import inspect_data_command

    call(inspect_data_command, a, flags)


def _sharding(a: argparse.Namespace, flags: list[str]) -> None:
    from t5jax.commands.inspect import inspect_sharding_command

    call(inspect_sharding_command, a, flags)


INSPECT_MODEL = Command(
    "inspect model", "parameters, shapes, shardings, memory, FLOPs", _model, "config"
)
INSPECT_DATA = Command(
    "inspect data", "decoded rows of a training step, with masks", _data, "config", _data_options
)
INSPECT_SHARDING = Command(
    "inspect sharding", "layout of every parameter on a topology, without compiling", _sharding,
    "config", topology_options,
)  # fmt: skip
