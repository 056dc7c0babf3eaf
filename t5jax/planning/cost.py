"""Cost model of a compiled program: time of each operation, of collectives beside it, of the step.

An operation takes the longest of three times: its matrix products at a share of the peak, its HBM
traffic at a share of the bandwidth, and libtpu's cycles where the text has them. Operations run one
after another. Copies that libtpu starts ahead of their use have the HBM bandwidth that operations
in between leave; what is not done by then is waited for. A collective that is started and awaited
runs beside what is scheduled in between; what is left of it is exposed, and so is all of one that
is not asynchronous.
"""

import collections
import dataclasses
from collections.abc import Callable
from typing import NamedTuple

from t5jax.planning.chips import Chip
from t5jax.planning.collectives import Collective, MeshNetwork
from t5jax.planning.flops import is_attention_kernel, is_backward, matrix_flops
from t5jax.planning.hlo import ASYNC_CALLS, Computation, Instruction, Module, children
from t5jax.planning.kernel_cycles import kernel_cycles
from t5jax.planning.traffic import collective_kind, is_free, memory_bytes

# Shares of the peaks that large matrix products and copies reach (790 of 989 TFLOP/s were seen on
# an H200), and of the matrix peak that fused attention does on GPUs (on TPUs: kernel_cycles.py).
MATRIX_SHARE = {"tpu": 0.80, "gpu": 0.80, "cpu": 0.80}
MEMORY_SHARE = 0.90
ATTENTION_FORWARD, ATTENTION_BACKWARD = 0.35, 0.25
# Copies into the chip's own memory and out of it, which libtpu starts ahead of their use.
_TRANSFERS = ("copy-start", "slice-start")


@dataclasses.dataclass(kw_only=True, slots=True)
class Operation:
    """An instruction with the cost of one execution, in seconds, FLOPs and bytes."""

    name: str
    op_name: str
    opcode: str
    count: float
    flops: float
    nbytes: float
    compute_seconds: float
    memory_seconds: float
    cycle_seconds: float
    collective: Collective | None = None

    @property
    def seconds(self) -> float:
        """Without its collective."""
        return max(self.compute_seconds, self.memory_seconds, self.cycle_seconds)

    @property
    def what(self) -> str:
        """The last parts of the name that JAX gave it."""
        return "/".join(self.op_name.split("/")[-3:])[-70:] or self.name

    @property
    def bound(self) -> str:
        """What it waits for."""
        times = {
            "matrix": self.compute_seconds,
            "memory": self.memory_seconds,
            "cycles": self.cycle_seconds,
        }
        return max(times, key=lambda name: times[name])


class OperationKind(NamedTuple):
    """Operations of one opcode and name, whatever layer they are of."""

    opcode: str
    what: str
    bound: str
    count: float
    seconds: float  # of all


@dataclasses.dataclass(kw_only=True, slots=True)
class ProgramCost:
    """Cost of one run of a program on one device."""

    operations: list[Operation]
    exposed_seconds: float  # of collectives that nothing runs beside

    @property
    def seconds(self) -> float:
        return self.operation_seconds + self.exposed_seconds

    @property
    def operation_seconds(self) -> float:
        return sum(x.count * x.seconds for x in self.operations)

    @property
    def flops(self) -> float:
        return sum(x.count * x.flops for x in self.operations)

    @property
    def nbytes(self) -> float:
        return sum(x.count * x.nbytes for x in self.operations)

    @property
    def collectives(self) -> list[tuple[Collective, float]]:
        """Each collective with how often it runs."""
        return [(x.collective, x.count) for x in self.operations if x.collective is not None]

    @property
    def seconds_by_bound(self) -> dict[str, float]:
        """Of the step, by what is waited for: "matrix", "memory", "cycles", "collectives"."""
        totals: dict[str, float] = collections.defaultdict(float)
        for x in self.operations:
            totals[x.bound] += x.count * x.seconds
        totals["collectives"] = self.exposed_seconds
        return dict(sorted(totals.items(), key=lambda item: -item[1]))

    def largest(self, number: int) -> list[OperationKind]:
        """The kinds of operations that take most of the time: those of all layers together."""
        kinds: dict[tuple[str, str, str], list[float]] = {}
        for x in self.operations:
            times = kinds.setdefault((x.opcode, x.what, x.bound), [0.0, 0.0])
            times[0] += x.count
            times[1] += x.count * x.seconds
        found = (OperationKind(*kind, *times) for kind, times in kinds.items())
        return sorted(found, key=lambda x: -x.seconds)[:number]

    def collective_bytes(
        self, key: Callable[[Collective], str] = lambda x: x.kind
    ) -> dict[str, float]:
        """Bytes by `key`, the largest first."""
        totals: dict[str, float] = collections.defaultdict(float)
        for collective, count in self.collectives:
            totals[key(collective)] += count * collective.nbytes
        return dict(sorted(totals.items(), key=lambda item: -item[1]))


