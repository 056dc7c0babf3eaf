"""The plots of a task's page, as SVG, coloured by the page's style, a bar with its numbers on it.

Not matplotlib's, whose SVG has its own colours in the dark too, says nothing of a bar below the
pointer, and is full of `http:` and `url(#…)` where the page is checked to fetch nothing (31 in a
histogram of 30 bars, whose 15 kB are 4 here).
"""

import html
from collections.abc import Sequence

import numpy as np

_WIDTH, _HEIGHT = 440, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 22, 34


def histogram(counts: np.ndarray, edges: np.ndarray, *, limit: int | None, unit: str) -> str:
    """Bars of the counts [K] between edges [K + 1], all equally wide, and the limit as a line."""
    bars = _bars(
        counts,
        [
            f"{low:,} to {high - 1:,} {unit}: {count:,}"
            for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True)
        ],
        [limit is not None and low > limit for low in edges[:-1]],
    )
    shown = range(0, len(edges), max(1, len(edges) // 6))
    ticks = [_text(_x(i, len(counts)), _HEIGHT - 16, f"{edges[i]:,}", "middle") for i in shown]
    line = ""
    if limit is not None and limit <= edges[-1]:
        x = _x(float(np.interp(limit, edges, np.arange(len(edges)))), len(counts))
        side = "end" if x > _WIDTH / 2 else "start"
        shift = -5 if side == "end" else 5
        line = f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="6" y2="{_HEIGHT - _BOTTOM}"/>'
        line += _text(x + shift, 14, f"limit {limit:,}", side, "limit")
    return _plot([_count_axis(counts), bars, *ticks, line, _below(unit)])


def columns(counts: np.ndarray, *, unit: str, names: Sequence[str]) -> str:
    """A bar for each of the counts [K], with its name."""
    titles = [f"{name}: {count:,}" for name, count in zip(names, counts, strict=True)]
    shown = range(0, len(counts), max(1, -(-len(counts) // 8)))
    ticks = [_text(_x(i + 0.5, len(counts)), _HEIGHT - 16, str(i), "middle") for i in shown]
    bars = _bars(counts, titles, [False] * len(counts))
    return _plot([_count_axis(counts), bars, *ticks, _below(unit)])


def rank_frequency(counts: np.ndarray) -> str:
    """How often the k-th most frequent id stands in the text, both axes logarithmic."""
    sizes = np.sort(counts[counts > 0])[::-1]
    ranks = np.unique(np.geomspace(1, len(sizes), 160).round().astype(int))
    width = max(np.log10(len(sizes)), 1e-9)
    height = max(np.log10(sizes[0]), 1e-9)
    plot_width, plot_height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    xs = _LEFT + np.log10(ranks) / width * plot_width
    ys = _HEIGHT - _BOTTOM - np.log10(sizes[ranks - 1]) / height * plot_height
    parts = []
    for decade in range(int(width + 1e-9) + 1):
        x = _LEFT + decade / width * plot_width
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="176"/>')
        parts.append(_text(x, _HEIGHT - 16, f"{10**decade:,}", "middle"))
    for decade in range(int(height + 1e-9) + 1):
        y = _HEIGHT - _BOTTOM - decade / height * plot_height
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(_LEFT - 6, y + 4, f"{10**decade:,}", "end"))
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
    parts.append(f'<polyline class="curve" points="{points}"/>')
    return _plot([*parts, _below("rank"), _text(4, 12, "times", "start")])


def _bars(counts: np.ndarray, titles: Sequence[str], over: Sequence[bool]) -> str:
    step, highest = (_WIDTH - _LEFT - _RIGHT) / len(counts), max(int(counts.max()), 1)
    parts = []
    for i, count in enumerate(counts.tolist()):
        height = count / highest * (_HEIGHT - _TOP - _BOTTOM)
        height = max(height, 1.5) if count else 0.0
        y = _HEIGHT - _BOTTOM - height
        kind = "bar over" if over[i] else "bar"
        parts.append(
            f'<rect class="{kind}" x="{_x(i, len(counts)) + 0.5:.1f}" y="{y:.1f}" '
            f'width="{max(step - 1, 1):.1f}" height="{height:.1f}">'
            f"<title>{html.escape(titles[i])}</title></rect>"
        )
    return "".join(parts)


def _count_axis(counts: np.ndarray) -> str:
    highest, base = max(int(counts.max()), 1), _HEIGHT - _BOTTOM
    top = f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH}" y1="{_TOP}" y2="{_TOP}"/>'
    bottom = f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH}" y1="{base}" y2="{base}"/>'
    return (top + bottom + _text(_LEFT - 6, _TOP + 4, f"{highest:,}", "end")) + _text(
        _LEFT - 6, base, "0", "end"
    )


def _x(place: float, num_bars: int) -> float:
    return _LEFT + place * (_WIDTH - _LEFT - _RIGHT) / num_bars


def _below(unit: str) -> str:
    return _text((_WIDTH + _LEFT) / 2, _HEIGHT - 2, unit, "middle")


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="{kind}" {place}>{html.escape(text)}</text>'


def _plot(parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{"".join(parts)}</svg>'
