"""A search as a table: what fits, the fastest first, and why the other layouts do not count."""

import collections
from collections.abc import Iterator
from typing import Any

from t5jax.planning.search import SearchResult, Trial

_MOST_REASONS = 12  # lines of candidates that do not count
_WITHOUT_COMPILING = ("not compiled", "dominated", "does not fit")


def search_report(result: SearchResult) -> str:
    """The table for a terminal."""
    compiled = [trial for trial in result.trials if trial.plan is not None]
    lines = [
        f"{len(result.trials)} layouts of {result.config.train.batch_size} rows on "
        f"{result.topology}, {len(compiled)} compiled, {result.seconds / 60:.1f} minutes",
        "",
        f"{'':>2}  {'predicted ms':>12} {'MFU':>6} {'GB':>7} {'days':>7}  {'rough ms':>9} "
        f"{'rough GB':>8}  layout",
        *(_row(number, trial) for number, trial in enumerate(result.ranked, 1)),
    ]
    if not result.ranked:
        lines.append(
            "    nothing that was compiled fits" if compiled else "    nothing was compiled"
        )
    lines += ["", "the others, with rough ms and GB:", *_others(result)]
    return "\n".join(lines)


def search_as_json(result: SearchResult) -> dict[str, Any]:
    """The best plan with the settings that make it, and all candidates under `search`."""
    best = result.best
    head = {"fits": False, "flags": None} if best is None else {
        **(best.plan or {}), "flags": best.candidate.flags,
    }  # fmt: skip
    return {
        **head,
        "search": [
            {
                "layout": str(trial.candidate),
                "flags": trial.candidate.flags,
                "rough_seconds": round(trial.rough_seconds, 6),
                "rough_gb": round(trial.rough_bytes / 1e9, 3),
                "reason": trial.reason,
                "plan": trial.plan,
            }
            for trial in (*result.ranked, *(x for x in result.trials if not x.fits))
        ],
    }


def _row(number: int, trial: Trial) -> str:
    plan = trial.plan
    assert plan is not None
    days = "" if plan.get("days") is None else f"{plan['days']:.2f}"
    return (
        f"{number:2d}  {plan['step_seconds'] * 1e3:12.1f} {plan['mfu']:6.1%} "
        f"{plan['memory_gb']:7.2f} {days:>7}  {_rough(trial)}  {trial.candidate}"
    )


def _others(result: SearchResult) -> Iterator[str]:
    """Those that were compiled or begun, then the most promising; of the rest how many have which
    reason."""
    others = [trial for trial in result.trials if not trial.fits]
    kind = lambda trial: trial.reason.split(":")[0]
    waiting = lambda trial: trial.plan is None and kind(trial) in _WITHOUT_COMPILING
    shown = sorted(others, key=waiting)[:_MOST_REASONS]
    for trial in shown:
        yield f"    {_rough(trial)}  {trial.candidate}: {trial.reason}"
    rest = collections.Counter(kind(x) for x in others if not any(x is y for y in shown))
    for reason, count in rest.items():
        yield f"    and {count:,} more: {reason}"


def _rough(trial: Trial) -> str:
    return f"{trial.rough_seconds * 1e3:9.1f} {trial.rough_bytes / 1e9:8.2f}"
