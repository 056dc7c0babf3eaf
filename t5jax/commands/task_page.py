"""`t5jax tasks NAME --html FILE`: one page, complete in itself, to look at a task or a mixture.

Style and script are inside it and nothing is fetched. Every string that comes from data or from a
task is escaped.
"""

import html
import pathlib
from collections.abc import Iterable, Mapping

import numpy as np

from t5jax.commands import svg_plots
from t5jax.commands.task_report import SHARES, entry_of, objective_in_force, scanned, truncation
from t5jax.data.inspect.catalog import Entry, entry
from t5jax.data.inspect.mixture_preview import MixturePreview
from t5jax.data.inspect.task_preview import Lengths, Shown, TaskPreview
from t5jax.data.vocabularies.token_text import TokenTexts, run_text
from t5jax.version import __version__

_STYLE = pathlib.Path(__file__).with_suffix(".css")
_BINS, _TOP_PIECES, _HUES, _OPEN_ROWS = 30, 24, 6, 2
# Tells id, position and example of the token below the pointer; lights up what belongs together.
_SCRIPT = """
const tip = document.getElementById("tip");
document.addEventListener("pointerover", event => {
  const token = event.target.closest("[data-t]");
  tip.style.opacity = token ? 1 : 0;
  if (token) {
    tip.textContent = token.dataset.t;
    const box = token.getBoundingClientRect(), width = tip.offsetWidth;
    tip.style.left = Math.max(4, Math.min(box.left, innerWidth - width - 8)) + "px";
    tip.style.top = (box.top > 40 ? box.top - 32 : box.bottom + 6) + "px";
  }
  document.querySelectorAll(".lit").forEach(one => one.classList.remove("lit"));
  const span = event.target.closest("[data-k]");
  if (span) span.closest(".card").querySelectorAll(`[data-k="${span.dataset.k}"]`)
    .forEach(one => one.classList.add("lit"));
});
"""


def of_task(shown: TaskPreview) -> str:
    """The page of a task, as HTML."""
    texts = TokenTexts(shown.vocabulary)
    sections = [
        _tiles(shown),
        _rows(shown, texts),
        _examples(shown),
        _lengths(shown),
        _vocabulary(shown, texts),
        _table(shown),
    ]
    return _page(shown.about, _chips(shown), sections)


def of_mixture(shown: MixturePreview) -> str:
    """The page of a mixture: the rates of its tasks as bars, at every stage."""
    about = entry(shown.mixture)
    chips = {"tasks": str(len(shown.sizes)), "stages": str(len(shown.stages))}
    stages = [_stage(stage.from_step, stage.shares, shown) for stage in shown.stages]
    sections = [f'<p class="note">Shares {_e(SHARES)}.</p>', *stages]
    if shown.missing:
        names = ", ".join(shown.missing)
        sections = [
            f"<h2>Rates</h2><p>They depend on the sizes of <code>{_e(names)}</code>, which are not "
            "known before <code>t5jax cache</code> has counted them.</p>" + _stage_table({}, shown)
        ]
    return _page(about, chips, sections)


def _page(about: Entry, chips: Mapping[str, str], sections: Iterable[str]) -> str:
    listed = "".join(f"<li><b>{_e(k)}</b>{_e(v)}</li>" for k, v in chips.items() if v)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_e(about.name)}</title>
