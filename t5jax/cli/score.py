"""t5jax score."""

import argparse

from t5jax.cli import text_job
from t5jax.cli.command import Command, arguments_of

_EXAMPLES = """\
examples:
  t5jax score runs/mine --input pairs.tsv --output scores.jsonl --tokens
  printf 'A text.\\tIts target.\\n' | t5jax score runs/mine --header input target
"""


def _options(parser: argparse.ArgumentParser) -> None:
    text_job.input_options(parser)
    parser.add_argument(
        "--target-column", metavar="NAME", default="target", help="column of the targets (target)"
    )
    text_job.text_options(parser)
    parser.add_argument("--tokens", action="store_true", help="every token and its log-likelihood")
    text_job.model_options(parser)
    text_job.output_options(parser)


def _score(a: argparse.Namespace, flags: list[str]) -> None:
    from t5jax.commands.score import score_command
    from t5jax.inference import TextOptions
    from t5jax.inference.text_job import JobOptions

    if not a.input:
        a.input, a.format = ["-"], a.format or "tsv"
    inputs = text_job.inputs_of(a, (a.column, a.target_column))
    options = JobOptions(**arguments_of(JobOptions, a))
    text_options = TextOptions(**arguments_of(TextOptions, a))
    score_command(options, inputs, text_options, flags, with_tokens=a.tokens)


SCORE = Command(
    "score", "log-likelihood of targets given their inputs", _score, "run", _options,
    _EXAMPLES,
)  # fmt: skip
