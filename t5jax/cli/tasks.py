"""t5jax tasks."""

import argparse

from t5jax.cli.command import SETTINGS, Command, arguments_of, local_file

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
        "name", metavar="NAME", nargs="?",
        help="a task, a mixture, CORPUS:OBJECTIVE; default: all",
    )  # fmt: skip
    parser.add_argument(
        "--config", dest="config_file", type=local_file, metavar="CONFIG",
        help="config whose files, modules, vocabulary and lengths are used",
    )  # fmt: skip
    parser.add_argument(
        "--filter", dest="filter_text", metavar="TEXT",
        help="only what has TEXT in name or description",
    )  # fmt: skip
    parser.add_argument("--split", help="split of the examples (train, or what there is)")
    parser.add_argument(
        "--examples", dest="num_examples", metavar="EXAMPLES", type=int, default=3,
        help="number of examples to show (3)",
    )  # fmt: skip
    parser.add_argument(
        "--scan", type=int, default=2000, help="number of examples to measure lengths on (2000)"
    )
    parser.add_argument(
        "--html", type=local_file, metavar="FILE",
        help="write an HTML page: rows in colour, noise spans, plots",
    )  # fmt: skip
    parser.add_argument("--json", dest="as_json", action="store_true", help="print JSON")


def _tasks(a: argparse.Namespace, flags: list[str]) -> None:
    from t5jax.commands.tasks import TasksOptions, tasks_command

    options = TasksOptions(**arguments_of(TasksOptions, a))
    tasks_command(a.name, a.config_file, flags, options)


TASKS = Command(
    "tasks", "list tasks and mixtures; preview the examples of one", _tasks,
    options=_options, notes=f"{_EXAMPLES}\n{SETTINGS}",
)  # fmt: skip
