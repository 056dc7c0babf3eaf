"""The effective config as text, and back."""

import ast
import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from t5jax.buckets import run_files
from t5jax.config.field_types import is_section, is_section_list, sections_of, walk
from t5jax.config.migration import migrated_text, version_line
from t5jax.config.run_config import RunConfig
from t5jax.data.modules import import_named, import_path
from t5jax.data.vocabularies import save_vocabulary, saved_vocabulary
from t5jax.errors import ConfigError, user_code, writing


def to_text(config: RunConfig) -> str:
    """The version, then one `section.field = value` a line, as declared; which class, as `section:
    Class`, where the field may hold several. A user's class or function is named by its import
    path.

    Raises ConfigError for what could not be read back.
    """
    lines = []
    for name, value, hint in walk(config, RunConfig):
        if is_section(value) or callable(value):
            lines += [f"{name}: {cls}" for cls in _class_names(name, value, hint)]
        elif not is_section_list(hint):
            lines.append(f"{name} = {_literal(name, value)}")
    return version_line() + "\n".join(lines) + "\n"


def _class_names(name: str, value: Any, hint: Any) -> list[str]:
    """What says which class a section has: nothing where there is no other."""
    cls, known = type(value) if is_section(value) else value, sections_of(hint)
    if cls in known:
        return [cls.__name__] if len(known) > 1 else []
    try:
        return [import_path(cls)]
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error


def _literal(name: str, value: Any) -> str:
    text = repr(value)
    try:
        if ast.literal_eval(text) == value:
            return text
    except (ValueError, SyntaxError):
        pass
    raise ConfigError(
        f"{name} = {text}: a saved config can hold numbers, strings, True, False, None and tuples, "
        "lists, dicts of them"
    )


def describe_run(config: RunConfig) -> None:
    """Writes what a run is into its workdir: config.txt, for people, and the vocabulary's file,
    for `from_record`."""
    files = run_files(config.workdir)
    files.folder.mkdir(parents=True, exist_ok=True)
    save_vocabulary(config.data.vocabulary, files.folder)
    with writing(files.folder / "config.txt"):
        (files.folder / "config.txt").write_text(to_text(config))
    files.upload()


def from_record(content: Mapping[str, Any], workdir: str) -> RunConfig:
    """The config in what a checkpoint of `workdir` says of its run, with the workdir's own copy of
    the vocabulary: its path was relative to where the run was started."""
    config = from_text(content["config"])
    files = run_files(workdir)
    if config.data.vocabulary.file_name is not None:
        files.fetch(config.data.vocabulary.file_name)
    found = saved_vocabulary(config.data.vocabulary, files.folder, content["vocabulary"])
    config.data.vocabulary = found  # pyright: ignore[reportAttributeAccessIssue]
    return config


def from_text(text: str) -> RunConfig:
    """Inverse of `to_text`, for text of earlier versions, too.

    Raises ConfigError on a line that fits no field, and for a class of a user's module that cannot
    be imported here.
    """
    values, classes = _parsed(migrated_text(text))
    config = _built("", RunConfig, values, classes)
    if left := sorted((*values, *classes)):
        raise ConfigError(f"a saved config has unknown fields: {', '.join(left)}")
    return config


def _parsed(text: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Values by field, and names of classes by section."""
    values, classes = {}, {}
    for number, line in enumerate(text.splitlines(), 1):
        if " = " in line:
            name, literal = line.split(" = ", 1)
            try:
                values[name] = ast.literal_eval(literal)
            except (ValueError, SyntaxError) as error:
                raise ConfigError(f"line {number} of a saved config: {line!r}: {error}") from error
        elif ": " in line:
            name, classes[name] = line.split(": ", 1)
        elif line.strip():
            raise ConfigError(f"line {number} of a saved config is not `field = value`: {line!r}")
    return values, classes


def _built(name: str, hint: Any, values: dict[str, Any], classes: dict[str, str]) -> Any:
    """The value of a field, whose lines are taken out of both dicts."""
    if name in values:
        return values.pop(name)
    if is_section_list(hint):
        items = []
        while f"{name}.{len(items)}" in classes:
            items.append(_built(f"{name}.{len(items)}", typing.get_args(hint)[0], values, classes))
        return tuple(items)
    cls = _class(name, hint, classes.pop(name, None))
    if not isinstance(cls, type) or not dataclasses.is_dataclass(cls):
        return cls  # a function
    hints, arguments = typing.get_type_hints(cls), {}
    for field in dataclasses.fields(cls):
        path = f"{name}.{field.name}" if name else field.name
        if any(key == path or key.startswith(f"{path}.") for key in (*values, *classes)):
            arguments[field.name] = _built(path, hints[field.name], values, classes)
    try:
        with user_code(cls, "class", f"a saved config, {name}"):
            return cls(**arguments)
    except TypeError as error:
        raise ConfigError(f"a saved config does not fit: {error}") from error


def _class(name: str, hint: Any, saved: str | None) -> Any:
    """The class of a section (or the function that a field holds), from its name in the text."""
    known = {cls.__name__: cls for cls in sections_of(hint)}
    if saved is None and known:
        return next(iter(known.values()))
    if saved in known:
        return known[saved]
    if saved is None or "." not in saved:
        raise ConfigError(f"a saved config says {name}: {saved}, which does not exist (any more)")
    return import_named(saved, f"{name} of a saved config")
