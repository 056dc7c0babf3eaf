"""What reading its rows from a bucket costs a run: requests, bytes, and the loader's rate."""

import threading
import time
from collections.abc import Callable, Sequence

from t5jax.data.pipeline.loader import Loader
from t5jax.data.store.local_copy import GIGABYTES, local_copy
from t5jax.data.store.ranges import Traffic
from t5jax.run.build import TrainLoader
from t5jax.types import Batch


def bucket_lines(loader: TrainLoader) -> list[str]:
    """A line where stores lie in a bucket: their size, and how they are read."""
    if not isinstance(loader, Loader) or loader.traffic is None:
        return []
    stores = {c.store.directory: c.store for c in loader.components if c.store and c.store.traffic}
    size = sum(store.info.total("tokens") * store.dtype.itemsize for store in stores.values())
    copy = local_copy()
    fits = "they fit" if size <= copy.max_bytes else "they do not fit: rows cost requests for ever"
    return [
        f"data: {size / 1e9:.3g} GB of tokens in a bucket are read through a copy in {copy.folder} "
        f"of at most {copy.max_bytes / 1e9:.3g} GB ({fits}; {GIGABYTES} sets the size)"
    ]


class LoaderRates:
    """Makes a host's rows with `rows`, and says what they cost; of stores on a disk, and of data
    that is tokenised while it is read, nothing."""

    def __init__(self, loader: TrainLoader, clock: Callable[[], float] = time.perf_counter):
        self._loader, self._clock = loader, clock
        self.traffic: Traffic | None = loader.traffic if isinstance(loader, Loader) else None
        self._lock = threading.Lock()
        self._batches, self._rows, self._seconds = 0, 0, 0.0
        self._before = self._counted()

    def rows(self, step: int, indices: Sequence[int]) -> Batch:
        """As `Loader.rows`; called by the thread that makes batches ahead."""
        start = self._clock()
        batch = self._loader.rows(step, indices)
        with self._lock:
            self._batches += 1
            self._rows += len(indices)
            self._seconds += self._clock() - start
        return batch

    def metrics(self) -> dict[str, float]:
        """Of the batches that were made since the last call, which are ahead of the steps; {} where
        none was, or nothing lies in a bucket."""
        if self.traffic is None:
            return {}
        with self._lock:
            if not self._batches:
                return {}
            now, before = self._counted(), self._before
            found = {
                "data/requests_per_step": (now[0] - before[0]) / self._batches,
                "data/bytes_per_step": (now[1] - before[1]) / self._batches,
                "data/rows_per_second": self._rows / max(self._seconds, 1e-9),
            }
            self._batches, self._rows, self._seconds, self._before = 0, 0, 0.0, now
        return found

    def _counted(self) -> tuple[int, int]:
        return (self.traffic.requests, self.traffic.num_bytes) if self.traffic else (0, 0)
