"""The cost model: what bounds an operation, bytes of fusions, collectives beside others."""

import jax
import pytest

from t5jax.planning.collectives import MeshNetwork
from t5jax.planning.cost import MATRIX_SHARE, MEMORY_SHARE, program_cost
from t5jax.planning.hlo import parse_module
from t5jax.planning.topology import parse_topology
from t5jax.planning.traffic import memory_bytes
from t5jax.sharding import MeshConfig

TOPOLOGY = parse_topology("v5e:2x4")
CHIP = TOPOLOGY.chip


def cost(text: str):
    mesh = MeshConfig(data=2, fsdp=4).build(jax.devices()[:8])
    return program_cost(parse_module(text), CHIP, MeshNetwork(mesh, TOPOLOGY), "bfloat16")


def entry(*lines: str) -> str:
    return "ENTRY %main () -> f32[] {\n" + "".join(f"  {line}\n" for line in lines) + "}\n"


def test_the_longest_of_three_times_counts():
    lines = (
        "%a = bf16[700,4000]{1,0} parameter(0)",
        "%b = bf16[4000,300]{1,0} parameter(1)",
        "%wide = bf16[700,300]{1,0} dot(%a, %b), lhs_contracting_dims={1}, "
        "rhs_contracting_dims={0}",
        '%slow = bf16[700,300]{1,0} negate(%wide), backend_config={"estimated_cycles":"3000000"}',
        "ROOT %sum = bf16[700,300]{1,0} add(%wide, %slow)",
    )
    wide, slow, summed = cost(entry(*lines)).operations
    assert wide.seconds == pytest.approx(
        max(
            2 * 700 * 4000 * 300 / (197e12 * MATRIX_SHARE["tpu"]),
            2 * (700 * 4000 + 4000 * 300 + 700 * 300) / (0.819e12 * MEMORY_SHARE),
        )
    )
    assert slow.bound == "cycles"
    assert slow.seconds == pytest.approx(3e6 / 1.5e9)
    assert summed.bound == "memory"
    assert summed.nbytes == 3 * 2 * 700 * 300


def test_operations_of_a_name_are_taken_together():
    """Two layers' products, and a copy: the larger kind first, whatever the order of the text."""
    product = (
        "bf16[700,700]{1,0} dot(%a, %a), lhs_contracting_dims={1}, rhs_contracting_dims={0}, "
        'metadata={op_name="jit(step)/jit(main)/layer/mlp/wo"}'
    )
    lines = (
        "%a = bf16[700,700]{1,0} parameter(0)",
        '%copied = bf16[700,700]{1,0} copy(%a), metadata={op_name="jit(step)/transpose"}',
        f"%first = {product}",
        f"ROOT %second = {product}",
    )
    found = cost(entry(*lines))
    copied, first, second = found.operations
    mlp, copy = found.largest(5)
    assert (mlp.what, mlp.opcode, mlp.count) == ("layer/mlp/wo", "dot", 2)
    assert mlp.seconds == pytest.approx(first.seconds + second.seconds)
    assert (copy.what, copy.bound, copy.count) == ("jit(step)/transpose", "memory", 1)
    assert found.largest(1) == [mlp]
    by_bound = found.seconds_by_bound
    assert sum(by_bound.values()) == pytest.approx(found.seconds)
    assert by_bound["collectives"] == 0.0
    assert by_bound["memory"] >= copied.seconds


