"""Export as serialized StableHLO (`jax.export`), with the parameters in a .npz beside it."""

import pathlib
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from t5jax.checkpoints import leaves_by_path, nested
from t5jax.export.functions import ExportFunctions
from t5jax.types import Params

PARAMETERS = "parameters.npz"

IdsFunction = Callable[..., Mapping[str, np.ndarray]]  # of ids -> arrays by name


def write_stablehlo(
    folder: pathlib.Path, functions: ExportFunctions, params: Params, platforms: Sequence[str]
) -> None:
    """Writes `NAME.stablehlo` of every function, and the parameters as float32 by path.

    Args:
      params: float32, on the host. The functions take them in the model's dtype.
    """
    dtype = functions.model.dtype
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), params)
    (rows,) = export.symbolic_shape("b")
    for name, lengths in functions.arguments.items():
        ids = [jax.ShapeDtypeStruct((rows, length), jnp.int32) for length in lengths]
        function = jax.jit(getattr(functions, name))
        exported = export.export(function, platforms=platforms)(shapes, *ids)
        (folder / f"{name}.stablehlo").write_bytes(exported.serialize())
    arrays = {path: np.asarray(leaf) for path, leaf in leaves_by_path(params).items()}
    np.savez(folder / PARAMETERS, allow_pickle=False, **arrays)


def read_stablehlo(
    folder: pathlib.Path, names: Sequence[str], dtype: str
) -> dict[str, IdsFunction]:
    """The functions by name, with their parameters. Needs jax and numpy alone."""
    with np.load(folder / PARAMETERS) as arrays:
        params = nested({path: jnp.asarray(arrays[path], dtype) for path in arrays.files})

    def of_ids(name: str) -> IdsFunction:
        serialized = bytearray((folder / f"{name}.stablehlo").read_bytes())
        call = jax.jit(export.deserialize(serialized).call)
        return lambda *ids: jax.device_get(call(params, *ids))

    return {name: of_ids(name) for name in names}
