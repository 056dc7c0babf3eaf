"""Plans of the pre-training configs on their hardware: docs/plans.md and the configs' headers.

    python -m benchmarks.plans                    what is missing, GPUs first; then the texts
    python -m benchmarks.plans t5_1_1_small_c4    these configs alone, made again
    python -m benchmarks.plans --texts            docs/plans.md and headers alone

Each plan is written to benchmarks/plans.json when it is made: what was cut off goes on there. A
config has no prediction in its header before its plan is made.
"""

import argparse
import datetime
import json
import pathlib
import re
import sys
from importlib import metadata
from typing import Any

from t5jax.config import RunConfig, read_config
from t5jax.data.atomic_files import write_json_file
from t5jax.planning.child import CompilationFailed, CutOff, plan_in_child
from t5jax.planning.topology import Topology, parse_topology, prepare_process

ROOT = pathlib.Path(__file__).parents[1]
RECORDS = ROOT / "benchmarks" / "plans.json"
PAGE = ROOT / "docs" / "plans.md"

_ONE_HOST, _BASE = ("h100:1x8", "v5e:2x4"), ("h100:1x8", "v5e:4x4")
# A GPU and a TPU topology for every config; the quickest to compile first.
HARDWARE: dict[str, tuple[str, ...]] = {
    "t5_1_1_small_c4": _ONE_HOST,
    "t5_1_1_small_c4_nanot5": ("h100:1x1", "v5e:2x2"),
    "t5_1_1_base_c4": _BASE,
    "t5_1_1_base_c4_nanot5": ("h100:1x1", "v5e:2x4"),
    "multitask_pretraining": _BASE,
    "t5_base_c4": _ONE_HOST,
    "t5_base_6_layers_c4": _ONE_HOST,
    "t5_base_shared_c4": _ONE_HOST,
    "t5_base_prefix_lm_c4": _ONE_HOST,
    "t5_base_decoder_only_c4": _ONE_HOST,
    "t5_base_encoder_only_c4": _ONE_HOST,
    "t5_1_1_large_c4": ("h100:4x8", "v5e:4x8"),
    "t5_1_1_large_c4_nanot5": ("h100:1x8", "v5e:4x4"),
    "t5_1_1_xl_c4": ("h100:8x8", "v5p:4x4x8"),
    "t5_1_1_xl_c4_nanot5": ("h100:1x8", "v5p:2x2x2"),
    "t5_1_1_xxl_c4": ("h100:16x8", "v5p:4x4x8"),
    "t5_1_1_xxl_c4_nanot5": ("h100:1x8", "v5p:2x2x4"),
}
_KEPT = (
    "fits", "memory_gb", "hbm_gb", "step_seconds", "mfu", "days", "chips", "chip_hours", "mesh",
    "num_microbatches", "remat", "attention", "unroll_layers", "compile_seconds", "warnings",
    "seconds_by_bound", "largest_operations",
)  # fmt: skip
# A plan with a smaller MFU has its largest operations on the page.
_WANTED_MFU = {"h100": 0.60, "v5e": 0.50, "v5p": 0.55}
Records = dict[str, dict[str, Any]]  # by config and topology: "t5_1_1_small_c4 v5e:2x4"

_HEAD = """\
# Plans of the shipped configs

Predictions by [`t5jax plan`](plan.md): the real train step of each pre-training config, compiled
for hardware that is not here. Nothing in this table was measured. Settings that a config leaves to
"auto" are those of the columns. `make plans` makes the rows that are missing and writes this page
and the configs' headers; what is not in the table has not been planned yet.

The rows of TPUs from 2026-11-30 were planned with attention kernels at 55 % of the matrix peak. A
plan of today takes the kernels' static instruction bundles instead, which are 36 % forward and 42 %
backward on v5e and v5p: about 3 % more time a step of `t5_1_1_base_c4` on v5e:4x4, by arithmetic.

| config | hardware | fits | GB a device | ms a step | MFU | days | chip-hours | mesh | \
microbatches | remat | layers | time by what is waited for | planned |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|
"""
_LIMITS = """
## What limits them

Wanted are 60 % MFU on H100, 50 % on v5e and 55 % on v5p. Of the plans with less: the ten operations
that take most of the step, with how often they run and what they wait for (matrix: products at 80 %
of the peak, attention kernels at what the plan assumes of them; memory: HBM at 90 % of its
bandwidth; cycles: libtpu's own count).
"""


def main() -> None:
    options = _options()
    records, wanted = read_records(), options.configs or list(HARDWARE)
    unknown = sorted(set(wanted) - HARDWARE.keys())
    if unknown:
        sys.exit(f"no such config in {__file__}: {', '.join(unknown)}")
    pairs = [(name, text) for name in wanted for text in HARDWARE[name]]
    pairs = [pair for pair in pairs if re.match(options.chips, pair[1])]
    pairs.sort(key=lambda pair: not pair[1].startswith("h100"))  # they compile in seconds
    for name, text in [] if options.texts else pairs:
        if _key(name, text) in records and not options.configs:
            continue
        make(name, text, 60 * options.minutes_each, records)
    write_texts(records)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("configs", nargs="*", metavar="CONFIG", help="names without .py")
    parser.add_argument("--chips", default="", help="hardware that begins so only: h100, v5")
    parser.add_argument("--minutes-each", type=float, default=30.0, help="given up then (30)")
    parser.add_argument("--texts", action="store_true", help="compile nothing")
    return parser.parse_args()


