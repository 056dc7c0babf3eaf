"""What compilers say of memory, and plans for TPUs and GPUs where their compilers are installed."""

import importlib.util
import math
import subprocess
import sys

import pytest

from t5jax.errors import ConfigError
from t5jax.planning import topology as topology_module
from t5jax.planning.compilation import read_out_of_memory
from t5jax.planning.topology import parse_topology

GIB = 2**30
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed: make .venv/installed-plan",
)
needs_cuda_plugin = pytest.mark.skipif(
    importlib.util.find_spec("jax_plugins.xla_cuda13") is None
    if importlib.util.find_spec("jax_plugins")
    else True,
    reason="JAX's CUDA plugin is not installed: make .venv/installed-plan",
)


def test_numbers_of_libtpus_message():
    error = read_out_of_memory(
        "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space "
        "hbm. Used 29.10G of 15.75G hbm. Exceeded hbm capacity by 13.35G.\n\n"
        "Total hbm usage >= 29.36G:\n    reserved        258.00M \n"
        "  Largest program allocations in hbm:\n\n"
        "  1. Size: 3.06G\n"
        '     Operator: op_name="jit(train_step)/jvp()/encoder/BTNH,BSNH->BNTS/dot_general"\n'
        "     Shape: bf16[24,64,16,512,512]{4,3,2,1,0:T(8,128)(2,1)}\n"
        "     Unpadded size: 3.06G\n"
        "  2. Size: 512.0M\n     Shape: f32[32128,1024]{1,0}\n"
    )
    assert error is not None
    assert error.needed == pytest.approx(29.10 * GIB)
    assert error.available == pytest.approx(15.75 * GIB)
    assert not error.temporaries_only
    assert error.largest[0].startswith("3.06GB bf16[24,64,16,512,512]")
    assert error.largest[0].endswith("encoder/BTNH,BSNH->BNTS/dot_general")
    assert error.largest[1].startswith("512.0MB f32[32128,1024]")


def test_numbers_of_its_message_about_temporaries():
    error = read_out_of_memory(
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
        "temporaries (1.27T) exceeds available HBM (15.75G)."
    )
    assert error is not None
    assert error.needed == pytest.approx(1.27 * 1024 * GIB)
    assert error.temporaries_only


def test_other_messages():
    unnumbered = read_out_of_memory("RESOURCE_EXHAUSTED: Out of memory allocating")
    assert unnumbered is not None
    assert math.isnan(unnumbered.needed)
    assert read_out_of_memory("INTERNAL: something else") is None


def test_a_missing_compiler_is_named_with_what_installs_it(monkeypatch):
    monkeypatch.setattr(topology_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"libtpu, which is not installed .* 't5jax\[plan\]'"):
        parse_topology("v5e:4x8").devices()

    def missing(*args, **kwargs):
        raise NotImplementedError("topology not implemented for cuda")

    monkeypatch.setattr(topology_module.topologies, "get_topology_desc", missing)
    with pytest.raises(ConfigError, match=r"CUDA plugin, which is not .* 't5jax\[plan-gpu\]'"):
        parse_topology("h100:1x8").devices()


def in_another_process(code: str) -> str:
    """libtpu and XLA's flags of these tests do not go together."""
    prelude = (
        "import jax, jax.numpy as jnp, numpy as np\n"
        "from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec\n"
        "from t5jax.planning.topology import parse_topology, prepare_process\n"
        "from t5jax.planning.cost import program_cost\n"
        "from t5jax.planning.hlo import parse_module\n"
        "from t5jax.planning.collectives import MeshNetwork\n"
        "from t5jax.planning.compilation import read_out_of_memory\n"
        "from t5jax.sharding import MeshConfig\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", prelude + code], capture_output=True, text=True,
        env={"PATH": "/usr/bin:/bin", "XLA_FLAGS": ""},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended.stdout


PRODUCT = """
topology = parse_topology({text!r}, {slices})
prepare_process(topology)
mesh = MeshConfig(fsdp=2).build(topology.devices())
place = lambda *axes: NamedSharding(mesh, PartitionSpec(*axes))
loss = lambda w, x: jnp.sum(jnp.tanh(x @ w).astype(jnp.float32) ** 2)
x = jax.ShapeDtypeStruct((4096, 1024), jnp.bfloat16, sharding=place(("data", "fsdp")))
w = jax.ShapeDtypeStruct((1024, 2048), jnp.bfloat16, sharding=place("fsdp"))
options = {{"xla_gpu_enable_triton_gemm": False}} if topology.chip.platform == "gpu" else None
compiled = jax.jit(jax.grad(loss), out_shardings=place("fsdp")).lower(w, x).compile(options)
module = parse_module(compiled.as_text())
cost = program_cost(module, topology.chip, MeshNetwork(mesh, topology), "bfloat16")
axes = set("+".join(x.axes for x, _ in cost.collectives).split("+"))
crossing = any(x.over_network for x, _ in cost.collectives)
print(len(topology.devices()), cost.flops, sorted(axes), crossing)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "slices", "devices", "crosses"),
    [
        pytest.param("v5e:2x4", 1, 8, False, marks=needs_libtpu),
        pytest.param("v4:2x2x2", 1, 8, False, marks=needs_libtpu),
        pytest.param("tpu7x:2x2x1", 1, 8, False, marks=needs_libtpu),
        pytest.param("v6e:2x2", 2, 8, True, marks=needs_libtpu),
        pytest.param("h100:2x4", 1, 8, True, marks=needs_cuda_plugin),
        pytest.param("a100:1x8", 1, 8, False, marks=needs_cuda_plugin),
        pytest.param("h200:1x8", 1, 8, False, marks=needs_cuda_plugin),
    ],
)
def test_a_product_compiled_for_what_is_not_here(text, slices, devices, crosses):
    said = in_another_process(PRODUCT.format(text=text, slices=slices))
    flops = 2 * 2 * 4096 * 1024 * 2048 / devices  # forward, and the gradient of w
    assert said == f"{devices} {flops} ['data', 'fsdp'] {crosses}\n"


OVERFLOW = """
topology = parse_topology({text!r})
prepare_process(topology)
place = NamedSharding(Mesh(np.array(topology.devices()), ("x",)), PartitionSpec())
rows = int(topology.chip.memory_bytes * 0.7 / 4e6)
x = jax.ShapeDtypeStruct((rows, 1_000_000), jnp.float32, sharding=place)
try:
    jax.jit(lambda x: (jnp.tanh(x) @ x.T).sum() + x).lower(x).compile()
except Exception as error:
    print(read_out_of_memory(str(error)).available / topology.chip.memory_bytes)
"""


@pytest.mark.slow
@needs_libtpu
@pytest.mark.parametrize("text", ["v4:2x2x1", "v5e:1x1", "v5p:2x2x1", "v6e:2x2", "tpu7x:2x2x1"])
def test_memory_of_chips_is_what_libtpu_gives_programs(text):
    assert float(in_another_process(OVERFLOW.format(text=text))) == pytest.approx(1, rel=1e-3)
