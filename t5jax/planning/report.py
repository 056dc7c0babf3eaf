"""A plan as text: memory, time, cost, collectives, the largest operations."""

from collections.abc import Iterator

from t5jax.planning.layout_warnings import whole_tables_of
from t5jax.planning.plan import GB, Plan, by_kind_and_axis, by_network

_NETWORKS = {
    "tpu": {"ICI": "ICI", "DCN": "DCN"},
    "gpu": {"ICI": "NVLink", "DCN": "between hosts"},
    "cpu": {"ICI": "memory", "DCN": "memory"},
}


def report(plan: Plan) -> str:
    """The plan for a terminal."""
    lines = [*_head(plan), "", *_memory(plan)]
    if plan.cost is not None:
        lines += ["", *_time(plan), "", *_collectives(plan), "", *_largest(plan)]
    lines += ["", *(f"warning: {text}" for text in plan.warnings)] if plan.warnings else []
    lines += ["", "assumed:", *(f"  - {text}" for text in plan.assumptions)]
    return "\n".join(lines)


def _head(plan: Plan) -> Iterator[str]:
    train, model = plan.config.train, plan.config.model
    mesh = " x ".join(f"{name}={size}" for name, size in plan.mesh.items())
    chips, devices = plan.topology.num_chips, plan.topology.num_devices
    count = f"{chips} chips" + (f", {devices} devices" if devices != chips else "")
    if plan.topology.slices > 1:
        between = plan.config.mesh.between_slices(plan.topology.devices())
        slices = " x ".join(f"{name}={parts}" for name, parts in between.items())
        mesh += f", slices along {slices}"
    yield f"{plan.step} step on {plan.topology} ({count}), mesh {mesh}"
    inputs, targets = plan.lengths
    shape = " + ".join(f"{n} {what}" for n, what in ((inputs, "inputs"), (targets, "targets")) if n)
    parts = f" in {train.num_microbatches} microbatches" if plan.step == "train" else ""
    yield (
        f"{plan.rows} rows of {shape}{parts}; remat {model.remat}, attention {model.attention}, "
        f"unroll_layers {model.unroll_layers}"
    )
    if plan.compiled is not None:
        yield f"compiled in {plan.compiled.seconds:.0f} s"


def _memory(plan: Plan) -> Iterator[str]:
    yield "memory of a device, GB"
    if plan.estimate is not None:
        yield _row("parameters", plan.estimate.parameters / GB)
        yield _row("optimizer state", plan.estimate.optimizer / GB)
    if plan.compiled is not None:
        memory = plan.compiled.memory
        state = 0.0
        if plan.estimate is not None:
            state = plan.estimate.parameters + plan.estimate.optimizer
        yield _row("batch and other arguments", max(0.0, memory.arguments - state) / GB)
        yield _row("results beside them", (memory.outputs - memory.aliased) / GB)
        yield _row("temporaries", memory.temporaries / GB)
    if plan.estimate is not None:
        note = "kept for the backward pass, by autodiff" + (
            "; part of the temporaries" if plan.compiled else ""
        )
        yield _row("  activations", plan.estimate.activations / GB, note)
        yield _row("  gradients", plan.estimate.gradients / GB)
    verdict = "fits" if plan.fits else "DOES NOT FIT"
    if plan.refused is not None and plan.refused.temporaries_only:
        yield _row("temporaries", plan.refused.needed / GB, "which the compiler would need")
    yield _row("peak", plan.memory_gb, f"of {plan.hbm_gb:.2f}: {verdict}")
    for buffer in plan.refused.largest if plan.refused else ():
        yield f"    large buffer: {buffer}"


def _row(name: str, value: float, note: str = "") -> str:
    return f"  {name:26s} {value:9.3f}  {note}".rstrip()


def _time(plan: Plan) -> Iterator[str]:
    cost = plan.cost
    assert cost is not None
    assert plan.step_seconds is not None
    assert plan.mfu is not None
    assert plan.hlo_tflops is not None
    yield "predicted time of a step, ms"
    yield _row("operations", cost.operation_seconds * 1e3)
    for bound, seconds in cost.seconds_by_bound.items():
        if bound != "collectives" and seconds:
            yield _row(f"  bound by {bound}", seconds * 1e3)
    yield _row("exposed collectives", cost.exposed_seconds * 1e3)
    yield _row("step", plan.step_seconds * 1e3, f"MFU {plan.mfu:.1%}")
    ratio = plan.hlo_tflops / plan.model_tflops
    yield (
        f"  {plan.model_tflops:.4g} TFLOP of the model, {plan.hlo_tflops:.4g} of the program "
        f"({ratio:.2f} times), {cost.nbytes / GB:.4g} GB of HBM traffic a device"
    )
    yield f"  {plan.tokens_per_second:,.0f} tokens/s on all devices"
    if plan.days is not None and plan.chip_hours is not None:
        steps = plan.config.train.num_train_steps
        price = "" if plan.price is None else f", cost {plan.price:,.0f}"
        yield (f"  {steps:,} steps: {plan.days:.2f} days, {plan.chip_hours:,.0f} chip-hours{price}")


def _collectives(plan: Plan) -> Iterator[str]:
    assert plan.cost is not None
    by_kind = plan.cost.collective_bytes(by_kind_and_axis)
    if not by_kind:
        yield "collectives: none"
        return
    networks = plan.cost.collective_bytes(by_network)
    names = _NETWORKS[plan.topology.chip.platform]
    total = ", ".join(f"{names[name]} {nbytes / GB:.3f} GB" for name, nbytes in networks.items())
    yield f"collectives a step: {total}"
    counts = {
        name: sum(n for x, n in plan.cost.collectives if by_kind_and_axis(x) == name)
        for name in by_kind
    }
    for name, nbytes in by_kind.items():
        yield f"  {name:34s} {nbytes / GB:9.3f} GB in {counts[name]:,.0f}"
    for collective, count in whole_tables_of(plan.config.model, plan.cost):
        size = "x".join(map(str, collective.shape))
        yield (
            f"  whole table [{size}]: {collective.kind} over {collective.axes}, {count:,.0f} times"
        )


def _largest(plan: Plan) -> Iterator[str]:
    yield "largest operations       ms   share  times  waits for  what (of all layers)"
    assert plan.cost is not None
    whole = plan.cost.seconds
    for x in plan.largest:
        yield (
            f"  {x.opcode:17s} {x.seconds * 1e3:9.2f} {x.seconds / whole:6.1%} {x.count:6,.0f}  "
            f"{x.bound:9s}  {x.what}"
        )
