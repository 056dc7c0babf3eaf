"""Batches made ahead by a thread while the devices work."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import TypeVar

from t5jax.errors import ConfigError

T = TypeVar("T")


class Prefetcher(Iterator[T]):
    """Batches of consecutive steps, made ahead by one thread while the devices work.

    `produce(step)` is called for first_step, first_step + 1, ... (up to `end_step`, exclusive), at
    most `depth` batches ahead. What it raises is raised by `next` at its step's turn, with its
    traceback. `step` is the step that `next` will return: what was made ahead does not count, so
    `loader.state(prefetcher.step)` is right at any time.
    """

    def __init__(
        self,
        produce: Callable[[int], T],
        *,
        first_step: int = 0,
        end_step: int | None = None,
        depth: int = 2,
    ):
        if depth < 1:
            raise ConfigError(f"prefetch depth={depth}: give 1 or more batches")
        self.step = first_step
        self._produce, self._end_step, self._depth = produce, end_step, depth
        self._ready: deque[T] = deque()
        self._failure: BaseException | None = None
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(
            target=self._run, args=(first_step,), name="prefetch", daemon=True
        )
        self._thread.start()

    def __next__(self) -> T:
        with self._changed:
            if self._end_step is not None and self.step >= self._end_step:
                raise StopIteration
            self._changed.wait_for(lambda: self._ready or self._failure or self._closed)
            if self._closed:
                raise RuntimeError("this Prefetcher is closed")
            if not self._ready:
                assert self._failure is not None
                raise self._failure
            batch = self._ready.popleft()
            self.step += 1
            self._changed.notify_all()
            return batch

    def wait(self, seconds: float) -> bool:
        """Whether `next` would return (or raise) at once; waits for that, so long at most."""
        with self._changed:
            ready = lambda: bool(self._ready or self._failure or self._closed)
            return self._changed.wait_for(ready, seconds)

    def close(self) -> None:
        """Stops the thread; a batch in the making is finished first (for ten seconds at most)."""
        with self._changed:
            self._closed = True
            self._ready.clear()
            self._changed.notify_all()
        self._thread.join(timeout=10.0)

    def __enter__(self) -> "Prefetcher[T]":
        return self

    def __exit__(self, *exc_info) -> None:
        self.close()

    def _run(self, step: int) -> None:
        try:
            while self._end_step is None or step < self._end_step:
                with self._changed:
                    self._changed.wait_for(lambda: len(self._ready) < self._depth or self._closed)
                    if self._closed:
                        return
                batch = self._produce(step)
                with self._changed:
                    self._ready.append(batch)
                    self._changed.notify_all()
                step += 1
        except BaseException as error:
            with self._changed:
                self._failure = error
                self._changed.notify_all()
