"""The command line; heavy packages are imported only when a command runs."""

from t5jax.cli.command_line import main, split_flags

__all__ = ["main", "split_flags"]
