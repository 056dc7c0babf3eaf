"""Ambient settings: what changes a run's numbers and is in no config, but in JAX's configuration
or in the environment.

float64 is refused. A user who turned it on for another program expects float32 here, one who wants
it would not get it (parameters, optimizer and checkpoints are float32 by definition), and only an
error tells the two apart. The rest is the user's choice: recorded with every checkpoint, compared
between hosts at the start and with the record when a run resumes.
"""

import json
import os
import shlex
from collections.abc import Iterator, Mapping

from t5jax.errors import ConfigError
from t5jax.runtime.agreement import gather_texts

Settings = dict[str, str]

_FLOAT64 = "jax_enable_x64"
# Random numbers, the precision of products, how much the compiler may reorder.
_OF_JAX = (
    _FLOAT64,
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_random_seed_offset",
    "jax_high_dynamic_range_gumbel",
    "jax_default_matmul_precision",
    "jax_optimization_level",
)
_OF_ENVIRONMENT = ("NVIDIA_TF32_OVERRIDE", "NCCL_ALGO", "NCCL_PROTO")
_FLAGS = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")
# Beginnings of flags that say where files go, what is logged and how many devices a host has; they
# differ from host to host.
_NOT_NUMBERS = (
    "--xla_dump_",
    "--xla_gpu_dump_",
    "--xla_gpu_cuda_data_dir",
    "--xla_gpu_kernel_cache_file",
    "--xla_gpu_per_fusion_autotune_cache_dir",
    "--xla_force_host_platform_device_count",
    "--tpu_log_dir",
    "--vmodule",
    "--minloglevel",
    "--stderrthreshold",
    "--logtostderr",
    "--alsologtostderr",
)


def ambient_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """Name -> value of what is set, a flag of the compiler as `XLA_FLAGS --xla_name`."""
    import jax

    found = {name: str(getattr(jax.config, name)) for name in _OF_JAX if hasattr(jax.config, name)}
    found |= {name: environ[name] for name in _OF_ENVIRONMENT if environ.get(name)}
    for variable in _FLAGS:
        for word in flag_words(environ.get(variable, "")):
            flag, _, value = word.partition("=")
            if flag != "--v" and not flag.startswith(_NOT_NUMBERS):
                found[f"{variable} {flag}"] = value or "true"
    return found


def ambient_changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """`NAME was BEFORE, is NOW` of every setting that differs."""
    return [f"{name} was {old}, is {new}" for name, old, new in _differing(before, now)]


def agree_on_ambient_settings() -> None:
    """Every process calls it, in the same place.

    Raises ConfigError: on every host, naming the hosts that differ from host 0 and the values.
    """
    hosts: list[Settings] = [json.loads(x) for x in gather_texts(json.dumps(ambient_settings()))]
    others = [host for host, settings in enumerate(hosts) if settings != hosts[0]]
    if others:
        more = f" (so do those of host {', '.join(map(str, others[1:]))})" if others[1:] else ""
        raise ConfigError(
            f"ambient settings differ between hosts: {_difference(hosts, others[0])}{more}, of "
            f"{len(hosts)} hosts. They change the numbers of every step: start all hosts with the "
            "same environment"
        )


def refuse_float64() -> None:
    """Raises ConfigError where JAX is set to compute in float64."""
    import jax

    if not getattr(jax.config, _FLOAT64, False):
        return
    value = os.environ.get("JAX_ENABLE_X64")
    raise ConfigError(
        (f"JAX_ENABLE_X64={value} (in the environment)" if value else "jax_enable_x64 is on")
        + ": JAX would compute in float64, which t5jax does not: parameters are float32, products "
        "in model.dtype. "
        + ("unset JAX_ENABLE_X64" if value else "jax.config.update('jax_enable_x64', False)")
        + ", then start again"
    )


def _difference(hosts: list[Settings], host: int) -> str:
    """`host 1 has NAME = VALUE, host 0 VALUE` of every setting in which a host is not as host 0."""
    return "; ".join(
        f"host {host} has {name} = {theirs}, host 0 {ours}"
        for name, ours, theirs in _differing(hosts[0], hosts[host])
    )


def _differing(one: Mapping[str, str], other: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """(name, value of one, value of the other) of every setting that differs, by name."""
    for name in sorted(one.keys() | other.keys()):
        if one.get(name) != other.get(name):
            yield name, one.get(name, "not set"), other.get(name, "not set")


def flag_words(flags: str) -> list[str]:
    """The flags of a variable, or of the file that it names, as XLA reads it."""
    flags = flags.strip()
    if flags and not flags.startswith("-"):
        try:
            with open(flags, encoding="utf-8") as file:
                flags = file.read()
        except (OSError, ValueError):
            return [f"(the file {flags}, which cannot be read)"]
    try:
        return shlex.split(flags)
    except ValueError:  # a quote that is not closed
        return flags.split()
