"""t5jax replay."""

import argparse

from t5jax.cli.command import SETTINGS_OF_A_RUN, Command, call, folder_of_run

_NOTES = f"""\
The run's state is taken from the newest checkpoint before the step, or, where the step was recorded
(WORKDIR/flight/STEP), from the run's beginning. Exit code 0: every loss and gradient norm
on the way is the logged one, bit for bit; 1: not. A run of N CPU devices needs N here, which are
made; one of TPUs or GPUs is repeated on one CPU device, and its sums differ in their order.
{SETTINGS_OF_A_RUN}"""


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workdir", type=folder_of_run, metavar="WORKDIR", help="folder of a run")
    parser.add_argument("--step", type=int, required=True, help="the step, as the log counts them")
    parser.add_argument(
        "--norms", dest="with_norms", action="store_true",
        help="the norms of every weight, its gradient and its update in that step",
    )  # fmt: skip


def _replay(a: argparse.Namespace, flags: list[str]) -> int:
    from t5jax.commands.replay import replay_command

    return call(replay_command, a, flags)


REPLAY = Command(
    "replay", "run a step of a run again, bit for bit", _replay, None, _options, _NOTES
)  # fmt: skip
