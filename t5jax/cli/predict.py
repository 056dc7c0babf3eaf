"""t5jax predict."""

import argparse

from t5jax.cli import text_job
from t5jax.cli.command import Command, arguments_of

_EXAMPLES = """\
examples:
  t5jax predict runs/quickstart "The <extra_id_0> of the array."
  t5jax predict runs/mine --input articles.jsonl --column text --prefix "summarize: " \\
      --output summaries.jsonl --decoding.num-beams 4 --decoding.max-length 128
  t5jax predict runs/mine --interactive
the same command goes on after an interruption; every row of the input has one line of the
output, in the same order
"""


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("text", metavar="TEXT", nargs="*", help="default: lines of standard input")
    text_job.input_options(parser)
    text_job.text_options(parser)
    parser.add_argument(
        "--decoder-prefix", metavar="TEXT", default="",
        help="decoder prompt: every output begins with it",
    )  # fmt: skip
    parser.add_argument(
        "--stop", metavar="TEXT", action="append", default=[],
        help="stop string, left out of the output; may be given several times",
    )  # fmt: skip
    text_job.model_options(parser)
    text_job.output_options(parser)
    parser.add_argument("--json", action="store_true", help="JSON lines on standard output too")
    parser.add_argument(
        "--raw", action="store_true",
        help=r"outputs on standard output with their line ends; without it these are \n, and every "
        "output one line",
    )  # fmt: skip
    parser.add_argument("--interactive", action="store_true", help="prompt for texts; /help there")


def _predict(a: argparse.Namespace, flags: list[str]) -> None:
    from t5jax.commands.predict import predict_command
    from t5jax.inference import TextOptions
    from t5jax.inference.interactive import run_interactive
    from t5jax.inference.text_job import JobOptions

    options = JobOptions(**arguments_of(JobOptions, a))
    text_options = TextOptions(**arguments_of(TextOptions, a))
    if a.interactive:
        _check_alone(a)
        run_interactive(a.workdir, a.step, options.ensemble, text_options, flags)
        return
    if not a.input and (a.format or a.header):
        a.parser.error("--format and --header are about --input FILE, or --input -")
    inputs = text_job.inputs_of(a, (a.column,)) if a.input else None
    predict_command(
        options, a.text, inputs, text_options, flags, column=a.column, as_json=a.json, raw=a.raw
    )


def _check_alone(a: argparse.Namespace) -> None:
    given = {"TEXT": a.text, "--input": a.input, "--output": a.output, "--json": a.json}
    given["--raw"] = a.raw
    for word, value in given.items():
        if value:
            a.parser.error(f"--interactive asks for texts and prints answers: leave {word} out")


PREDICT = Command(
    "predict", "generate outputs for texts, or fill their blanks", _predict, "run", _options,
    _EXAMPLES,
)  # fmt: skip
