"""Names of axes -> layouts: the parameters, the optimizer's slots, activations."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from t5jax import sharding
from t5jax.errors import ConfigError
from t5jax.model.registry import abstract_model
from t5jax.sharding import MeshConfig, param_specs, state_shardings
from t5jax.training.losses import CrossEntropy
from t5jax.training.optimizers import Adafactor, AdamW, OptaxOptimizer
from t5jax.training.schedules import Constant
from t5jax.training.steps import Program
from t5jax.training.train_step import TrainState
from tests.model import tiny_t5

MODEL = tiny_t5.config(
    "1.1", vocab_size=60, emb_dim=24, num_heads=4, head_dim=7, mlp_dim=44, num_encoder_layers=3
)


def program(tx=None, config=None, model=MODEL) -> Program:
    config = config or MeshConfig(data=2, fsdp=2, tensor=2)
    return Program(
        model=model,
        loss=CrossEntropy(),
        tx=tx or optax.sgd(0.1),
        mesh_config=config,
        mesh=config.build(),
    )


def by_path(tree) -> dict[str, object]:
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: isinstance(x, P))
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in leaves}


# ---- parameters


def test_sharding_of_every_parameter():
    config = MeshConfig(data=2, fsdp=2, tensor=2)
    specs = by_path(param_specs(abstract_model(MODEL), config.logical_axis_rules, config.build()))
    fsdp, tensor = ("fsdp",), ("tensor",)
    into, out_of = P(None, fsdp, tensor), P(None, tensor, fsdp)
    attention = {"query": into, "key": into, "value": into, "out": out_of}
    layers = {
        **{f"self_attention/{name}": spec for name, spec in attention.items()},
        "self_attention_norm/scale": P(None, fsdp),
        "mlp_norm/scale": P(None, fsdp),
        "mlp/wi_0": into,
        "mlp/wi_1": into,
        "mlp/wo": out_of,
    }
    cross = {f"cross_attention/{name}": spec for name, spec in attention.items()}
    cross["cross_attention_norm/scale"] = P(None, fsdp)
    stack = {"relpos_bias/embedding": P(tensor, None), "final_norm/scale": P(fsdp)}
    want = {
        "token_embedder": P(tensor, fsdp),
        "logits_dense": P(fsdp, tensor),
        **{f"encoder/layers/{name}": spec for name, spec in layers.items()},
        **{f"decoder/layers/{name}": spec for name, spec in {**layers, **cross}.items()},
        **{f"{s}/{name}": spec for s in ("encoder", "decoder") for name, spec in stack.items()},
    }
    assert specs == want


def test_rules_change_the_sharding():
    config = MeshConfig(data=2, fsdp=2, tensor=2, embed=(), vocab=("fsdp", "tensor"))
    specs = by_path(param_specs(abstract_model(MODEL), config.logical_axis_rules, config.build()))
    assert specs["token_embedder"] == P(("fsdp", "tensor"), None)
    assert specs["encoder/layers/mlp/wo"] == P(None, ("tensor",), None)


def specs_with(**changes) -> dict:
    config = MeshConfig(data=2, fsdp=2, tensor=2, **changes)
    config.check()
    return by_path(param_specs(abstract_model(MODEL), config.logical_axis_rules, config.build()))


def test_rules_of_single_parameters():
    """By pattern of path; of several that match the last counts."""
    rules = {
        "layers/mlp/wo$:embed": (),
        "decoder/.*mlp/wo:embed": ("data", "fsdp"),
        "token_embedder:vocab": ("tensor", "data"),
    }
    others, specs = specs_with(), specs_with(rules=rules)
    changed = {name: spec for name, spec in specs.items() if spec != others[name]}
    assert changed == {
        "encoder/layers/mlp/wo": P(None, ("tensor",), None),
        "decoder/layers/mlp/wo": P(None, ("tensor",), ("data", "fsdp")),
        "token_embedder": P(("tensor", "data"), ("fsdp",)),
    }


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"token_embedder:vocabulary": ()}, "no parameter has an axis 'vocabulary'; did you mean"),
        ({"experts": ()}, r"mesh.rules\['experts'\]: no parameter has an axis .*they have embed"),
        ({"mlp/w0$:mlp": ()}, "no parameter with an axis 'mlp' matches 'mlp/w0\\$'; `t5jax insp"),
        ({"relpos_bias:vocab": ()}, "no parameter with an axis 'vocab' matches 'relpos_bias'"),
        ({"mlp/wo:mlp": ("fsdp",)}, "mesh.rules: .*mlp/wo has .*divide only one of its axes"),
        ({"mlp/wo:embed": ("data", "fsdp", "tensor")}, "a mesh axis can divide only one"),
        ({"mlp/wo:mlp": ("model",)}, r"mesh.rules\['mlp/wo:mlp'\]: 'model' is not one of"),
        ({"mlp/(wo:mlp": ()}, "not a regular expression before the colon"),
        ({"embed": ()}, r"mesh.rules\['embed'\]: set the field mesh.embed"),
    ],
)
def test_rules_that_cannot_be(rules, message):
    with pytest.raises(ConfigError, match=message):
        specs_with(rules=rules)


def test_an_axis_of_a_users_own_model():
    class Own(nnx.Module):
        def __init__(self):
            self.table = nnx.Param(jnp.zeros((6, 5)), axes=("experts", "embed_of_mine"))

    config = MeshConfig(data=2, fsdp=2, tensor=2, rules={"experts": ("fsdp",)})
    of = lambda config: param_specs(Own(), config.logical_axis_rules, config.build())
    with pytest.raises(ConfigError, match=r"table has an axis 'embed_of_mine', .* no rule"):
        of(config)
    config.rules["embed_of_mine"] = ()
    assert of(config) == {"table": P(("fsdp",), None)}


def test_a_bias_per_layer_is_stacked():
    cfg = tiny_t5.config("umT5", emb_dim=24, num_heads=4, head_dim=7, mlp_dim=44, vocab_size=60)
    config = MeshConfig(data=2, fsdp=2, tensor=2)
    specs = by_path(param_specs(abstract_model(cfg), config.logical_axis_rules, config.build()))
    assert specs["encoder/layers/relpos_bias/embedding"] == P(None, ("tensor",), None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 61}, "logits_dense has vocab=61, .* into tensor = 2; change mesh.vocab"),
        ({"mlp_dim": 45}, "mlp/wi_0 has mlp=45"),
        ({"emb_dim": 25}, "embed=25, which does not divide into fsdp = 2"),
        ({"num_heads": 3}, "relpos_bias/embedding has heads=3"),
    ],
)
def test_sizes_that_do_not_divide(changes, message):
    cfg = tiny_t5.config(
        **{
            "vocab_size": 60, "emb_dim": 24, "num_heads": 4, "head_dim": 6, "mlp_dim": 44,
            **changes,
        }
    )  # fmt: skip
    config = MeshConfig(data=2, fsdp=2, tensor=2)
    with pytest.raises(ConfigError, match=message):
        param_specs(abstract_model(cfg), config.logical_axis_rules, config.build())


# ---- optimizer state

SLOTS = {  # optimizer -> how many slots shaped like a parameter each parameter has
    "adafactor": (Adafactor(schedule=Constant(), factored=False), 1),
    "adafactor with momentum": (Adafactor(schedule=Constant(), factored=False, beta1=0.9), 2),
    "adamw": (AdamW(schedule=Constant()), 2),
    "adamw, rms-scaled": (AdamW(schedule=Constant(), rms_scaled=True), 2),
    "lion": (OptaxOptimizer(factory="optax.lion", schedule=Constant()), 1),
    "lamb": (OptaxOptimizer(factory="optax.lamb", schedule=Constant()), 2),
}


@pytest.mark.parametrize("name", SLOTS)
def test_slots_are_sharded_like_their_parameters(name):
    """Each parameter's slots have its own layout, whatever tree the optimizer keeps them in."""
    optimizer, num_slots = SLOTS[name]
    state = program(optimizer.build(10)).abstract_state
    params = by_path(state.params)
    found = dict.fromkeys(params, 0)
    for path, slot in by_path(state.opt_state).items():
        owner = [p for p in params if path.endswith(f"/{p}")]
        if not owner or params[owner[0]].shape != slot.shape:
            assert slot.size <= 3, path  # a counter, of every layer at most
            assert slot.sharding.spec == P(), path
            continue
        owner = max(owner, key=len)
        found[owner] += 1
        assert slot.sharding == params[owner].sharding, path
    assert set(found.values()) == {num_slots}


