"""t5jax export."""

import argparse

from t5jax.cli.command import Command, call, file_or_bucket


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target", type=file_or_bucket, metavar="TARGET", help="a new folder, or gs://BUCKET/FOLDER"
    )
    formats = ("stablehlo", "savedmodel")
    parser.add_argument("--format", dest="file_format", choices=formats, default="stablehlo")
    parser.add_argument(
        "--inputs-length", type=int, help="input length in tokens (default: data.inputs_length)"
    )
    parser.add_argument(
        "--targets-length", type=int,
        help="target length in tokens, to score (default: decoding.max_length)",
    )  # fmt: skip
    parser.add_argument(
        "--platforms", nargs="+", default=["cpu", "cuda", "tpu"], metavar="P",
        help="platforms to compile for (cpu cuda tpu)",
    )  # fmt: skip


def _export(a: argparse.Namespace, flags: list[str]) -> None:
    from t5jax.commands.export import export_command

    call(export_command, a, flags)


EXPORT = Command("export", "export a run as StableHLO or SavedModel", _export, "run", _options)
