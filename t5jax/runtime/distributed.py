"""Distributed start: `jax.distributed` by flags, environment variables or cluster detection."""

import dataclasses
import os
import re
import socket
import sys
from typing import Any

from t5jax.errors import ConfigError
from t5jax.paths import expand
from t5jax.runtime import lifeline
from t5jax.runtime.ambient import agree_on_ambient_settings, refuse_float64
from t5jax.runtime.flags import check_profiles, devices_are_started, set_flags
from t5jax.runtime.launch_environment import VARIABLE, missing_variables
from t5jax.runtime.program_cache import AUTO

# What launch/ scripts set, for the three fields of the same order in RuntimeConfig.
ENVIRONMENT = ("T5JAX_COORDINATOR", "T5JAX_NUM_PROCESSES", "T5JAX_PROCESS_ID")
_OPEN_MPI_4 = "OMPI_MCA_orte_hnp_uri"
# One of these is set wherever a cluster could be detected, except on TPU machines.
_MARKERS = {"SLURM_JOB_ID", _OPEN_MPI_4, "KUBERNETES_SERVICE_HOST", "TPU_WORKER_ID"}
_MARKERS |= {"MEGASCALE_NUM_SLICES", "JAX_COORDINATOR_ADDRESS"}
FIELDS = ("coordinator_address", "num_processes", "process_id")


@dataclasses.dataclass(kw_only=True, slots=True)
class RuntimeConfig:
    """How processes find one another, their timeouts in seconds (0: no limit), and where compiled
    programs are kept.

    A dead process is noticed at once, a host that lost power or network after
    `heartbeat_timeout_seconds`, a living but stuck one by the watchdog after `step_timeout_seconds`
    (`first_step_timeout_seconds` while it compiles).
    """

    coordinator_address: str | None = None  # host:port of process 0
    num_processes: int | None = None
    process_id: int | None = None
    detect_cluster: bool = True  # Slurm, Open MPI, TPU, Kubernetes, as jax.distributed does
    initialization_timeout_seconds: int = 300
    heartbeat_timeout_seconds: int = 30
    shutdown_timeout_seconds: int = 60
    step_timeout_seconds: float = 900
    first_step_timeout_seconds: float = 3600
    # A folder that all hosts share; "auto": WORKDIR/compilation_cache, or JAX_COMPILATION_CACHE_DIR
    # where that is set; None: none.
    compilation_cache: str | None = AUTO
    flags: tuple[str, ...] = ()  # profiles of XLA's, libtpu's and NCCL's flags (runtime/flags.py)

    def __post_init__(self):
        for name in ("initialization", "heartbeat", "shutdown"):
            if getattr(self, f"{name}_timeout_seconds") < 1:
                value = getattr(self, f"{name}_timeout_seconds")
                raise ConfigError(f"runtime.{name}_timeout_seconds={value}: must be at least 1")
        for name in ("step_timeout_seconds", "first_step_timeout_seconds"):
            if getattr(self, name) < 0:
                value = getattr(self, name)
                raise ConfigError(f"runtime.{name}={value}: must be positive, or 0 for no limit")
        self.compilation_cache = expand(self.compilation_cache, "runtime.compilation_cache")
        if self.compilation_cache == "":
            raise ConfigError("runtime.compilation_cache = '': name a folder, 'auto', or None")
        if self.coordinator_address is not None:
            _check_address(self.coordinator_address)
        check_profiles(self.flags, "runtime.flags")


def start_distributed(config: RuntimeConfig) -> int:
    """Starts `jax.distributed` if the run has several processes; returns their number.

    The three flags, or else the three variables of ENVIRONMENT, name coordinator and processes;
    without them the cluster is detected; without a cluster this is the only process. Must be called
    before anything touches a jax device. Later calls change nothing. Flags of the profiles are set
    first. Process 0 says on standard error which, and what T5JAX_ENV names and is not set.

    Raises:
      ConfigError: some of the three values are given and others are missing, or they are wrong;
        ambient settings differ between hosts, or ask for float64 (`ambient.py`); T5JAX_ENV names
        what is no variable's name; a profile of flags that there is not, or that comes too late.
    """
    import jax

    if jax.distributed.is_initialized():
        refuse_float64()
        return jax.process_count()
    missing = missing_variables(os.environ)
    flags = set_flags(config.flags, started=devices_are_started())
    _serialize_virtual_devices()
    number = _start(config)
    if number > 1:  # once all are connected: each hears of what another refuses
        agree_on_ambient_settings()
    refuse_float64()
    said = [*flags, *([f"{VARIABLE} names {', '.join(missing)}: not set here"] if missing else ())]
    if said and (number == 1 or jax.process_index() == 0):
        print("\n".join(said), file=sys.stderr, flush=True)
    return number


