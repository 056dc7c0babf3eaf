"""Time and memory of attention by length, every implementation that runs on this machine's device.

    python benchmarks/attention.py [--lengths 512 1024 2048 4096 8192 16384] [--json FILE]
    python benchmarks/attention.py --causal --packed --dtype float32 --head-dim 128

One attention of T5 1.1 base (12 heads of 64) with a trainable position bias, forward alone and with
its backward pass (gradients of queries, keys, values and bias), as many rows as make 8192 tokens.
The implementations are those of `t5jax/model/attention`, in turns; what the device cannot run, and
what would not fit its memory, is named with the reason. Interpret mode is never timed. Memory is
what the compiler plans for temporaries and results. FLOPs are those of the two products of the
forward pass and the four of the backward pass, masked scores counted and recomputation not.
"""

import argparse
import json
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple, get_args

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.turns import MOST_OTHERS, Rounds, Stopwatch, Turn
from t5jax.model.attention import Mask, PositionBias, dot_product_attention
from t5jax.model.attention.dispatch import why_not
from t5jax.model.config import AttentionImplementation
from t5jax.tracking.throughput import peak_flops

NAMES = tuple(name for name in get_args(AttentionImplementation) if name != "auto")
LENGTHS = (512, 1024, 2048, 4096, 8192, 16384)
PASSES = ("forward", "forward + backward")


