"""The folder that a command makes: it appears when it is complete, on a disk or in a bucket."""

import os
import pathlib
import shutil
import tempfile
from typing import Any

from t5jax import buckets
from t5jax.errors import ConfigError
from t5jax.paths import refuse_file_in_the_way, written_path


class TargetFolder:
    """Files are written into `unfinished`, beside a target on a disk; for one in a bucket that is a
    folder of temporary files of this machine, which `complete` uploads.

    `last` is the name of the file without which nobody takes what lies there for complete: of the
    objects it is the last one.
    Raises ConfigError where the target is there already or cannot be one, NotADirectoryError for a
    file in its way, BucketError for a bucket that cannot be written to.
    """

    def __init__(self, target: str, *, last: str, ending: str = ".unfinished"):
        target = written_path(target, "target")
        self._last, self._url = last, None
        if buckets.in_bucket(target):
            self.shown: Any = target.rstrip("/")
            self._url = self.shown
            self._refuse_existing_objects(target)
            self.unfinished = pathlib.Path(tempfile.mkdtemp(prefix="t5jax-target-")) / "unfinished"
            return
        self.shown = pathlib.Path(target)
        refuse_file_in_the_way(self.shown.parent)
        if os.path.lexists(self.shown):
            raise _exists(target)
        self.unfinished = self.shown.with_name(f"{self.shown.name}{ending}")

    def begin(self) -> pathlib.Path:
        """Makes `unfinished`, empty, and returns it."""
        self.remove()
        self.unfinished.mkdir(parents=True)
        return self.unfinished

    def complete(self) -> None:
        """The target is there, with what lies in `unfinished`. Raises OSError."""
        if self._url is None:
            self.unfinished.rename(self.shown)
            return
        buckets.upload_folder(self.unfinished, self._url, last=self._last)
        self.remove()

    def remove(self) -> None:
        """Removes what is unfinished."""
        made = self.unfinished if self._url is None else self.unfinished.parent
        shutil.rmtree(made, ignore_errors=True)

    def _refuse_existing_objects(self, target: str) -> None:
        buckets.check_driver(target)
        with buckets.bucket_errors(target):
            if buckets.file_system().exists(target):
                raise _exists(target)
        buckets.make_folder(target)  # before hours of work, not after them


def _exists(target: str) -> ConfigError:
    return ConfigError(f"{target} exists already; choose another target, or remove it")
