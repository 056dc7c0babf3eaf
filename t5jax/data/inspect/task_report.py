"""What `t5jax tasks NAME` prints: a task's examples and lengths, a mixture's rates."""

import dataclasses
import textwrap

from t5jax.data.inspect.catalog import Entry, entry
from t5jax.data.inspect.mixture_preview import MixturePreview
from t5jax.data.inspect.task_preview import QUANTILES, Lengths, Shown, TaskPreview
from t5jax.data.store.spelling import spelling_notes
from t5jax.data.vocabularies import Vocabulary
from t5jax.data.vocabularies.one_line import one_line
from t5jax.data.vocabularies.token_text import run_text

_COLUMNS = 100
_BINS = 12
_BAR = 50

SHARES = (
    "of examples. Batches are drawn by rows, and a packed row holds several examples: `t5jax "
    "train` logs the share of rows of each task as mixture/weight/TASK"
)


def entry_report(about: Entry) -> str:
    """Name, description and what is known without opening the source."""
    optional = [f"data.{name} (optional)" for name in about.settings if name not in about.required]
    settings = [*(f"data.{name}" for name in about.required), *optional]
    lines = {
        "source": about.source,
        "registered": f"by {about.registered_by}" if about.registered_by else "",
        "objective": objective_in_force(about),
        "inputs": about.input_format,
        "metrics": ", ".join(about.metrics),
        "examples": f"{about.num_examples:,} to train on" if about.num_examples else "",
        "splits": ", ".join(about.splits),
        "settings": ", ".join(settings),
        "tasks": ", ".join(about.tasks),
    }
    described = [_line(what, text) for what, text in lines.items() if text]
    heading = f"{about.name}: {about.description}" if about.description else about.name
    return "\n".join([heading, *described]) + "\n"


def objective_in_force(about: Entry) -> str:
    """Its name, and where another one than the task's own comes from."""
    if about.own_objective is None:
        return about.objective or ""
    return f"{about.objective}, from data.objective; the task's own is {about.own_objective}"


def task_report(shown: TaskPreview) -> str:
    """The task, its first examples, then what was measured."""
    parts = [entry_report(entry_of(shown)), "\n"]
    for number, example in enumerate(shown.examples):
        parts.append(_example(number, example, shown))
    parts += ["\n", _measured(shown), "\n"]
    parts += [_histogram(name, lengths) for name, lengths in shown.lengths.items()]
    return "".join(parts)


def mixture_report(shown: MixturePreview) -> str:
    """The tasks with their sizes, and their shares of the examples at every stage."""
    lines = [entry_report(entry(shown.mixture)).splitlines()[0]]
    lines.append(_line("rate", textwrap.shorten(str(shown.mixture.rate), 200, placeholder=" …")))
    if shown.stages:
        lines.append(_line("shares", SHARES))
    steps = [f"step {stage.from_step:,} on" for stage in shown.stages]
    title = "share of examples" if shown.stages else ""
    lines.append(f"\n  {'':59s}{title:>20s}".rstrip())
    lines.append(f"  {'task':46s} {'examples':>12s}{''.join(f'{s:>20s}' for s in steps)}")
    for name, size in shown.sizes.items():
        shares = "".join(f"{stage.shares.get(name, 0.0):20.3%}" for stage in shown.stages)
        lines.append(f"  {name:46s} {'?' if size is None else f'{size:,}':>12s}{shares}")
    if shown.missing:
        lines.append(
            f"\n  the rates depend on the sizes of {', '.join(shown.missing)}, which are known\n"
            "  once `t5jax cache CONFIG` has counted them (then name the same --config here)"
        )
    return "\n".join(lines) + "\n"


def entry_of(shown: TaskPreview) -> Entry:
    """What the catalog says of the task, with the source that was read."""
    return dataclasses.replace(shown.about, source=shown.source or shown.about.source)


