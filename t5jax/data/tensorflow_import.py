"""TensorFlow and seqio, imported late, without their banner, and kept off the accelerators.

`import seqio` costs 4.5 CPU-seconds and 0.9 GB, TensorFlow's C++ prints lines that no variable
silences, and its Linux wheel would take GPU memory beside JAX. So nothing in t5jax imports them at
its top; code that needs them calls these functions.
"""

import contextlib
import importlib
import importlib.metadata
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from t5jax.errors import ConfigError

_registered: dict[str, str] = {}  # tasks and mixtures of seqio's registries: who registered them


def import_tensorflow() -> Any:
    """The `tensorflow` module, silent and blind to GPUs and TPUs. Raises ConfigError when not
    installed."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    if "tensorflow" in sys.modules:
        tensorflow = sys.modules["tensorflow"]
    else:
        with deferred_stderr():
            tensorflow = _installed("tensorflow")
    with deferred_stderr():  # looking for a GPU where there is none prints an error
        for kind in ("GPU", "TPU"):
            if tensorflow.config.get_visible_devices(kind):
                tensorflow.config.set_visible_devices([], kind)
    return tensorflow


def import_seqio() -> Any:
    """The `seqio` module. Raises ConfigError when it is not the version that was installed."""
    import_tensorflow()
    with deferred_stderr():
        seqio = _installed("seqio")
    check_version("seqio", seqio.__version__)
    _record_registrations(seqio)
    return seqio


def registered_by(name: str) -> str | None:
    """`module (file:line)` that registered a task or mixture with seqio; None where that was before
    `import_seqio`."""
    return _registered.get(name)


def calling_module(package: str) -> tuple[str, str]:
    """(name, `name (file:line)`) of the module whose code called into a package, from inside it."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        name = frame.f_globals.get("__name__", "?")
        if name != __name__ and not f"{name}.".startswith(f"{package}."):
            break
        frame = frame.f_back
    name = frame.f_globals.get("__name__", "?")
    return name, f"{name} ({frame.f_code.co_filename}:{frame.f_lineno})"


def _record_registrations(seqio: Any) -> None:
    """Has seqio's registries note who registers what, and say it of a second one of a name."""
    base = seqio.dataset_providers.DatasetProviderRegistry
    plain = base.add_provider.__func__
    if hasattr(plain, "records_registrations"):
        return

    def add_provider(cls: Any, name: str, provider: Any) -> None:
        _, place = calling_module("seqio")
        if name in cls.names():
            first = _registered.get(name, "a module that was imported before")
            raise ValueError(
                f"Attempting to register duplicate provider: {name} is registered by {first}, and "
                f"again by {place}; give one of them another name"
            )
        plain(cls, name, provider)
        _registered[name] = place

    add_provider.records_registrations = True  # pyright: ignore[reportFunctionMemberAccess]
    base.add_provider = classmethod(add_provider)


def check_version(distribution: str, imported: str) -> None:
    """Raises ConfigError when the code of a package is not of the version pip believes in.

    `seqio-nightly` and `tfds-nightly` (requirements of the `t5` package) write into the same
    folders as `seqio` and `tensorflow-datasets`; `pip check` stays clean while an old version runs.
    """
    installed = importlib.metadata.version(distribution)
    if imported != installed:
        raise ConfigError(
            f"{distribution} {installed} is installed but its code says {imported}: another "
            "package (such as "
            f"{distribution}-nightly, which `t5` requires) has overwritten it. Uninstall that "
            "package, then "
            f"`pip install --force-reinstall --no-deps {distribution}=={installed}`"
        )


@contextlib.contextmanager
def deferred_stderr() -> Iterator[None]:
    """Holds back what is written to file descriptor 2, by C++ too; writes it out after all if the
    body raises."""
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(saved, 2)
            held.seek(0)
            os.write(2, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)


def _installed(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{module} is needed here but {error.name!r} is not installed: `pip install t5jax` "
            "brings it; "
            "training from a cached data set works without"
        ) from error
