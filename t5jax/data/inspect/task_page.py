"""`t5jax tasks NAME --html FILE`: one page, complete in itself, to look at a task or a mixture.

Style and script are inside it and nothing is fetched. Jinja escapes every string; what is markup
(the plots, the style) says so.
"""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from t5jax.data.inspect import svg_plots
from t5jax.data.inspect.catalog import entry
from t5jax.data.inspect.mixture_preview import MixturePreview
from t5jax.data.inspect.task_preview import Lengths, Shown, TaskPreview
from t5jax.data.inspect.task_report import SHARES, entry_of, objective_in_force, scanned, truncation
from t5jax.data.store.spelling import spelling_notes
from t5jax.data.vocabularies.token_text import TokenTexts, run_text
from t5jax.version import __version__

_HERE = pathlib.Path(__file__).parent
_BINS, _TOP_PIECES, _HUES, _OPEN_ROWS = 30, 24, 6, 2


def task_page(shown: TaskPreview) -> str:
    """The page of a task, as HTML."""
    texts = TokenTexts(shown.vocabulary)
    return _rendered(
        "task_page_examples.html.jinja",
        about=shown.about,
        chips=_chips(shown),
        shown=shown,
        tiles=_tiles(shown),
        rows=[_row(shown, texts, row) for row in range(len(shown.row_ids))],
        open_rows=_OPEN_ROWS,
        hidden=any(example.original for example in shown.examples),
        examples=[_example(shown, example) for example in shown.examples],
        hues=_HUES,
        scanned=scanned(shown),
        truncation=truncation(shown),
        lengths=[_length_figure(name, lengths) for name, lengths in shown.lengths.items()],
        by_rank=_by_rank(shown),
        pieces=list(_top_pieces(shown.id_counts, texts)),
        sentinels=_sentinels(shown),
        settings=_settings(shown),
    )


def mixture_page(shown: MixturePreview) -> str:
    """The page of a mixture: the rates of its tasks as bars, at every stage."""
    return _rendered(
        "task_page_mixture.html.jinja",
        about=entry(shown.mixture),
        chips={"tasks": str(len(shown.sizes)), "stages": str(len(shown.stages))},
        shares=SHARES,
        stages=[(stage.from_step, _stage(stage.shares, shown)) for stage in shown.stages],
        missing=", ".join(shown.missing),
        unknown=_stage({}, shown),
    )


