"""FLOPs of an instruction's matrix products: dots, convolutions, library calls, attention kernels.

A product of [m, k] and [k, n] is 2mkn; elementwise work counts as nothing.
"""

import itertools
import math
import re
from typing import NamedTuple

from t5jax.planning.hlo import Computation, Instruction, Module

FORWARD_PRODUCTS, BACKWARD_PRODUCTS = 2, 5  # of [T, H] and [H, S] in fused attention
_CUDNN_ATTENTION = "__cudnn$fmha"
_MOST_PAIRS = 4e6  # of output and window positions that are counted one by one


def matrix_flops(instruction: Instruction, computation: Computation, module: Module) -> float:
    """FLOPs of one execution, those inside a fusion included."""
    match instruction.opcode:
        case "dot":
            return _dot(instruction, computation)
        case "convolution":
            return _convolution(instruction, computation)
        case "fusion":
            return _inside(instruction, module)
        case "custom-call":
            return _library_call(instruction, computation)
    return 0.0


def is_attention_kernel(instruction: Instruction) -> bool:
    """Whether it is one fused attention, cuDNN's or a Pallas kernel of `model/attention`."""
    if instruction.opcode != "custom-call":
        return False
    target = instruction.find(r'custom_call_target="([^"]*)"') or ""
    return target.startswith(_CUDNN_ATTENTION) or (
        _is_pallas(target) and "attention" in f"{instruction.op_name} {instruction.name}".lower()
    )


def is_backward(kernel: Instruction) -> bool:
    """Which pass an attention kernel is of, by the names that it has."""
    return re.search("[Bb]ackward|_bwd", f"{kernel.name} {kernel.attributes}") is not None


def _is_pallas(target: str) -> bool:
    return target in ("tpu_custom_call", "mosaic_gpu", "__gpu$xla.gpu.triton")


def _inside(fusion: Instruction, module: Module) -> float:
    total = 0.0
    for name in fusion.called:
        inner = module.computations.get(name, {})
        total += sum(matrix_flops(x, inner, module) for x in inner.values())
    return total


def _dims(name: str, computation: Computation) -> tuple[int, ...]:
    return computation[name].arrays[0].dims


def _dot(dot: Instruction, computation: Computation) -> float:
    left = _dims(dot.operands[0], computation)
    contracted = dot.find(r"lhs_contracting_dims=\{([\d,]*)\}") or ""
    depth = math.prod(left[int(dim)] for dim in contracted.split(",") if dim)
    return 2.0 * dot.arrays[0].size * depth


class _Window(NamedTuple):
    """One spatial dimension of a convolution."""

    size: int
    stride: int
    low_padding: int
    lhs_dilation: int
    rhs_dilation: int

    def pairs(self, input_size: int, output_size: int) -> int:
        """Pairs of output and window positions that read the input, not its padding."""
        dilated = (input_size - 1) * self.lhs_dilation + 1
        if self.size * output_size > _MOST_PAIRS:
            return self.size * output_size
        return sum(
            0 <= (place := out * self.stride + k * self.rhs_dilation - self.low_padding) < dilated
            and place % self.lhs_dilation == 0
            for out in range(output_size)
            for k in range(self.size)
        )


def _windows(text: str, rank: int) -> list[_Window]:
    """From `size=3x1 stride=2x1 pad=1_1x0_0 lhs_dilate=1x1 rhs_dilate=1x1`."""

    def values(name: str, default: str) -> list[str]:
        found = re.search(rf"\b{name}=([\d_x\-]+)", text)
        return found[1].split("x") if found else [default] * rank

    names = ("size", "stride", "pad", "lhs_dilate", "rhs_dilate")
    columns = [values(name, "0_0" if name == "pad" else "1") for name in names]
    return [
        _Window(*(int(value.split("_")[0]) for value in row)) for row in zip(*columns, strict=True)
    ]


def _convolution(instruction: Instruction, computation: Computation) -> float:
    """TPU programs write most matrix products as convolutions."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
    assert labels is not None, instruction.name
    left_labels, right_labels, out_labels = labels.groups()
    left, right = (_dims(name, computation) for name in instruction.operands[:2])
    out = instruction.arrays[0].dims
    spatial = [label for label in left_labels if label.isdigit()]
    windows = _windows(instruction.find(r"window=\{([^}]*)\}") or "", len(spatial))
    pairs = math.prod(
        window.pairs(left[left_labels.index(label)], out[out_labels.index(label)])
        for label, window in zip(spatial, windows, strict=True)
    )
    groups = int(instruction.find(r"batch_group_count=(\d+)") or 1)
    rows = left[left_labels.index("b")] / groups
    return 2.0 * rows * out[out_labels.index("f")] * right[right_labels.index("i")] * pairs


def _library_call(call: Instruction, computation: Computation) -> float:
    target = call.find(r'custom_call_target="([^"]*)"') or ""
    stated = call.find(r'"flops":\s*"?(\d+)')  # of a Pallas kernel's `cost_estimate`
    if stated:
        return float(stated)
    if target.startswith("__cublas$"):
        contracted = call.find(r'"lhs_contracting_dimensions":\[([^\]]*)\]') or ""
        left = _dims(call.operands[0], computation)
        depth = math.prod(left[int(dim)] for dim in re.findall(r"\d+", contracted))
        return 2.0 * call.arrays[0].size * depth
    if target.startswith("__onednn$matmul"):
        left, right = (_dims(name, computation) for name in call.operands[:2])
        return _of_sizes(left, right, call.arrays[0].dims)
    if target.startswith(_CUDNN_ATTENTION) or _is_pallas(target):
        return _attention(call, computation, is_backward="Backward" in target)
    return 0.0


def _of_sizes(left: tuple[int, ...], right: tuple[int, ...], out: tuple[int, ...]) -> float:
    """Of [b, m, k] @ [b, k, n] = [b, m, n] in any layout, from their sizes alone."""
    batch = math.prod(out[:-2]) if len(out) > 2 and len(left) == len(out) == len(right) else 1
    return 2.0 * math.sqrt(math.prod(left) * math.prod(right) * math.prod(out) / batch)


def _attention(call: Instruction, computation: Computation, *, is_backward: bool) -> float:
    """Of queries [B, T, J] and keys [B, S, J], or [B, T, N, H], [B, N, T, H] and likewise; 0 for
    a call whose first operands are no such pair."""
    operands = [_dims(name, computation) for name in call.operands if name in computation]
    pairs = [(q, k) for q, k in itertools.pairwise(operands) if _are_pair(q, k)]
    if not pairs:
        return 0.0
    queries, keys = pairs[0]
    sequence = next((i for i in range(1, len(queries)) if queries[i] != keys[i]), 1)
    if len(queries) == 4 and queries == keys:  # heads stand before or behind the positions
        sequence = 1 if queries[1] >= queries[2] else 2
    products = FORWARD_PRODUCTS
    if is_backward or len([x for x in call.arrays if x.dims in (queries, keys)]) >= 3:
        products = BACKWARD_PRODUCTS
    return 2.0 * products * math.prod(queries) * keys[sequence]


def _are_pair(queries: tuple[int, ...], keys: tuple[int, ...]) -> bool:
    differ = sum(a != b for a, b in zip(queries, keys, strict=False))
    return len(queries) == len(keys) in (3, 4) and differ <= 1 and queries[0] == keys[0]