def _start(config: RuntimeConfig) -> int:
    """Starts `jax.distributed` if there are several processes, and connects them."""
    import jax

    given = _given(config)
    missing = [name for name, value in given.items() if value is None]
    waits: dict[str, Any] = {
        "initialization_timeout": config.initialization_timeout_seconds,
        "heartbeat_timeout_seconds": config.heartbeat_timeout_seconds,
        "shutdown_timeout_seconds": config.shutdown_timeout_seconds,
    }
    if len(missing) == len(given):
        return _start_detected(waits) if config.detect_cluster else 1
    if missing:
        raise ConfigError(
            f"runtime: {', '.join(sorted(set(given) - set(missing)))} given but not "
            f"{', '.join(missing)}; give all three (or none, to detect the cluster)"
        )
    if not 0 <= given["process_id"] < given["num_processes"]:
        raise ConfigError(
            f"runtime.process_id={given['process_id']}: must be at least 0 and below "
            f"runtime.num_processes={given['num_processes']}"
        )
    _check_address(given["coordinator_address"])

    # Also for one process: its collectives are then those of several (on CPUs Gloo's, which add in
    # another order than XLA's own within a process), so that hosts can come and go bit for bit.
    jax.distributed.initialize(**given, **waits)
    lifeline.connect(given["coordinator_address"].rpartition(":")[0].strip("[]"))
    return given["num_processes"]


def _serialize_virtual_devices() -> None:
    """With several virtual CPU devices one program at a time: they share a pool of as many threads
    as there are cores, and the collectives of two programs in flight can take all of them waiting
    for each other (measured: XLA gives up after 40 s)."""
    import jax

    devices: int = jax.config.jax_num_cpu_devices  # pyright: ignore[reportAttributeAccessIssue]
    if devices > 1 or "host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_cpu_enable_async_dispatch", False)


def _start_detected(waits: dict[str, Any]) -> int:
    import jax

    _check_open_mpi_4()
    try:
        jax.distributed.initialize(**waits)
    except ValueError as error:
        # jax has no public question "is there a cluster?"; without one it misses the address.
        if "coordinator_address" not in str(error):
            raise
        _check_other_mpi()
        return 1
    except RuntimeError as error:
        if "must be called before" in str(error) and not _MARKERS & os.environ.keys():
            _check_other_mpi()
            return 1  # devices are in use already, as in an interactive session: no cluster either
        error.add_note("runtime.detect_cluster=False runs this process alone")
        raise
    if jax.process_count() > 1:
        lifeline.connect(None)
    return jax.process_count()


def _check_open_mpi_4() -> None:
    """Under Open MPI 4 JAX takes mpirun's first address for that of the coordinator, which is rank
    0: from another host all would wait for it until the time limit."""
    address = re.search(r"tcp://([^,:]+)", os.environ.get(_OPEN_MPI_4, ""))
    if address is None or os.environ.get("OMPI_COMM_WORLD_RANK") != "0":
        return
    try:
        with socket.socket() as probe:
            probe.bind((address[1], 0))
    except OSError:
        raise ConfigError(
            f"rank 0 runs on {socket.gethostname()}, mpirun on {address[1]}: under Open MPI 4 both "
            "must be one host, where JAX looks for its coordinator; put mpirun's host first in the "
            "hosts file, or set T5JAX_COORDINATOR=HOST:PORT of rank 0 and start with launch/mpi.sh"
        ) from None


def _check_other_mpi() -> None:
    """Processes of an MPI that JAX does not detect would each train alone, in one workdir."""
    size = os.environ.get("OMPI_COMM_WORLD_SIZE") or os.environ.get("PMI_SIZE") or ""
    if size.isdecimal() and int(size) > 1:
        raise ConfigError(
            f"mpirun started {size} processes, but only Open MPI 4 is detected: set "
            "T5JAX_COORDINATOR=HOST:PORT of rank 0 and start with launch/mpi.sh "
            "(runtime.detect_cluster=False runs each process alone)"
        )


def _given(config: RuntimeConfig) -> dict[str, Any]:
    """Flags win over the environment, value by value."""
    given = {name: getattr(config, name) for name in FIELDS}
    for name, variable in zip(FIELDS, ENVIRONMENT, strict=True):
        text = os.environ.get(variable)
        if given[name] is not None or not text:
            continue
        if name != "coordinator_address" and not text.isdecimal():
            raise ConfigError(f"{variable}={text!r}: must be a whole number")
        given[name] = text if name == "coordinator_address" else int(text)
    return given


def _check_address(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(
            f"runtime.coordinator_address={address!r}: must be HOST:PORT of process 0, "
            "for example 10.0.0.1:8476"
        )
