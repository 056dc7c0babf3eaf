"""The words of `t5jax predict`, `score` and `export` on the command line. Imports nothing heavy."""

import argparse

PREDICT_EXAMPLES = """\
examples:
  t5jax predict runs/quickstart "The <extra_id_0> of the array."
  t5jax predict runs/mine --input articles.jsonl --column text --prefix "summarize: " \\
      --output summaries.jsonl --decoding.num-beams 4 --decoding.max-length 128
  t5jax predict runs/mine --interactive
the same command goes on after an interruption; every row of the input has one line of the
output, in the same order
"""
SCORE_EXAMPLES = """\
examples:
  t5jax score runs/mine --input pairs.tsv --output scores.jsonl --tokens
  printf 'A text.\\tIts target.\\n' | t5jax score runs/mine --header input target
"""


def predict_options(act: argparse.ArgumentParser) -> None:
    act.epilog = f"{PREDICT_EXAMPLES}\n{act.epilog}"
    act.add_argument("text", metavar="TEXT", nargs="*", help="default: lines of standard input")
    _input_options(act)
    _text_options(act)
    act.add_argument("--decoder-prefix", metavar="TEXT", default="", help="begins every output")
    act.add_argument(
        "--stop", metavar="TEXT", action="append", default=[],
        help="ends an output, which is what stands before it; may be given several times",
    )  # fmt: skip
    _model_options(act)
    _output_options(act)
    act.add_argument("--json", action="store_true", help="JSON lines on standard output, too")
    act.add_argument("--interactive", action="store_true", help="a prompt; /help there")


def score_options(act: argparse.ArgumentParser) -> None:
    act.epilog = f"{SCORE_EXAMPLES}\n{act.epilog}"
    _input_options(act)
    act.add_argument("--target-column", metavar="NAME", default="target", help="(target)")
    _text_options(act)
    act.add_argument("--tokens", action="store_true", help="every token and its log-likelihood")
    _model_options(act)
    _output_options(act)


def _input_options(act: argparse.ArgumentParser) -> None:
    act.add_argument(
        "--input", metavar="FILE", action="append", default=[],
        help="file or pattern, may be given several times; .jsonl, .json, .tsv, .csv, or a text a "
        "line; gzip or zstd or not; - is standard input",
    )  # fmt: skip
    act.add_argument("--format", metavar="F", help="text, jsonl, tsv or csv, whatever the name")
    act.add_argument("--column", metavar="NAME", default="input", help="of the inputs (input)")
    act.add_argument(
        "--header", metavar="NAME", nargs="+", default=[],
        help="columns of a table whose first line does not name them",
    )  # fmt: skip


def _text_options(act: argparse.ArgumentParser) -> None:
    act.add_argument("--prefix", metavar="TEXT", default="", help="put before every input")
    act.add_argument(
        "--truncate-inputs", metavar="TOKENS", type=int,
        help="cut longer inputs, and say so; default: read whole, whatever their length",
    )  # fmt: skip


def _model_options(act: argparse.ArgumentParser) -> None:
    act.add_argument(
        "--ensemble", metavar="WORKDIR[@STEP]", action="append", default=[],
        help="average the logits with those of another checkpoint; may be given several times",
    )  # fmt: skip
    act.add_argument("--batch-size", type=int, default=32, help="rows at a time (32)")


def _output_options(act: argparse.ArgumentParser) -> None:
    act.add_argument(
        "--output", metavar="FILE", help="JSON lines; goes on where an earlier job stopped"
    )
    act.add_argument("--overwrite", action="store_true", help="replace what FILE holds")
    act.add_argument(
        "--shard", metavar="I/N", help="only rows I, I + N, …, into FILE-0000I-of-0000N"
    )


def export_options(act: argparse.ArgumentParser) -> None:
    act.add_argument("target", metavar="TARGET", help="a new folder")
    act.add_argument("--format", choices=("stablehlo", "savedmodel"), default="stablehlo")
    act.add_argument(
        "--inputs-length", type=int, help="tokens of an input (default: data.inputs_length)"
    )
    act.add_argument(
        "--targets-length", type=int,
        help="tokens of a target to score (default: decoding.max_length)",
    )  # fmt: skip
    act.add_argument(
        "--platforms", nargs="+", default=["cpu", "cuda", "tpu"], metavar="P",
        help="where it is to run (cpu cuda tpu)",
    )  # fmt: skip
