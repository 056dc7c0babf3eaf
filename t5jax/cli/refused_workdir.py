"""The workdir of a command line or of a config file, refused where no run can lie, before anything
is imported or contacted for it."""

import ast

from t5jax.paths import check_written_run, run_folder

# Setting -> the class that has it, and its name there.
_SETTINGS = {"workdir": ("RunConfig", "workdir"), "init.path": ("WarmStart", "path")}


def check_workdir(flags: list[str], config_file: str | None, *, written: bool) -> None:
    """Raises ConfigError for a workdir or init.path among the settings of the command line, or that
    the config file has as a plain text: a URL that no run can be read from, or `written` to."""
    for name, (cls, keyword) in _SETTINGS.items():
        path = _last(flags, f"--{name}")
        if path is None and config_file is not None:
            path = _written_in(config_file, cls, keyword)
        if path is not None:
            path = run_folder(path, name)
            if written and name == "workdir":
                check_written_run(path)


def _last(flags: list[str], option: str) -> str | None:
    """The value of an option where it is given last, `--option VALUE` or `--option=VALUE`."""
    found = None
    for place, word in enumerate(flags):
        if word == option and place + 1 < len(flags):
            found = flags[place + 1]
        elif word.startswith(f"{option}="):
            found = word.partition("=")[2]
    return found


def _written_in(config_file: str, cls: str, keyword: str) -> str | None:
    """The text that a Python file gives as `cls(keyword="...")`, where it calls it once."""
    try:
        with open(config_file, "rb") as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError):  # said, with more, by what reads the config
        return None
    calls = [x for x in ast.walk(tree) if isinstance(x, ast.Call) and _name(x.func) == cls]
    if len(calls) != 1:
        return None
    values = [x.value for x in calls[0].keywords if x.arg == keyword]
    texts = [x.value for x in values if isinstance(x, ast.Constant) and isinstance(x.value, str)]
    return texts[0] if texts else None


def _name(function: ast.expr) -> str | None:
    """`RunConfig` of `RunConfig` and of `t5jax.RunConfig`."""
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else None
