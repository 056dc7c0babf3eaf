"""The command line. `t5jax --help` answers at once: nothing heavy is imported before its time."""

from t5jax.cli.command_line import main, split_flags

__all__ = ["main", "split_flags"]
