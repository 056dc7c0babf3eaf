"""`t5jax train CONFIG`: runs a config to its end, resuming what its workdir holds."""

from t5jax.config import load_config
from t5jax.run.trainer import train


def train_command(
    config_file: str,
    flags: list[str],
    started: float | None = None,
    take_over: bool = False,
) -> None:
    """`started`, `take_over`: see `train`."""
    train(load_config(config_file, flags), started, take_over=take_over)
