"""Verified restore: the newest step whose fingerprints match, the same on all hosts."""

import dataclasses
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath
from jax.sharding import SingleDeviceSharding

from t5jax import buckets
from t5jax.checkpoints import record as records
from t5jax.checkpoints.abandoned import silence_abandoned_operations
from t5jax.checkpoints.fingerprint import Fingerprint, fingerprints, leaves_by_path
from t5jax.checkpoints.record import DamagedError, Record
from t5jax.errors import CheckpointError
from t5jax.runtime import gather_texts, of_first_host

STATE = "state"  # name of the item with the arrays
Log = Callable[[str], None]
_log: Log = logging.getLogger(__name__).warning
_T = TypeVar("_T")

# Reasons not to read now that say nothing about the files: falling back would lose good steps.
_NOT_DAMAGE = ("RESOURCE_EXHAUSTED", "PERMISSION_DENIED", "UNAUTHENTICATED", "UNAVAILABLE")
_NOT_DAMAGE += ("DEADLINE_EXCEEDED",)

silence_abandoned_operations()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Restored:
    """A restored step; `state` is the whole state, its parameters alone, or a dict of arrays."""

    step: int
    state: Any
    record: dict[str, Any]
    metrics: dict[str, float]
    fingerprints: dict[str, Fingerprint] = dataclasses.field(default_factory=dict)  # all arrays'


def restore_params(directory: str | os.PathLike[str], abstract_params, step: int | None = None,
                   log: Log = _log) -> Restored:  # fmt: skip
    """The parameters of the newest verified step, or of `step`.

    Args:
      abstract_params: what `params` of the state is, with shapes, dtypes and shardings.

    Raises:
      CheckpointError: no checkpoint there, another model, or `step` is missing or damaged.
      NoUsableCheckpoint: there are steps, but all are damaged.
    """
    wanted = {f"params/{path}": leaf for path, leaf in leaves_by_path(abstract_params).items()}
    restored = restore_leaves(directory, wanted, step, log, all_of="params/")
    params = jax.tree.unflatten(jax.tree.structure(abstract_params), list(restored.state.values()))
    return dataclasses.replace(restored, state=params)


def restore_leaves(directory: str | os.PathLike[str], wanted: Mapping[str, Any],
                   step: int | None = None, log: Log = _log, *,
                   all_of: str | tuple[str, ...] = ()) -> Restored:  # fmt: skip
    """The arrays that `wanted` names by path (`params/…`, `opt_state/…`), as a dict by path.

    Saved arrays whose path begins with `all_of` must all be wanted. Raises as `restore_params`.
    """
    directory = absolute(directory)
    steps = agreed_steps(directory)
    record, arrays = newest_verified(directory, wanted, steps, step, log, all_of=all_of)
    return Restored(
        step=record.step,
        state=dict(zip(wanted, arrays, strict=True)),
        record=record.content,
        metrics=record.metrics,
        fingerprints={path: leaf.fingerprint for path, leaf in record.leaves.items()},
    )


def newest_verified(
    directory: epath.Path,
    wanted: Mapping[str, Any],
    steps: list[int],
    step: int | None,
    log: Log,
    *,
    all_of: str | tuple[str, ...],
) -> tuple[Record, list]:
    """Record and arrays (in the order of `wanted`) of the newest good one of `steps`, or of `step`.

    Saved arrays whose path begins with `all_of` must all be wanted; "" for a whole state.
    """
    _check_shardings(wanted)
    read = lambda step: _read_verified(directory, step, wanted, all_of)
    told = log if jax.process_index() == 0 else lambda line: None
    return records.newest_undamaged(directory, steps, step, read, told)


def agreed_steps(directory: epath.Path) -> list[int]:
    """Committed steps as host 0 sees them: file systems may show others a change late."""
    steps = records.committed_steps(directory) if jax.process_index() == 0 else []
    return of_first_host(steps)


def nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """`{"a/b": x}` as `{"a": {"b": x}}`."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *parents, name = path.split("/")
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[name] = leaf
    return tree


def absolute(directory: str | os.PathLike[str]) -> epath.Path:
    """TensorStore takes only absolute paths; gs:// ones are."""
    text = os.fspath(directory)
    return epath.Path(text if "://" in text else os.path.abspath(text))


def brief(error: BaseException) -> str:
    """An error in one line; Orbax's run over pages."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}{'…' if len(text) > 300 else ''}"


def _check_shardings(wanted: Mapping[str, Any]) -> None:
    for path, leaf in wanted.items():
        if getattr(leaf, "sharding", None) is None:
            if jax.process_count() > 1:
                raise TypeError(f"{path}: with several hosts every array needs a sharding")
            continue
        try:
            leaf.sharding.shard_shape(tuple(leaf.shape))
        except ValueError as error:
            raise CheckpointError(f"{path}: {error}") from error


def _read_verified(directory: epath.Path, step: int, wanted: Mapping[str, Any],
                   all_of: str | tuple[str, ...]) -> tuple[Record, list]:  # fmt: skip
    record = _on_all_hosts(lambda: records.load_record(directory, step))
    records.check_fits(record, wanted, all_of=all_of, where=f"{directory}/{step}")
    arrays = _on_all_hosts(lambda: _read_arrays(directory / str(step) / STATE, wanted))
    bad = [p for p, f in fingerprints(arrays).items() if f != record.leaves[p].fingerprint]
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise DamagedError(f"the data of {', '.join(bad[:3])}{more} have changed since the save")
    return record, [arrays[path] for path in wanted]


def _read_arrays(directory: epath.Path, wanted: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Reads this host's parts. Without Orbax's Checkpointer around it, whose barrier would leave
    the other hosts waiting when one fails."""
    targets = {path: _target(leaf) for path, leaf in wanted.items()}
    stored = nested({path: target for path, target in targets.items() if target.size})
    request = ocp.args.PyTreeRestore(
        item=stored,
        restore_args=ocp.checkpoint_utils.construct_restore_args(stored),
        partial_restore=True,
    )
    read = leaves_by_path(ocp.PyTreeCheckpointHandler().restore(directory, args=request))
    for path, target in targets.items():
        if not target.size:  # nothing to store, and TensorStore refuses
            read[path] = jnp.zeros(target.shape, target.dtype, device=target.sharding)
    return read


def _target(leaf) -> jax.ShapeDtypeStruct:
    sharding = getattr(leaf, "sharding", None) or SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _on_all_hosts(read: Callable[[], _T]) -> _T:
    """The result of `read`, if it succeeds everywhere; else every host raises the same error."""
    result, problem, cause = None, "", None
    try:
        result = read()
    except DamagedError as error:
        problem, cause = f"damaged:{error}", error
    except CheckpointError as error:
        problem, cause = f"refused:{error}", error
    except Exception as error:
        cause = error
        unread = isinstance(error, PermissionError | MemoryError)
        unread = unread or buckets.is_of_store(error)
        unread = unread or any(word in str(error) for word in _NOT_DAMAGE)
        problem = f"{'unread' if unread else 'damaged'}:{brief(error)}"
    problems = gather_texts(problem)
    failed = [host for host, text in enumerate(problems) if text]
    if not failed:
        return result  # pyright: ignore[reportReturnType]
    kind, _, text = problems[failed[0]].partition(":")
    where = f" (host {failed[0]})" if len(problems) > 1 else ""
    if kind == "damaged":
        raise DamagedError(text + where) from cause
    advice = "" if kind == "refused" else "the checkpoint is there but cannot be read now: "
    raise CheckpointError(f"{advice}{text}{where}") from cause
