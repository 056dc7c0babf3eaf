"""What Orbax leaves running when a read or a write fails, kept from printing over the one error.

Orbax raises the first failure and closes its event loop; the other arrays' reads and writes end
later. Each would print a page of its own over the line that names the file and what to do.
"""

import logging
import sys
import warnings
from typing import Any


def silence_abandoned_operations() -> None:
    """Drops asyncio's and TensorStore's messages about operations whose failure was raised."""
    logging.getLogger("asyncio").addFilter(_is_news)
    warnings.filterwarnings("ignore", r"coroutine 'async_(de)?serialize.* was never awaited")
    if not isinstance(sys.unraisablehook, _WithoutClosedLoops):
        sys.unraisablehook = _WithoutClosedLoops(sys.unraisablehook)


def _is_news(line: logging.LogRecord) -> bool:
    text = str(line.msg)
    never_asked = "exception was never retrieved" in text.partition("\n")[0]
    return not (never_asked and ("orbax" in text or "OCDBT database" in text))


class _WithoutClosedLoops:
    """TensorStore's threads report here what an event loop that is closed no longer takes."""

    def __init__(self, hook):
        self._hook = hook

    def __call__(self, unraisable: Any) -> None:
        error = unraisable.exc_value
        if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
            self._hook(unraisable)