def test_a_loop_counts_as_often_as_it_runs():
    text = (
        "%body (p: (s32[], f32[1000])) -> (s32[], f32[1000]) {\n"
        "  %p = (s32[], f32[1000]{0}) parameter(0)\n"
        "  %i = s32[] get-tuple-element(%p), index=0\n"
        "  %x = f32[1000]{0} get-tuple-element(%p), index=1\n"
        "  %y = f32[1000]{0} tanh(%x)\n"
        "  ROOT %t = (s32[], f32[1000]{0}) tuple(%i, %y)\n"
        "}\n"
        "%condition (q: (s32[], f32[1000])) -> pred[] {\n"
        "  %q = (s32[], f32[1000]{0}) parameter(0)\n"
        "  ROOT %r = pred[] constant(true)\n"
        "}\n"
    ) + entry(
        "%z = (s32[], f32[1000]{0}) parameter(0)",
        "ROOT %w = (s32[], f32[1000]{0}) while(%z), condition=%condition, body=%body, "
        'backend_config={"known_trip_count":{"n":"17"}}',
    )
    whole = cost(text)
    assert whole.nbytes == 17 * 2 * 4000
    assert whole.seconds == pytest.approx(17 * 8000 / (0.819e12 * MEMORY_SHARE))


FUSIONS = """\
%sliced (p0: f32[24,50], p1: s32[]) -> f32[1,50] {
  %p0 = f32[24,50]{1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %c = s32[] constant(0)
  ROOT %d = f32[1,50]{1,0} dynamic-slice(%p0, %p1, %c), dynamic_slice_sizes={1,50}
}
%updated (q0: f32[24,50], q1: f32[1,50], q2: s32[]) -> f32[24,50] {
  %q0 = f32[24,50]{1,0} parameter(0)
  %q1 = f32[1,50]{1,0} parameter(1)
  %q2 = s32[] parameter(2)
  %k = s32[] constant(0)
  ROOT %u = f32[24,50]{1,0} dynamic-update-slice(%q0, %q1, %q2, %k)
}
%two (r0: f32[24,50]) -> (f32[24,50], bf16[24,50]) {
  %r0 = f32[24,50]{1,0} parameter(0)
  %n = f32[24,50]{1,0} negate(%r0)
  %m = bf16[24,50]{1,0} convert(%n)
  ROOT %t = (f32[24,50]{1,0}, bf16[24,50]{1,0}) tuple(%n, %m)
}
%added (s0: f32[24,50], s1: s32[3], s2: f32[3,50]) -> f32[24,50] {
  %s0 = f32[24,50]{1,0} parameter(0)
  %s1 = s32[3]{0} parameter(1)
  %s2 = f32[3,50]{1,0} parameter(2)
  ROOT %s = f32[24,50]{1,0} scatter(%s0, %s1, %s2), update_window_dims={1}, to_apply=%add
}
%taken (v0: f32[24,50], v1: s32[]) -> f32[50,3] {
  %v0 = f32[24,50]{1,0} parameter(0)
  %v1 = s32[] parameter(1)
  %vz = s32[] constant(0)
  %vd = f32[1,50]{1,0} dynamic-slice(%v0, %v1, %vz), dynamic_slice_sizes={1,50}
  ROOT %vb = f32[50,1]{1,0} bitcast(%vd)
}
%layer (w0: f32[3,50], w1: f32[24,50], w2: s32[], w3: f32[24,3]) -> f32[24,3] {
  %w0 = f32[3,50]{1,0} parameter(0)
  %w1 = f32[24,50]{1,0} parameter(1)
  %w2 = s32[] parameter(2)
  %w3 = f32[24,3]{1,0} parameter(3)
  %wl = f32[50,1]{1,0} fusion(%w1, %w2), kind=kLoop, calls=%taken
  %wy = f32[3,1]{1,0} convolution(%w0, %wl), dim_labels=bf_io->bf
  %wr = f32[1,3]{1,0} bitcast(%wy)
  ROOT %wo = f32[24,3]{1,0} fusion(%w3, %wr, %w2), kind=kLoop, calls=%kept
}
%kept (u0: f32[24,3], u1: f32[1,3], u2: s32[]) -> f32[24,3] {
  %u0 = f32[24,3]{1,0} parameter(0)
  %u1 = f32[1,3]{1,0} parameter(1)
  %u2 = s32[] parameter(2)
  %uz = s32[] constant(0)
  ROOT %ud = f32[24,3]{1,0} dynamic-update-slice(%u0, %u1, %u2, %uz)
}
ENTRY %main () -> f32[] {
  %a = f32[24,50]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %x = f32[3,50]{1,0} parameter(4)
  %ys = f32[24,3]{1,0} parameter(5)
  %scan = f32[24,3]{1,0} fusion(%x, %a, %i, %ys), kind=kOutput, calls=%layer
  %at = s32[3]{0} parameter(2)
  %rows = f32[3,50]{1,0} parameter(3)
  %table = f32[24,50]{1,0} fusion(%a, %at, %rows), kind=kCustom, calls=%added
  %plain = f32[24,50]{1,0} scatter(%a, %at, %rows), update_window_dims={1}, to_apply=%add
  %row = f32[1,50]{1,0} fusion(%a, %i), kind=kLoop, calls=%sliced
  %whole = f32[24,50]{1,0} fusion(%a, %row, %i), kind=kLoop, calls=%updated
  %pair = (f32[24,50]{1,0}, bf16[24,50]{1,0:S(1)}) fusion(%whole), kind=kLoop, calls=%two
  ROOT %end = f32[] constant(0)
}
"""


