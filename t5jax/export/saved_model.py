"""Export as a TensorFlow SavedModel (`jax2tf`), with the parameters as its variables."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from t5jax.data.tensorflow_import import deferred_stderr, import_tensorflow
from t5jax.errors import ConfigError
from t5jax.export.functions import ExportFunctions
from t5jax.export.stablehlo import IdsFunction
from t5jax.types import Params

FOLDER = "saved_model"


def check_tensorflow(num_beams: int) -> None:
    """Raises ConfigError where TensorFlow is not installed, or too old for JAX's StableHLO.

    TensorFlow 2.21 reads no StableHLO of 1.14 and later, in which JAX 0.10 writes `top_k`, which
    beam search needs.
    """
    tensorflow = import_tensorflow()
    if num_beams == 1:
        return
    from jax.experimental import jax2tf

    largest = jax2tf.convert(lambda x: jax.lax.top_k(x, 2)[0], with_gradient=False)
    try:
        with deferred_stderr():
            tensorflow.function(largest, autograph=False)(tensorflow.zeros(8))
    except tensorflow.errors.InvalidArgumentError as error:
        raise ConfigError(
            f"decoding.num_beams = {num_beams}: TensorFlow {tensorflow.__version__} cannot read "
            f"the beam search that JAX {jax.__version__} writes: export greedy decoding "
            "(--decoding.num-beams 1), or --format stablehlo, or update TensorFlow"
        ) from error


def write_saved_model(
    folder: pathlib.Path, functions: ExportFunctions, params: Params, platforms: Sequence[str]
) -> None:
    """Writes a SavedModel with a signature for every function.

    Args:
      params: float32, on the host; stored in the model's dtype.
    """
    tensorflow = import_tensorflow()
    from jax.experimental import jax2tf

    variable = lambda x: tensorflow.Variable(np.asarray(jnp.asarray(x, functions.model.dtype)))
    variables = jax.tree.map(variable, params)
    module = tensorflow.Module()
    module.parameters = jax.tree.leaves(variables)  # a module tracks only its attributes
    signatures = {}
    for name, lengths in functions.arguments.items():
        converted = jax2tf.convert(
            jax.jit(getattr(functions, name)),
            polymorphic_shapes=[None, *["(b, _)"] * len(lengths)],
            native_serialization_platforms=tuple(platforms),
            with_gradient=False,
        )
        specs = [
            tensorflow.TensorSpec([None, length], tensorflow.int32, name=argument)
            for argument, length in zip(("tokens", "targets"), lengths, strict=False)
        ]
        signatures[name] = tensorflow.function(
            _of_ids(converted, variables), autograph=False, input_signature=specs
        )
        setattr(module, name, signatures[name])
    tensorflow.saved_model.save(module, str(folder / FOLDER), signatures=signatures)


def _of_ids(converted: Callable, variables: Any) -> Callable:
    return lambda *ids: converted(variables, *ids)


def read_saved_model(folder: pathlib.Path, names: Sequence[str]) -> dict[str, IdsFunction]:
    """The functions by name. Needs TensorFlow alone."""
    tensorflow = import_tensorflow()
    loaded = tensorflow.saved_model.load(str(folder / FOLDER))

    def of_ids(name: str) -> IdsFunction:
        return lambda *ids: {
            key: value.numpy()
            for key, value in getattr(loaded, name)(*map(tensorflow.constant, ids)).items()
        }

    return {name: of_ids(name) for name in names}
