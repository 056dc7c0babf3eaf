"""Settings that say "auto": what they are on a machine, and why.

`model.dtype`, `model.unroll_layers`, `model.remat`, `train.num_microbatches` and `mesh.fsdp`, by
platform, model and memory. A config that says numbers keeps them. `model.attention = "auto"` is
decided where attention is called (`model/attention/dispatch.py`).
"""

import dataclasses
import os
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, NamedTuple

import jax

from t5jax import runtime
from t5jax.checkpoints import checkpoint_directory, committed_steps, latest_record
from t5jax.config import RunConfig, from_text
from t5jax.data.records import counted
from t5jax.model.computation import resolve_computation
from t5jax.model.config import REMAT_POLICIES
from t5jax.run.build import build_program_without_vocabulary
from t5jax.run.provenance import checkpoint_record
from t5jax.sharding import divisors, platform_of
from t5jax.training.memory import resident_bytes, step_bytes, stores_scores
from t5jax.training.steps import Program

FIELDS = (
    "model.dtype",
    "model.unroll_layers",
    "model.remat",
    "train.num_microbatches",
    "mesh.fsdp",
)
# Of a device's memory, what arithmetic may fill: compilers need the rest for what it leaves out.
_FILL = 0.85
# A microbatch of fewer tokens on one device leaves its matrix unit waiting for weights.
_LEAST_TOKENS = {"cpu": 512, "gpu": 4096, "tpu": 4096}
_STATE_SHARE = 0.5  # of a device's memory that parameters, optimizer and gradients may take


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """Devices that a run is for; `devices` may be compile-only ones."""

    platform: str  # "cpu", "gpu" or "tpu"
    devices: tuple[jax.Device, ...]  # pyright: ignore
    memory_bytes: float  # of one device

    @property
    def name(self) -> str:
        """By which a later start knows the same kind of machine: `8 x TPU v5 lite`."""
        return f"{len(self.devices)} x {self.devices[0].device_kind}"


class Choice(NamedTuple):
    """A setting that said "auto"."""

    field: str
    value: Any
    reason: str

    def __str__(self) -> str:
        return f"{self.field} = {self.value} ({self.reason})"


class Resolved(NamedTuple):
    """A config with and without "auto" (but for attention's), and what was chosen."""

    written: RunConfig
    config: RunConfig
    choices: tuple[Choice, ...]
    machine: str

    def record(self) -> dict[str, Any]:
        """What a checkpoint says of the choices; `resolve_auto` takes it back."""
        return {"machine": self.machine, "fields": {c.field: c.value for c in self.choices}}

    def checkpoint_record(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """The record of a checkpoint of this run with the loader's state `data`: the config as it
        was written, and the ambient settings under which its steps were made."""
        record = checkpoint_record(self.written, data, self.record())
        return {**record, "ambient": runtime.ambient_settings()}


def local_machine() -> Machine:
    """The devices of this run, of all hosts. Uses devices."""
    devices, local = jax.devices(), jax.local_devices()
    stats = local[0].memory_stats() or {}
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / len(local)
    return Machine(
        platform=platform_of(local[0].platform),
        devices=tuple(devices),
        memory_bytes=float(stats.get("bytes_limit", host)),
    )


def resolve_auto(
    config: RunConfig,
    machine: Machine,
    lengths: tuple[int, int] | None = None,
    recorded: Mapping[str, Any] | None = None,
) -> Resolved:
    """The config with a value for every "auto".

    `lengths` are those of a row, (encoder, decoder), where they are known; otherwise as many
    targets as inputs are assumed.
    `recorded` is `Resolved.record()` of the run that goes on: its dtype stays anywhere, because it
    changes results by more than the order of sums; the rest stays on the same kind of machine.
    """
    written = config
    left = [field for field in FIELDS if attrgetter(field)(config) == "auto"]
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model),
        train=dataclasses.replace(config.train),
        mesh=dataclasses.replace(config.mesh),
    )
    choices: list[Choice] = []

    recorded = recorded or {}
    before, kept = recorded.get("fields", {}), _kept(recorded, machine)

    def choose(field: str, value: Any, reason: str) -> None:
        section, name = field.split(".")
        setattr(getattr(config, section), name, value)
        if before.get(field, value) != value:
            reason += f"; it was {before[field]} on {recorded['machine']}"
        choices.append(Choice(field, value, reason))

    for field in left:
        if field in kept:
            choose(field, kept[field], "as the run began")
    left = [field for field in left if field not in kept]
    program = _Programs(config, machine)
    for field, rule in _RULES.items():
        if field in left:
            rule(config, machine, program, choose)
    if "train.num_microbatches" in left or "model.remat" in left:
        _choose_by_memory(config, machine, lengths or _lengths(config), program, choose)
    return Resolved(written, config, tuple(choices), machine.name)


def resolve_for_training(config: RunConfig, lengths: tuple[int, int]) -> Resolved:
    """The same for the devices of this run, with what the checkpoints of its workdir say. Uses
    devices."""
    machine, directory = local_machine(), checkpoint_directory(config.workdir)
    if not committed_steps(directory):
        return resolve_auto(config, machine, lengths)
    content = latest_record(directory).content
    recorded = content.get("auto")
    if recorded is None and "converted_from" not in content["data"]:
        # Written before there was "auto": that run's values, all of which its text has.
        old = from_text(content["config"])
        recorded = {"machine": machine.name, "fields": {x: attrgetter(x)(old) for x in FIELDS}}
    return resolve_auto(config, machine, lengths, recorded)