<style>{_STYLE.read_text()}</style></head>
<body><main>
<header><h1>{_e(about.name)}</h1><p class="lead">{_e(about.description)}</p>
<ul class="chips">{listed}</ul></header>
{"".join(sections)}
<footer>t5jax {_e(__version__)}, t5jax tasks</footer>
</main><div id="tip" role="status"></div><script>{_SCRIPT}</script></body></html>
"""


def _chips(shown: TaskPreview) -> dict[str, str]:
    about = shown.about
    return {
        "objective": objective_in_force(about),
        "inputs": about.input_format,
        "split": shown.split,
        "metrics": ", ".join(about.metrics),
        "published": f"{about.num_examples:,} examples" if about.num_examples else "",
        "vocabulary": f"{shown.vocabulary.vocab_size:,} ids",
    }


def _tiles(shown: TaskPreview) -> str:
    left_out = shown.rejected.records + shown.rejected.damaged_files
    what = "documents" if shown.raw_length is not None else "examples"
    tiles = [(f"{shown.num_scanned:,}", f"{what} looked at", False)]
    tiles.append((f"{shown.num_rows:,}", "packed rows" if shown.packed else "rows", False))
    for name, share in shown.fill.items():
        tiles.append((f"{share:.1%}", f"of {name} not padding", False))
    for name, lengths in shown.lengths.items():
        if lengths.truncated is not None:
            tiles.append((f"{lengths.truncated:.1%}", f"{name} cut", lengths.truncated > 0.01))
    tiles.append((f"{shown.unknown_rate:.2%}", "unknown pieces", shown.unknown_rate > 0.01))
    tiles.append((f"{left_out:,}", "records left out", left_out > 0))
    cells = (
        f'<div class="tile{" warn" if warn else ""}"><b>{value}</b><span>{_e(text)}</span></div>'
        for value, text, warn in tiles
    )
    return f'<div class="tiles">{"".join(cells)}</div>'


# ---- rows as the model sees them


def _rows(shown: TaskPreview, texts: TokenTexts) -> str:
    cards = "".join(_row(shown, texts, row) for row in range(len(shown.row_ids)))
    packed = '<span><span class="t">one</span><span class="t e">the next</span> example</span>'
    return f"""<h2>Rows as the model sees them</h2>
