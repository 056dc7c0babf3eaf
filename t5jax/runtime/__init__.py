"""The life of a process: distributed start, agreement, preemption, watchdog, exit codes.

Nothing here imports jax before it is needed, so that `t5jax --help` answers at once.
"""

from t5jax.runtime.agreement import agree, gather_texts, is_probe, shared_directory_check
from t5jax.runtime.distributed import RuntimeConfig, start
from t5jax.runtime.exits import ExitCode, Preempted, TooManyBadSteps, run_guarded
from t5jax.runtime.preemption import Preemption
from t5jax.runtime.watchdog import Watchdog

__all__ = [
    "ExitCode",
    "Preempted",
    "Preemption",
    "RuntimeConfig",
    "TooManyBadSteps",
    "Watchdog",
    "agree",
    "gather_texts",
    "is_probe",
    "run_guarded",
    "shared_directory_check",
    "start",
]
