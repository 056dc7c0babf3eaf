"""Ranges of a bucket's objects: whole, or an error that says what to do; never short."""

import pytest

from t5jax import buckets
from t5jax.data.store import ranges
from t5jax.data.store.ranges import Range, Traffic, read_ranges
from t5jax.errors import DataError

DATA = bytes(range(200))
WANTED = [Range("gs://b/x", 3, 10), Range("gs://b/x", 7, 7), Range("gs://b/y", 100, 200)]


class HttpError(Exception):
    __module__ = "gcsfs.retry"

    def __init__(self, code: int):
        super().__init__(f"it is code {code}")
        self.code = code


@pytest.fixture
def store(monkeypatch):
    """What is answered instead of the data, by call and place; the calls' urls."""
    monkeypatch.setattr(ranges, "_PAUSES", (0.0, 0.0))
    monkeypatch.setattr(buckets, "check_driver", lambda url: None)

    class Store:
        def __init__(self):
            self.instead: dict[tuple[int, int], object] = {}
            self.calls: list[list[str]] = []

        def cat_ranges(self, urls, begins, ends, *, on_error, batch_size):
            assert on_error == "return"
            self.calls.append(urls)
            found = [DATA[a:b] for a, b in zip(begins, ends, strict=True)]
            return [self.instead.get((len(self.calls), n), x) for n, x in enumerate(found)]

    made = Store()
    monkeypatch.setattr(buckets, "file_system", lambda: made)
    return made


def test_ranges_are_read_at_once(store):
    traffic = Traffic()
    assert read_ranges(WANTED, traffic) == [DATA[3:10], b"", DATA[100:]]
    assert store.calls == [["gs://b/x", "gs://b/y"]]
    assert (traffic.requests, traffic.num_bytes) == (2, 107)
    assert read_ranges(WANTED[1:2], traffic) == [b""]
    assert len(store.calls) == 1


def test_what_came_short_is_asked_for_again_alone(store):
    store.instead = {(1, 1): DATA[100:150], (2, 0): TimeoutError()}
    traffic = Traffic()
    assert read_ranges(WANTED, traffic) == [DATA[3:10], b"", DATA[100:]]
    assert store.calls == [["gs://b/x", "gs://b/y"], ["gs://b/y"], ["gs://b/y"]]
    assert traffic.requests == 4


@pytest.mark.parametrize(
    ("answer", "calls", "said"),
    [
        (DATA[100:199], 3, "gs://b/y is not as its store's META.json says: bytes 100 to 200 were "
                           "asked for, 99 bytes came"),
        (HttpError(416), 1, "bytes 100 to 200 were asked for, it ends before"),
        (FileNotFoundError("b/y"), 1, "gs://b/y is missing"),
        (HttpError(503), 1, "gs://b/y cannot be read: HttpError: it is code 503; check the"),
        (OSError("Forbidden: b/y\nno"), 1, "gs://b/y cannot be read: OSError: Forbidden: b/y no"),
        (TimeoutError(), 3, "gs://b/y cannot be read: TimeoutError: "),
        (ConnectionResetError("gone"), 3, "gs://b/y cannot be read: ConnectionResetError: gone"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_line(store, answer, calls, said):
    store.instead = {(1, 1): answer, (2, 0): answer, (3, 0): answer}
    with pytest.raises(DataError) as caught:
        read_ranges(WANTED, Traffic())
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(store.calls) == calls


def test_a_defect_is_no_fault_of_the_data(store):
    store.instead = {(1, 0): KeyError("a defect")}
    with pytest.raises(KeyError):
        read_ranges(WANTED, Traffic())