class Shape(NamedTuple):
    """One self-attention; `packed` rows hold four segments, others one."""

    rows: int
    length: int
    num_heads: int = 12
    head_dim: int = 64
    causal: bool = False
    packed: bool = False
    dtype: str = "bfloat16"

    def arguments(self, seed: int = 0) -> tuple[jax.Array, ...]:
        """Queries, keys, values and the output's gradient [B, T, N, H], the bias of all distances
        [N, 2T], the segment of every token [B, T]."""
        B, T, N, H = self.rows, self.length, self.num_heads, self.head_dim
        rng = np.random.default_rng(seed)
        normal = lambda *shape: jnp.asarray(rng.standard_normal(shape, np.float32), self.dtype)
        segments = np.ones((B, T), np.int32)
        if self.packed:
            segments += (np.arange(T) // -(-T // 4)).astype(np.int32)
        q, k, v, dy = (normal(B, T, N, H) for _ in range(4))
        return 0.3 * q, k, v, dy, normal(N, 2 * T), jnp.asarray(segments)

    def flops(self, what: str) -> float:
        """Of the products of a pass; padding and masked scores count."""
        forward = 4.0 * self.rows * self.num_heads * self.length**2 * self.head_dim
        return forward * (1 if what == "forward" else 3)


def attend(name: str, q, k, v, bias: PositionBias | None, mask: Mask) -> jax.Array:
    """The named implementation and no other. Raises NotImplementedError with the reason where it
    cannot do the call, for which a model would take another one."""
    reason = why_not(name, q, k, v, bias, mask)
    if reason is not None:
        raise NotImplementedError(reason)
    return dot_product_attention(q, k, v, bias, mask, name)


class Prepared(NamedTuple):
    """A compiled attention with its arguments, or why there is none."""

    call: Callable[[], Any] | None
    nbytes: float | None  # of temporaries and results
    why_not: str | None = None


def program(name: str, shape: Shape, what: str) -> Callable:
    """The jitted pass of an implementation: y, with the backward pass (y, dq, dk, dv, dbias)."""

    def forward(q, k, v, by_distance_NW, segments):
        bias = PositionBias.of_distances(by_distance_NW, shape.length)
        mask = Mask(segments, segments, shape.causal, padded_at_end=not shape.packed)
        return attend(name, q, k, v, bias, mask)

    def run(q, k, v, dy, by_distance_NW, segments):
        if what == "forward":
            return forward(q, k, v, by_distance_NW, segments)
        apply = lambda *inputs: forward(*inputs, segments)
        y, gradients = jax.vjp(apply, q, k, v, by_distance_NW)
        return y, *gradients(dy)

    return jax.jit(run)


def prepare(name: str, shape: Shape, what: str, available: float) -> Prepared:
    """Compiles an implementation; `available` bytes are there for temporaries and results."""
    abstract = jax.eval_shape(shape.arguments)
    try:
        compiled = program(name, shape, what).lower(*abstract).compile()
    except Exception as error:  # whatever a compiler says of a device that it is not made for
        return Prepared(None, None, first_line(error))
    memory = compiled.memory_analysis()
    assert memory is not None
    nbytes = float(memory.temp_size_in_bytes + memory.output_size_in_bytes)
    if nbytes > available:
        reason = f"needs {nbytes / 1e9:.1f} GB, {available / 1e9:.1f} GB are there"
        return Prepared(None, nbytes, reason)
    arguments = shape.arguments()
    return Prepared(lambda: compiled(*arguments), nbytes)


def first_line(error: BaseException) -> str:
    """`ValueError: Only interpret mode …`, cut to one line; of `attend` the reason alone."""
    text = " ".join(str(error).split())[:160]
    return text if isinstance(error, NotImplementedError) else f"{type(error).__name__}: {text}"


def available_memory() -> float:
    """Bytes that arrays may take on the first device: its free memory, most of a CPU's."""
    statistics_of_device = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in statistics_of_device:
        used = statistics_of_device.get("bytes_in_use", 0)
        return 0.9 * (statistics_of_device["bytes_limit"] - used)
    return 0.7 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def turn(call: Callable[[], Any], seconds: float) -> Callable[[], Turn]:
    """A turn of as many calls in a row as take about `seconds`; its time is that of one call."""
    jax.block_until_ready(call())
    start = time.perf_counter()
    jax.block_until_ready(call())
    repeats = max(1, round(seconds / (time.perf_counter() - start)))

    def take() -> Turn:
        with Stopwatch() as watch:
            for _ in range(repeats):
                result = call()
            jax.block_until_ready(result)
        return Turn(watch.seconds / repeats, watch.others)

    return take


def measure(shape: Shape, what: str, *, turns: int, seconds: float, names=None) -> list[dict]:
    """The figures of every implementation in one pass: dicts with `implementation`, `milliseconds`
    (median; None where there is none, with `why_not`), `all_milliseconds`, `tflops`, `mfu`,
    `gigabytes`."""
    available, prepared, sides = available_memory(), {}, {}
    for name in names or NAMES:
        prepared[name] = prepare(name, shape, what, available)
        if (call := prepared[name].call) is not None:
            try:
                sides[name] = turn(call, seconds)
            except Exception as error:  # a kernel that compiles and does not run
                prepared[name] = Prepared(None, prepared[name].nbytes, first_line(error))
    # Accelerators do not share their cores with other processes.
    most_others = MOST_OTHERS if jax.default_backend() == "cpu" else 1.0
    rounds = Rounds(sides).take(sides, turns, most_others) if sides else None
    peak = peak_flops(jax.local_devices()[0].device_kind, shape.dtype)
    found = []
    for name, one in prepared.items():
        row = {"implementation": name, "pass": what, **shape._asdict()}
        row |= {"gigabytes": one.nbytes and one.nbytes / 1e9, "milliseconds": None}
        if rounds is None or name not in sides:
            row["why_not"] = one.why_not
        elif not rounds.clean:
            row["why_not"] = rounds.cleanness()
        else:
            times = rounds.seconds(name)
            rate = shape.flops(what) / statistics.median(times)
            row |= {
                "milliseconds": 1e3 * statistics.median(times),
                "all_milliseconds": [1e3 * x for x in times],
                "tflops": rate / 1e12,
                "mfu": peak and rate / peak,
                "rounds": rounds.cleanness(),
            }
        found.append(row)
    return found


def table_row(row: dict) -> str:
    """A row of `measure` as Markdown."""
    memory = "" if row["gigabytes"] is None else f"{row['gigabytes']:.3f}"
    kinds = [kind for kind in ("causal", "packed") if row[kind]]
    name = " ".join([row["implementation"], *kinds])
    cells = [row["length"], row["rows"], name, row["pass"]]
    if row["milliseconds"] is None:
        cells += [row["why_not"], "", "", memory]
    else:
        times = row["all_milliseconds"]
        mfu = "" if row["mfu"] is None else f"{row['mfu']:.0%}"
        shown = f"{row['milliseconds']:.2f} ({min(times):.2f} to {max(times):.2f})"
        cells += [shown, f"{row['tflops']:.2f}", mfu, memory]
    return "| " + " | ".join(map(str, cells)) + " |"


HEADER = (
    "| length | rows | implementation | pass | ms | TFLOP/s | of the peak | GB |\n"
    "|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    on_cpu = jax.default_backend() == "cpu"
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument(
        "--tokens", type=int, default=8192, help="rows times length, at least a row"
    )
    parser.add_argument("--num-heads", type=int, default=12)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--dtype", default="float32" if on_cpu else "bfloat16")
    parser.add_argument("--causal", action="store_true")
    parser.add_argument("--packed", action="store_true", help="four segments a row")
    parser.add_argument("--implementations", nargs="+", choices=NAMES)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="of a turn, at least one call")
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    print(f"{jax.local_devices()[0].device_kind}, jax {jax.__version__}, {options.dtype}")
    print(HEADER)
    found = []
    for length in options.lengths:
        shape = Shape(
            rows=max(1, options.tokens // length),
            length=length,
            num_heads=options.num_heads,
            head_dim=options.head_dim,
            causal=options.causal,
            packed=options.packed,
            dtype=options.dtype,
        )
        for what in PASSES:
            rows = measure(
                shape, what, turns=options.turns, seconds=options.seconds,
                names=options.implementations,
            )  # fmt: skip
            print("\n".join(map(table_row, rows)), flush=True)
            found += rows
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