def test_factors_are_replicated_and_small():
    tx = Adafactor(schedule=Constant(), min_dim_size_to_factor=20).build(10)
    state = program(tx).abstract_state
    slots = by_path(state.opt_state)
    row = slots["v_row/encoder/layers/mlp/wi_0"]
    assert (row.shape, row.sharding.spec) == ((3, 24), P())
    whole = slots["v/encoder/layers/mlp_norm/scale"]
    assert whole.sharding.spec == P(None, ("fsdp",))
    assert state.step.sharding.spec == state.bad_steps.sharding.spec == P()


def test_the_same_path_with_another_shape_is_replicated():
    mesh = MeshConfig(data=2, fsdp=2, tensor=2).build()
    shape = lambda *dims: jax.ShapeDtypeStruct(dims, jnp.float32)
    slots = {"whole": {"a": {"w": shape(4, 6)}}, "factor": {"a": {"w": shape(6)}}}
    state = TrainState(shape(), {"a": {"w": shape(4, 6)}}, slots, shape())
    got = state_shardings(state, {"a": {"w": P("fsdp", "tensor")}}, mesh)
    assert got.opt_state["whole"]["a"]["w"].spec == P("fsdp", "tensor")
    assert got.opt_state["factor"]["a"]["w"].spec == P()


