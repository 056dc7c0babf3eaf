"""A check of the self-test, the table of all of them, and what all hosts say of one."""

import dataclasses
import enum
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from t5jax.errors import message_of, writing
from t5jax.runtime import ExitCode, gather_texts
from t5jax.runtime.exits import exit_code


class Outcome(enum.StrEnum):
    OK = "ok"
    WARNING = "warning"  # a run works, and not as well as it should
    FAILED = "FAILED"
    LEFT_OUT = "left out"  # there was nothing to check


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """What one check found: a line of the table."""

    name: str
    outcome: Outcome = Outcome.OK
    value: str
    code: int = ExitCode.DONE  # what a run would end with, where it failed
    numbers: Mapping[str, float] = dataclasses.field(default_factory=dict)  # for programs

    def __str__(self) -> str:
        return f"{self.outcome:<9} {self.name:<20} {self.value}"


class Table:
    """The checks of a self-test, printed line by line by the first host."""

    def __init__(self, *, prints: bool):
        self.checks: list[Check] = []
        self._prints = prints

    def extend(self, checks: Iterable[Check]) -> None:
        for check in checks:
            self.checks.append(check)
            if self._prints:
                print(check, flush=True)

    @property
    def failed(self) -> list[Check]:
        return [check for check in self.checks if check.outcome is Outcome.FAILED]

    @property
    def code(self) -> int:
        """The code of the first check that failed, or 0."""
        return int(next((check.code for check in self.failed), ExitCode.DONE))

    @property
    def summary(self) -> str:
        return f"{len(self.failed) or 'none'} of {len(self.checks)} checks failed"

    def write(self, file: str | os.PathLike[str]) -> None:
        """The table as JSON: `exit_code`, and `checks` with name, outcome, value, numbers."""
        rows = [
            {
                "name": check.name,
                "outcome": str(check.outcome),
                "value": check.value,
                "numbers": dict(check.numbers),
            }
            for check in self.checks
        ]
        with writing(file):
            pathlib.Path(file).write_text(
                json.dumps({"exit_code": self.code, "checks": rows}, indent=1) + "\n",
                encoding="utf-8",
            )


class HostFailed(Exception):
    """What a check ran into on some hosts, the same on all: an exit code and a message."""

    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.code = code


def on_every_host(function: Callable[[], Any]) -> list[Any]:
    """What the function returns on each host (as JSON holds it), by process index.

    The function must not wait for another host: where it raises, the others still answer.

    Raises HostFailed: on every host, with the first host that failed and its exit code.
    """
    try:
        answer = {"found": function()}
    except Exception as error:
        answer = {"code": int(exit_code(error)), "message": message_of(error)}
    answers = [json.loads(text) for text in gather_texts(json.dumps(answer))]
    for host, each in enumerate(answers):
        if "message" in each:
            raise HostFailed(each["code"], f"host {host} of {len(answers)}: {each['message']}")
    return [each["found"] for each in answers]


def failed(name: str, code: int, value: str) -> Check:
    return Check(name=name, outcome=Outcome.FAILED, value=value, code=code)
