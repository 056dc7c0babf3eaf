"""Parses the command line, runs the sub-command, maps errors to exit codes."""

import argparse
import contextlib
import difflib
import os
import re
import sys
from collections.abc import Callable
from typing import NoReturn

from t5jax.cli.cache import CACHE
from t5jax.cli.convert import CONVERT
from t5jax.cli.evaluate import EVALUATE
from t5jax.cli.export import EXPORT
from t5jax.cli.inspect import INSPECT_DATA, INSPECT_MODEL, INSPECT_SHARDING
from t5jax.cli.merge import MERGE
from t5jax.cli.plan import PLAN
from t5jax.cli.predict import PREDICT
from t5jax.cli.refused_paths import check_outputs, check_workdir
from t5jax.cli.replay import REPLAY
from t5jax.cli.score import SCORE
from t5jax.cli.selftest import SELFTEST
from t5jax.cli.tasks import TASKS
from t5jax.cli.train import TRAIN
from t5jax.cli.vocab import EXTEND_VOCABULARY, GROW_VOCABULARY, TRAIN_VOCABULARY
from t5jax.version import __version__

DESCRIPTION = """\
Train, fine-tune and evaluate T5-family models in JAX on TPU and GPU meshes.
Every run is a Python config file; --section.field VALUE changes a value of it.
"""
EPILOG = """\
examples:
  python -m t5jax.data.docstring_corpus.rows runs/data/quickstart/text      its text
  t5jax cache configs/quickstart.py --new-vocabulary 2000    vocabulary and tokens, once
  t5jax cache configs/t5_1_1_base_c4.py --part 0/4    of an array job; then --finish
  t5jax train configs/quickstart.py --train.num-train-steps 2000
  t5jax train configs/quickstart.py --help          every setting, with its value
  t5jax evaluate runs/quickstart
  t5jax predict runs/quickstart "The <extra_id_0> of the array."
  t5jax predict runs/mine --input texts.jsonl --output answers.jsonl --decoding.num-beams 4
  t5jax score runs/mine --input pairs.tsv --output scores.jsonl
  t5jax replay runs/mine --step 1234      a step again, from its checkpoint, bit for bit
  t5jax inspect model configs/t5_1_1_base_c4.py
  t5jax inspect data configs/quickstart.py --step 100
  t5jax plan configs/t5_1_1_base_c4.py --topology v5e:4x8      before paying for it
  t5jax selftest configs/t5_1_1_base_c4.py --workdir DIR    hosts, network, disks, before the run
  t5jax convert flan-t5-small runs/flan_t5_small    from Hugging Face, T5X, Mesh TensorFlow
  t5jax convert runs/flan_t5_small out --to huggingface
"""
GROUPS = {
    "inspect": "look at a model or its data before a run",
    "vocab": "train, extend or grow a vocabulary",
}
COMMANDS = (
    TRAIN,
    EVALUATE,
    PREDICT,
    SCORE,
    REPLAY,
    EXPORT,
    MERGE,
    INSPECT_MODEL,
    INSPECT_DATA,
    INSPECT_SHARDING,
    PLAN,
    SELFTEST,
    CACHE,
    TRAIN_VOCABULARY,
    EXTEND_VOCABULARY,
    GROW_VOCABULARY,
    CONVERT,
    TASKS,
)


def main(argv: list[str] | None = None) -> int:
    """Runs the command that `argv` names; returns the exit code (see runtime.ExitCode)."""
    words, flags = split_flags(sys.argv[1:] if argv is None else argv)
    if _names_no_command(words):
        return _exit_code_of_usage()
    arguments, unknown = _parser().parse_known_args(words)
    if arguments.command is PREDICT:  # argparse overlooks texts that come after an option
        arguments.text += [word for word in unknown if not word.startswith("-")]
        unknown = [word for word in unknown if word.startswith("-")]
    if unknown:
        arguments.parser.error(
            f"unrecognized arguments: {' '.join(unknown)}\nvalues of the config are set with "
            "--section.field VALUE (or --workdir DIR); a config's --help lists them"
        )
    from t5jax.runtime.exits import run_guarded  # not before: it takes NumPy along

    run = _show_settings if arguments.show_settings else arguments.command.run
    return run_guarded(lambda: _run(run, arguments, flags))


