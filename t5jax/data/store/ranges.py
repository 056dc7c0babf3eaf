"""Ranges of bytes of a bucket's objects, many read at a time.

gcsfs itself asks again for half a minute where the network or the store fails. What it lets pass is
dealt with here: an answer of the wrong length, and one that never comes.
"""

import dataclasses
import errno
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from t5jax import buckets
from t5jax.errors import DataError

CONCURRENT = 64  # requests under way
_PAUSES = (0.5, 2.0, 8.0)  # seconds, before a range is asked for again


class Range(NamedTuple):
    """Bytes `begin` to `end` of an object."""

    url: str
    begin: int
    end: int


@dataclasses.dataclass(slots=True)
class Traffic:
    """What was read from buckets: requests, those that were repeated here included, and bytes."""

    requests: int = 0
    num_bytes: int = 0


def read_ranges(ranges: Sequence[Range], traffic: Traffic) -> list[bytes]:
    """The bytes of every range, whole. Raises DataError for an object that is missing or too short,
    and where the bucket cannot be read."""
    found = {number: b"" for number, one in enumerate(ranges) if one.begin == one.end}
    problem: Any = None
    if len(found) == len(ranges):
        return [b""] * len(ranges)
    for pause in (0.0, *_PAUSES):
        time.sleep(pause)
        left = [number for number in range(len(ranges)) if number not in found]
        for number, answer in zip(left, _ask([ranges[x] for x in left], traffic), strict=True):
            wanted = ranges[number]
            if isinstance(answer, bytes) and len(answer) == wanted.end - wanted.begin:
                found[number] = answer
            else:
                problem = wanted, answer
        if len(found) == len(ranges):
            return [found[number] for number in range(len(ranges))]
        if not _may_pass(problem[1]):
            break
    raise _error(*problem)


def _ask(ranges: Sequence[Range], traffic: Traffic) -> list[Any]:
    """Bytes, or what was raised, for each range."""
    urls, begins, ends = map(list, zip(*ranges, strict=True))
    with buckets.reading(urls[0]):
        answers = buckets.file_system().cat_ranges(
            urls, begins, ends, on_error="return", batch_size=CONCURRENT
        )
    traffic.requests += len(ranges)
    traffic.num_bytes += sum(len(answer) for answer in answers if isinstance(answer, bytes))
    return answers


def _may_pass(answer: Any) -> bool:
    """Whether the same request may be answered otherwise, and gcsfs has not asked again itself."""
    return isinstance(answer, (bytes, TimeoutError, ConnectionError))


def _error(wanted: Range, answer: Any) -> Any:
    url, begin, end = wanted
    too_short = isinstance(answer, bytes) or getattr(answer, "code", None) in (416, "416")
    if too_short:
        got = f"{len(answer)} bytes came" if isinstance(answer, bytes) else "it ends before"
        return DataError(
            f"{url} is not as its store's META.json says: bytes {begin} to {end} were asked for, "
            f"{got}; the store was written anew, or is not copied whole: copy it again, then start "
            "again"
        )
    if isinstance(answer, FileNotFoundError):
        return DataError(f"{url} is missing: the store was deleted, or is not copied whole")
    if not isinstance(answer, Exception):
        return answer  # an interrupt
    try:
        with buckets.reading(url):
            raise answer
    except DataError as error:
        return error
    except OSError as error:
        if error.errno is None:
            error.errno = errno.EIO
        return error
    except Exception as error:
        return error
