"""Migration of saved configs and flags of earlier versions: what has other names now.

A saved config begins with `config_version = N`; those of t5jax 0.1 have no such line, and are
version 1. Who renames a section or a field raises VERSION and adds a line to RENAMED_FIELDS; a
class that a saved config names (`optimizer: Class`), to RENAMED_CLASSES; of a choice, to
RENAMED_VALUES. No old name is used again.
"""

import logging
import re
from typing import NamedTuple

from t5jax.errors import ConfigError, message_of

VERSION = 3  # of the text that is written now
_VERSION_LINE = re.compile(r"config_version = (\d+)")
_log = logging.getLogger("t5jax")


class Renamed(NamedTuple):
    """A name of a saved config, and the version from which it is another."""

    version: int
    old: str
    new: str


RENAMED_FIELDS = (Renamed(2, "reporting", "tracking"),)  # a section or a field: its dotted name
RENAMED_CLASSES = (Renamed(2, "ReportingConfig", "TrackingConfig"),)
RENAMED_VALUES = {"model.attention": (Renamed(3, "per_example", "rowwise"),)}  # by field

# Of modules that a config file imports: hints only.
RENAMED_MODULES = {
    "t5jax.acts": "t5jax.commands",
    "t5jax.exporting": "t5jax.export",
    "t5jax.prediction": "t5jax.inference",
    "t5jax.reporting": "t5jax.tracking",
    "t5jax.training.finetuning": "t5jax.training.peft",
}


def version_line() -> str:
    return f"config_version = {VERSION}\n"


def migrated_text(text: str) -> str:
    """The lines of a saved config of any version by the names of this one; says what it renamed.

    Raises ConfigError for text of a later version.
    """
    first, _, rest = text.partition("\n")
    found = _VERSION_LINE.fullmatch(first)
    version, lines = (int(found[1]), rest) if found else (1, text)
    if version > VERSION:
        raise ConfigError(
            f"the saved config has version {version}, and this t5jax reads those up to {VERSION}: "
            "install the t5jax that wrote it, or a later one"
        )
    renamed: dict[str, str] = {}
    migrated = "".join(_migrated_line(x, version, renamed) for x in lines.splitlines(True))
    _say("a saved config", renamed)
    return migrated


def migrated_flags(flags: list[str]) -> list[str]:
    """`--section.field VALUE ...` by the names of this version; says what it renamed."""
    renamed: dict[str, str] = {}
    result, field = [], ""
    for flag in flags:
        if flag.startswith("--"):
            field, *value = flag[2:].split("=", 1)
            field = _migrated_name(field.replace("-", "_"), 0, renamed) or field
            value = [_migrated_value(field, x, 0, renamed) for x in value]
            flag = "=".join([f"--{field}", *value])
        else:
            flag = _migrated_value(field, flag, 0, renamed)
        result.append(flag)
    _say("the command line", renamed)
    return result


def rename_hint(error: Exception) -> str:
    """What to write in a config file in place of a name that was renamed; '' if none was."""
    text = message_of(error)
    names = dict(RENAMED_MODULES) if isinstance(error, ImportError) else {}
    names |= {old: new for _, old, new in (*RENAMED_CLASSES, *RENAMED_FIELDS)}
    for old, new in names.items():
        if f"'{old.rpartition('.')[2] if 'argument' in text else old}'" in text:
            return f"; {old} has been renamed: write {new}"
    return ""


def _migrated_line(line: str, version: int, renamed: dict[str, str]) -> str:
    found = re.match(r"[\w.]+(?= = |: )", line)
    if found is None:
        return line
    name = _migrated_name(found[0], version, renamed) or found[0]
    rest = line[found.end() :]
    for since, old, new in RENAMED_CLASSES:
        if since > version and rest.rstrip("\n") == f": {old}":
            rest = rest.replace(old, new)
            renamed[old] = new
    value = re.fullmatch(r" = '(.*)'\n?", rest)
    if value:
        rest = rest.replace(value[1], _migrated_value(name, value[1], version, renamed))
    return name + rest


def _migrated_value(field: str, value: str, version: int, renamed: dict[str, str]) -> str:
    """The value of a field in this version."""
    for since, old, new in RENAMED_VALUES.get(field.replace("-", "_"), ()):
        if since > version and value == old:
            renamed[f"{field} {old}"] = new
            return new
    return value


def _migrated_name(name: str, version: int, renamed: dict[str, str]) -> str | None:
    """The name in this version; None if it has not changed."""
    before = name
    for since, old, new in RENAMED_FIELDS:
        if since > version and f"{name}.".startswith(f"{old}."):
            name = new + name[len(old) :]
            renamed[old] = new
    return None if name == before else name


def _say(where: str, renamed: dict[str, str]) -> None:
    if renamed:
        names = ", ".join(f"{old} is {new}" for old, new in renamed.items())
        _log.warning("%s has names of an earlier t5jax: %s now", where, names)
