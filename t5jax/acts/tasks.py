"""`t5jax tasks [TASK] [--config CONFIG]`: what can be trained on, and examples of it."""

from t5jax.config import load
from t5jax.data.config import DataConfig
from t5jax.data.tasks.builtin import BUILTIN_TASKS
from t5jax.data.tasks.registry import TaskRow, list_tasks, preview
from t5jax.errors import ConfigError

# seqio and TensorFlow are needed for a task of the user's and for examples only; a list of the
# built-in tasks comes without them.


def run(
    name: str | None, config_file: str | None, flags: list[str], *, split: str, num_examples: int
) -> None:
    if config_file is None:
        if flags:
            raise ConfigError(f"{flags[0]} changes a config: name one with --config CONFIG")
        _print_tasks(list_tasks(), name)
    elif name is None:
        _print_tasks(list_tasks(load(config_file, flags).data.modules), name)
    else:
        data = load(config_file, [*flags, "--data.mixture", name]).data
        _print_tasks(list_tasks(data.modules), name)
        _print_examples(data, split, num_examples)
    if name is None:
        print(
            "\n`t5jax tasks TASK --config CONFIG` shows examples. A task of your own: register it"
        )
        print("with seqio in a module, and name that in data.modules of a config.")


def _print_tasks(rows: list[TaskRow], name: str | None) -> None:
    chosen = [row for row in rows if name in (None, row.name)]
    if not chosen:
        raise ConfigError(
            f"no task {name!r}; there are {', '.join(row.name for row in rows)}; --config CONFIG "
            "adds the tasks of the modules in data.modules"
        )
    for row in chosen:
        print(row.name)
        for what, value in _description(row).items():
            print(f"  {what:10s} {value}")


def _description(row: TaskRow) -> dict[str, str]:
    described = {"text": row.source, "splits": ", ".join(row.splits), "objective": row.objective}
    task = BUILTIN_TASKS.get(row.name)
    if task is None:
        return {**described, "vocabulary": row.vocabulary}
    optional = [field for field in task.settings if field not in task.required]
    settings = [f"data.{field}" for field in task.required]
    settings += [f"data.{field} (optional)" for field in optional]
    return {**described, "settings": ", ".join(settings) or "none"}


def _print_examples(data: DataConfig, split: str, num_examples: int) -> None:
    if num_examples < 1:
        raise ConfigError(f"--examples {num_examples}: at least 1")
    print()
    for number, example in enumerate(preview(data, split=split, num_examples=num_examples)):
        print(f"example {number} of {split}")
        for name, ids, text in (
            ("inputs", example.inputs, example.inputs_text),
            ("targets", example.targets, example.targets_text),
        ):
            in_one_line = text.replace("\n", "\\n")
            print(f"  {name:7s} {len(ids):4d} tokens  {in_one_line}")
