"""t5jax train."""

import argparse

from t5jax.cli.command import Command, call


def _train(a: argparse.Namespace, flags: list[str]) -> None:
    from t5jax.commands.train import train_command

    call(train_command, a, flags)


TRAIN = Command("train", "train a config's run, or resume it", _train, "config")