def program_cost(module: Module, chip: Chip, network: MeshNetwork, dtype: str) -> ProgramCost:
    """The cost of a module on a chip; `dtype` is that of its matrix products."""
    model = _CostModel(module, chip, network, dtype)
    model.visit(module.entry, 1.0)
    return ProgramCost(operations=model.operations, exposed_seconds=model.exposed)


class _CostModel:
    def __init__(self, module: Module, chip: Chip, network: MeshNetwork, dtype: str):
        self._module, self._chip, self._network = module, chip, network
        self._peak = chip.peak_flops(dtype)
        self.operations: list[Operation] = []
        self.exposed = 0.0

    def visit(self, name: str, count: float) -> float:
        """Adds the operations of a computation that runs `count` times; seconds of one run."""
        computation = self._module.computations[name]
        now, pending = 0.0, _Pending()
        for instruction in computation.values():
            if self._start_call(instruction, count, now, pending):
                continue
            inner = children(instruction, self._module)
            if inner is not None:
                now += inner[1] * self.visit(inner[0], count * inner[1])
                continue
            waited = pending.awaited(instruction, now)
            self.exposed += count * waited
            now += waited + pending.transfers.awaited(instruction)
            if is_free(instruction):
                continue
            now += self._execute(instruction, computation, count, now, pending)
        now += pending.transfers.left()
        left = pending.left(now)
        self.exposed += count * left
        return now + left

    def _execute(
        self,
        instruction: Instruction,
        computation: Computation,
        count: float,
        now: float,
        pending: "_Pending",
    ) -> float:
        """Adds one operation; the seconds until the next can begin."""
        operation = self._operation(instruction, computation, count)
        fused = [] if instruction.opcode != "fusion" else self._inside(instruction)
        for channel, collective in fused:
            if pending.start_fused(channel, collective.seconds, now):
                self.operations.append(_only(collective, instruction, count))
        self.operations.append(operation)
        if instruction.opcode in _TRANSFERS:
            pending.transfers.start(instruction.name, operation)
            return 0.0
        pending.transfers.run(operation.seconds - operation.memory_seconds)
        if operation.collective is None:
            pending.extend_fused([channel for channel, _ in fused], now + operation.seconds)
            return operation.seconds
        if instruction.opcode.endswith("-start") or instruction.opcode == "recv":
            pending.start(instruction.name, operation.collective.seconds, now)
            operation.memory_seconds = 0.0
            return 0.0
        # It reads and writes memory while it sends: the slower of the two.
        extra = max(0.0, operation.collective.seconds - operation.seconds)
        self.exposed += count * extra
        return operation.seconds + extra

    def _start_call(
        self, instruction: Instruction, count: float, now: float, pending: "_Pending"
    ) -> bool:
        """Starts a call that runs beside what follows, if it is one of collectives."""
        inside = self._inside(instruction) if instruction.opcode in ASYNC_CALLS else []
        if not inside:
            return False
        self.operations += [_only(collective, instruction, count) for _, collective in inside]
        pending.start(instruction.name, sum(x.seconds for _, x in inside), now)
        return True

    def _inside(self, outer: Instruction) -> list[tuple[str, Collective]]:
        """Collectives inside a fusion or a call, by channel: libtpu runs parts of one beside
        several fusions."""
        found = []
        for name in outer.called:
            inner = self._module.computations.get(name, {})
            for instruction in inner.values():
                if collective_kind(instruction.opcode):
                    collective = self._network.collective(instruction, inner)
                    assert collective is not None
                    if name.startswith("all-reduce-scatter"):  # every device keeps its part
                        collective = dataclasses.replace(
                            collective, kind="reduce-scatter", seconds=collective.seconds / 2
                        )
                    found.append((instruction.channel or outer.name, collective))
                elif instruction.opcode in ("fusion", "call"):
                    found += self._inside(instruction)
        return found

    def _operation(
        self, instruction: Instruction, computation: Computation, count: float
    ) -> Operation:
        flops = matrix_flops(instruction, computation, self._module)
        nbytes = memory_bytes(instruction, computation, self._module)
        chip = self._chip
        cycles = instruction.cycles or kernel_cycles(instruction, computation, chip)
        return Operation(
            name=instruction.name,
            op_name=instruction.op_name,
            opcode=instruction.opcode,
            count=count,
            flops=flops,
            nbytes=nbytes,
            compute_seconds=flops / (self._peak * self._share(instruction)),
            memory_seconds=nbytes / (chip.memory_bandwidth * MEMORY_SHARE),
            cycle_seconds=cycles / chip.clock_hz if chip.clock_hz else 0.0,
            collective=self._network.collective(instruction, computation),
        )

    def _share(self, instruction: Instruction) -> float:
        if self._chip.platform == "tpu" or not is_attention_kernel(instruction):
            return MATRIX_SHARE[self._chip.platform]
        return ATTENTION_BACKWARD if is_backward(instruction) else ATTENTION_FORWARD