@pytest.mark.parametrize(
    ("name", "nbytes"),
    [
        ("row", 200 + 4 + 200),  # its row of `a`, the index, the result
        ("whole", 200 + 4 + 200),  # in place: the row is read and written
        ("table", 12 + 600 + 2 * 600),  # three rows are read, added to in place
        ("plain", 600 + 2 * 600),
        # A layer's product: `x`, its row of `a`, the index; its row of `ys`, in place.
        ("scan", 600 + 200 + 4 + 12),
        ("pair", 4800 + 4800),  # the second result stays on the chip
    ],
)
def test_bytes_of_fusions(name, nbytes):
    module = parse_module(FUSIONS)
    computation = module.computations["main"]
    assert memory_bytes(computation[name], computation, module) == nbytes


def test_what_runs_beside_a_collective_hides_it():
    """An all-gather of 40 MB takes 0.33 ms; the negation beside it 0.11 ms for every 40 MB."""
    start = (
        "%a = f32[2500000]{0} parameter(0)",
        "%s = (f32[2500000]{0}, f32[10000000]{0}) all-gather-start(%a), replica_groups=[2,4]<=[8]",
    )
    beside = (
        "%x = f32[10000000]{0} parameter(1)",
        "%y = f32[10000000]{0} negate(%x)",
    )
    done = ("ROOT %d = f32[10000000]{0} all-gather-done(%s)",)
    link = 40e6 * 3 / 4 / CHIP.link_bandwidth
    work = 80e6 / (CHIP.memory_bandwidth * MEMORY_SHARE)
    hidden = cost(entry(*start, *beside, *done))
    assert hidden.exposed_seconds == pytest.approx(link - work)
    assert hidden.seconds == pytest.approx(link)
    exposed = cost(entry(*start, *done, *beside))
    assert exposed.exposed_seconds == pytest.approx(link)
    assert exposed.seconds == pytest.approx(link + work)
    more = [f"%z{i} = f32[10000000]{{0}} negate(%x)" for i in range(4)]
    long = cost(entry(*start, *beside, *more, *done))
    assert long.exposed_seconds == 0
    assert long.collective_bytes() == {"all-gather": 40e6}


