"""What a run on several devices says of its layout at the start."""

import dataclasses
import functools

import jax

from t5jax.planning.settings import layout_on_topology
from t5jax.planning.topology import parse_topology
from t5jax.run.summary import layout_lines
from t5jax.training.steps import Program
from tests.planning.programs import abstract_program, tiny_config


@functools.cache
def of_replicas() -> Program:
    return abstract_program(tiny_config(mesh={"fsdp": 1}))[1]


def lines(memory_bytes: float, **mesh) -> list[str]:
    return list(layout_lines(abstract_program(tiny_config(mesh=mesh))[1], memory_bytes))


def test_mesh_what_is_whole_and_why():
    """Of 390 ids, 24 wide: what a mesh of 2 x 2 x 2 leaves whole."""
    mesh, held, *whole = lines(1e12, data=2, fsdp=2, tensor=2)
    assert mesh == "mesh data=2 x fsdp=2 x tensor=2 over 8 cpu"
    assert held.startswith("on each device 0.0")
    assert whole == []


def test_replicas_name_the_rules():
    mesh, _, *whole = lines(1e12, data=4, fsdp=1, tensor=2)
    assert mesh.startswith("mesh data=4 x fsdp=1 x tensor=2")
    # Norms' scales, 24 wide: 2 + 2 + 1 of the encoder's, 1 + 1 + 1 + 1 of the decoder's, float32.
    assert whole == [
        "whole: decoder/final_norm/scale and 6 more, 0.000864 MB: embed is divided along fsdp=1"
    ]


def test_a_rule_of_a_single_parameter_is_named():
    *_, whole, _ = lines(1e12, data=4, fsdp=1, tensor=2, rules={"decoder/.*mlp/wo$:mlp": ()})
    # [1, 44, 24], float32
    assert whole == (
        "whole: decoder/layers/mlp/wo, 0.00422 MB: mesh.rules names no mesh axis for mlp; embed is "
        "divided along fsdp=1"
    )


def test_slices_are_named():
    assert lines(1e12, data=2, fsdp=4, dcn_fsdp=2)[0].endswith(
        "fsdp=4 x tensor=1 over 8 cpu, slices along fsdp=2"
    )


def test_one_device_has_no_layout():
    mesh = of_replicas().mesh_config.build(jax.devices()[:1])
    alone = dataclasses.replace(of_replicas(), mesh=mesh)
    assert list(layout_lines(alone, 1e3)) == []


def test_the_warning_is_that_of_plans():
    layout = layout_on_topology(tiny_config(mesh={"fsdp": 1}), parse_topology("cpu:8"))
    nbytes = layout.parameter_bytes + layout.optimizer_bytes
    assert layout.replicated_bytes == nbytes  # of eight replicas all of it
    *_, last = layout_lines(of_replicas(), nbytes * 19.9)
    assert last == f"warning: {layout.warning(nbytes * 19.9)}"
    assert "(5% of the memory) are whole on every device: mesh.fsdp divides them" in last
    assert layout.warning(nbytes * 20.1) is None
    assert not any("warning" in line for line in layout_lines(of_replicas(), nbytes * 20.1))
