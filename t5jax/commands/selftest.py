"""`t5jax selftest`: whether a run would work on these hosts, in under a minute."""

import contextlib
import time
from collections.abc import Iterator

import jax

from t5jax import runtime, selftest
from t5jax.config import RunConfig, TrainConfig, override, read_config
from t5jax.data.config import DataConfig
from t5jax.data.vocabularies import ByteVocabulary
from t5jax.errors import ConfigError, message_of
from t5jax.model.config import T5Config
from t5jax.runtime.exits import exit_code

SECONDS = 120.0  # for each check, unless runtime.step_timeout_seconds is given
_WAITS = {
    "initialization_timeout_seconds": 120,
    "step_timeout_seconds": SECONDS,
    "first_step_timeout_seconds": SECONDS,
}
_NO_WORKDIR = "(no workdir)"
_SETTINGS = ("--mesh.", "--runtime.", "--workdir")


def selftest_command(
    config_file: str | None, data: str | None, kills: int, json_file: str | None, flags: list[str]
) -> int:
    """Prints the table; the exit code of the first check that failed, or 0, on every host.

    Raises ConfigError for settings that do not fit, or have no effect here, and where hosts have
    different ambient settings.
    """
    begun = time.monotonic()
    if data is not None and data.endswith(".py"):
        if config_file is not None:
            raise ConfigError(f"--data {data}: there is a config already, {config_file}")
        config_file, data = data, None
    config = _config(config_file, flags)
    workdir = None if config.workdir == _NO_WORKDIR else config.workdir
    if runtime.start_distributed(config.runtime) > 1 and kills:
        raise ConfigError(
            f"--kills {kills}: it kills a run on one host; start it there alone, without a launcher"
        )
    config.check_mesh(jax.device_count(), trains=config_file is not None)
    prints = jax.process_index() == 0
    table = selftest.Table(prints=prints)
    limits = config.runtime.step_timeout_seconds, config.runtime.first_step_timeout_seconds
    with runtime.Watchdog(*limits) as watchdog:
        mesh = config.mesh.build()
        checks = {
            "devices": lambda: [selftest.check_devices(mesh)],
            "software": lambda: [selftest.check_software()],
            "clocks": lambda: [selftest.check_clocks()],
            "collectives": lambda: selftest.check_collectives(mesh),
            "workdir": lambda: selftest.check_workdir(workdir),
            "data": lambda: selftest.check_data(config if config_file else None, data),
            "known step": lambda: [selftest.check_known_step(config.mesh, mesh)],
            "kills": lambda: [selftest.check_kills(workdir, kills, watchdog)] if kills else [],
        }
        for name, check in checks.items():
            with _named(name):
                found = check()
            table.extend(found)
            watchdog.beat()
    if prints:
        print(f"{table.summary}; {time.monotonic() - begun:.0f} s", flush=True)
        if json_file is not None:
            table.write(json_file)
    return table.code


@contextlib.contextmanager
def _named(check: str) -> Iterator[None]:
    """A line of the table for what ends the process in a check, on the host where it happens."""
    try:
        yield
    except Exception as error:
        print(selftest.failed(check, exit_code(error), message_of(error)), flush=True)
        raise


def _config(config_file: str | None, flags: list[str]) -> RunConfig:
    """The run's, or one of no data and no workdir, with the settings of the command line."""
    for flag in flags:
        if flag.startswith("--") and not flag.startswith(_SETTINGS):
            name = flag.partition("=")[0]
            raise ConfigError(
                f"{name} has no effect on a self-test: give settings of mesh and runtime, and "
                "--workdir"
            )
    if config_file is not None:
        config = read_config(config_file)
    else:
        config = RunConfig(
            workdir=_NO_WORKDIR,
            model=T5Config(),
            data=DataConfig(mixture=None, vocabulary=ByteVocabulary(), cache_dir=None),
            train=TrainConfig(num_train_steps=1),
        )
    for name, value in _WAITS.items():
        setattr(config.runtime, name, value)
    return override(config, flags, program="t5jax selftest")