def test_a_prefetch_takes_the_bandwidth_that_is_left():
    """Products leave HBM idle while they compute; a negation does not."""
    copy = (
        "%x = f32[2500000]{0} parameter(0)",
        "%s = (f32[2500000]{0}, f32[2500000]{0:S(1)}, u32[]{:S(2)}) copy-start(%x)",
    )
    dot = (
        "%a = bf16[1200,1200]{1,0} parameter(1)",
        "%y = bf16[1200,1200]{1,0} dot(%a, %a), lhs_contracting_dims={1}, rhs_contracting_dims={0}",
    )
    busy = ("%z = f32[2500000]{0} negate(%x)",)
    done = ("ROOT %d = f32[2500000]{0:S(1)} copy-done(%s)",)
    transfer = 10e6 / (CHIP.memory_bandwidth * MEMORY_SHARE)
    alone, of_dot, of_busy = (cost(entry(*copy[:1], *x)).seconds for x in ((), dot, busy))
    idle = of_dot - 3 * 2.88e6 / (CHIP.memory_bandwidth * MEMORY_SHARE)
    assert 0 < idle < transfer
    assert alone == 0
    beside = lambda *lines: cost(entry(*copy, *lines, *done)).seconds
    assert beside() == pytest.approx(transfer)
    assert beside(*busy) == pytest.approx(of_busy + transfer)
    assert beside(*dot) == pytest.approx(of_dot + max(0.0, transfer - idle))
    two = [line.replace("%x", "%v").replace("%s", "%r").replace("(0)", "(2)") for line in copy]
    waits = [f"%e = {done[0].removeprefix('ROOT %d = ').replace('%s', '%r')}"]
    assert cost(entry(*copy, *two, *dot, *waits, *done)).seconds == pytest.approx(
        of_dot + max(0.0, 2 * transfer - idle)
    )


def test_a_synchronous_collective_is_waited_for():
    whole = cost(
        entry(
            "%a = f32[10000000]{0} parameter(0)",
            "ROOT %r = f32[10000000]{0} all-reduce(%a), replica_groups=[2,4]<=[8], to_apply=%add",
        )
    )
    assert whole.seconds == pytest.approx(2 * 40e6 * 3 / 4 / CHIP.link_bandwidth)
    assert whole.exposed_seconds + whole.operation_seconds == whole.seconds


CALL = """\
%called (x: f32[2500000]) -> f32[10000000] {
  %x = f32[2500000]{0} parameter(0)
  ROOT %g = f32[10000000]{0} fusion(%x), kind=kCustom, calls=%gathering
}
%gathering (y: f32[2500000]) -> f32[10000000] {
  %y = f32[2500000]{0} parameter(0)
  ROOT %h = f32[10000000]{0} all-gather(%y), channel_id=4, replica_groups=[2,4]<=[8]
}
"""


def test_a_collective_on_a_sparse_core_runs_beside_what_follows():
    text = CALL + entry(
        "%a = f32[2500000]{0} parameter(0)",
        "%s = ((f32[2500000]{0}, token[]), f32[10000000]{0}) call-start(%a), "
        'async_execution_thread="sparsecore", to_apply=%called',
        "%b = f32[10000000]{0} parameter(1)",
        "%n = f32[10000000]{0} negate(%b)",
        "ROOT %d = f32[10000000]{0} call-done(%s)",
    )
    whole = cost(text)
    assert whole.collective_bytes() == {"all-gather": 40e6}
    assert whole.seconds == pytest.approx(40e6 * 3 / 4 / CHIP.link_bandwidth)


def test_an_all_reduce_scatter_sends_half_of_an_all_reduce():
    text = (
        "%all-reduce-scatter (y: f32[10000000]) -> f32[2500000] {\n"
        "  %y = f32[10000000]{0} parameter(0)\n"
        "  %r = f32[10000000]{0} all-reduce(%y), channel_id=4, replica_groups=[2,4]<=[8]\n"
        "  %i = s32[] constant(0)\n"
        "  ROOT %t = f32[2500000]{0} dynamic-slice(%r, %i), dynamic_slice_sizes={2500000}\n"
        "}\n"
    ) + entry(
        "%a = f32[10000000]{0} parameter(0)",
        "ROOT %f = f32[2500000]{0} fusion(%a), kind=kCustom, calls=%all-reduce-scatter",
    )
    whole = cost(text)
    assert whole.collective_bytes() == {"reduce-scatter": 40e6}
    assert whole.seconds == pytest.approx(40e6 * 3 / 4 / CHIP.link_bandwidth)