def _rendered(template: str, **values: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = Markup((_HERE / "task_page.css").read_text())
    return environment.get_template(template).render(style=style, version=__version__, **values)


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


def _tiles(shown: TaskPreview) -> list[tuple[str, str, bool]]:
    """(value, what it is, whether it is a warning)."""
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
    return tiles


# ---- rows as the model sees them


def _row(shown: TaskPreview, texts: TokenTexts, row: int) -> dict[str, Any]:
    sides = []
    for name, side in (("inputs", "encoder"), ("targets", "decoder")):
        tokens = shown.rows[f"{side}_{'input' if side == 'encoder' else 'target'}_tokens"][row]
        is_token = tokens != shown.vocabulary.pad_id
        if not is_token.any():
            continue
        weights = shown.rows["decoder_loss_weights"][row] if side == "decoder" else tokens * 0
        segments = shown.rows.get(f"{side}_segment_ids")
        positions = shown.rows.get(f"{side}_positions")
        last = int(np.flatnonzero(is_token)[-1]) + 1
        boxes = _boxes(
            tokens[:last],
            weights[:last],
            np.ones_like(tokens[:last]) if segments is None else segments[row][:last],
            np.arange(last) if positions is None else positions[row][:last],
            texts,
        )
        count = f"{np.count_nonzero(is_token):,} of {len(tokens):,}"
        padding = len(tokens) - last
        sides.append({"name": name, "count": count, "boxes": list(boxes), "padding": padding})
    heading = f"row {shown.row_ids[row]:,}"
    if shown.packed:
        heading += f", {shown.rows['decoder_segment_ids'][row].max()} examples"
    return {"heading": heading, "sides": sides}


def _boxes(
    tokens: np.ndarray,
    weights: np.ndarray,
    segments: np.ndarray,
    positions: np.ndarray,
    texts: TokenTexts,
) -> Iterator[dict[str, str]]:
    """One for every token."""
    packed = segments.max() > 1
    for token, weight, segment, position in zip(
        tokens.tolist(), weights.tolist(), segments.tolist(), positions.tolist(), strict=True
    ):
        kind = texts.kind(token)
        classes = ["t", *["e"] * (segment % 2 == 0), *["w"] * bool(weight)]
        classes += [kind] * (kind != "text")
        told = f"id {token}, position {position}"
        told += f", example {segment}" if packed else ""
        text = texts.text(token).replace("\n", "↵\n")
        text = text.strip() if kind == "sentinel" else text
        yield {"classes": " ".join(classes), "told": told, "text": text}


# ---- examples as text


def _example(shown: TaskPreview, example: Shown) -> list[dict[str, Any]]:
    """The original, inputs and targets: runs of text and of spans, the k-th of which has the colour
    of the k-th sentinel."""
    parts = []
    if example.original:
        runs = _stripped(_marked(shown, example))
        parts.append({"title": "the text", "runs": runs, "element": "mark", "classes": ""})
    for name, ids in (("inputs", example.inputs), ("targets", example.targets)):
        if len(ids):
            runs = _stripped(_with_blanks(shown, ids))
            title = f"{name}, {len(ids):,} tokens"
            parts.append({"title": title, "runs": runs, "element": "span", "classes": "blank"})
    return parts


def _run(text: str, span: int | None = None) -> dict[str, Any]:
    return {"text": text, "span": span}


def _marked(shown: TaskPreview, example: Shown) -> Iterator[dict[str, Any]]:
    number = 0
    for stretch in example.original:
        yield _run(run_text(shown.vocabulary, stretch.ids), number if stretch.hidden else None)
        number += stretch.hidden


def _with_blanks(shown: TaskPreview, ids: np.ndarray) -> Iterator[dict[str, Any]]:
    """Text with its sentinels as blanks."""
    number = 0
    is_text = shown.vocabulary.is_text(ids)
    borders = np.flatnonzero((is_text[1:] != is_text[:-1]) | ~is_text[1:]) + 1
    for run in np.split(ids, borders):
        if shown.vocabulary.is_text(run[:1])[0]:
            yield _run(run_text(shown.vocabulary, run))
        elif shown.vocabulary.is_sentinel(run[:1])[0]:
            yield _run(" ")
            yield _run(run_text(shown.vocabulary, run[:1]).strip(), number)
            number += 1


def _stripped(runs: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without white space before the first that is to be seen."""
    found = list(runs)
    while found and found[0]["span"] is None:
        found[0]["text"] = found[0]["text"].lstrip()
        if found[0]["text"]:
            break
        del found[0]
    return found


# ---- plots


def _length_figure(name: str, lengths: Lengths) -> tuple[str, Markup, str]:
    counts, edges = lengths.histogram(_BINS)
    plot = svg_plots.histogram(counts, edges, limit=lengths.limit, unit="tokens")
    told = ", ".join(
        f"{q} %: {value:,}" if q < 100 else f"longest: {value:,}"
        for q, value in lengths.quantiles().items()
    )
    return name, Markup(plot), told


def _by_rank(shown: TaskPreview) -> dict[str, Any]:
    counts = shown.id_counts
    told = (
        f"{np.count_nonzero(counts):,} of {len(counts):,} ids are used; "
        f"{shown.unknown_rate:.3%} of the tokens are the unknown piece"
    )
    told = "; ".join([told, *spelling_notes(shown.spelling)])
    return {"plot": Markup(svg_plots.rank_frequency(counts)), "told": told}


def _sentinels(shown: TaskPreview) -> dict[str, Any] | None:
    if not shown.sentinel_counts.any():
        return None
    used = int(np.flatnonzero(shown.sentinel_counts)[-1]) + 1
    names = [f"<extra_id_{i}>" for i in range(used)]
    plot = svg_plots.columns(shown.sentinel_counts[:used], unit="sentinel", names=names)
    told = f"{used:,} of {len(shown.sentinel_counts):,} are used"
    return {"plot": Markup(plot), "told": told}


def _top_pieces(counts: np.ndarray, texts: TokenTexts) -> Iterator[dict[str, str]]:
    top = np.argsort(-counts, kind="stable")[:_TOP_PIECES]
    for token in top[counts[top] > 0].tolist():
        yield {
            "told": f"id {token}, {counts[token]:,} times",
            "text": texts.text(token).replace(" ", "␣").replace("\n", "↵"),
            "width": f"{counts[token] / counts[top[0]]:.0%}",
            "share": f"{counts[token] / counts.sum():.2%}",
        }


# ---- tables


def _settings(shown: TaskPreview) -> dict[str, str]:
    about = entry_of(shown)
    return {
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


def _stage(shares: Mapping[str, float], shown: MixturePreview) -> list[dict[str, str]]:
    """A line of the table for every task, the largest share first."""
    most = max(shares.values(), default=1.0)
    lines = []
    for name, size in sorted(shown.sizes.items(), key=lambda item: -shares.get(item[0], 0.0)):
        share = shares.get(name, 0.0)
        lines.append(
            {
                "name": name,
                "size": "unknown" if size is None else f"{size:,}",
                "share": f"{share:.3%}" if shares else "unknown",
                "width": f"{share / most:.1%}" if share else "",
            }
        )
    return lines
