"""Loaders of a data section, resolved as a run resolves it."""

from t5jax.data.config import DataConfig
from t5jax.data.pipeline import opening
from t5jax.data.registry.names import find_definitions
from t5jax.data.registry.resolve import resolve, resolve_definitions, write_serialised


def open_loader(data: DataConfig, *, batch_size: int, architecture: str = "encoder_decoder"):
    return opening.open_loader(resolve(data, architecture), batch_size=batch_size)


def open_in_order(
    data: DataConfig, split: str, *, architecture: str = "encoder_decoder", **arguments
):
    return opening.open_in_order(resolve(data, architecture), split, **arguments)


def write_mixture(data: DataConfig) -> None:
    """The serialised form beside the stores of the data section, which are there."""
    write_serialised(resolve_definitions(find_definitions(data), data))
