"""Process runtime: distributed start, host agreement, preemption, watchdog, leases, exit codes,
cache of compiled programs.

Nothing here imports jax before it is needed, so that `t5jax --help` answers at once.
"""

from t5jax.runtime.agreement import (
    agree,
    check_shared_directory,
    gather_texts,
    is_probe_file,
    of_first_host,
    probe_file,
    share_folder,
)
from t5jax.runtime.ambient import ambient_changes, ambient_settings, refuse_float64
from t5jax.runtime.distributed import RuntimeConfig, start_distributed
from t5jax.runtime.exits import ExitCode, Preempted, TooManyBadSteps, run_guarded
from t5jax.runtime.flags import devices_are_started, set_flags
from t5jax.runtime.lease import LeaseHeld
from t5jax.runtime.ownership import is_lease_file, owned
from t5jax.runtime.preemption import Preemption, exit_at_sigterm
from t5jax.runtime.program_cache import compilation_cache
from t5jax.runtime.watchdog import Watchdog

__all__ = [
    "ExitCode",
    "LeaseHeld",
    "Preempted",
    "Preemption",
    "RuntimeConfig",
    "TooManyBadSteps",
    "Watchdog",
    "agree",
    "ambient_changes",
    "ambient_settings",
    "check_shared_directory",
    "compilation_cache",
    "devices_are_started",
    "exit_at_sigterm",
    "gather_texts",
    "is_lease_file",
    "is_probe_file",
    "of_first_host",
    "owned",
    "probe_file",
    "refuse_float64",
    "run_guarded",
    "set_flags",
    "share_folder",
    "start_distributed",
]
