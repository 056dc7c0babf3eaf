"""t5jax vocab train, extend and grow."""

import argparse

from t5jax.cli.command import (
    SETTINGS,
    Command,
    arguments_of,
    call,
    file_or_url,
    local_file,
    workdir_option,
)


def _train_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--num-pieces", type=int, default=32_000,
        help="number of pieces, sentinels not counted (32 000)",
    )  # fmt: skip
    parser.add_argument(
        "--max-characters", type=int, default=100_000_000,
        help="characters of text to train on (100 000 000)",
    )  # fmt: skip
    parser.add_argument(
        "--character-coverage", type=float, default=0.9995,
        help="share of the text's characters that get pieces (0.9995)",
    )  # fmt: skip
    parser.add_argument(
        "--byte-fallback", action="store_true", help="spell the other characters as bytes"
    )


def _extend_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", type=file_or_url, metavar="FILE", help="SentencePiece model, or t5, mt5, umt5"
    )
    parser.add_argument(
        "-o", "--output", type=local_file, required=True, metavar="OUT", help="the new model"
    )
    parser.add_argument("--extra-ids", type=int, help="sentinels on top of FILE (100)")
    parser.add_argument(
        "--pieces", nargs="+", default=[], metavar="PIECE",
        help=r"texts that become one id each, taken literally; \n and \t are understood",
    )  # fmt: skip
    parser.add_argument(
        "--pieces-file", type=local_file, metavar="FILE", help="the same, one per line"
    )
    parser.add_argument(
        "--from",
        type=local_file,
        dest="source",
        metavar="CONFIG",
        help="learn pieces from its text",
    )
    parser.add_argument("--num-pieces", type=int, help="number of pieces to learn")
    parser.add_argument(
        "--max-characters", type=int, default=20_000_000,
        help="characters of text to learn from (20 000 000)",
    )  # fmt: skip


def _grow_options(parser: argparse.ArgumentParser) -> None:
    workdir_option(parser)
    parser.add_argument(
        "config_file", type=local_file, metavar="CONFIG",
        help="of the new run: extended vocabulary, larger table",
    )  # fmt: skip


def _train(a: argparse.Namespace, flags: list[str]) -> None:
    from t5jax.commands.vocab import vocab_train_command

    call(vocab_train_command, a, flags)


def _extend(a: argparse.Namespace, flags: list[str]) -> None:
    from t5jax.commands.vocab import vocab_extend_command

    arguments = arguments_of(vocab_extend_command, a, flags)
    vocab_extend_command(**arguments, config_file=a.source)


def _grow(a: argparse.Namespace, flags: list[str]) -> None:
    from t5jax.commands.vocab import vocab_grow_command

    call(vocab_grow_command, a, flags)


TRAIN_VOCABULARY = Command(
    "vocab train", "train a T5-compatible SentencePiece model on a config's text", _train, "config",
    _train_options,
)  # fmt: skip
EXTEND_VOCABULARY = Command(
    "vocab extend", "add pieces to a SentencePiece model; the old ids stay", _extend,
    options=_extend_options, notes=SETTINGS,
)  # fmt: skip
GROW_VOCABULARY = Command(
    "vocab grow", "begin a run with another run's parameters and an extended vocabulary", _grow,
    options=_grow_options, notes=SETTINGS,
)  # fmt: skip