def _run(run: Callable, arguments: argparse.Namespace, flags: list[str]) -> int | None:
    """Runs the command; where it misses a file that is there from another folder (that of the
    config file or of the run, or one above), the error says so; else which folder it looked in."""
    check_workdir(
        flags,
        getattr(arguments, "config_file", None),
        written=arguments.command in (TRAIN, SELFTEST),
    )
    check_outputs(arguments)
    try:
        return run(arguments, flags)
    except ValueError as error:
        path = getattr(error, "missing", None)
        if path is None:
            raise
        from t5jax.paths import seen_from, started_elsewhere

        named = [x for x in vars(arguments).values() if isinstance(x, str) and os.path.exists(x)]
        elsewhere = started_elsewhere(path, [os.path.dirname(x) for x in named])
        error.args = (f"{error}{elsewhere or seen_from(path)}",)
        raise


_FLAG = re.compile(r"--[A-Za-z][\w-]*(\.[\w-]+)+(=.*)?|--workdir(=.*)?", re.DOTALL)


def split_flags(words: list[str]) -> tuple[list[str], list[str]]:
    """(arguments of the command, the `--section.field VALUE ...` that change its config).

    Only workdir has no section. A setting takes the words after it up to the next option, because
    it may be a list; so a command's arguments come before the settings.
    """
    rest: list[str] = []
    flags: list[str] = []
    taking = False
    for place, word in enumerate(words):
        if word == "--":
            return rest + words[place:], flags
        if _FLAG.fullmatch(word):
            flags.append(word)
            taking = "=" not in word
        elif taking and not re.match(r"-(?![\d.])", word):
            flags.append(word)
        else:
            rest.append(word)
            taking = False
    return rest, flags


def _names_no_command(words: list[str]) -> bool:
    """Prints help, as git does, or the nearest command to a misspelt one; False if it is known."""
    group = words[0] if words and words[0] in GROUPS else ""
    program, rest = f"t5jax {group}".rstrip(), words[bool(group) :]
    if not rest:
        with contextlib.suppress(SystemExit):
            _parser().parse_args([*words, "--help"])
        return True
    starts = [command.name for command in COMMANDS if command.name.startswith(group)]
    names = {name.split()[-1 if group else 0] for name in starts}
    if rest[0] in names or rest[0].startswith("-"):
        return False
    near = difflib.get_close_matches(rest[0], names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"`{program} --help` lists them"
    print(f"{program}: {rest[0]!r} is not a command; {hint}", file=sys.stderr)
    return True


def _exit_code_of_usage() -> int:
    from t5jax.runtime.exits import ExitCode

    return ExitCode.CONFIG


class _Parser(argparse.ArgumentParser):
    """Ends with our exit code for a wrong command line; argparse's is 2."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(_exit_code_of_usage(), f"{self.prog}: error: {message}\n")


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = _Parser(
        "t5jax", description=DESCRIPTION, epilog=EPILOG, formatter_class=raw, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"t5jax {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    groups = {}
    for command in COMMANDS:
        group = command.name.rpartition(" ")[0]
        if group and group not in groups:
            groups[group] = _add_group(commands, group)
        command.add_to(groups[group] if group else commands)
    return parser


def _add_group(commands, name: str):
    summary = GROUPS[name]
    group = commands.add_parser(name, help=summary, description=f"{summary}.", allow_abbrev=False)
    return group.add_subparsers(required=True, metavar="COMMAND")


def _show_settings(a: argparse.Namespace, flags: list[str]) -> None:
    from t5jax.config import load_config, override

    program = f"{a.parser.prog} {a.config_file}"
    override(load_config(a.config_file, flags), ["--help"], program=program)
