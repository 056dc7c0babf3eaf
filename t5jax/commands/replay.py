"""`t5jax replay WORKDIR --step N`: runs a step of a run again and says whether it repeats."""

import math

from t5jax.run.replay import Replay, ReplayedStep, replay_step
from t5jax.run.restore import apply_flags

_MOST = 10  # tensors named


def replay_command(workdir: str, step: int, flags: list[str], *, with_norms: bool) -> int:
    """Prints the steps and the verdict; 0 where all repeat bit for bit, else 1."""
    change = apply_flags(flags, command="replay", workdir=workdir)
    found = replay_step(workdir, step, change, with_norms=with_norms)
    start = "its beginning" if found.first is None else f"the checkpoint of step {found.first}"
    then = found.devices_then or "not recorded"
    print(f"{workdir}: from {start}, on {found.devices} (the run's: {then})")
    for line in found.environment:
        print(f"  environment: {line}")
    for one in found.steps:
        numbers = f"loss {one.loss:.6g}  grad_norm {one.grad_norm:.6g}"
        print(f"  step {one.step}  {numbers}  {_beside(one)}")
    if found.rows_repeat is not None:
        print(f"  the rows are {'those' if found.rows_repeat else 'NOT those'} that were recorded")
    _print_norms(found, with_norms)
    print(_verdict(found))
    return 0 if found.repeats else 1


def _beside(one: ReplayedStep) -> str:
    if one.repeats is None:
        return "(not logged)"
    if one.repeats:
        return "as logged, bit for bit"
    assert one.logged_loss is not None
    difference = abs(one.loss - one.logged_loss) / (abs(one.logged_loss) or 1.0)
    return f"logged: loss {one.logged_loss:.6g} (differs by {difference:.1e} of it)"


def _print_norms(found: Replay, with_norms: bool) -> None:
    bad = [path for path, value in found.norms.items() if not math.isfinite(value)]
    if bad:
        more = f" and {len(bad) - _MOST} more" if len(bad) > _MOST else ""
        print(f"  not finite: {', '.join(bad[:_MOST])}{more}")
    for path, value in found.norms.items() if with_norms else ():
        print(f"  {value:12.5g}  {path}")


def _verdict(found: Replay) -> str:
    step = found.steps[-1]
    if found.repeats:
        return f"step {step.step} repeats bit for bit"
    if step.repeats is None:
        return (
            f"step {step.step} was not logged (tracking.log_every_steps): nothing to compare with"
        )
    same = found.devices == found.devices_then
    why = (
        "on the same kind of devices" if same else "on other devices, whose sums have another order"
    )
    return f"step {step.step} does NOT repeat bit for bit, {why}"
