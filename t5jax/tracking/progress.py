"""Progress display: a tqdm bar on a terminal, plain lines at a bounded rate anywhere else."""

import collections
import datetime
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from t5jax.tracking.keys import LEARNING_RATE, THROUGHPUT, TRAIN_LOSS, TRAIN_TEXT_LOSS

Metrics = Mapping[str, Any]


class Progress:
    """Prints nothing: for "off", and for every process but the first."""

    def step(self, step: int, metrics: Metrics) -> None: ...
    def message(self, text: str) -> None: ...
    def flush(self) -> None: ...
    def restart(self, step: int) -> None: ...
    def close(self) -> None: ...


class ProgressLines(Progress):
    """A line for the first and the last step, and one every `seconds_between_lines` between."""

    def __init__(
        self,
        stream: TextIO,
        num_train_steps: int,
        seconds_between_lines: float,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._stream, self._num_train_steps = stream, num_train_steps
        self._seconds, self._clock = seconds_between_lines, clock
        self._pace = Pace(clock)
        self._printed_at: float | None = None
        self._waiting: tuple[int, Metrics] | None = None  # the newest step, while not printed

    def step(self, step: int, metrics: Metrics) -> None:
        self._pace.step(step)
        self._waiting = (step, metrics)
        now = self._clock()
        if (
            self._printed_at is None
            or now - self._printed_at >= self._seconds
            or step >= self._num_train_steps
        ):
            self._printed_at = now
            self.flush()

    def message(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def restart(self, step: int) -> None:
        self._waiting = None
        self._pace.restart()

    def close(self) -> None:
        self.flush()

    def flush(self) -> None:
        """Prints the newest step, unless it has been."""
        if self._waiting is not None:
            step, metrics = self._waiting
            self._waiting = None
            place = f"step {step}/{self._num_train_steps}"
            eta = format_eta(self._pace.seconds_left(self._num_train_steps))
            self.message("  ".join([place, *format_metrics(metrics), eta]))


class ProgressBar(Progress):
    """A tqdm bar with the loss, the speed and the time left; messages appear above it."""

    def __init__(
        self, stream: TextIO, num_train_steps: int, clock: Callable[[], float] = time.monotonic
    ):
        import tqdm

        self._stream, self._num_train_steps = stream, num_train_steps
        self._pace = Pace(clock)
        self._bar = tqdm.tqdm(
            total=num_train_steps,
            file=stream,
            dynamic_ncols=True,
            bar_format="{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}",
        )

    def step(self, step: int, metrics: Metrics) -> None:
        self._pace.step(step)
        eta = format_eta(self._pace.seconds_left(self._num_train_steps))
        shown = format_metrics({name: metrics.get(name) for name in _BAR_METRICS})
        self._bar.set_postfix_str("  ".join([*shown, eta]), refresh=False)
        self._bar.update(step - self._bar.n)

    def message(self, text: str) -> None:
        self._bar.write(text, file=self._stream)

    def flush(self) -> None:
        self._bar.refresh()

    def restart(self, step: int) -> None:
        self._pace.restart()
        self._bar.n = step
        self._bar.refresh()

    def close(self) -> None:
        self._bar.refresh()
        self._bar.close()


class CountProgress:
    """Items done, items a second, and the time left: a tqdm bar on a terminal,
    elsewhere a line every `seconds_between_lines`, and the last one.

    The first line comes at once; with `patient`, only when `seconds_between_lines` are over.
    """

    def __init__(
        self,
        stream: TextIO,
        total: int | None,
        unit: str,
        *,
        seconds_between_lines: float = 10.0,
        patient: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._stream, self._total, self._unit = stream, total, unit
        self._seconds, self._clock = seconds_between_lines, clock
        self._pace = Pace(clock)
        self._shown = not patient
        self._printed_at = clock() if patient else float("-inf")
        self._bar = text_bar(stream, leave=True)

    def message(self, text: str) -> None:
        self._bar.write(text, file=self._stream)
        self._stream.flush()

    def update(self, done: int) -> None:
        """`done` items of `total`; the last closes the display."""
        self._pace.step(done)
        last = done == self._total
        if not self._bar.disable:
            self._bar.set_description_str(self._line(done), refresh=False)
            self._bar.update()
            if last:
                self._bar.close()
        elif (last and self._shown) or self._clock() - self._printed_at >= self._seconds:
            self._shown, self._printed_at = True, self._clock()
            self.message(self._line(done))

    def _line(self, done: int) -> str:
        of = "" if self._total is None else f"/{self._total:,}"
        parts = [f"{done:,}{of} {self._unit}"]
        per_item = self._pace.seconds_left(done + 1)
        if per_item:
            parts.append(f"{1 / per_item:.3g} {self._unit.split()[0]}/s")
        if self._total is not None:
            parts.append(format_eta(self._pace.seconds_left(self._total)))
        return "  ".join(parts)


def text_bar(stream: TextIO, *, leave: bool) -> Any:
    """A tqdm bar that is its description, one line written over; nothing but on a terminal."""
    import tqdm

    disable = not stream.isatty()
    return tqdm.tqdm(
        file=stream, leave=leave, disable=disable, dynamic_ncols=True, bar_format="{desc}"
    )


class Pace:
    """Seconds per step over the last reports. The first report only starts the clock: compiling and
    restoring lie before it. Pauses between later steps count, because they will come again."""

    def __init__(self, clock: Callable[[], float], window: int = 200):
        self._clock = clock
        self._reports = collections.deque(maxlen=window)  # of (time, step)

    def step(self, step: int) -> None:
        self._reports.append((self._clock(), step))

    def restart(self) -> None:
        self._reports.clear()

    def seconds_left(self, num_train_steps: int) -> float | None:
        if len(self._reports) < 2 or self._reports[-1][1] <= self._reports[0][1]:
            return None
        (t0, step0), (t1, step1) = self._reports[0], self._reports[-1]
        return (num_train_steps - step1) * (t1 - t0) / (step1 - step0)


def format_metrics(metrics: Metrics) -> list[str]:
    """The main training metrics, each as a short text; None is left out.

    A metric is shown by its name without the group: `loss 4.312` is `train/loss`.
    """
    return [
        write(metrics[name]) for name, write in _COLUMNS.items() if metrics.get(name) is not None
    ]


def format_fields(fields: Metrics) -> list[str]:
    """Every field of an evaluation or an event with its name; None is left out."""
    return [
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in fields.items()
        if value is not None
    ]


def format_eta(seconds: float | None) -> str:
    return f"eta {'?' if seconds is None else datetime.timedelta(seconds=round(seconds))}"


def format_count(value: float) -> str:
    """Three digits and a unit: 12.3k, 4.56M."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * limit:
            return f"{value / limit:#.3g}".rstrip(".") + unit
    return f"{value:.3g}"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.0f} %" if fraction >= 0.0995 else f"{100 * fraction:.1f} %"


_COLUMNS: dict[str, Callable[[float], str]] = {
    TRAIN_LOSS: lambda x: f"loss {x:.3f}",
    TRAIN_TEXT_LOSS: lambda x: f"text_loss {x:.3f}",
    "train/accuracy": lambda x: f"accuracy {x:.3f}",
    LEARNING_RATE: lambda x: f"learning_rate {x:.3g}",
    "train/grad_norm": lambda x: f"grad_norm {x:.3g}",
    THROUGHPUT[0]: lambda x: f"{format_count(x)} tokens/s/device",
    "throughput/mfu": lambda x: f"mfu {_percent(x)}",
    "data/requests_per_step": lambda x: f"{x:.3g} requests/step",
    "data/rows_per_second": lambda x: f"{format_count(x)} rows/s read",
}
_BAR_METRICS = (TRAIN_LOSS, TRAIN_TEXT_LOSS, THROUGHPUT[0])
