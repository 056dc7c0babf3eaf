"""t5jax train, t5jax merge: a run from its config, a run from a run."""

import argparse

from t5jax.cli.command import Command


def _train(a: argparse.Namespace, flags: list[str]) -> None:
    from t5jax.commands import train

    train.run(a.config, flags)


def _merge(a: argparse.Namespace, flags: list[str]) -> None:
    from t5jax.commands import merge

    merge.run(a.run, a.target, flags, step=a.step)


def _merge_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="TARGET", help="workdir of the new run")


TRAIN = Command(
    "train", "run a config to its end; resumes what its workdir holds", _train, "config"
)
MERGE = Command(
    "merge", "a run with LoRA factors as a run of the plain model", _merge, "run", _merge_options
)