def _only(collective: Collective, fusion: Instruction, count: float) -> Operation:
    """The collective of a fusion, as an operation that takes no time of its own."""
    return Operation(
        name=fusion.name, op_name=fusion.op_name, opcode=collective.kind, count=count, flops=0.0,
        nbytes=0.0, compute_seconds=0.0, memory_seconds=0.0, cycle_seconds=0.0,
        collective=collective,
    )  # fmt: skip


class _Transfers:
    """Copies in flight between HBM and the chip's own memory, by the name of their start. They have
    the HBM bandwidth that operations beside them leave; `memory_seconds` are what is left to do."""

    def __init__(self) -> None:
        self._started: dict[str, Operation] = {}

    def start(self, name: str, transfer: Operation) -> None:
        self._started[name] = transfer

    def run(self, seconds: float) -> None:
        """Beside an operation that leaves HBM idle for so long; in the order of their starts."""
        for transfer in self._started.values():
            done = min(seconds, transfer.memory_seconds)
            transfer.memory_seconds -= done
            seconds -= done

    def awaited(self, instruction: Instruction) -> float:
        """Seconds that a `-done` waits."""
        if not instruction.opcode.endswith("-done"):
            return 0.0
        ended = [self._started.pop(x) for x in instruction.operands if x in self._started]
        return sum(transfer.memory_seconds for transfer in ended)

    def left(self) -> float:
        return sum(transfer.memory_seconds for transfer in self._started.values())


class _Pending:
    """What is in flight in one computation: collectives by the name of their start, or inside
    fusions by channel; and transfers."""

    def __init__(self) -> None:
        self.transfers = _Transfers()
        self._started: dict[str, float] = {}  # name -> when it will have ended
        self._fused: dict[str, tuple[float, float]] = {}  # channel -> (its end, end of its fusions)

    def start(self, name: str, seconds: float, now: float) -> None:
        self._started[name] = now + seconds

    def awaited(self, instruction: Instruction, now: float) -> float:
        """Seconds that a `-done` waits."""
        if not instruction.opcode.endswith("-done"):
            return 0.0
        ends = [self._started.pop(x) for x in instruction.operands if x in self._started]
        return max([0.0, *(end - now for end in ends)])

    def start_fused(self, channel: str, seconds: float, now: float) -> bool:
        """False for a channel that an earlier fusion has started."""
        if channel in self._fused:
            return False
        self._fused[channel] = (now + seconds, now)
        return True

    def extend_fused(self, channels: list[str], end: float) -> None:
        for channel in channels:
            self._fused[channel] = (self._fused[channel][0], end)

    def left(self, now: float) -> float:
        """Seconds that collectives last beyond all that runs beside them."""
        started = max([0.0, *(end - now for end in self._started.values())])
        return started + sum(max(0.0, end - fusions) for end, fusions in self._fused.values())
