"""The loss curve of a run, drawn from its metrics.jsonl.

`python -m t5jax.tracking.plots runs/NAME` draws it again at any time, also while the run goes on.
"""

import argparse
import itertools
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from t5jax.errors import writing
from t5jax.tracking.jsonl import EVALUATION, TRAIN, Record, current_records, iter_metrics
from t5jax.tracking.keys import LEARNING_RATE, TRAIN_LOSS, TRAIN_TEXT_LOSS, eval_key

_LOSS, _TEXT, _RATE = "#3465a4", "#c4622d", "#7a7a7a"
_SPLITS = ("#2e7d32", "#8e24aa", "#b8860b", "#00838f")
_PLOTTED = ("kind", "step", "split", TRAIN_LOSS, TRAIN_TEXT_LOSS, LEARNING_RATE)
_PLOTTED_OF_SPLIT = ("loss", "text_loss")


def plot_run(workdir: str | os.PathLike[str]) -> pathlib.Path | None:
    """Draws WORKDIR/metrics.jsonl as WORKDIR/loss.png; None if no step has been recorded yet."""
    workdir = pathlib.Path(workdir)
    return plot_losses(workdir / "metrics.jsonl", workdir / "loss.png", workdir.resolve().name)


def plot_losses(metrics: pathlib.Path, png: pathlib.Path, title: str) -> pathlib.Path | None:
    """Training loss (faint: every step; strong: smoothed), loss on text tokens, evaluations as
    points, and the learning rate on an axis of its own. Raises DataError if a line is damaged."""
    # A million records with all their fields would be a gigabyte.
    records = current_records(map(_plotted, iter_metrics(metrics)))
    train = [r for r in records if r["kind"] == TRAIN]
    if not train:
        return None

    # Not pyplot: its figures are global, and a library must leave the caller's alone.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5.6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    shown = [
        *_draw_curve(axes, *_series(train, TRAIN_LOSS), _LOSS, "training loss"),
        *_draw_curve(axes, *_series(train, TRAIN_TEXT_LOSS), _TEXT, "on text tokens"),
        *_draw_evaluations(axes, [r for r in records if r["kind"] == EVALUATION]),
    ]
    _draw_learning_rate(axes.twinx(), *_series(train, LEARNING_RATE))
    _style(axes, shown, f"{title}  ·  step {train[-1]['step']:,}".replace(",", " "))

    unfinished = png.with_name(png.name + ".part")
    with writing(png):
        figure.savefig(unfinished, format="png")
        os.replace(unfinished, png)  # who looks at loss.png never sees half of it
    return png


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Running mean of running means of the finite values: a spike becomes a hill, not a box."""
    return running_mean(running_mean(values, window), window)


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Mean of the finite values among the `window` around each (fewer at the ends); NaN if none."""
    finite = np.isfinite(values)
    before, after = (window - 1) // 2, window // 2
    places = np.arange(len(values))
    low, high = np.maximum(places - before, 0), np.minimum(places + after + 1, len(values))
    sums = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    count = counts[high] - counts[low]
    return np.where(count > 0, (sums[high] - sums[low]) / np.maximum(count, 1), np.nan)


def thin(steps: np.ndarray, values: np.ndarray, bins: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """At most the lowest and the highest value of each of `bins` bins: spikes stay visible."""
    if len(values) <= 2 * bins:
        return steps, values
    edges = np.linspace(0, len(values), bins + 1).astype(int)
    ordered = np.nan_to_num(values, nan=np.inf)
    keep = {
        low + place
        for low, high in itertools.pairwise(edges)
        for place in (ordered[low:high].argmin(), ordered[low:high].argmax())
    }
    places = np.array(sorted(keep))
    return steps[places], values[places]


def _plotted(record: Record) -> Record:
    """The fields of a record that are drawn."""
    names = [*_PLOTTED, *(eval_key(record.get("split", ""), name) for name in _PLOTTED_OF_SPLIT)]
    return {name: record[name] for name in names if name in record}


def _series(records: Sequence[Record], name: str) -> tuple[np.ndarray, np.ndarray]:
    pairs = [(r["step"], r[name]) for r in records if r.get(name) is not None]
    steps, values = zip(*pairs, strict=True) if pairs else ((), ())
    return np.array(steps, np.int64), np.array(values, np.float64)


def _draw_curve(axes, steps, values, color: str, label: str) -> list[np.ndarray]:
    """Returns the values that must be inside the picture; single spikes need not."""
    if not len(values):
        return []
    smoothed = smooth(values, 1 + len(values) // 80)
    few = len(values) < 50
    axes.plot(*thin(steps, values), color=color, alpha=0.25, linewidth=0.8, zorder=2)
    last = smoothed[np.isfinite(smoothed)][-1:]
    label += f" ({last[0]:.3f})" if len(last) else ""
    marker = "." if few else None
    axes.plot(
        *thin(steps, smoothed), color=color, linewidth=1.8, label=label, marker=marker, zorder=3
    )
    return [smoothed]


def _draw_evaluations(axes, records: Sequence[Record]) -> list[np.ndarray]:
    shown = []
    splits = dict.fromkeys(str(r.get("split")) for r in records)
    for place, split in enumerate(splits):
        mine = [r for r in records if str(r.get("split")) == split]
        color = _SPLITS[place % len(_SPLITS)]
        for name, marker, suffix in (("loss", "o", ""), ("text_loss", "D", " on text tokens")):
            steps, values = _series(mine, eval_key(split, name))
            if len(values):
                label = f"{split}{suffix} ({values[-1]:.3f})"
                style = {"linestyle": "", "marker": marker, "markersize": 5, "zorder": 4}
                axes.plot(steps, values, color=color, label=label, markeredgecolor="white", **style)
                shown.append(values)
    return shown


def _draw_learning_rate(axes, steps, values) -> None:
    axes.spines[["top", "left", "bottom"]].set_visible(False)
    if not len(values):
        axes.set_yticks([])
        axes.spines["right"].set_visible(False)
        return
    axes.plot(steps, values, color=_RATE, linewidth=1.0, linestyle=(0, (4, 3)), alpha=0.8)
    axes.set_ylim(0, 1.1 * max(np.nanmax(values), 1e-30))
    axes.set_ylabel("learning rate (dashed)", color=_RATE)
    axes.tick_params(axis="y", colors=_RATE)
    axes.spines["right"].set_color(_RATE)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))


def _style(axes, shown: list[np.ndarray], title: str) -> None:
    values = np.concatenate([[], *shown])
    values = values[np.isfinite(values)]
    if len(values):
        margin = max(0.05 * (values.max() - values.min()), 1e-3)
        axes.set_ylim(values.min() - margin, values.max() + margin)
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel("step")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_ylabel("loss (nats per token)")
    axes.spines["top"].set_visible(False)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_zorder(axes.get_zorder() + 2)  # above the learning rate's axes,
    axes.patch.set_visible(False)  # which must shine through
    axes.margins(x=0.01)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper right", frameon=True, framealpha=0.9, edgecolor="#dddddd")


def _main() -> None:
    parser = argparse.ArgumentParser(description="Draw the loss curve of a run.")
    parser.add_argument("workdir", help="the run's directory, which holds metrics.jsonl")
    print(plot_run(parser.parse_args().workdir) or "no steps recorded yet")


if __name__ == "__main__":
    _main()
