"""t5jax merge."""

import argparse

from t5jax.cli.command import Command, call, file_or_bucket


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target", type=file_or_bucket, metavar="TARGET", help="workdir of the new run"
    )


def _merge(a: argparse.Namespace, flags: list[str]) -> None:
    from t5jax.commands.merge import merge_command

    call(merge_command, a, flags)


MERGE = Command(
    "merge", "merge LoRA factors into the weights of a new run", _merge, "run", _options
)
