"""Static cycles of the attention kernels for TPUs, which need not be here (needs libtpu).

    python benchmarks/kernel_cycles.py v5e:2x2 [--case self causal cross …]
    python benchmarks/kernel_cycles.py v5e:2x2 --table    # for t5jax/planning/kernel_cycles.py

libtpu's scheduler packs a kernel's instructions into bundles, one a cycle where nothing waits. The
number of bundles of a kernel and the share of them that each unit is busy in are read from the
compiler's dump. Loops count once: the position bias's tile is made and its gradient summed once a
batch, not once a row.
"""

import argparse
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterator, Mapping
from typing import NamedTuple

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

UNITS = ("MXU", "XLU", "VALU", "VPOP", "EUP", "VLOAD", "FILL", "VSTORE", "SPILL", "SALU")
DUMPED = "*attention_*final_hlo-static-per-bundle-utilization.txt"


class Case(NamedTuple):
    """One attention: T queries and S keys of a row, N heads of H features."""

    T: int
    S: int
    N: int = 4
    H: int = 64
    has_bias: bool = True
    causal: bool = False


CASES = {
    "self": Case(512, 512),
    "causal": Case(114, 114, causal=True),
    "cross": Case(114, 512, has_bias=False),
    "1000": Case(1000, 1000),
    "2048": Case(2048, 2048),
    "2048 causal": Case(2048, 2048, causal=True),
    "16384": Case(16384, 16384),
    "cross 16384": Case(512, 16384, has_bias=False),
    "head_dim 128": Case(512, 512, H=128),
    "head_dim 256": Case(512, 512, N=2, H=256),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("topology", help="such as v5e:2x2, v5p:2x2x1, v6e:2x2, tpu7x:2x2x1")
    parser.add_argument("--case", nargs="+", choices=CASES, default=["self", "causal", "cross"])
    parser.add_argument("--table", action="store_true", help="a line of the table of `t5jax plan`")
    arguments = parser.parse_args()
    if arguments.table:
        print_table(arguments.topology)
        return
    print(f"{'case':14s} {'kernel':8s} {'bundles':>7s}  share of bundles in which a unit is busy")
    for name, kernels in kernels_of({x: CASES[x] for x in arguments.case}, arguments.topology):
        for kernel, bundles, busy in kernels:
            shares = "  ".join(f"{unit} {x:4.0%}" for unit, x in busy.items())
            print(f"{name:14s} {kernel:8s} {bundles:7d}  {shares}", flush=True)


def print_table(topology: str) -> None:
    """The bundles of each of TILES; of lengths that leave the tile partly empty where T5's do."""
    from t5jax.planning.kernel_cycles import TILES

    cases = {
        tile: Case(
            T=114 if tile.queries == 128 else tile.queries,
            S=114 if tile.keys == 128 else tile.keys,
            H=tile.head_dim,
            has_bias=tile.queries == tile.keys,
            causal=tile.keys == 128,
        )
        for tile in TILES
    }
    bundles: dict[str, list[int]] = {"forward": [], "backward": []}
    for _, kernels in kernels_of(cases, topology):
        for kernel, number, _ in kernels:
            bundles[kernel].append(number)
    row = {kernel: tuple(numbers) for kernel, numbers in bundles.items()}
    print(f'"{topology.split(":")[0]}": {row},'.replace("'", '"'))


def kernels_of(cases: Mapping, topology: str) -> Iterator[tuple]:
    """The name of each case, and the kernels that libtpu compiles of it."""
    with tempfile.TemporaryDirectory() as folder:
        flags = f"--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true"
        os.environ["LIBTPU_INIT_ARGS"] = f"{os.environ.get('LIBTPU_INIT_ARGS', '')} {flags}"
        for name, case in cases.items():
            for old in pathlib.Path(folder).iterdir():
                old.unlink()
            compile_attention(case, topology)
            yield name, list(dumped_kernels(pathlib.Path(folder)))


def compile_attention(case: Case, topology: str) -> None:
    """Compiles forward and backward pass of an attention of two packed rows in bfloat16."""
    # JAX is imported with the flags that libtpu reads.
    import jax
    import jax.numpy as jnp

    from t5jax.model.attention import Mask, PositionBias
    from t5jax.model.attention.pallas import pallas_attention
    from t5jax.planning.topology import parse_topology, prepare_process

    prepare_process(parse_topology(topology))
    device = jax.sharding.SingleDeviceSharding(parse_topology(topology).devices()[0])
    array = lambda *shape, dtype=jnp.bfloat16: jax.ShapeDtypeStruct(shape, dtype, sharding=device)
    T, S, N, H, has_bias, causal = case

    def passes(q, k, v, by_distance, queries, keys, dy):
        def attend(q, k, v, by_distance):
            mask, bias = Mask(queries, keys, causal), by_distance
            if bias is not None:
                bias = PositionBias.of_distances(by_distance, T, constant_from=128)
            return pallas_attention(q, k, v, bias, mask)

        y, gradients = jax.vjp(attend, q, k, v, by_distance)
        return y, gradients(dy)

    q, k, segments = array(2, T, N, H), array(2, S, N, H), lambda L: array(2, L, dtype=jnp.int32)
    bias = array(N, T + S) if has_bias else None
    jax.jit(passes).lower(q, k, k, bias, segments(T), segments(S), q).compile()


def dumped_kernels(folder: pathlib.Path) -> Iterator[tuple[str, int, dict[str, float]]]:
    """(pass, number of bundles, busy share by unit) of each kernel in libtpu's dump."""
    for path in sorted(folder.glob(DUMPED)):
        rows = [
            list(map(int, line.split()))
            for line in path.read_text().splitlines()
            if len(line.split()) == len(UNITS) and line.replace(" ", "").isdigit()
        ]
        capacity, *bundles = rows  # the first row is what a bundle has room for
        totals = [sum(column) for column in zip(*bundles, strict=True)]
        busy = {
            unit: total / max(room, 1) / len(bundles)
            for unit, total, room in zip(UNITS, totals, capacity, strict=True)
        }
        direction = "forward" if "attention_forward" in path.name else "backward"
        yield direction, len(bundles), busy


if __name__ == "__main__":
    main()
