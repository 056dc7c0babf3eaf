"""The lock of a store's directory: one builder of the whole, or any number of its parts."""

import contextlib
import errno
import fcntl
import pathlib
from collections.abc import Callable, Iterator

from t5jax.data.store.directories import in_bucket
from t5jax.errors import DataError

PARTS = ".parts-"  # files of this name say which parts were begun; a complete store has none
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}


@contextlib.contextmanager
def building(
    directory: pathlib.Path,
    progress: Callable[[str], None] | None = None,
    *,
    part: bool = False,
) -> Iterator[None]:
    """Locks the directory for one builder, or for parts of a build, which exclude only a builder of
    the whole; a lock ends with its process, however that ends. A file system without locks is said:
    nothing is damaged there (files appear whole), but a store can be finished too early.
    Raises DataError when another has the lock.
    """
    if in_bucket(directory):
        if progress:
            progress(
                f"cache: {directory} is in a bucket, which has no locks: make sure that nothing "
                "else completes a store there"
            )
        yield
        return
    # NFS gives a shared lock to those that may read the file, the other to those that may write.
    with open(directory / ".lock", "a+") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if part else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            whole = "" if part else ", or a part of it"
            raise DataError(
                f"another process is building {directory}{whole}; wait for it"
            ) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            if progress:
                progress(
                    f"cache: {directory} is on a file system without locks ({error.strerror}): "
                    "make sure that nothing else builds there"
                )
        yield