def make(name: str, text: str, seconds: float, records: Records) -> None:
    """Plans one config on one topology into `records` and their file; says why it could not."""
    topology = parse_topology(text)
    prepare_process(topology)
    print(f"planning {name} on {text}", flush=True)
    try:
        plan = plan_in_child(load(name), topology, seconds)
    except (CutOff, CompilationFailed) as error:
        return print(f"  not planned: {error}", flush=True)
    records |= read_records()  # those of another process that plans beside this one
    records[_key(name, text)] = {
        **{field: plan[field] for field in _KEPT},
        "date": datetime.date.today().isoformat(),
        "versions": _versions(topology),
    }
    write_json_file(RECORDS, dict(sorted(records.items())))
    print(f"  {layout_line(text, records[_key(name, text)])}", flush=True)


def load(name: str) -> RunConfig:
    return read_config(str(ROOT / "configs" / f"{name}.py"))


def _versions(topology: Topology) -> str:
    plugin = {"tpu": "libtpu", "gpu": "jax-cuda13-plugin", "cpu": "jaxlib"}[topology.chip.platform]
    return f"jax {metadata.version('jax')}, {plugin} {metadata.version(plugin)}"


def read_records() -> Records:
    return json.loads(RECORDS.read_text()) if RECORDS.exists() else {}


def _key(name: str, text: str) -> str:
    return f"{name} {text}"


def write_texts(records: Records) -> None:
    """docs/plans.md, and the header of every config."""
    PAGE.write_text(page(records))
    for name in HARDWARE:
        file = ROOT / "configs" / f"{name}.py"
        file.write_text(with_predictions(file.read_text(), predictions(name, records)))


def page(records: Records) -> str:
    """The text of docs/plans.md."""
    plans = [
        (name, text, records[_key(name, text)])
        for name in HARDWARE
        for text in HARDWARE[name]
        if _key(name, text) in records
    ]
    table = "".join(f"| {' | '.join(_row(*plan))} |\n" for plan in plans)
    below = [_largest_operations(*plan) for plan in plans if _is_below(*plan[1:])]
    return _HEAD + table + (_LIMITS + "".join(below) if below else "")


def _is_below(text: str, plan: dict[str, Any]) -> bool:
    return plan["fits"] and plan["mfu"] < _WANTED_MFU[text.split(":")[0]]


def _largest_operations(name: str, text: str, plan: dict[str, Any]) -> str:
    lines = [
        f"\n### `{name}` on {text}: {plan['mfu']:.0%}\n\n",
        "| ms | times | waits for | operation |\n",
        "|---|---|---|---|\n",
    ]
    for x in plan["largest_operations"]:
        lines.append(
            f"| {x['seconds'] * 1e3:.1f} | {x['times']:.0f} | {x['bound']} | `{x['what']}` |\n"
        )
    return "".join(lines)


def _row(name: str, text: str, plan: dict[str, Any]) -> tuple[str, ...]:
    fits = plan["fits"]
    figures = ("–",) * 4
    if fits:
        figures = (
            f"{plan['step_seconds'] * 1e3:.0f}", f"{plan['mfu']:.0%}", days(plan),
            f"{plan['chip_hours']:,.0f}",
        )  # fmt: skip
    layers = "unrolled" if plan["unroll_layers"] == "all" else "scanned"
    return (
        f"`{name}`", text, "yes" if fits else "**no**",
        f"{plan['memory_gb']:.1f} of {plan['hbm_gb']:.1f}", *figures, mesh_text(plan),
        str(plan["num_microbatches"]), plan["remat"], layers, _waits(plan),
        f"{plan['date']}, {plan['versions']}",
    )  # fmt: skip


def _waits(plan: dict[str, Any]) -> str:
    """`matrix 61 %, memory 30 %, collectives 9 %`."""
    if not plan["fits"]:
        return "–"
    total = sum(plan["seconds_by_bound"].values())
    shares = {name: round(100 * x / total) for name, x in plan["seconds_by_bound"].items()}
    return ", ".join(f"{name} {share} %" for name, share in shares.items() if share)


def mesh_text(plan: dict[str, Any]) -> str:
    sizes = [f"{axis} {size}" for axis, size in plan["mesh"].items() if size > 1]
    return " x ".join(sizes) or "one device"


def days(plan: dict[str, Any]) -> str:
    return f"{plan['days']:.1f}" if plan["days"] >= 1 else f"{plan['days']:.2f}"


def predictions(name: str, records: Records) -> list[str]:
    """A line of the header for each topology whose plan is there and fits."""
    plans = [(text, records.get(_key(name, text))) for text in HARDWARE[name]]
    lines = [layout_line(text, plan) for text, plan in plans if plan is not None and plan["fits"]]
    return [*lines, "by t5jax plan, not measured: docs/plans.md"] if lines else []


def layout_line(text: str, plan: dict[str, Any]) -> str:
    """`h100:1x8: MFU 49 %, 18.0 of 85.5 GB, 4.3 days (data 8, microbatches 2, remat none)`."""
    memory = f"{plan['memory_gb']:.1f} of {plan['hbm_gb']:.1f} GB"
    if not plan["fits"]:
        return f"{text}: does not fit, {memory}"
    return (
        f"{text}: MFU {plan['mfu'] * 100:.0f} %, {memory}, {days(plan)} days ({mesh_text(plan)}, "
        f"microbatches {plan['num_microbatches']})"
    )


def with_predictions(source: str, lines: list[str]) -> str:
    """A config's source with these lines under `Predicted:` after its hardware, and no others."""
    source = re.sub(r"\nPredicted:.*(\n {11}\S.*)*", "", source)
    if not lines:
        return source
    field = f"\nPredicted: {lines[0]}" + "".join(f"\n{'':11}{line}" for line in lines[1:])
    hardware = re.search(r"\nHardware:.*(\n {11}\S.*)*", source)
    assert hardware is not None, source[:80]
    return source[: hardware.end()] + field + source[hardware.end() :]


if __name__ == "__main__":
    main()
