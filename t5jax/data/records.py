"""Records of sources: rows of columns, and records that cannot be read.

A source never drops anything: a broken record is yielded as a `BadRecord` beside the good ones, and
`BadRecordPolicy.accept` applies the config's policy (raise, or leave out and count).
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from t5jax.errors import TRACEBACK_HINT, CheckpointError, ConfigError, DataError, failure

POLICIES = ("error", "skip")
MAX_RECORD_BYTES = 64 << 20  # a line of 100 GB is refused before it fills the memory
_PLACES_KEPT = 10


def counted(number: int, noun: str) -> str:
    """`1 record`, `2,000 records`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


class Row(dict[str, Any]):
    """The columns of one record by name, and its place: `file, line 3`.

    Values are str, int, float, bytes, None, or lists and dicts of them (strings are decoded).
    """

    __slots__ = ("place",)

    def __init__(self, columns: dict[str, Any], place: str):
        super().__init__(columns)
        self.place = place

    def __missing__(self, column: str) -> Any:
        shown = ", ".join(sorted(str(name)[:40] for name in self)[:10])
        raise BadColumn(f"no column {column!r}; there are {shown}")

    def text(self, column: str) -> str:
        """The string under a column. Raises BadColumn when it is absent or no string."""
        value = self[column]
        if not isinstance(value, str):
            raise BadColumn(f"column {column!r} is {type(value).__name__}, not a string")
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as error:  # JSON can escape what no tokeniser can encode
                raise BadColumn(f"column {column!r} holds half of a surrogate pair") from error
        return value

    def class_name(self, column: str, names: Sequence[str]) -> str:
        """The name of a row's class: under the column stands its number (`1`, also as text), or
        itself. Raises BadColumn for anything else, and for -1, by which many data sets mean a label
        that is not known: in Python it would be the last of the names."""
        value = self[column]
        if isinstance(value, str) and value in names:
            return value
        try:
            number = int(value)
        except (TypeError, ValueError, OverflowError):
            number = None
        if (
            number is not None
            and 0 <= number < len(names)
            and (isinstance(value, str) or value == number)
        ):
            return names[number]
        shown = ", ".join(names[:10])
        raise BadColumn(
            f"column {column!r} is {value!r}: neither one of {shown} nor a number from 0 to "
            f"{len(names) - 1}"
        )


class BadColumn(DataError):
    """A row lacks what a task needs of it; becomes a `BadRecord` at the row's place."""


@dataclasses.dataclass(frozen=True, slots=True)
class BadRecord:
    """A record that cannot be used: where it stands, why, and the exception that said so."""

    place: str
    reason: str
    cause: BaseException | None = dataclasses.field(default=None, compare=False, repr=False)

    @staticmethod
    def from_failure(place: str, error: BaseException, what: str) -> "BadRecord":
        """Of a record on which code that is not t5jax's own failed. Raises the errors that no
        policy leaves out: those of settings, with the place."""
        if isinstance(error, ConfigError | CheckpointError):
            error.args = (f"{place}: {error}",)
            raise error
        return BadRecord(place, failure(error, what), error)

    def error(self) -> DataError:
        """What the policy "error" raises."""
        raised = DataError(f"{self.place}: {self.reason}")
        if self.cause is not None and not isinstance(self.cause, DataError):
            raised.add_note(TRACEBACK_HINT)
        raised.__cause__ = self.cause
        return raised


Record = Row | BadRecord


class DamagedFile(DataError):
    """A file that cannot be read to its end (cut short, lost framing): what follows is lost."""


class Source(Protocol):
    """Rows in shards that several processes or hosts can read at the same time.

    Deterministic: the same source gives the same shards in the same order and the same records in
    each, in every process. Picklable. A missing file, an empty one, an unknown split raise
    `DataError`; a file that breaks off raises `DamagedFile` where it does.

    A source may also have `shard_fingerprint(split, shard) -> str` (size and time, a checksum): a
    cached copy of the shard is then made again when its source changed. And `VERSION`, to be raised
    when it gives other rows of the same data: a tokenised store of the old rows is then refused.
    And `with_columns(columns) -> Source`, the same rows with these columns alone, where leaving the
    others unread is cheaper (`with_columns`).
    """

    def splits(self) -> tuple[str, ...]:
        """Names of the splits that exist."""
        ...

    def shards(self, split: str) -> list[str]:
        """Names of the parts of a split; every record is in exactly one of them."""
        ...

    def records(self, split: str, shard: str) -> Iterator[Record]:
        """The records of one shard, in their order."""
        ...


def with_columns(source: Source, columns: Sequence[str]) -> Source:
    """The source, reading these columns alone if it can; () are all."""
    choose = getattr(source, "with_columns", None)
    return choose(columns) if choose is not None and columns else source


@dataclasses.dataclass(slots=True)
class Rejected:
    """What was left out of a shard: how many records, and where the first of them stand.

    `dropped` is what a source's own rules took out (cleaning), by rule; that is not an error.
    """

    records: int = 0
    damaged_files: int = 0
    places: list[str] = dataclasses.field(default_factory=list)
    dropped: dict[str, int] = dataclasses.field(default_factory=dict)

    def add(self, place: str, reason: str) -> None:
        self.records += 1
        self._keep(f"{place}: {reason}")

    def add_file(self, message: str) -> None:
        self.damaged_files += 1
        self._keep(message)

    def __str__(self) -> str:
        """`2 records left out, the first: a.jsonl, line 3: …`; "" where nothing was."""
        files = f" and {counted(self.damaged_files, 'file')} broken off" * bool(self.damaged_files)
        if not self.places:
            return ""
        first = self.places[0]
        return f"{counted(self.records, 'record')} left out{files}, the first: {first}"

    def _keep(self, line: str) -> None:
        if len(self.places) < _PLACES_KEPT:
            self.places.append(line)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class BadRecordPolicy:
    """The policy for records that cannot be used.

    "error" refuses it with its place; "skip" leaves it out and counts it, up to `max_fraction` of a
    shard's records. A file that breaks off is refused, or with "skip" used as far as it goes and
    counted.
    """

    policy: str = "error"
    max_fraction: float = 0.001

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise ConfigError(f"on_bad_record={self.policy!r}: choose one of {', '.join(POLICIES)}")
        if not 0.0 <= self.max_fraction <= 1.0:
            raise ConfigError(f"max_bad_fraction={self.max_fraction}: give a share from 0 to 1")

    def accept(self, records: Iterator[Record], rejected: Rejected) -> Iterator[Row]:
        """The rows of a shard; what is left out is counted in `rejected`.

        Raises DataError for a bad record under "error", and at the end of the shard when more than
        `max_fraction` of it was bad.
        """
        seen, before, places = 0, rejected.records, len(rejected.places)
        try:
            for record in records:
                seen += 1
                if isinstance(record, Row):
                    yield record
                elif self.policy == "error":
                    raise record.error()
                else:
                    rejected.add(record.place, record.reason)
        except DamagedFile as error:
            if self.policy == "error":
                raise
            rejected.add_file(str(error))
        self.check_share(rejected.records - before, seen, rejected.places[places:])

    def check_share(self, bad: int, seen: int, places: list[str]) -> None:
        """Raises DataError when more than `max_fraction` of the records of a shard was bad."""
        if bad > self.max_fraction * seen:
            raise DataError(
                f"{bad} of {counted(seen, 'record')} {'is' if bad == 1 else 'are'} bad, more than "
                f"data.max_bad_fraction = {self.max_fraction}; the first: "
                f"{' '.join(places[:1])}"
            )
