"""T5JAX_ENV: which of the variables that a launcher was to carry to this process are set in it."""

import re
from collections.abc import Mapping

from t5jax.errors import ConfigError

VARIABLE = "T5JAX_ENV"


def missing_variables(environment: Mapping[str, str]) -> list[str]:
    """Entries of T5JAX_ENV (names; a * at the end stands for all that begin so) that match nothing.

    Raises:
      ConfigError: an entry is no name of a variable.
    """
    missing = []
    for entry in re.split(r"[\s,]+", environment.get(VARIABLE, "").strip(" \t\n,")):
        if not entry:
            continue
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*\*?", entry):
            raise ConfigError(
                f"{VARIABLE} names {entry!r}: must be the name of a variable, with or without a * "
                'at its end, as in "XLA_FLAGS NCCL_*"'
            )
        prefix = entry.removesuffix("*")
        matches = (name.startswith(prefix) for name in environment)
        if not (any(matches) if entry.endswith("*") else entry in environment):
            missing.append(entry)
    return missing
