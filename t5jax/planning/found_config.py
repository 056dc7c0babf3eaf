"""A config file that a search writes: the original with the layout that was found."""

import datetime
import os
import pathlib

from t5jax.data.atomic_files import write_file
from t5jax.errors import ConfigError
from t5jax.planning.search import SearchResult, Trial

_TEMPLATE = '''\
"""{title}: the layout that `t5jax plan --search` found for {topology}.

Command:   t5jax train {name}
Hardware:  {topology}, {chips} chips: {layout}
Predicted: {ms:.1f} ms a step, MFU {mfu:.1%}, {memory:.2f} of {hbm:.2f} GB a device{days}; compiled
           on {date} and not run
"""

{imports}from t5jax.config import RunConfig, read_config

ORIGINAL = {original}
FLAGS = {flags!r}


def config() -> RunConfig:
    run = read_config(ORIGINAL, FLAGS)
{settings}
    return run
'''


def write_found_config(file: str, config_file: str, flags: list[str], result: SearchResult) -> None:
    """Writes a Python file whose config is that of `config_file` and `flags` in the best layout.

    It names the original by a path relative to itself (a module by its name). Raises ConfigError
    where nothing fits, and for a name that is no Python file's.
    """
    check_found_config(file, config_file)
    best = result.best
    if best is None:
        raise ConfigError(f"--write {file}: nothing that was compiled fits; nothing was written")
    path = pathlib.Path(file)
    path.absolute().parent.mkdir(parents=True, exist_ok=True)
    write_file(path, _text(path, config_file, flags, result, best).encode())


def check_found_config(file: str, config_file: str) -> None:
    """Raises ConfigError for a file that could not be the config, before anything is compiled."""
    path = pathlib.Path(file)
    if path.suffix != ".py":
        raise ConfigError(f"--write {file}: a config is a Python file; give a name in .py")
    original = pathlib.Path(config_file)
    if path.exists() and original.exists() and path.samefile(original):
        raise ConfigError(f"--write {file}: that is the config itself; give another name")


def _text(
    path: pathlib.Path, config_file: str, flags: list[str], result: SearchResult, best: Trial
) -> str:
    original = pathlib.Path(config_file)
    imports, where = "", repr(config_file)
    if original.is_file():
        relative = os.path.relpath(original.absolute(), path.absolute().parent)
        imports = "import pathlib\n\n"
        where = f"str(pathlib.Path(__file__).absolute().parent / {relative!r})"
    plan = best.plan
    assert plan is not None
    settings = (f"    run.{name} = {value!r}" for name, value in best.candidate.settings.items())
    days = "" if plan.get("days") is None else f", {plan['days']:.2f} days"
    return _TEMPLATE.format(
        title=original.stem,
        topology=result.topology,
        name=path.name,
        chips=result.topology.num_chips,
        layout=best.candidate,
        ms=plan["step_seconds"] * 1e3,
        mfu=plan["mfu"],
        memory=plan["memory_gb"],
        hbm=plan["hbm_gb"],
        days=days,
        date=datetime.date.today().isoformat(),
        imports=imports,
        original=where,
        flags=flags,
        settings="\n".join(settings),
    )
