"""Errors a user can cause; each message names the field or file, the value and what to do next."""


class ConfigError(ValueError):
    """A setting that is unknown, of the wrong type, out of range or without effect."""


class DataError(ValueError):
    """Data that is missing, corrupt or does not fit the run: file, place and reason."""


class CheckpointError(ValueError):
    """A checkpoint that does not exist, is damaged or does not fit the model."""