def _kept(recorded: Mapping[str, Any], machine: Machine) -> dict[str, Any]:
    fields = dict(recorded.get("fields", {}))
    if recorded.get("machine") == machine.name:
        return fields
    return {name: value for name, value in fields.items() if name == "model.dtype"}


class _Programs:
    """The run's program on its machine, for the sizes of its state; traced once for each
    `mesh.fsdp`, on which they depend."""

    def __init__(self, config: RunConfig, machine: Machine):
        self._config, self._machine = config, machine
        self._made: dict[Any, Program] = {}

    def __call__(self) -> Program:
        mesh = self._config.mesh
        if mesh.fsdp not in self._made:
            built = mesh.build(self._machine.devices)
            self._made[mesh.fsdp] = build_program_without_vocabulary(self._config, built)
        return self._made[mesh.fsdp]


Choose = Callable[[str, Any, str], None]


def _choose_dtype(config: RunConfig, machine: Machine, _: _Programs, choose: Choose) -> None:
    value = resolve_computation(config.model, machine.platform).dtype
    why = "products in bfloat16 are slower here" if machine.platform == "cpu" else "matrix unit's"
    choose("model.dtype", value, f"{machine.platform}: {why}")


def _choose_unroll(config: RunConfig, machine: Machine, _: _Programs, choose: Choose) -> None:
    value = resolve_computation(config.model, machine.platform).unroll_layers
    layers = config.model.num_encoder_layers + config.model.num_decoder_layers
    why = "compile in minutes, and a scan copies every layer's activations"
    if value == 1:
        why = "scanned: unrolled they would compile too long for what they gain"
    choose("model.unroll_layers", value, f"{layers} layers on {machine.platform}: {why}")


def _choose_fsdp(config: RunConfig, machine: Machine, program: _Programs, choose: Choose) -> None:
    """As few as hold the state; only where `mesh.data` is what remains."""
    if config.mesh.data != -1:
        return choose("mesh.fsdp", 1, "mesh.data is given")
    possible = divisors(len(machine.devices) // config.mesh.tensor or 1)
    possible = [n for n in possible if config.model.emb_dim % n == 0]
    # Of several slices some numbers make no mesh; where none does, `build` says which would.
    allowed = [n for n in possible if config.mesh.allows(n, machine.devices)]
    possible = allowed or possible
    config.mesh.fsdp = possible[0]  # 1, but for slices along fsdp alone
    held = possible[0] * sum(resident_bytes(program()))
    needed = held / (_STATE_SHARE * machine.memory_bytes)
    value = next((n for n in possible if n >= needed), possible[-1])
    choose(
        "mesh.fsdp",
        value,
        f"{_gb(held)} of parameters, optimizer and gradients over {value} of "
        f"{len(machine.devices)} devices of {_gb(machine.memory_bytes)}",
    )


_RULES: dict[str, Callable[[RunConfig, Machine, _Programs, Choose], None]] = {
    "model.dtype": _choose_dtype,
    "model.unroll_layers": _choose_unroll,
    "mesh.fsdp": _choose_fsdp,
}


def _choose_by_memory(
    config: RunConfig,
    machine: Machine,
    lengths: tuple[int, int],
    program: _Programs,
    choose: Choose,
) -> None:
    """Microbatches and rematerialisation: nothing is computed again where a microbatch that keeps
    the device busy fits so; else all but products, else all."""
    model, train = config.model, config.train
    rows, tokens = max(train.batch_size // program().replicas, 1), sum(lengths)
    state, gradients = resident_bytes(program())
    scores = stores_scores(machine.platform, len(machine.devices))
    least = _LEAST_TOKENS[machine.platform]
    parts = divisors(rows) if train.num_microbatches == "auto" else [train.num_microbatches]
    busy = [n for n in parts if rows // n * tokens >= least] or parts[:1]
    if machine.platform == "cpu":
        busy = busy[-1:]  # what fits its caches is as fast, and needs the least memory
    remats = REMAT_POLICIES if model.remat == "auto" else (model.remat,)
    tried = [(remat, n) for remat in remats for n in busy] + [(remats[-1], n) for n in parts]
    for remat, n in tried:
        needed = step_bytes(
            model, config.loss, lengths, state=state, gradients=gradients, rows=rows // n or 1,
            num_microbatches=n, remat=remat, scores=scores,
        )  # fmt: skip
        if needed <= _FILL * machine.memory_bytes:
            break
    reason = (
        f"{counted(rows // n or 1, 'row')} of {tokens} tokens on a device, by arithmetic "
        f"{_gb(needed)} of {_gb(machine.memory_bytes)}"
    )
    if needed > _FILL * machine.memory_bytes:
        reason += ": it may not fit, see `t5jax plan`"
    if model.remat == "auto":
        choose("model.remat", remat, reason)
    if train.num_microbatches == "auto":
        choose("train.num_microbatches", n, reason)


def _lengths(config: RunConfig) -> tuple[int, int]:
    """(encoder, decoder) positions of a row; as many targets as inputs where the objective decides
    on them."""
    inputs = config.data.inputs_length
    targets = config.data.targets_length or inputs
    if config.model.architecture == "encoder_only":
        return inputs, 0
    return (inputs, targets) if config.model.num_encoder_layers else (0, inputs + targets)


def _gb(size: float) -> str:
    return f"{size / 1e9:.3g} GB"
