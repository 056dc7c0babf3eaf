"""t5jax plan."""

import argparse

from t5jax.cli.command import Command, call, local_file
from t5jax.errors import ConfigError

_NOTES = """\
topologies: v5e:4x8  v5p:4x4x8  v6e:8x8  v4:4x4x4  tpu7x:4x4x4  h100:4x8 (hosts x GPUs)  h200:1x8
  a100:2x8  cpu:8 (virtual devices of this machine)
examples:
  t5jax plan configs/t5_1_1_base_c4.py --topology v5e:4x8
  t5jax plan configs/t5_1_1_xl_c4.py --topology v5p:4x4x8 --price-per-chip-hour 4.2 --json xl.json
  t5jax plan configs/t5_1_1_large_c4.py --topology v5e:8x16 --slices 2 --mesh.fsdp 8
  t5jax plan configs/t5_1_1_large_c4.py --topology h100:1x8 --step decode
  t5jax plan configs/t5_1_1_base_c4.py --topology v5e:4x4 --search --write my_run.py
exit code: 0 it fits; 1 it does not, and what would is printed
"""


def topology_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--topology", required=True, metavar="CHIP:SHAPE", help="devices to plan for"
    )
    parser.add_argument("--slices", type=int, default=1, help="number of TPU slices (1)")


def _options(parser: argparse.ArgumentParser) -> None:
    topology_options(parser)
    parser.add_argument(
        "--step", choices=("train", "evaluate", "decode"), default="train",
        help="which step to compile (train)",
    )  # fmt: skip
    parser.add_argument(
        "--price-per-chip-hour", type=float, metavar="PRICE", help="for the cost of the run"
    )
    parser.add_argument(
        "--json", dest="json_file", type=local_file, metavar="FILE", help="write the plan there"
    )
    parser.add_argument(
        "--search", action="store_true",
        help="find the mesh, microbatches, remat and unrolling that are fastest",
    )  # fmt: skip
    parser.add_argument(
        "--search-minutes", type=float, metavar="N", help="end the search by then (15)"
    )
    parser.add_argument(
        "--search-compiles", type=int, metavar="N", help="compile at most so many layouts (8)"
    )
    parser.add_argument(
        "--write", type=local_file, metavar="FILE", help="make a config file of the best layout"
    )


def _plan(a: argparse.Namespace, flags: list[str]) -> int:
    from t5jax.commands.plan import plan_command, search_command

    if not a.search:
        _refuse_without_search(a)
        return call(plan_command, a, flags)
    if a.price_per_chip_hour is not None:
        raise ConfigError(
            "--price-per-chip-hour: give it to a plan of the layout that --search finds"
        )
    a.search_minutes = 15.0 if a.search_minutes is None else a.search_minutes
    a.search_compiles = 8 if a.search_compiles is None else a.search_compiles
    return call(search_command, a, flags)


def _refuse_without_search(a: argparse.Namespace) -> None:
    for name in ("search_minutes", "search_compiles", "write"):
        if getattr(a, name) is not None:
            raise ConfigError(f"--{name.replace('_', '-')} goes with --search; add that")


PLAN = Command(
    "plan", "memory, time and cost of a run on hardware that is not there", _plan, "config",
    _options, _NOTES,
)  # fmt: skip
