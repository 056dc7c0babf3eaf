"""t5jax predict, score and export: a run answers, or answers elsewhere."""

import argparse

from t5jax.cli.command import Command

_PREDICT_EXAMPLES = """\
examples:
  t5jax predict runs/quickstart "The <extra_id_0> of the array."
  t5jax predict runs/mine --input articles.jsonl --column text --prefix "summarize: " \\
      --output summaries.jsonl --decoding.num-beams 4 --decoding.max-length 128
  t5jax predict runs/mine --interactive
the same command goes on after an interruption; every row of the input has one line of the
output, in the same order
"""
_SCORE_EXAMPLES = """\
examples:
  t5jax score runs/mine --input pairs.tsv --output scores.jsonl --tokens
  printf 'A text.\\tIts target.\\n' | t5jax score runs/mine --header input target
"""


def _predict_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("text", metavar="TEXT", nargs="*", help="default: lines of standard input")
    _input_options(parser)
    _text_options(parser)
    parser.add_argument("--decoder-prefix", metavar="TEXT", default="", help="begins every output")
    parser.add_argument(
        "--stop", metavar="TEXT", action="append", default=[],
        help="ends an output, which is what stands before it; may be given several times",
    )  # fmt: skip
    _model_options(parser)
    _output_options(parser)
    parser.add_argument("--json", action="store_true", help="JSON lines on standard output, too")
    parser.add_argument("--interactive", action="store_true", help="a prompt; /help there")


def _score_options(parser: argparse.ArgumentParser) -> None:
    _input_options(parser)
    parser.add_argument("--target-column", metavar="NAME", default="target", help="(target)")
    _text_options(parser)
    parser.add_argument("--tokens", action="store_true", help="every token and its log-likelihood")
    _model_options(parser)
    _output_options(parser)


def _input_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--input", metavar="FILE", action="append", default=[],
        help="file or pattern, may be given several times; .jsonl, .json, .tsv, .csv, or a text a "
        "line; gzip or zstd or not; - is standard input",
    )  # fmt: skip
    parser.add_argument("--format", metavar="F", help="text, jsonl, tsv or csv, whatever the name")
    parser.add_argument("--column", metavar="NAME", default="input", help="of the inputs (input)")
    parser.add_argument(
        "--header", metavar="NAME", nargs="+", default=[],
        help="columns of a table whose first line does not name them",
    )  # fmt: skip


def _text_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prefix", metavar="TEXT", default="", help="put before every input")
    parser.add_argument(
        "--truncate-inputs", metavar="TOKENS", type=int,
        help="cut longer inputs, and say so; default: read whole, whatever their length",
    )  # fmt: skip


def _model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ensemble", metavar="WORKDIR[@STEP]", action="append", default=[],
        help="average the logits with those of another checkpoint; may be given several times",
    )  # fmt: skip
    parser.add_argument("--batch-size", type=int, default=32, help="rows at a time (32)")


def _output_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output", metavar="FILE", help="JSON lines; goes on where an earlier job stopped"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what FILE holds")
    parser.add_argument(
        "--shard", metavar="I/N", help="only rows I, I + N, …, into FILE-0000I-of-0000N"
    )


def _export_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="TARGET", help="a new folder")
    parser.add_argument("--format", choices=("stablehlo", "savedmodel"), default="stablehlo")
    parser.add_argument(
        "--inputs-length", type=int, help="tokens of an input (default: data.inputs_length)"
    )
    parser.add_argument(
        "--targets-length", type=int,
        help="tokens of a target to score (default: decoding.max_length)",
    )  # fmt: skip
    parser.add_argument(
        "--platforms", nargs="+", default=["cpu", "cuda", "tpu"], metavar="P",
        help="where it is to run (cpu cuda tpu)",
    )  # fmt: skip


def _predict(a: argparse.Namespace, flags: list[str]) -> None:
    from t5jax.commands import predict
    from t5jax.inference.interactive import run_interactive

    options, text_options = _job_options(a), _text_options_of(a)
    if a.interactive:
        _check_alone(a)
        run_interactive(a.run, a.step, options.ensemble, text_options, flags)
        return
    if not a.input and (a.format or a.header):
        a.parser.error("--format and --header are about --input FILE, or --input -")
    inputs = _inputs(a, (a.column,)) if a.input else None
    predict.run(options, a.text, inputs, text_options, flags, column=a.column, as_json=a.json)


def _check_alone(a: argparse.Namespace) -> None:
    given = {"TEXT": a.text, "--input": a.input, "--output": a.output, "--json": a.json}
    for word, value in given.items():
        if value:
            a.parser.error(f"--interactive asks for texts and prints answers: leave {word} out")


def _score(a: argparse.Namespace, flags: list[str]) -> None:
    from t5jax.commands import score

    if not a.input:
        a.input, a.format = ["-"], a.format or "tsv"
    inputs = _inputs(a, (a.column, a.target_column))
    score.run(_job_options(a), inputs, _text_options_of(a), flags, with_tokens=a.tokens)


def _job_options(a: argparse.Namespace):
    from t5jax.commands.batch import JobOptions

    return JobOptions(
        workdir=a.run,
        step=a.step,
        ensemble=tuple(a.ensemble),
        batch_size=a.batch_size,
        output=a.output,
        overwrite=a.overwrite,
        shard=a.shard,
    )


def _inputs(a: argparse.Namespace, columns: tuple[str, ...]):
    from t5jax.inference.input_rows import InputFiles

    return InputFiles(
        paths=tuple(a.input), columns=columns, format=a.format, header=tuple(a.header)
    )


def _text_options_of(a: argparse.Namespace):
    from t5jax.inference import TextOptions

    return TextOptions(
        prefix=a.prefix,
        decoder_prefix=getattr(a, "decoder_prefix", ""),
        stop=tuple(getattr(a, "stop", ())),
        truncate_inputs=a.truncate_inputs,
    )


def _export(a: argparse.Namespace, flags: list[str]) -> None:
    from t5jax.commands import export

    export.run(
        a.run,
        a.target,
        flags,
        step=a.step,
        file_format=a.format,
        inputs_length=a.inputs_length,
        targets_length=a.targets_length,
        platforms=a.platforms,
    )


PREDICT = Command(
    "predict", "answer texts, or fill their blanks", _predict, "run", _predict_options,
    _PREDICT_EXAMPLES,
)  # fmt: skip
SCORE = Command(
    "score", "log-likelihood of targets given their inputs", _score, "run", _score_options,
    _SCORE_EXAMPLES,
)  # fmt: skip
EXPORT = Command("export", "a run as StableHLO or as a SavedModel", _export, "run", _export_options)
