"""t5jax train."""

import argparse
import time

from t5jax.cli.command import Command, call, take_over_option


def _train(a: argparse.Namespace, flags: list[str]) -> None:
    a.started = time.time()  # importing JAX takes seconds
    from t5jax.commands.train import train_command

    if a.profile_steps:
        flags = [*flags, "--tracking.profile-steps", a.profile_steps]
    call(train_command, a, flags)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--profile-steps", metavar="FIRST:LAST",
        help="trace these steps for xprof into WORKDIR/profile (tracking.profile_steps)",
    )  # fmt: skip
    take_over_option(parser)


TRAIN = Command("train", "train a config's run, or resume it", _train, "config", _options)
