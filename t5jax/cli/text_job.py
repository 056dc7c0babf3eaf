"""Options that `t5jax predict` and `t5jax score` share: input, texts, model, output."""

import argparse

from t5jax.cli.command import file_or_bucket, take_over_option


def input_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--input", metavar="FILE", action="append", default=[],
        help="file or pattern, may be given several times; .jsonl, .json, .tsv, .csv, or a text a "
        "line; also gzip or zstd; - is standard input",
    )  # fmt: skip
    parser.add_argument(
        "--format", metavar="F", help="text, jsonl, tsv or csv; default: by the file's name"
    )
    parser.add_argument(
        "--column", metavar="NAME", default="input", help="column of the inputs (input)"
    )
    parser.add_argument(
        "--header", metavar="NAME", nargs="+", default=[],
        help="columns of a table whose first line does not name them",
    )  # fmt: skip


def text_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prefix", metavar="TEXT", default="", help="text put before every input")
    parser.add_argument(
        "--truncate-inputs", metavar="TOKENS", type=int,
        help="truncate longer inputs; default: read them whole",
    )  # fmt: skip


def model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ensemble", metavar="WORKDIR[@STEP]", action="append", default=[],
        help="average the logits with those of another checkpoint; may be given several times",
    )  # fmt: skip
    parser.add_argument("--batch-size", type=int, default=32, help="rows of a batch (32)")


def output_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output",
        type=file_or_bucket,
        metavar="FILE",
        help="JSON lines, on a disk or gs://BUCKET/FILE; an interrupted job is resumed",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing FILE")
    parser.add_argument(
        "--shard", metavar="I/N", help="only rows I, I + N, …, into FILE-0000I-of-0000N"
    )
    take_over_option(parser)


def inputs_of(a: argparse.Namespace, columns: tuple[str, ...]):
    from t5jax.inference.input_rows import InputFiles

    return InputFiles(
        paths=tuple(a.input), columns=columns, format=a.format, header=tuple(a.header)
    )
