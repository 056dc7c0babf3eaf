"""The sub-commands of `t5jax`, one module each, imported by `cli/` when they are called."""
