"""A sub-command of the command line: its name, its options and the function that runs it."""

import argparse
import inspect
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from t5jax.errors import ConfigError
from t5jax.paths import expand, local_path, run_folder, written_path

SETTINGS = """\
settings: any value of the config as --section.field VALUE, after everything else; a
list takes the words up to the next option, and none empty it (--data.validation-files);
`t5jax train CONFIG --help` lists them with their values
"""
SETTINGS_OF_A_RUN = """\
settings: any value of the run's config as --section.field VALUE, after everything else;
config.txt in WORKDIR lists them with their values
"""


class Command(NamedTuple):
    """A command, of one word or of a group and a word ("inspect data")."""

    name: str
    summary: str
    run: Callable[[argparse.Namespace, list[str]], int | None]  # arguments, settings -> exit code
    subject: Literal["config", "run"] | None = None  # its first argument: CONFIG or WORKDIR
    options: Callable[[argparse.ArgumentParser], None] = lambda parser: None
    notes: str = ""  # at the end of its help

    def add_to(self, commands) -> None:
        """Adds its parser to the sub-parsers `commands`."""
        settings = {"config": SETTINGS, "run": SETTINGS_OF_A_RUN, None: ""}[self.subject]
        parser = commands.add_parser(
            self.name.split()[-1], help=self.summary, description=f"{self.summary}.",
            epilog="\n".join(filter(None, (self.notes, settings))), allow_abbrev=False,
            add_help=False, formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        of_config = self.subject == "config"
        shown = "after a CONFIG file: its settings too" if of_config else "show this help"
        parser.add_argument("-h", "--help", action=_Help, nargs=0, help=shown)
        if of_config:
            config_option(parser)
        if self.subject == "run":
            workdir_option(parser)
        self.options(parser)
        parser.set_defaults(parser=parser, command=self, show_settings=False)


def _argument(understand: Callable[[str], str]) -> Callable[[str], str]:
    """The type of an argument that is a path; what is refused is an error of the command line."""

    def path_of(word: str) -> str:
        try:
            return understand(word)
        except ConfigError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return path_of


file_or_url = _argument(expand)
local_file = _argument(local_path)
file_or_bucket = _argument(written_path)
folder_of_run = _argument(run_folder)


def config_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config_file", type=local_file, metavar="CONFIG",
        help="Python file with config() -> RunConfig",
    )  # fmt: skip


def workdir_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "workdir",
        type=folder_of_run,
        metavar="WORKDIR",
        help="folder of a run, with its checkpoints",
    )
    parser.add_argument("--step", type=int, help="default: the newest good checkpoint")


def take_over_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--take-over", action="store_true",
        help="the process that is said to write there is dead: go on without waiting",
    )  # fmt: skip


def call(function: Callable[..., Any], a: argparse.Namespace, flags: list[str]) -> Any:
    """Calls a command with those of the options, and the settings `flags`, that it takes."""
    return function(**arguments_of(function, a, flags))


def arguments_of(
    function: Callable[..., Any], a: argparse.Namespace, flags: list[str] | None = None
) -> dict[str, Any]:
    """The options of the command line that a function or dataclass takes, by the names of its
    parameters; of an option that may be given several times a tuple."""
    given = {**vars(a), "flags": flags}
    names = inspect.signature(function).parameters.keys() & given.keys()
    several = lambda name: isinstance(given[name], list) and name != "flags"
    return {name: tuple(given[name]) if several(name) else given[name] for name in names}


class _Help(argparse.Action):
    """Prints a command's help; after a CONFIG its settings and their values follow."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        parser.print_help()
        if getattr(namespace, "config_file", None) is None:
            parser.exit()
        namespace.show_settings = True