def truncation(shown: TaskPreview) -> str:
    """One sentence on what is cut."""
    if shown.raw_length is not None:
        return (
            f"documents are joined and cut into rows of {shown.raw_length:,} tokens before the "
            "objective: nothing is truncated"
        )
    cut = [
        f"{lengths.truncated:.2%} of the {name} are longer than {lengths.limit:,}"
        for name, lengths in shown.lengths.items()
        if lengths.truncated is not None
    ]
    return "; ".join(cut)


def scanned(shown: TaskPreview) -> str:
    """How much was looked at."""
    what = "documents" if shown.raw_length is not None else "examples"
    if shown.complete:
        return f"all {shown.num_scanned:,} {what} of {shown.split}"
    return f"the first {shown.num_scanned:,} {what} of {shown.split}"


def _example(number: int, example: Shown, shown: TaskPreview) -> str:
    kind = "example" if shown.raw_length is None else "row"
    lines = [f"{kind} {number} of {shown.split}"]
    for name, ids, text in (
        ("inputs", example.inputs, example.inputs_text),
        ("targets", example.targets, example.targets_text),
    ):
        if len(ids):
            lines.append(f"  {name:8s} {len(ids):5d} tokens  {one_line(text)}")
    if example.original:
        lines.append(f"  original [[hidden]]    {_marked(example, shown.vocabulary)}")
    return "\n".join(lines) + "\n"


def _marked(example: Shown, vocabulary: Vocabulary) -> str:
    texts = []
    for stretch in example.original:
        text = one_line(run_text(vocabulary, stretch.ids))
        texts.append(f"[[{text}]]" if stretch.hidden else text)
    return "".join(texts).lstrip()


def _measured(shown: TaskPreview) -> str:
    heads = ["50 %", "90 %", "95 %", "99 %", "max"]
    lines = [f"measured on {scanned(shown)}"]
    lines.append(f"  {'tokens':18s}{''.join(f'{h:>9s}' for h in heads)}{'limit':>9s}")
    for name, lengths in shown.lengths.items():
        values = "".join(f"{lengths.quantiles()[q]:9,d}" for q in QUANTILES)
        limit = "-" if lengths.limit is None else f"{lengths.limit:,}"
        lines.append(f"  {name:18s}{values}{limit:>9s}")
    packed = "packed rows" if shown.packed else "rows"
    fill = ", ".join(f"{share:.1%} of the {name}" for name, share in shown.fill.items())
    lines += [
        _line("truncated", truncation(shown)),
        _line("not padding", f"{fill} in {shown.num_rows:,} {packed}"),
        _line("unknown", f"{shown.unknown_rate:.3%} of the text's tokens are the unknown piece"),
        *(_line("not spelled", note) for note in spelling_notes(shown.spelling)),
        _line("left out", _left_out(shown)),
    ]
    return "\n".join(lines) + "\n"


def _left_out(shown: TaskPreview) -> str:
    rejected = shown.rejected
    if not rejected.records and not rejected.damaged_files:
        return "no record"
    files = f" and {rejected.damaged_files} damaged files" if rejected.damaged_files else ""
    return f"{rejected.records:,} bad records{files}; the first: {rejected.places[0]}"


def _histogram(name: str, lengths: Lengths) -> str:
    if lengths.tokens.min() == lengths.tokens.max():
        return f"{name}: {lengths.tokens[0]:,} tokens, all of them\n\n"
    counts, edges = lengths.histogram(_BINS)
    lines = [f"{name}, by tokens"]
    for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True):
        bar = "█" * round(_BAR * count / counts.max()) or ("▏" if count else "")
        limit = lengths.limit is not None and low <= lengths.limit < high
        line = f"  {low:6,d} to {high - 1:6,d}  {bar:{_BAR}s} {count:7,d}"
        lines.append(line + (f"  ◂ limit {lengths.limit:,}" if limit else ""))
    return "\n".join(lines) + "\n\n"


def _line(what: str, text: str) -> str:
    return textwrap.fill(
        text,
        _COLUMNS,
        initial_indent=f"  {what:12s}",
        subsequent_indent=" " * 14,
        break_long_words=False,
        break_on_hyphens=False,
    )
