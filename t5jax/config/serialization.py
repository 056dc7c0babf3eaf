"""The effective config as text, and back."""

import ast
import dataclasses
import pathlib
import types
import typing
from collections.abc import Mapping
from typing import Any

from t5jax.config.run_config import RunConfig
from t5jax.data.vocabularies import keep, kept
from t5jax.errors import ConfigError


def to_text(config: RunConfig) -> str:
    """One `section.field = value` a line, as declared; a union's class as `section: Class`."""
    lines = []

    def visit(prefix: str, value: Any, hint: Any) -> None:
        if not dataclasses.is_dataclass(value):
            lines.append(f"{prefix} = {value!r}")
            return
        if prefix and _is_union(hint):
            lines.append(f"{prefix}: {type(value).__name__}")
        hints = typing.get_type_hints(type(value))
        for field in dataclasses.fields(value):
            if field.init:
                name = f"{prefix}.{field.name}" if prefix else field.name
                visit(name, getattr(value, field.name), hints[field.name])

    visit("", config, RunConfig)
    return "\n".join(lines) + "\n"


def describe_run(config: RunConfig) -> None:
    """Writes what a run is into its workdir: config.txt, for people, and the vocabulary's file,
    for `from_record`."""
    keep(config.data.vocabulary, config.workdir)
    workdir = pathlib.Path(config.workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / "config.txt").write_text(to_text(config))


def from_record(content: Mapping[str, Any], workdir: str) -> RunConfig:
    """The config in what a checkpoint of `workdir` says of its run, with the workdir's own copy of
    the vocabulary: its path was relative to where the run was started."""
    config = from_text(content["config"])
    found = kept(config.data.vocabulary, workdir, content["vocabulary"])
    config.data.vocabulary = found  # pyright: ignore[reportAttributeAccessIssue]
    return config


def from_text(text: str) -> RunConfig:
    """Inverse of `to_text`. Raises ConfigError on a line that fits no field."""
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

    def build(prefix: str, hint: Any) -> Any:
        options: list[Any] = [
            h for h in typing.get_args(hint) or (hint,) if dataclasses.is_dataclass(h)
        ]
        if not options or prefix in values:
            return values.pop(prefix)
        name = classes.pop(prefix, options[0].__name__)
        cls = next((c for c in options if c.__name__ == name), None)
        if cls is None:
            raise ConfigError(
                f"a saved config says {prefix}: {name}, which does not exist (any more)"
            )
        hints, arguments = typing.get_type_hints(cls), {}
        for field in dataclasses.fields(cls):
            path = f"{prefix}.{field.name}" if prefix else field.name
            if any(key == path or key.startswith(f"{path}.") for key in (*values, *classes)):
                arguments[field.name] = build(path, hints[field.name])
        try:
            return cls(**arguments)
        except TypeError as error:
            raise ConfigError(f"a saved config does not fit: {error}") from error

    config = build("", RunConfig)
    if values:
        raise ConfigError(f"a saved config has unknown fields: {', '.join(sorted(values))}")
    return config


def _is_union(hint: Any) -> bool:
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return False
    return sum(dataclasses.is_dataclass(h) for h in typing.get_args(hint)) > 1
