"""One GPU or TPU in at most eight minutes: is every attention right, how fast is it, how fast are
T5 1.1 base, large and xl, and is what `t5jax plan` says true of this device?

    python benchmarks/accelerator.py [--json accelerator.json] [--seconds 470] [--parts checks base]

Needs only jax with the device's plug-in, flax, optax, orbax-checkpoint and numpy besides this
repository, which need not be installed, and no data. Every part is a process with a budget of its
own: what fails or takes too long does not stop the others, and memory is measured from zero. What a
part leaves is added to the next one's. The table is printed part by part, the JSON rewritten after
each. Without an accelerator everything runs with tiny dimensions (`--smoke`), which tests the
script and measures nothing. Exit code 1 where a part failed or a result is wrong.
"""

import argparse
import json
import logging
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

# The names of the parts in their order, and the seconds that each may take.
PARTS = {
    "device": 20,
    "checks": 75,
    "attention": 65,
    "base": 90,
    "large": 80,
    "xl": 95,
    "decode": 45,
}
TOTAL_SECONDS = sum(PARTS.values())
LOGGED = "logged"
_START_UP = 12  # of a process, until its device is there; at the end of a part nothing is left over


# ---- in the process of a part


def rows_of_part(name: str, seconds: float, smoke: bool) -> Iterator[dict]:
    """The results of a part, one after the other."""
    if name == "device":
        return device_rows()
    from benchmarks.accelerator_steps import Clock, decode, train

    clock = Clock(seconds - _START_UP)
    if name == "checks":
        return check_rows(clock, smoke)
    if name == "attention":
        return attention_rows(clock, smoke)
    return decode(clock, smoke) if name == "decode" else train(name, clock, smoke)


def device_rows() -> Iterator[dict]:
    import importlib.metadata

    import jax

    from t5jax.tracking.throughput import measure_matmul_peak, peak_flops

    device = jax.local_devices()[0]
    names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    yield {
        "platform": device.platform,
        "kind": device.device_kind,
        "devices": len(jax.local_devices()),
        "memory_bytes": (device.memory_stats() or {}).get("bytes_limit"),
        "peak_flops": peak_flops(device.device_kind, "bfloat16"),
        "versions": {name: importlib.metadata.version(name) for name in names},
        "python": sys.version.split()[0],
    }
    yield {"measured_peak_flops": measure_matmul_peak("bfloat16", 1.0)}


def check_rows(clock, smoke: bool) -> Iterator[dict]:
    from benchmarks.attention_checks import CASES, check, names_to_check

    for case in CASES:
        if clock.left < 6:
            yield {"case": case.name, "why_not": "no time"}
        else:
            yield from check(case.smaller() if smoke else case, names_to_check())


