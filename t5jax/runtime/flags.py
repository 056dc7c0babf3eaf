"""Profiles of flags for XLA, libtpu and NCCL by name, set before JAX starts its devices.

The train step has its own options from `training/compiler_options.py`, which need no profile. A
profile is for what those do not reach: evaluation and decoding, collectives between slices, loops
over layers on GPUs, NCCL.
"""

import os
import re
import shlex
from collections.abc import Iterable, Mapping, MutableMapping
from typing import NamedTuple

from t5jax.errors import ConfigError
from t5jax.runtime.ambient import flag_words

VARIABLE = "T5JAX_FLAGS"  # names of profiles, beside those of `runtime.flags`


class Profile(NamedTuple):
    """Variable -> flags of a compiler, and variables of their own; each name -> value."""

    flags: Mapping[str, Mapping[str, str]]
    variables: Mapping[str, str] = {}


def _true(*names: str) -> dict[str, str]:
    return {f"--{name}": "true" for name in names}


PROFILES: Mapping[str, Profile] = {
    # Asynchronous collectives and the latency-hiding scheduler, for every program.
    "tpu": Profile(
        {
            "LIBTPU_INIT_ARGS": _true(
                "xla_tpu_enable_latency_hiding_scheduler",
                "xla_enable_async_all_gather",
                "xla_tpu_enable_async_collective_fusion",
                "xla_tpu_enable_async_collective_fusion_fuse_all_gather",
                "xla_tpu_enable_async_collective_fusion_multiple_steps",
                "xla_tpu_overlap_compute_collective_tc",
            )
        }
    ),
    # Gradients' sums between slices beside the backward pass.
    "tpu_slices": Profile(
        {
            "LIBTPU_INIT_ARGS": _true(
                "xla_tpu_enable_data_parallel_all_reduce_opt",
                "xla_tpu_data_parallel_opt_different_sized_ops",
            )
        }
    ),
    "gpu": Profile({"XLA_FLAGS": _true("xla_gpu_enable_latency_hiding_scheduler")}),
    # FSDP with scanned layers: the next layer's weights are gathered beside this one's work.
    "gpu_fsdp": Profile(
        {
            "XLA_FLAGS": _true(
                "xla_gpu_enable_latency_hiding_scheduler",
                "xla_gpu_enable_pipelined_all_gather",
                "xla_gpu_enable_pipelined_reduce_scatter",
                "xla_gpu_enable_pipelined_all_reduce",
                "xla_gpu_enable_while_loop_double_buffering",
            )
        }
    ),
    # The same bits every time: cuDNN's attention and scatters add in a fixed order, and slower.
    "gpu_deterministic": Profile({"XLA_FLAGS": _true("xla_gpu_deterministic_ops")}),
    # Of JAX's GPU performance tips, for several GPUs of one host.
    "nccl_one_host": Profile(
        {},
        {
            "NCCL_LL128_BUFFSIZE": "-2",
            "NCCL_LL_BUFFSIZE": "-2",
            "NCCL_PROTO": "SIMPLE,LL,LL128",
        },
    ),
}


def check_profiles(names: Iterable[str], where: str) -> None:
    """Raises ConfigError for a name that is none."""
    for name in names:
        if name not in PROFILES:
            raise ConfigError(f"{where}: no profile {name!r}; choose of {', '.join(PROFILES)}")


def set_flags(
    names: Iterable[str], environ: MutableMapping[str, str] = os.environ, *, started: bool
) -> list[str]:
    """Sets what the profiles, and those that T5JAX_FLAGS names, say and nobody has set. Returns a
    line for each profile that set something, and one for each value of the user's that stays.

    `started`: JAX has its devices, and reads no flags any more.

    Raises ConfigError for an unknown name, where flags come from a file, and where something is
    left to set and JAX has started.
    """
    of_variable = [name for name in re.split(r"[\s,]+", environ.get(VARIABLE, "")) if name]
    check_profiles(of_variable, VARIABLE)
    said = []
    for name in dict.fromkeys((*names, *of_variable)):
        new, kept = _missing(PROFILES[name], environ)
        if new and started:
            raise ConfigError(
                f"flags {name}: JAX has started its devices and reads no flags any more; set "
                f"{VARIABLE}={name} before Python starts, or call start_distributed first"
            )
        for variable, words in new.items():
            is_list = variable in PROFILES[name].flags
            before = [environ[variable]] if is_list and environ.get(variable) else []
            environ[variable] = " ".join([*before, *words])
        if new:
            shown = "; ".join(f"{variable} {' '.join(words)}" for variable, words in new.items())
            said.append(f"flags {name}: {shown}")
        said += [f"flags {name}: {text}" for text in kept]
    return said


def _missing(
    profile: Profile, environ: Mapping[str, str]
) -> tuple[dict[str, list[str]], list[str]]:
    """(variable -> words to add to it, or its value; what the user has set otherwise)."""
    new: dict[str, list[str]] = {}
    kept = []

    def compare(name: str, old: str | None, value: str, variable: str, word: str) -> None:
        if old is None:
            new.setdefault(variable, []).append(word)
        elif old != value:
            kept.append(f"{name} = {old} stays, as you have set it (the profile says {value})")

    for variable, flags in profile.flags.items():
        text = environ.get(variable, "").strip()
        if text and not text.startswith("-"):
            raise ConfigError(
                f"{variable} = {text}: names a file of flags, to which a profile adds nothing; "
                f"write {shlex.join(f'{k}={v}' for k, v in flags.items())} there"
            )
        pairs = (word.partition("=") for word in flag_words(text))
        users = {flag: value or "true" for flag, _, value in pairs}
        for flag, value in flags.items():
            compare(f"{variable} {flag}", users.get(flag), value, variable, f"{flag}={value}")
    for variable, value in profile.variables.items():
        compare(variable, environ.get(variable) or None, value, variable, value)
    return new, kept


def devices_are_started() -> bool:
    """Whether JAX has a backend. It has no public question for it: where the private one is gone
    the answer is no."""
    from jax._src import xla_bridge

    initialized = getattr(xla_bridge, "backends_are_initialized", lambda: False)
    return bool(initialized())
