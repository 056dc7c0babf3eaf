"""t5jax: train, fine-tune and evaluate T5-family models in JAX on TPU and GPU meshes.

`t5jax.load(WORKDIR)` is a saved run as an object; it is imported when it is first asked for.
"""

from typing import TYPE_CHECKING, Any

from t5jax.version import __version__

if TYPE_CHECKING:
    from t5jax.inference.loaded_run import LoadedRun, load

__all__ = ["LoadedRun", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name not in ("load", "LoadedRun"):
        raise AttributeError(f"module 't5jax' has no attribute {name!r}")
    from t5jax.inference import loaded_run

    return getattr(loaded_run, name)