def attention_rows(clock, smoke: bool) -> Iterator[dict]:
    """Encoder self-attention by length, then packed and causal rows, while there is time."""
    from benchmarks.attention import PASSES, Shape, measure
    from benchmarks.attention_checks import names_to_check

    names = ("einsum", *names_to_check())
    lengths = (64, 128) if smoke else (512, 1024, 2048, 4096, 8192)
    tokens = 256 if smoke else 16384
    sizes = {"num_heads": 3, "head_dim": 8} if smoke else {}
    kinds: tuple[dict, ...] = ({}, {"packed": True}, {"causal": True, "packed": True})
    for kind in kinds:
        for length in lengths if not kind else lengths[:1]:
            for what in PASSES:
                if clock.left < 6:
                    yield {"why_not": f"no time for length {length}, {kind or 'plain'}, {what}"}
                    return
                shape = Shape(rows=tokens // length, length=length, **sizes, **kind)
                turns, seconds = (1, 0.01) if smoke else (3, 0.1)
                yield from measure(shape, what, turns=turns, seconds=seconds, names=names)


def child(options: argparse.Namespace) -> None:
    """Writes each result as a JSON line, and what t5jax logs, such as why an attention was not
    taken."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not come between the results

    def write(row: dict) -> None:
        print(json.dumps(row), file=answers, flush=True)

    logged = logging.Handler()
    logged.emit = lambda record: write({LOGGED: record.getMessage()})
    logging.getLogger("t5jax").addHandler(logged)
    for row in rows_of_part(options.part, options.seconds, options.smoke):
        write(row)


# ---- in the process that starts the parts


def run_part(name: str, seconds: float, smoke: bool) -> dict:
    """Runs a part in a process that is ended after `seconds`; what it had found by then is kept."""
    command = [sys.executable, __file__, "--part", name, "--seconds", str(seconds)]
    environment = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92", **os.environ}
    start = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command + ["--smoke"] * smoke, stdout=subprocess.PIPE, stderr=log, env=environment
        )
        try:
            output, _ = process.communicate(timeout=seconds)
            status = "done" if process.returncode == 0 else f"failed ({process.returncode})"
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
            status = "out of time"
        log.seek(0)
        said = log.read().decode(errors="replace")
    rows, others = rows_of(output.decode(errors="replace"))
    said += "".join(others)
    result = {"part": name, "status": status, "seconds": time.perf_counter() - start}
    result["rows"] = [row for row in rows if LOGGED not in row]
    result[LOGGED] = [row[LOGGED] for row in rows if LOGGED in row]
    return result if status == "done" else result | {"log": said[-2000:]}


def rows_of(output: str) -> tuple[list[dict], list[str]]:
    """(the rows that a part printed, its other lines: of libraries, or cut while written)."""
    rows, others = [], []
    for line in output.splitlines(keepends=True):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            others.append(line)
    return rows, others


def run(options: argparse.Namespace) -> list[dict]:
    """All parts, printed as they end."""
    results, smoke, saved = [], options.smoke, 0.0
    names = ["device", *(name for name in PARTS if name in options.parts and name != "device")]
    share = options.seconds / TOTAL_SECONDS
    for name in names:
        seconds = PARTS[name] * share + saved
        result = run_part(name, seconds, smoke)
        saved = max(0.0, seconds - result["seconds"])
        results.append(result)
        print(f"\n## {name}: {result['status']} after {result['seconds']:.0f} s")
        print("\n".join(shown(result)), flush=True)
        if name == "device":
            smoke = smoke or all(row.get("platform", "cpu") == "cpu" for row in result["rows"][:1])
        report = {"smoke": smoke, "ok": all(map(is_good, results)), "parts": results}
        options.json.write_text(json.dumps(report, indent=1, default=str) + "\n")
    return results


def is_good(result: dict) -> bool:
    return result["status"] == "done" and all(row.get("ok", True) for row in result["rows"])


def shown(result: dict) -> list[str]:
    """The lines of a part's table."""
    lines = {
        "device": device_lines,
        "checks": check_lines,
        "attention": attention_lines,
        "decode": decode_lines,
    }.get(result["part"], train_lines)(result["rows"])
    return [*lines, *result.get(LOGGED, ()), *result.get("log", "").splitlines()[-6:]]


def device_lines(rows: list[dict]) -> list[str]:
    return [", ".join(f"{key} {value}" for key, value in row.items()) for row in rows]


def check_lines(rows: list[dict]) -> list[str]:
    """A line for each implementation, dtype and case: the largest errors."""
    lines = [
        "| case | dtype | implementation | relative errors | within |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        if "why_not" in row:
            found, verdict = row["why_not"], "not run"
        else:
            found = ", ".join(f"{name} {error:.1e}" for name, error in row["errors"].items())
            verdict = f"{row['limit']:.0e}" if row["ok"] else f"WRONG, more than {row['limit']:.0e}"
        cells = (row["case"], row.get("dtype", ""), row.get("implementation", ""), found, verdict)
        lines.append("| " + " | ".join(cells) + " |")
    right, wrong = (sum(row.get("ok") is value for row in rows) for value in (True, False))
    return [*lines, f"{right} right, {wrong} wrong, {len(rows) - right - wrong} not run"]


def attention_lines(rows: list[dict]) -> list[str]:
    from benchmarks.attention import HEADER, table_row

    return [HEADER, *(table_row(row) if "length" in row else row["why_not"] for row in rows)]


def train_lines(rows: list[dict]) -> list[str]:
    lines = [
        "| T5 1.1 | rows | layers | ms | planned | MFU | tokens/s | GB | planned | loss | "
        "compiled in |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if "why_not" in row:
            lines.append(f"| {row['size']} | {row['rows']} | {row['why_not']} " + "|" * 9)
            continue
        planned = row["planned_seconds"]
        time_planned = row["plan"] if planned is None else f"{1e3 * planned:.1f}"
        cells = (
            row["size"], row["rows"], f"{row['layers']}, remat {row['remat']}",
            f"{1e3 * row['seconds']:.1f}", time_planned, percent(row["mfu"]),
            f"{row['tokens_per_second']:.0f}", gigabytes(row["memory_bytes"]),
            gigabytes(row["planned_memory_bytes"]),
            f"{row['first_loss']:.2f} to {row['last_loss']:.2f}", f"{row['compile_seconds']:.0f} s",
        )  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


def decode_lines(rows: list[dict]) -> list[str]:
    lines = []
    for row in rows:
        head = f"T5 1.1 {row['size']}, greedy, {row['rows']} rows, {row['inputs']} inputs"
        if "tokens" in row:
            lines.append(f"{head}: {row['tokens']} tokens in {row['seconds']:.3f} s")
        else:
            limit = row["bound_milliseconds"]
            limit = row["plan"] if limit is None else f"memory bandwidth allows {limit:.2f} ms"
            lines.append(f"{head}: {row['milliseconds_per_token']:.2f} ms a token, {limit}")
    return lines


def percent(share: float | None) -> str:
    return "" if share is None or math.isnan(share) else f"{share:.1%}"


def gigabytes(nbytes: float | None) -> str:
    return "" if nbytes is None else f"{nbytes / 1e9:.2f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=pathlib.Path, default=pathlib.Path("accelerator.json"))
    parser.add_argument(
        "--seconds", type=float, default=TOTAL_SECONDS, help="of all parts together"
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--smoke", action="store_true", help="tiny dimensions")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        child(options)
        return 0
    return 0 if all(map(is_good, run(options))) else 1


if __name__ == "__main__":
    sys.exit(main())
