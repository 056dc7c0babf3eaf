"""t5jax evaluate."""

import argparse

from t5jax.cli.command import (
    Command,
    arguments_of,
    file_or_bucket,
    local_file,
    take_over_option,
)

_EXAMPLES = """\
examples:
  t5jax evaluate runs/mine                              losses and metrics of the newest step
  t5jax evaluate runs/mine --show 3                     and three answers of each task
  t5jax evaluate runs/mine --tasks glue_cola_v002 squad_v010_allanswers --decoding.num-beams 4
  t5jax evaluate runs/mine --evaluation.ranking total   rank the classes instead of decoding
  t5jax evaluate runs/mine --follow --keep-best glue/average
  t5jax evaluate runs/mine --split test --submission out
"""


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--split", default="validation", help="split to evaluate (validation)")
    parser.add_argument(
        "--tasks", nargs="+", default=[], metavar="NAME",
        help="metrics of these tasks or mixtures instead of the run's own",
    )  # fmt: skip
    parser.add_argument(
        "--only", choices=("loss", "metrics"), help="default: whatever the tasks have"
    )
    parser.add_argument("--num-rows", type=int, help="number of rows to take losses over (all)")
    parser.add_argument(
        "--baselines", dest="with_baselines", action="store_true",
        help="also the losses of unigram and bigram models",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=file_or_bucket, metavar="DIR",
        help="directory for predictions, or gs://BUCKET/FOLDER (WORKDIR/evaluations)",
    )  # fmt: skip
    parser.add_argument(
        "--submission", type=local_file, metavar="DIR", help="write files for GLUE and SuperGLUE"
    )
    parser.add_argument(
        "--follow", action="store_true", help="evaluate every checkpoint as it appears"
    )
    parser.add_argument(
        "--wait", type=float, default=3600.0, metavar="SECONDS",
        help="with --follow: how long for a new checkpoint (3600)",
    )  # fmt: skip
    parser.add_argument(
        "--keep-best", metavar="TASK/METRIC", help="copy the best checkpoint to WORKDIR/best"
    )
    parser.add_argument(
        "--lowest", dest="best_mode", action="store_const", const="min", default="max",
        help="with --keep-best: lower is better",
    )  # fmt: skip
    parser.add_argument(
        "--show", type=int, default=0, metavar="N",
        help="print N predictions of each task, the most confident ones, beside the targets",
    )  # fmt: skip
    parser.add_argument(
        "--json", dest="as_json", action="store_true", help="JSON lines on standard output"
    )
    take_over_option(parser)


def _evaluate(a: argparse.Namespace, flags: list[str]) -> None:
    from t5jax.commands.evaluate import EvaluateOptions, evaluate_command, evaluate_follow_command

    if a.follow and a.step is not None:
        a.parser.error("--follow takes every step: leave out --step")
    if a.best_mode == "min" and not a.keep_best:
        a.parser.error("--lowest says which is best: give --keep-best TASK/METRIC")
    options = EvaluateOptions(**arguments_of(EvaluateOptions, a))
    if a.follow:
        evaluate_follow_command(a.workdir, flags, options, timeout_seconds=a.wait)
    else:
        evaluate_command(a.workdir, flags, options, step=a.step)


EVALUATE = Command(
    "evaluate", "losses and task metrics of a checkpoint", _evaluate, "run", _options, _EXAMPLES
)
