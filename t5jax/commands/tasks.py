"""`t5jax tasks [NAME] [--config CONFIG]`: lists tasks and mixtures, previews one."""

import dataclasses
import itertools
import json
import pathlib
import textwrap
from typing import Any

from t5jax.data import registry
from t5jax.data.config import DataConfig
from t5jax.data.inspect.catalog import Entry, entries, entry
from t5jax.data.objectives import OBJECTIVES
from t5jax.data.registry.corpora import CORPORA
from t5jax.data.tasks.mixture import Mixture
from t5jax.data.tasks.task import Task
from t5jax.data.vocabularies import ByteVocabulary
from t5jax.errors import ConfigError

# JAX (by way of t5jax.config) is needed with --config only, TensorFlow for tasks of seqio's only.

_COLUMNS = 100


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TasksOptions:
    """Command-line options."""

    split: str | None = None  # None: train, or what there is
    num_examples: int = 3
    scan: int = 2000
    html: str | None = None
    filter_text: str | None = None
    as_json: bool = False

    def check(self, name: str | None, config_file: str | None, flags: list[str]) -> None:
        """Raises ConfigError for impossible values and for options without an effect."""
        for option, value in (("--examples", self.num_examples), ("--scan", self.scan)):
            if value < 1:
                raise ConfigError(f"{option} {value}: at least 1")
        if config_file is None and flags:
            raise ConfigError(f"{flags[0]} changes a config: name one with --config CONFIG")
        if name is None and self.html:
            raise ConfigError("--html shows one task: name it, t5jax tasks NAME --html FILE")
        if name is not None and self.filter_text:
            raise ConfigError(f"--filter chooses among all tasks: leave it out, or {name}")
        if self.html and self.as_json:
            raise ConfigError("--html and --json: choose one of them")


def tasks_command(
    name: str | None, config_file: str | None, flags: list[str], options: TasksOptions
) -> None:
    options.check(name, config_file, flags)
    data = _data(name, config_file, flags)
    if name is None:
        _list(data, options)
        return
    found = registry.find(name, data)
    if isinstance(found, Mixture):
        _show_mixture(found, data, options)
    elif config_file is not None:
        _show_task(found, data, options)
    elif options.html:
        raise ConfigError(f"--html shows rows of {name}: add --config CONFIG, which says how long")
    else:
        _describe(entry(found), options)


def _data(name: str | None, config_file: str | None, flags: list[str]) -> DataConfig:
    """The config's data section; without a config one that only serves to look names up.

    What the section says is not held against the task yet: it may be that of a mixture which the
    task is part of. `preview` checks it for the task.
    """
    if config_file is None:
        return DataConfig(mixture=name or "none", vocabulary=ByteVocabulary(), cache_dir=None)
    from t5jax.config import load_config, override

    of_name = [] if name is None else ["--data.mixture", name]
    return override(load_config(config_file), [*flags, *of_name], program="t5jax tasks").data


def _show_task(task: Task, data: DataConfig, options: TasksOptions) -> None:
    from t5jax.data.inspect import task_report
    from t5jax.data.inspect.task_preview import preview

    shown = preview(
        task, data, split=options.split, num_examples=options.num_examples, scan=options.scan
    )
    if options.as_json:
        print(_json({**dataclasses.asdict(task_report.entry_of(shown)), **shown.numbers()}))
    elif options.html:
        from t5jax.data.inspect import task_page

        _write(options.html, task_page.task_page(shown))
    else:
        print(task_report.task_report(shown), end="")
    shown.check_spelling()


def _show_mixture(mixture: Mixture, data: DataConfig, options: TasksOptions) -> None:
    from t5jax.data.inspect import task_report
    from t5jax.data.inspect.mixture_preview import preview_mixture

    shown = preview_mixture(mixture, data)
    if options.as_json:
        about = dataclasses.asdict(entry(mixture))
        stages = [{"from_step": s.from_step, "share_of_examples": s.shares} for s in shown.stages]
        print(_json({**about, "sizes": shown.sizes, "stages": stages, "missing": shown.missing}))
    elif options.html:
        from t5jax.data.inspect import task_page

        _write(options.html, task_page.mixture_page(shown))
    else:
        print(task_report.mixture_report(shown), end="")


def _describe(about: Entry, options: TasksOptions) -> None:
    from t5jax.data.inspect import task_report

    if options.as_json:
        print(_json(dataclasses.asdict(about)))
        return
    print(task_report.entry_report(about), end="")
    print(f"\n`t5jax tasks {about.name} --config CONFIG` shows its examples, lengths and rows")


def _write(path: str, page: str) -> None:
    try:
        pathlib.Path(path).write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--html {path}: cannot be written ({error.strerror})") from error
    print(f"{path}: {len(page.encode()) / 1e3:,.0f} kB, open it with a browser")


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)


# ---- the list


def _list(data: DataConfig, options: TasksOptions) -> None:
    wanted = (options.filter_text or "").lower()
    found = [one for one in entries(data) if wanted in _searched(one)]
    if not found:
        raise ConfigError(f"--filter {options.filter_text}: no task or mixture has that text")
    if options.as_json:
        print(_json([dataclasses.asdict(one) for one in found]))
        return
    for group, members in itertools.groupby(found, key=lambda one: one.group):
        print(group)
        for one in members:
            _print_entry(one)
        print()
    if not wanted:
        _print_grammar()
    print("t5jax tasks NAME                    its description and settings")
    print(
        "t5jax tasks NAME --config CONFIG    its examples, lengths, truncation; --html FILE: a page"
    )


def _searched(one: Entry) -> str:
    words = (one.name, one.group, one.description, one.input_format, one.objective or "")
    return " ".join((*words, *one.metrics)).lower()


def _print_entry(one: Entry) -> None:
    size = "" if not one.num_examples else f"{one.num_examples:,}"
    measured = ", ".join(one.metrics) or one.objective or ""
    if one.tasks:
        measured = f"{len(one.tasks)} tasks"
    print(f"  {one.name:46s} {size:>11s}  {measured}".rstrip())
    about = one.description
    if one.input_format:
        about += f" · {one.input_format}"
    if about:
        print(f"      {textwrap.shorten(about, _COLUMNS - 6, placeholder=' …')}")


def _print_grammar() -> None:
    print("any objective over any corpus: CORPUS:OBJECTIVE, e.g. c4:prefix_lm, jsonl:iid_15_u_u,")
    print("text:span_3_50_u_u (mask, percent hidden, code of inputs and of targets), c4:ul2")
    for what, names in (("corpora", CORPORA), ("objectives", [*OBJECTIVES, "ul2"])):
        indent = " " * 14
        print(textwrap.fill(f"  {what:12s}{', '.join(names)}", _COLUMNS, subsequent_indent=indent))
    print()
