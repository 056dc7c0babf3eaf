"""A config file and the flags of a command line -> RunConfig."""

import contextlib
import dataclasses
import difflib
import importlib.util
import pathlib
import re
import sys
import traceback
import typing
from collections.abc import Iterator
from typing import Any

from t5jax.checkpoints.path_kind import kind_of
from t5jax.config.field_types import check_types, walk
from t5jax.config.migration import migrated_flags, rename_hint
from t5jax.config.run_config import RunConfig
from t5jax.config.serialization import to_text
from t5jax.errors import ConfigError, message_of, missing_file
from t5jax.runtime import ExitCode

_PRIVATE = "t5jax_config_"  # begins the module names of files that cannot be imported by name


def load_config(path: str, flags: list[str] | None = None) -> RunConfig:
    """Runs the config file (a path, or a module's name), applies `--section.field value` flags and
    checks the result.

    Raises ConfigError (naming file, field, value and next step) on anything that does not fit.
    """
    config = read_config(path, flags)
    config.check()
    to_text(config)  # raises for what a saved run could not hold
    return config


def read_config(path: str, flags: list[str] | None = None) -> RunConfig:
    """The same without the check of what one section says with another, which may read the
    vocabulary's file."""
    config = _run_file(path)
    if not isinstance(config, RunConfig):
        raise ConfigError(f"{path}: config() returned {type(config).__name__}, not a RunConfig")
    check_types(config)
    return override(config, flags or [], program=f"t5jax train {path}")


def _run_file(path: str) -> Any:
    """What `config()` of the file returns. Its mistakes become ConfigErrors with file and line."""
    file, name = _find_file(path)
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is not a Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    if not name.startswith(_PRIVATE):
        sys.modules[name] = module  # `data.modules` may name the file itself
    with _mistakes_of(file):
        spec.loader.exec_module(module)
    if not callable(getattr(module, "config", None)):
        raise ConfigError(f"{path} defines no function `config() -> RunConfig`")
    with _mistakes_of(file):
        return module.config()


def _find_file(path: str) -> tuple[pathlib.Path, str]:
    """The config file of a path, or of a module's name (`t5jax.configs.quickstart`), and the name
    to run it under: the module's, so that tasks registered there are found by it (`__name__`)."""
    here = pathlib.Path.cwd()
    if str(here) not in sys.path:
        sys.path.insert(0, str(here))  # where the modules of data.modules are looked for, too
    file = pathlib.Path(path)
    if file.is_file():
        parts = file.absolute().with_suffix("").parts
        below = parts[len(here.parts) :] if parts[: len(here.parts)] == here.parts else ()
        if below and all(part.isidentifier() for part in below):
            return file, ".".join(below)
        return file, f"{_PRIVATE}{file.stem}"
    if file.is_dir() and not (file / "__init__.py").exists():
        raise ConfigError(f"{path} is a folder: {_of_folder(path)}")
    if all(part.isidentifier() for part in path.split(".")) and not path.endswith(".py"):
        spec = _find_spec(path)
        if spec is not None and spec.origin is not None:
            return pathlib.Path(spec.origin), path
    near = difflib.get_close_matches(path, map(str, pathlib.Path().glob("configs/**/*.py")))
    hint = f"; did you mean {near[0]}?" if near else ""
    raise missing_file(path, f"there is no config file {path}{hint}", ConfigError)


def _of_folder(path: str) -> str:
    """What to give in place of a folder where a config file is expected."""
    if (pathlib.Path(path) / "config.txt").is_file():
        return (
            "the workdir of a run, which its config file resumes: give that file (with --workdir "
            f"{path}, if it names another one)"
        )
    kind = kind_of(path)
    what = f"it {kind.is_a}; " if kind is not None else ""
    return f"{what}give a config file (a Python file, such as configs/quickstart.py)"


def _find_spec(name: str) -> Any:
    try:
        return importlib.util.find_spec(name)
    except (ModuleNotFoundError, ValueError):
        return None


@contextlib.contextmanager
def _mistakes_of(file: pathlib.Path) -> Iterator[None]:
    """Whatever goes wrong in a config file is the user's to mend: where, what, and a suggestion."""
    try:
        yield
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [f for f in frames if pathlib.Path(f.filename).absolute() == file.absolute()]
        line = error.lineno if isinstance(error, SyntaxError) else own[-1].lineno if own else None
        place = str(file) if line is None else f"{file}, line {line}"
        what = str(error) if isinstance(error, ConfigError) else message_of(error)
        hint = _did_you_mean(error)
        if hint:  # in the place of Python's own, which there is from 3.13 on
            what = re.sub(r"\. Did you mean '\w+'\?$", "", what)
        if not isinstance(error, ConfigError):
            what = f"{type(error).__name__}: {what}"
        raise ConfigError(f"{place}: {what}{hint}") from error


def _did_you_mean(error: Exception) -> str:
    """For a section that was given a field which it does not have, and for what was renamed."""
    if hint := rename_hint(error):
        return hint
    found = re.match(
        r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", message_of(error)
    )
    sections = {cls.__name__: cls for cls in _sections(RunConfig)}
    if found is None or found[1] not in sections:
        return ""
    fields = [field.name for field in dataclasses.fields(sections[found[1]])]
    near = difflib.get_close_matches(found[2], fields, n=1)
    return f"; did you mean {near[0]}?" if near else f"; it has {', '.join(fields)}"


def _sections(hint: Any) -> Iterator[Any]:
    """The dataclasses that a config can be made of."""
    for cls in (hint, *typing.get_args(hint)):
        if dataclasses.is_dataclass(cls):
            yield cls
            for inner in typing.get_type_hints(cls).values():
                yield from _sections(inner)


def override(config: RunConfig, flags: list[str], *, program: str) -> RunConfig:
    """The config with `--section.field value` applied.

    What does not fit is refused with a suggestion and an exit (SystemExit), as `--help` is.
    """
    import tyro

    keep_structure = (
        tyro.conf.AvoidSubcommands,  # an optimizer's fields can be set, not another optimizer
        tyro.conf.FlagConversionOff,  # booleans take True or False, like any other value
    )
    flags = migrated_flags(flags)
    try:
        new = tyro.cli(RunConfig, default=config, args=flags, prog=program, config=keep_structure)
    except SystemExit as end:
        # tyro has said what is wrong; its own exit code is 2.
        raise SystemExit(ExitCode.CONFIG if end.code else 0) from None
    _refuse_words_for_empty(new)
    return new


def _refuse_words_for_empty(config: RunConfig) -> None:
    """Raises ConfigError for a list whose only item is how somebody may spell an empty one."""
    for name, value, _ in walk(config, RunConfig):
        if value in [(word,) for word in ("", "()", "[]", "None")]:
            flag = name.replace("_", "-")
            raise ConfigError(
                f"{name} = {value!r}: to empty a list give --{flag} with nothing after it"
            )
