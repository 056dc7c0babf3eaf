"""t5jax tasks."""

import argparse

from t5jax.cli.command import SETTINGS, Command
from t5jax.home import expand_home

_EXAMPLES = """\
examples:
  t5jax tasks                                           all of them
  t5jax tasks --filter translate
  t5jax tasks super_glue_boolq_v102                     its description and settings
  t5jax tasks docstrings:prefix_lm --config configs/quickstart.py
  t5jax tasks my_task --config configs/mine.py --split validation --html my_task.html
  t5jax tasks all_mix                                   a mixture: sizes and rates
"""


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name",
        metavar="NAME",
        nargs="?",
        help="a task, a mixture, CORPUS:OBJECTIVE; default: all",
    )
    parser.add_argument(
        "--config",
        type=expand_home,
        help="config whose files, modules, vocabulary and lengths are used",
    )
    parser.add_argument(
        "--filter", metavar="TEXT", help="only what has TEXT in name or description"
    )
    parser.add_argument("--split", default="train", help="split of the examples (train)")
    parser.add_argument("--examples", type=int, default=3, help="number of examples to show (3)")
    parser.add_argument(
        "--scan", type=int, default=2000, help="number of examples to measure lengths on (2000)"
    )
    parser.add_argument(
        "--html",
        type=expand_home,
        metavar="FILE",
        help="write an HTML page: rows in colour, noise spans, plots",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _tasks(a: argparse.Namespace, flags: list[str]) -> None:
    from t5jax.commands.tasks import TasksOptions, tasks_command

    options = TasksOptions(
        split=a.split,
        num_examples=a.examples,
        scan=a.scan,
        html=a.html,
        filter_text=a.filter,
        as_json=a.json,
    )
    tasks_command(a.name, a.config, flags, options)


TASKS = Command(
    "tasks", "list tasks and mixtures; preview the examples of one", _tasks,
    options=_options, notes=f"{_EXAMPLES}\n{SETTINGS}",
)  # fmt: skip
