"""Compiled HLO text: computations, instructions, arrays, trip counts of loops.

XLA's own cost analysis counts the body of a loop once; here `executions` says how often each
instruction runs.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

_BYTES = {
    **dict.fromkeys(("s4", "u4", "f4e2m1fn"), 0.5),
    **dict.fromkeys(("pred", "s8", "u8"), 1.0),
    **dict.fromkeys(("f8e4m3fn", "f8e5m2", "f8e4m3b11fnuz", "f8e4m3", "f8e5m2fnuz"), 1.0),
    **dict.fromkeys(("bf16", "f16", "s16", "u16"), 2.0),
    **dict.fromkeys(("f32", "s32", "u32"), 4.0),
    **dict.fromkeys(("f64", "s64", "u64", "c64"), 8.0),
    "c128": 16.0,
}
_ARRAY = re.compile(r"\b([a-z][a-z0-9]*)\[([\d,]*)\](\{[^{}]*\})?")
_ON_CHIP = re.compile(r"S\([1-9]\)")  # a memory space other than HBM, such as VMEM
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_CALLED = re.compile(
    r"(?:calls|body|condition|to_apply|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")


# What runs beside the instructions behind it, until its `-done`; `call-start` on a SparseCore.
ASYNC_CALLS = ("async-start", "call-start")


class Array(NamedTuple):
    """One array of a shape."""

    dtype: str
    dims: tuple[int, ...]
    in_memory: bool  # in HBM, not in a memory of the chip itself

    @property
    def size(self) -> int:
        return math.prod(self.dims)

    @property
    def nbytes(self) -> float:
        return self.size * _BYTES[self.dtype]


@dataclasses.dataclass(frozen=True, slots=True)
class Instruction:
    """`name = arrays opcode(operands), attributes`; `literal` is the text between the brackets of a
    constant (its value) and of a parameter (its number)."""

    name: str
    opcode: str
    arrays: tuple[Array, ...]
    operands: tuple[str, ...]
    attributes: str
    is_root: bool
    literal: str = ""

    @property
    def nbytes(self) -> float:
        """Bytes of the result in HBM."""
        return sum(array.nbytes for array in self.arrays if array.in_memory)

    @property
    def op_name(self) -> str:
        """Where in the traced program it is from."""
        return self.find(r'op_name="([^"]*)"') or ""

    @property
    def called(self) -> tuple[str, ...]:
        """Names of the computations that it calls."""
        branches = re.findall(r"%?([\w.\-]+)", self.find(_BRANCHES) or "")
        return (*_CALLED.findall(self.attributes), *branches)

    @property
    def cycles(self) -> float:
        """libtpu's estimate; 0 where there is none."""
        return float(self.find(r'"estimated_cycles":"?(\d+)') or 0)

    @property
    def channel(self) -> str | None:
        return self.find(r"channel_id=(\d+)")

    def find(self, pattern: str | re.Pattern) -> str | None:
        """The first group of a pattern in the attributes."""
        found = re.search(pattern, self.attributes)
        return found[1] if found else None


Computation = Mapping[str, Instruction]  # in the order of the schedule


class Module(NamedTuple):
    """A compiled program of one device."""

    computations: Mapping[str, Computation]
    entry: str


class Execution(NamedTuple):
    """An instruction, and how often one run of the program executes it."""

    instruction: Instruction
    computation: Computation
    count: float


def parse_module(text: str) -> Module:
    """The module of what `jax.stages.Compiled.as_text` returns. Raises ValueError where it has no
    entry computation."""
    computations: dict[str, dict[str, Instruction]] = {}
    current, entry = None, None
    for line in text.splitlines():
        if current is None:
            if header := _HEADER.match(line):
                current = computations.setdefault(header[2], {})
                entry = header[2] if header[1] else entry
        elif line.startswith("}"):
            current = None
        elif found := _LINE.match(line):
            instruction = _instruction(found[2], found[3], is_root=bool(found[1]))
            current[instruction.name] = instruction
    if entry is None:
        raise ValueError("the text has no ENTRY computation: is it the text of a compiled program?")
    return Module(computations, entry)


def _instruction(name: str, text: str, *, is_root: bool) -> Instruction:
    end = _closing(text, 0) if text.startswith("(") else text.index(" ") - 1
    shape, rest = text[: end + 1], text[end + 2 :]
    opening = rest.index("(")
    closing = _closing(rest, opening)
    opcode, inside = rest[:opening], rest[opening + 1 : closing]
    has_literal = opcode in ("constant", "parameter")
    return Instruction(
        name=name,
        opcode=opcode,
        arrays=parse_arrays(shape),
        operands=() if has_literal else _operands(inside),
        attributes=rest[closing + 1 :],
        is_root=is_root,
        literal=inside if has_literal else "",
    )


