"""Global batch arrays on the devices, from host-local rows."""

import jax
import numpy as np

from t5jax.types import Batch


class Feeder:
    """Places this host's rows of a global batch on its devices; `rows` are their numbers."""

    def __init__(self, sharding: jax.sharding.NamedSharding, batch_size: int):
        self._sharding, self._batch_size = sharding, batch_size
        slices = sharding.addressable_devices_indices_map((batch_size,)).values()
        rows = [np.arange(batch_size)[index] for index in slices if index is not None]
        self.rows = np.unique(np.concatenate(rows))  # sorted; each device's are contiguous here

    def put(self, rows: Batch) -> Batch:
        """Global arrays [batch_size, ...] from the arrays of `self.rows` alone.

        Every device is given its own rows by number: `make_array_from_process_local_data` accepts a
        wrong number of local rows silently.
        """

        def array(local: np.ndarray) -> jax.Array:
            assert len(local) == len(self.rows), (len(local), len(self.rows))

            def of_device(index):
                start, stop, _ = index[0].indices(self._batch_size)
                first = np.searchsorted(self.rows, start)
                return local[first : first + stop - start]

            shape = (self._batch_size, *local.shape[1:])
            return jax.make_array_from_callback(shape, self._sharding, of_device)

        return {name: array(local) for name, local in rows.items()}
