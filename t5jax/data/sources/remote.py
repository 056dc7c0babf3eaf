"""Remote stores through fsspec: its file system of a URL, and its errors as ours."""

import contextlib
from collections.abc import Iterator
from typing import Any

from t5jax.errors import ConfigError, DataError, failure

_EXTRAS = {"gs": "gcs", "gcs": "gcs", "s3": "s3", "s3a": "s3"}  # protocol -> extra of t5jax


def file_system(url: str) -> tuple[Any, str]:
    """fsspec's file system of a URL and the path within it. Raises ConfigError when its driver is
    not installed or the protocol unknown."""
    import fsspec.core

    protocol = url.partition("://")[0]
    try:
        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        remedy = f": `pip install 't5jax[{extra}]'`" if extra else ""
        raise ConfigError(
            f"{url}: {protocol}:// needs a driver that is not installed ({error}){remedy}"
        ) from error
    except ValueError as error:
        raise ConfigError(f"{url}: {error}; give a local path, gs:// or s3://") from error
    except Exception as error:  # of a protocol that wants more than a URL: zip://, dir://
        raise ConfigError(
            f"{url}: {protocol}:// cannot be opened ({failure(error, 'fsspec')}); give a local "
            "path, gs:// or s3://"
        ) from error


@contextlib.contextmanager
def remote_errors(url: str) -> Iterator[None]:
    """Whatever a store raises becomes a DataError that names the URL."""
    try:
        yield
    except ImportError:
        raise
    except Exception as error:  # every store has exception classes of its own
        raise DataError(f"{url}: {type(error).__name__}: {error}") from error
