"""A plan made in a process of its own, which is ended when its time is over: a compiler cannot be
interrupted, and one that dies takes nothing with it."""

import multiprocessing
import os
import threading
from multiprocessing.connection import Connection, wait
from typing import Any

from t5jax.config import RunConfig, from_text, to_text
from t5jax.errors import OWN_ERRORS, message_of
from t5jax.planning.plan import make_plan
from t5jax.planning.topology import Topology, prepare_process


class CutOff(Exception):
    """Compiling was ended because its time was over."""


class CompilationFailed(Exception):
    """A layout that the compiler, or t5jax, gave up."""


def plan_in_child(config: RunConfig, topology: Topology, seconds: float) -> dict[str, Any]:
    """`Plan.as_json()` of the config's train step.

    Raises CutOff after so many seconds, CompilationFailed with the reason where there is no plan.
    """
    context = multiprocessing.get_context("spawn")  # JAX's threads do not survive a fork
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(
        target=_send_plan, args=(to_text(config), topology, sender), daemon=True
    )
    process.start()
    sender.close()
    try:
        if not receiver.poll(max(0.0, seconds)):
            raise CutOff(f"cut off after {seconds:.0f} s")
        plan, error = receiver.recv()
    except EOFError:
        process.join()
        raise CompilationFailed(f"the compiler died (exit code {process.exitcode})") from None
    finally:
        process.kill()
        process.join()
        receiver.close()
    if plan is None:
        raise CompilationFailed(error)
    return plan


def _send_plan(text: str, topology: Topology, sender: Connection) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    prepare_process(topology)
    try:
        sender.send((make_plan(from_text(text), topology).as_json(), ""))
    except Exception as error:
        kind = "" if isinstance(error, OWN_ERRORS) else f"{type(error).__name__}: "
        sender.send((None, kind + message_of(error)))


def _end_with_parent() -> None:
    """Whoever stops a search stops its compiler, however the search was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