def _closing(text: str, opening: int) -> int:
    """The index of the bracket that closes the one at `opening`."""
    depth = 0
    for index in range(opening, len(text)):
        depth += (text[index] == "(") - (text[index] == ")")
        if depth == 0:
            return index
    raise ValueError(f"a bracket is not closed in {text[opening : opening + 80]!r}")


def _operands(inside: str) -> tuple[str, ...]:
    """Names of the operands: `%a`, `f32[2]{0} %a` or, in newer texts, `a`."""
    if "%" in inside:
        return tuple(re.findall(r"%([\w.\-]+)", inside))
    return tuple(word for word in re.findall(r"[\w.\-]+", inside) if not word.isdigit())


def parse_arrays(shape: str) -> tuple[Array, ...]:
    """The arrays of a shape, of a tuple all of them in order."""
    return tuple(
        Array(
            dtype,
            tuple(int(size) for size in dims.split(",") if size),
            not _ON_CHIP.search(layout or ""),
        )
        for dtype, dims, layout in _ARRAY.findall(shape)
        if dtype in _BYTES
    )


def root_of(computation: Computation) -> Instruction:
    return next(x for x in computation.values() if x.is_root)


def trip_count(loop: Instruction, module: Module) -> int | None:
    """How often a `while` runs its body: the compiler's number, else from the condition's constant
    and the body's step; of a loop that may end earlier the most. None where nothing says it."""
    known = loop.find(r'known_trip_count"?:\s*\{\s*"n":\s*"?(\d+)')
    if known:
        return int(known)
    condition, body = (loop.find(rf"{x}=%?([\w.\-]+)") or "" for x in ("condition", "body"))
    limits = [value for value in _integers(condition, module) if value > 0]
    if not limits:
        return None
    return max(1, -(-max(limits) // _step(condition, body, module)))


def _integers(name: str, module: Module) -> Iterator[int]:
    """Integer constants of a computation and of those that it calls."""
    for instruction in module.computations[name].values():
        is_integer = instruction.arrays and instruction.arrays[0][:2] in (("s32", ()), ("u32", ()))
        if instruction.opcode == "constant" and is_integer:
            yield int(instruction.literal)
        for called in instruction.called:
            if called in module.computations:
                yield from _integers(called, module)


def _step(condition: str, body: str, module: Module) -> int:
    """What the body adds to the counter that the condition compares; 1 where that is not found."""
    conditions, bodies = module.computations[condition], module.computations[body]
    for name in root_of(conditions).operands:
        counter = conditions.get(name)
        if counter is None or counter.opcode != "get-tuple-element":
            continue
        results = root_of(bodies).operands
        index = int(counter.find(r"index=(\d+)") or 0)
        new = bodies.get(results[index]) if index < len(results) else None
        while new is not None and new.opcode in ("copy", "bitcast"):
            new = bodies.get(new.operands[0])
        if new is not None and new.opcode == "add":
            parts = [bodies[x] for x in new.operands if x in bodies]
            steps = [int(x.literal) for x in parts if x.opcode == "constant"]
            return max([1, *steps])
    return 1


def children(instruction: Instruction, module: Module) -> tuple[str, float] | None:
    """The computation that an instruction runs as instructions of their own, and how often: a
    loop's body (once where its trip count is unknown), a call's, and of a conditional the longest
    branch. None for any other one, such as a fusion, which is one operation."""
    if instruction.opcode == "while":
        return instruction.find(r"body=%?([\w.\-]+)") or "", trip_count(instruction, module) or 1
    if instruction.opcode == "conditional":
        names = [name for name in instruction.called if name in module.computations]
        return max(names, key=lambda name: len(module.computations[name])), 1
    if instruction.opcode == "call" or instruction.opcode in ASYNC_CALLS:
        names = [name for name in instruction.called if name in module.computations]
        return (names[0], 1) if names else None
    return None


def executions(module: Module, name: str | None = None, count: float = 1) -> Iterator[Execution]:
    """Every instruction that the program executes, in order, with its count; not the insides of
    fusions."""
    computation = module.computations[name or module.entry]
    for instruction in computation.values():
        inner = children(instruction, module)
        if inner is None:
            yield Execution(instruction, computation, count)
        else:
            yield from executions(module, inner[0], count * inner[1])


def unknown_loops(module: Module) -> list[str]:
    """Loops whose trip count nothing says; their bodies are counted once."""
    return [
        instruction.name
        for computation in module.computations.values()
        for instruction in computation.values()
        if instruction.opcode == "while" and trip_count(instruction, module) is None
    ]
