"""t5jax train."""

import argparse
import time

from t5jax.cli.command import Command, call


def _train(a: argparse.Namespace, flags: list[str]) -> None:
    a.started = time.time()  # importing JAX takes seconds
    from t5jax.commands.train import train_command

    call(train_command, a, flags)


TRAIN = Command("train", "train a config's run, or resume it", _train, "config")