# ---- activations


def test_constrain_has_no_effect_without_rules():
    x = jnp.ones((3, 5))
    assert sharding.constrain(x, "batch", None) is x


def test_constrain_shards_by_axis_name():
    config = MeshConfig(data=2, fsdp=2, tensor=2)
    mesh = config.build()
    with sharding.use_mesh(mesh, config.logical_axis_rules):
        y = jax.jit(lambda x: sharding.constrain(x, "batch", None, "vocab"))(jnp.ones((8, 5, 6)))
    want = NamedSharding(mesh, P(("data", "fsdp"), None, "tensor"))
    assert y.sharding.is_equivalent_to(want, 3)
    x = jnp.ones((8, 5))
    assert sharding.constrain(x, "batch", None) is x  # the rules end with their block


def test_rules_end_with_their_block_even_after_an_error():
    config = MeshConfig()
    with pytest.raises(KeyError), sharding.use_mesh(config.build(), config.logical_axis_rules):
        sharding.constrain(jnp.ones((8, 2)), "no_such_axis", None)
    x = jnp.ones((8, 2))
    assert sharding.constrain(x, "batch", None) is x


def test_batch_sharding_divides_rows_only():
    config = MeshConfig(data=2, fsdp=2, tensor=2)
    mesh = config.build()
    x = jax.device_put(
        np.arange(24).reshape(8, 3), sharding.batch_sharding(mesh, config.logical_axis_rules)
    )
    assert {s.data.shape for s in x.addressable_shards} == {(2, 3)}
    rows = {tuple(s.data[:, 0].tolist()) for s in x.addressable_shards}
    assert rows == {(0, 3), (6, 9), (12, 15), (18, 21)}  # each pair of rows on two devices


# ---- devices on their own


def test_on_each_device_loops_end_with_the_devices_rows():
    mesh_config = MeshConfig(data=4, fsdp=2)
    mesh = mesh_config.build()
    rows = sharding.batch_sharding(mesh, mesh_config.logical_axis_rules)

    def count_down(step, left_R):
        """How long the loop took, and how many devices run it together."""
        left_R = sharding.constrain(left_R, "batch")  # nothing to lay out
        took, _ = jax.lax.while_loop(
            lambda carry: jnp.any(carry[1] > 0),
            lambda carry: (carry[0] + 1, carry[1] - step),
            (0, left_R),
        )
        return took + 0 * left_R, 0 * left_R + sharding.devices_in_program()

    left = np.array([3, 0, 0, 0, 5, 9, 1, 1, 2, 7, 0, 1, 4, 4, 6, 0])
    with sharding.use_mesh(mesh, mesh_config.logical_axis_rules):
        function = jax.jit(sharding.on_each_device(count_down, rows))
        took, together = function(jnp.int32(2), jax.device_put(left, rows))
    np.testing.assert_array_equal(took, np.repeat([2, 0, 5, 1, 4, 1, 2, 3], 2))
    assert set(together.tolist()) == {1}
    assert sharding.devices_in_program() == 8


# ---- sums over the replicas


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        (MeshConfig(), 8),
        (MeshConfig(data=2, fsdp=2, tensor=2), 2),
        (MeshConfig(data=1, fsdp=8), 1),
        (MeshConfig(data=2, fsdp=4, embed=("data", "fsdp")), 1),  # no two devices hold the same
    ],
)
def test_sum_over_replicas(config, parts):
    """Each replica of the parameters sees its own rows; how many it saw shows in the sum."""
    mesh = config.build()
    rows = np.arange(48, dtype=np.float32).reshape(16, 3)
    whole = {"scale": np.float32(0.5)}

    def total(whole, rows):
        assert len(rows) == 16 // parts
        # What code inside asks the mesh for.
        assert jax.sharding.get_abstract_mesh().abstract_device.platform == "cpu"
        body = lambda carry, row: (carry + whole["scale"] * row, None)
        return jax.lax.scan(body, jnp.zeros(3), rows)[0], jnp.float32(1.0)

    with sharding.use_mesh(mesh, config.logical_axis_rules):
        placed = jax.device_put(rows, sharding.batch_sharding(mesh, config.logical_axis_rules))
        summed = jax.jit(lambda *args: sharding.sum_over_replicas(total, *args))
        got, number = summed(whole, placed)
    np.testing.assert_allclose(got, 0.5 * rows.sum(axis=0), rtol=1e-6)
    assert number == parts


def test_sum_over_replicas_without_a_mesh():
    assert sharding.sum_over_replicas(lambda whole, rows: whole + rows, 1, 2) == 3
