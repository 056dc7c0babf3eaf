"""Bytes that an instruction moves between HBM and the chip."""

import math

from t5jax.planning.hlo import Computation, Instruction, Module, root_of

# Names of values and places, or work that other instructions are charged with.
_FREE = frozenset(
    (
        *("parameter", "constant", "iota", "partition-id", "replica-id"),
        *("tuple", "get-tuple-element", "bitcast", "opt-barrier", "domain"),
        *("after-all", "add-dependency", "copy-done", "slice-done", "async-done", "async-update"),
        *("call-done", "send", "send-done", "recv-done"),
    )
)
_FREE_CALLS = ("AsyncCollective", "AllocateBuffer", "Sharding", "SPMD", "AssumeGatherIndices")
_SAME_BYTES = ("bitcast", "reshape", "copy")
# What changes part of its first operand in place: the operand that holds the new values, and how
# often that part goes between HBM and the chip (scatter adds to it).
_IN_PLACE = {"dynamic-update-slice": (1, 1), "scatter": (2, 2)}
COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)


def collective_kind(opcode: str) -> str | None:
    """`all-gather` of `all-gather` and `all-gather-start`; None for others and for `-done`."""
    kind = opcode.removesuffix("-start")
    return kind if kind in COLLECTIVES else None


def is_free(instruction: Instruction) -> bool:
    """Whether it takes no time of its own."""
    opcode = instruction.opcode
    is_end = opcode.endswith("-done")
    if opcode in _FREE or (is_end and opcode.removesuffix("-done") in COLLECTIVES):
        return True
    target = instruction.find(r'custom_call_target="([^"]*)"') or ""
    return opcode == "custom-call" and any(name in target for name in _FREE_CALLS)


def memory_bytes(instruction: Instruction, computation: Computation, module: Module) -> float:
    """Bytes of HBM read and written by one execution. Slices count as what they touch."""
    if is_free(instruction):
        return 0.0
    match instruction.opcode:
        case "fusion":
            return _fusion(instruction, computation, module)
        case "copy-start" | "slice-start":
            return sum(x.nbytes for x in instruction.arrays[:2] if x.in_memory)
        case "dynamic-slice" | "slice" | "gather":
            return 2.0 * instruction.nbytes
        case "dynamic-update-slice" | "scatter":
            return _changed_bytes(instruction, computation) + _update(instruction, computation)
    if collective_kind(instruction.opcode):
        return instruction.nbytes
    operands = (computation[name] for name in instruction.operands if name in computation)
    return instruction.nbytes + sum(x.nbytes for x in operands if len(x.arrays) == 1)


def _update(instruction: Instruction, computation: Computation) -> float:
    """Bytes of the new values of what is changed in place, wherever they are made."""
    operand, _ = _IN_PLACE[instruction.opcode]
    arrays = computation[instruction.operands[operand]].arrays
    return math.fsum(array.nbytes for array in arrays)


def _changed_bytes(instruction: Instruction, computation: Computation) -> float:
    return _IN_PLACE[instruction.opcode][1] * _update(instruction, computation)


def _fusion(fusion: Instruction, computation: Computation, module: Module) -> float:
    inner = module.computations[fusion.called[0]]
    read = 0.0
    for number, name in enumerate(fusion.operands):
        operand = computation.get(name)
        if operand is not None and len(operand.arrays) == 1:
            read += min(operand.nbytes, _read(inner, number, module))
    return read + _written(fusion, inner, module)


def _read(computation: Computation, number: int, module: Module) -> float:
    """Bytes that a fusion reads of its parameter of this number: slices and gathers count as what
    they touch, also inside fusions of fusions, and what is changed in place as nothing."""
    found = (x for x in computation.values() if _is_parameter(x, number))
    parameter = next(found, None)
    if parameter is None:
        return 0.0
    uses, total = _uses(parameter.name, computation), 0.0
    for use, name in uses:
        if use.opcode in ("dynamic-slice", "slice", "gather"):
            total += math.fsum(array.nbytes for array in use.arrays)
        elif use.opcode == "fusion":
            inner = module.computations[use.called[0]]
            numbers = [n for n, operand in enumerate(use.operands) if operand == name]
            total += math.fsum(_read(inner, n, module) for n in numbers)
        elif use.opcode not in _IN_PLACE or use.operands[0] != name:
            return math.inf
    return total if uses else math.inf


def _is_parameter(instruction: Instruction, number: int) -> bool:
    return instruction.opcode == "parameter" and int(instruction.literal) == number


def _uses(name: str, computation: Computation) -> list[tuple[Instruction, str]]:
    """Instructions that read a value, through others that change no byte, and as what operand."""
    found, waiting = [], [name]
    while waiting:
        current = waiting.pop()
        for user in computation.values():
            if current not in user.operands:
                continue
            if user.opcode in _SAME_BYTES and not user.is_root:
                waiting.append(user.name)
            else:
                found.append((user, current))
    return found


def _written(fusion: Instruction, inner: Computation, module: Module) -> float:
    root = root_of(inner)
    results = [inner[x] for x in root.operands] if root.opcode == "tuple" else [root]
    total = 0.0
    for array, result in zip(fusion.arrays, results, strict=False):
        if not array.in_memory:
            continue
        where, what = _made_by(result, inner, module)
        total += _changed_bytes(what, where) if what.opcode in _IN_PLACE else array.nbytes
    return total


def _made_by(
    result: Instruction, inner: Computation, module: Module
) -> tuple[Computation, Instruction]:
    """The instruction that makes a fusion's result, and the computation that it is in."""
    while True:
        if result.opcode in _SAME_BYTES and result.operands and result.operands[0] in inner:
            result = inner[result.operands[0]]
        elif result.opcode == "fusion" and len(result.arrays) == 1:
            inner = module.computations[result.called[0]]
            result = root_of(inner)
        else:
            return inner, result