<p class="note">Every box is a token: point at one for its id and place. These are a few of
{shown.num_rows:,} rows, from the first to the last.</p>
<div class="legend row">{packed if shown.packed else ""}
<span><span class="t sentinel">&lt;extra_id_0&gt;</span> sentinel</span>
<span><span class="t eos">&lt;/s&gt;</span> end</span>
<span><span class="t pad">12</span> padding</span>
<span><span class="t w">underlined</span> counts in the loss</span></div>
{cards}"""


def _row(shown: TaskPreview, texts: TokenTexts, row: int) -> str:
    sides = []
    for name, side in (("inputs", "encoder"), ("targets", "decoder")):
        tokens = shown.rows[f"{side}_{'input' if side == 'encoder' else 'target'}_tokens"][row]
        if not len(tokens) or not (tokens != 0).any():
            continue
        weights = shown.rows["decoder_loss_weights"][row] if side == "decoder" else tokens * 0
        segments = shown.rows.get(f"{side}_segment_ids")
        positions = shown.rows.get(f"{side}_positions")
        spans = _tokens(
            tokens,
            weights,
            np.ones_like(tokens) if segments is None else segments[row],
            np.arange(len(tokens)) if positions is None else positions[row],
            texts,
        )
        count = f"{np.count_nonzero(tokens):,} of {len(tokens):,}"
        sides.append(f'<h3>{name}, {count}</h3><div class="row">{spans}</div>')
    opened = " open" if row < _OPEN_ROWS else ""
    heading = f"row {shown.row_ids[row]:,}"
    if shown.packed:
        heading += f", {shown.rows['decoder_segment_ids'][row].max()} examples"
    return f'<details class="card"{opened}><summary>{heading}</summary>{"".join(sides)}</details>'


def _tokens(
    tokens: np.ndarray,
    weights: np.ndarray,
    segments: np.ndarray,
    positions: np.ndarray,
    texts: TokenTexts,
) -> str:
    """A box for every token; padding at the end in one."""
    last = int(np.flatnonzero(tokens)[-1]) + 1
    packed = segments.max() > 1
    spans = []
    for token, weight, segment, position in zip(
        tokens[:last].tolist(),
        weights[:last].tolist(),
        segments[:last].tolist(),
        positions[:last].tolist(),
        strict=True,
    ):
        kind = texts.kind(token)
        classes = ["t", *["e"] * (segment % 2 == 0), *["w"] * bool(weight)]
        classes += [kind] * (kind != "text")
        told = f"id {token}, position {position}"
        told += f", example {segment}" if packed else ""
        text = texts.text(token).replace("\n", "↵\n")
        text = text.strip() if kind == "sentinel" else text
        spans.append(f'<span class="{" ".join(classes)}" data-t="{told}">{_e(text)}</span>')
    if last < len(tokens):
        spans.append(f'<span class="t pad">padding, {len(tokens) - last:,} tokens</span>')
    return "".join(spans)


# ---- examples as text


def _examples(shown: TaskPreview) -> str:
    if any(example.original for example in shown.examples):
        heading = "<h2>What is hidden</h2><p class='note'>The text of a row with the spans that the"
        heading += " model has to predict, and below what it is given and what it must say.</p>"
    else:
        heading = "<h2>Inputs and targets</h2>"
    return heading + "".join(_example(shown, example) for example in shown.examples)


def _example(shown: TaskPreview, example: Shown) -> str:
    parts = []
    if example.original:
        parts.append(f'<h3>the text</h3><p class="text">{_marked(shown, example)}</p>')
    for name, ids in (("inputs", example.inputs), ("targets", example.targets)):
        if len(ids):
            text = _with_blanks(shown, ids)
            parts.append(f'<h3>{name}, {len(ids):,} tokens</h3><p class="text">{text}</p>')
    return f'<div class="card">{"".join(parts)}</div>'


def _marked(shown: TaskPreview, example: Shown) -> str:
    """The original; the k-th hidden span has the colour of the k-th sentinel."""
    parts, number = [], 0
    for stretch in example.original:
        text = _e(run_text(shown.vocabulary, stretch.ids))
        if stretch.hidden:
            text = f'<mark class="k{number % _HUES}" data-k="{number}">{text}</mark>'
            number += 1
        parts.append(text)
    return "".join(parts).lstrip()


def _with_blanks(shown: TaskPreview, ids: np.ndarray) -> str:
    """Text with its sentinels as coloured blanks."""
    parts, number = [], 0
    is_text = shown.vocabulary.is_text(ids)
    borders = np.flatnonzero((is_text[1:] != is_text[:-1]) | ~is_text[1:]) + 1
    for run in np.split(ids, borders):
        if shown.vocabulary.is_text(run[:1])[0]:
            parts.append(_e(run_text(shown.vocabulary, run)))
        elif run[0] >= shown.vocabulary.first_sentinel_id:
            name = run_text(shown.vocabulary, run[:1]).strip()
            classes = f"blank k{number % _HUES}"
            parts.append(f' <span class="{classes}" data-k="{number}">{_e(name)}</span>')
            number += 1
    return "".join(parts).lstrip()


# ---- plots


def _lengths(shown: TaskPreview) -> str:
    figures = [_length_figure(name, lengths) for name, lengths in shown.lengths.items()]
    return (
        f"<h2>Lengths</h2><p class='note'>Over {_e(scanned(shown))}. {_e(truncation(shown))}.</p>"
        f'<div class="plots">{"".join(figures)}</div>'
    )


def _length_figure(name: str, lengths: Lengths) -> str:
    counts, edges = lengths.histogram(_BINS)
    plot = svg_plots.histogram(counts, edges, limit=lengths.limit, unit="tokens")
    told = ", ".join(
        f"{q} %: {value:,}" if q < 100 else f"longest: {value:,}"
        for q, value in lengths.quantiles().items()
    )
    return f"<figure><h3>{name}</h3>{plot}<figcaption>{told}</figcaption></figure>"


def _vocabulary(shown: TaskPreview, texts: TokenTexts) -> str:
    counts = shown.id_counts
    figures = [
        f"<figure><h3>how often, by rank</h3>{svg_plots.rank_frequency(counts)}"
        f"<figcaption>{np.count_nonzero(counts):,} of {len(counts):,} ids are used; "
        f"{shown.unknown_rate:.3%} of the tokens are the unknown piece</figcaption></figure>",
        _top_pieces(counts, texts),
    ]
    if shown.sentinel_counts.any():
        used = int(np.flatnonzero(shown.sentinel_counts)[-1]) + 1
        names = [f"<extra_id_{i}>" for i in range(used)]
        plot = svg_plots.columns(shown.sentinel_counts[:used], unit="sentinel", names=names)
        figures.append(
            f"<figure><h3>sentinels in the inputs</h3>{plot}<figcaption>{used:,} of "
            f"{len(shown.sentinel_counts):,} are used</figcaption></figure>"
        )
    return f'<h2>Vocabulary</h2><div class="plots">{"".join(figures)}</div>'


def _top_pieces(counts: np.ndarray, texts: TokenTexts) -> str:
    top = np.argsort(-counts, kind="stable")[:_TOP_PIECES]
    lines = []
    for token in top[counts[top] > 0].tolist():
        share = counts[token] / counts[top[0]]
        text = texts.text(token).replace(" ", "␣").replace("\n", "↵")
        lines.append(
            f'<div data-t="id {token}, {counts[token]:,} times"><code>{_e(text)}</code>'
            f'<i class="share" style="width:{share:.0%}"></i>'
            f"<span>{counts[token] / counts.sum():.2%}</span></div>"
        )
    return (
        f'<figure><h3>the most frequent pieces</h3><div class="pieces">{"".join(lines)}</div>'
        "</figure>"
    )


# ---- tables


def _table(shown: TaskPreview) -> str:
    about = entry_of(shown)
    rows = {
        "source": about.source,
        "splits": ", ".join(shown.splits),
        "metrics": ", ".join(about.metrics),
        "objective": str(shown.objective) if shown.objective else "",
        "inputs": about.input_format,
        "lengths": f"inputs {shown.inputs_length:,}, targets {shown.targets_length:,} tokens",
        "vocabulary": str(shown.vocabulary),
        "settings it reads": ", ".join(f"data.{name}" for name in about.settings),
        "left out": "\n".join(shown.rejected.places),
    }
    lines = (
        f"<tr><th>{_e(name)}</th><td><code>{_e(value)}</code></td></tr>"
        for name, value in rows.items()
        if value
    )
    return f'<h2>Settings</h2><div class="card scroll"><table>{"".join(lines)}</table></div>'


def _stage(from_step: int, shares: Mapping[str, float], shown: MixturePreview) -> str:
    return f"<h2>From step {from_step:,} on</h2>{_stage_table(shares, shown)}"


def _stage_table(shares: Mapping[str, float], shown: MixturePreview) -> str:
    most = max(shares.values(), default=1.0)
    heads = ("examples", "share of examples")
    counts = "".join(f'<th class="n">{head}</th>' for head in heads)
    lines = [f"<tr><th>task</th>{counts}<th></th></tr>"]
    for name, size in sorted(shown.sizes.items(), key=lambda item: -shares.get(item[0], 0.0)):
        share = shares.get(name, 0.0)
        bar = f'<i class="share" style="width:{share / most:.1%}"></i>' if share else ""
        lines.append(
            f'<tr><td><code>{_e(name)}</code></td><td class="n">'
            f"{'unknown' if size is None else f'{size:,}'}</td>"
            f'<td class="n">{f"{share:.3%}" if shares else "unknown"}</td>'
            f'<td class="meter">{bar}</td></tr>'
        )
    return f'<div class="card scroll"><table>{"".join(lines)}</table></div>'


def _e(text: str) -> str:
    return html.escape(text, quote=True)
