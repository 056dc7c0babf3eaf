"""Saving, restoring, damage, retention and full disks, with real files and eight devices."""

import collections
import errno
import json
import os
import pathlib
import random
import resource
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from t5jax import checkpoints
from t5jax.checkpoints import (
    CheckpointConfig,
    Checkpoints,
    CheckpointWriteError,
    NoUsableCheckpoint,
    restore_params,
)
from t5jax.errors import CheckpointError, ConfigError

# A read that fails halfway leaves futures of Orbax and TensorStore to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

State = collections.namedtuple("State", "step params opt_state bad_steps")
Moments = collections.namedtuple("Moments", "count row column")
RECORD = {"data": {"next_step": 7}, "config": "batch_size = 8", "numbers": [1, 2.5]}


def host_state(step: int, rows: int = 24) -> State:
    """A small train state in NumPy; every number depends on the step."""
    rng = np.random.default_rng(step)
    normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)
    params = {
        "token_embedder": normal(rows, 64),
        "encoder": {"layers": {"wi": normal(3, 16, 200)}, "final_norm": {"scale": normal(16)}},
    }
    low = normal(8, 16).astype(jnp.bfloat16)
    opt_state = (Moments(np.int32(step), normal(3, 16), low), (), {"empty": normal(0, 16)})
    return State(np.int32(step), params, opt_state, np.uint32(3))


def shardings(state: State, mesh_shape=(2, 2, 2)) -> State:
    mesh = jax.make_mesh(mesh_shape, ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
    whole = NamedSharding(mesh, PartitionSpec())
    split = lambda x: (
        NamedSharding(mesh, PartitionSpec("fsdp")) if x.shape[:1] in ((24,), (8,)) else whole
    )
    tree = jax.tree.map(split, state)
    wi = NamedSharding(mesh, PartitionSpec(None, "fsdp", "tensor"))
    tree.params["encoder"]["layers"]["wi"] = wi
    return tree


def device_state(step: int, mesh_shape=(2, 2, 2)) -> State:
    state = host_state(step)
    return jax.device_put(state, shardings(state, mesh_shape))


def abstract(mesh_shape=(2, 2, 2), state: State | None = None) -> State:
    state = state or host_state(0)
    make = lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s)
    return jax.tree.map(make, state, shardings(state, mesh_shape))


def same_bits(a, b) -> bool:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)


def save_steps(directory, steps, config=None, metrics=None) -> Checkpoints:
    store = Checkpoints(directory, config or CheckpointConfig())
    for step in steps:
        assert store.save(step, device_state(step), RECORD)
        if step in (metrics or {}):
            store.add_metrics(step, metrics[step])
    store.wait()
    return store


@pytest.fixture(scope="module")
def three_steps(tmp_path_factory) -> pathlib.Path:
    directory = tmp_path_factory.mktemp("run") / "checkpoints"
    save_steps(directory, (10, 20, 30)).close()
    return directory


def opened(directory) -> Checkpoints:
    return Checkpoints(directory, CheckpointConfig())


def files_of(directory: pathlib.Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()
    }


def test_round_trip_over_meshes_is_bit_exact(tmp_path):
    save_steps(tmp_path / "a", [5]).close()
    there = opened(tmp_path / "a").restore(abstract((1, 8, 1)))
    assert (there.step, there.record, there.metrics) == (5, RECORD, {})
    assert isinstance(there.state, State)
    assert same_bits(there.state, host_state(5))
    wi = there.state.params["encoder"]["layers"]["wi"]
    assert wi.sharding.mesh.shape["fsdp"] == 8
    second = opened(tmp_path / "b")
    second.save(5, there.state, there.record)
    second.close()
    back = opened(tmp_path / "b").restore(abstract((2, 2, 2)))
    assert same_bits(back.state, host_state(5))
    assert back.state.params["encoder"]["layers"]["wi"].sharding.mesh.shape["tensor"] == 2


def test_saving_goes_on_while_the_state_is_donated(tmp_path):
    store = opened(tmp_path)
    state = device_state(1)
    step_fn = jax.jit(lambda s: jax.tree.map(lambda x: x + x.dtype.type(1), s), donate_argnums=0)
    saved = {}
    for step in (1, 2, 3, 4):
        saved[step] = jax.tree.map(np.array, state)
        store.save(step, state, {})
        state = step_fn(state)
    store.close()
    for step in (2, 3, 4):  # keep_newest=3
        assert same_bits(opened(tmp_path).restore(abstract(), step=step).state, saved[step]), step


def test_committed_is_reported_once_and_only_when_complete(tmp_path):
    store = opened(tmp_path)
    assert store.committed() == []
    store.save(1, device_state(1), RECORD)
    seen = []
    while not seen:
        seen = store.committed()
    assert seen == [1]
    assert (tmp_path / "1").is_dir()
    assert store.committed() == []
    assert store.save(1, device_state(1), RECORD) is False  # there already
    with pytest.raises(ValueError, match="older than the saved step 1"):
        store.save(0, device_state(0), RECORD)


def test_a_prng_key_in_the_state(tmp_path):
    state = {"key": jax.random.key(3), "x": jnp.arange(5)}
    store = opened(tmp_path)
    store.save(1, state, {})
    store.close()
    restored = opened(tmp_path).restore(jax.eval_shape(lambda: state)).state
    assert jnp.array_equal(jax.random.key_data(restored["key"]), jax.random.key_data(state["key"]))


def test_nothing_saved_is_none_and_unfinished_steps_do_not_count(tmp_path):
    assert opened(tmp_path / "none").restore(abstract()) is None
    assert not (tmp_path / "none").exists()
    leftover = tmp_path / "7.orbax-checkpoint-tmp"
    leftover.mkdir()
    assert opened(tmp_path).restore(abstract()) is None
    assert leftover.exists()  # readers change nothing
    save_steps(tmp_path, [8]).close()
    assert not leftover.exists()


def damage(path: pathlib.Path, kind: str, rng: random.Random) -> None:
    size = path.stat().st_size
    if kind == "delete":
        path.unlink()
    elif kind in ("truncate", "empty"):
        os.truncate(path, rng.randrange(size) if kind == "truncate" and size else 0)
    elif size:
        start = rng.randrange(size)
        with open(path, "r+b") as file:
            file.seek(start)
            old = file.read(1 if kind == "flip" else 4096)
            file.seek(start)
            flipped = bytes([old[0] ^ (1 << rng.randrange(8))])
            file.write(flipped if kind == "flip" else bytes(len(old)))


def damaged_trials(source: pathlib.Path, scratch: pathlib.Path, trials: int, seed: int) -> dict:
    rng = random.Random(seed)
    # Orbax leaves what it has merged into state/d under state/ocdbt.process_*; nobody reads that.
    names = [n for n in files_of(source) if n.startswith("30/") and "ocdbt.process" not in n]
    weights = [(source / name).stat().st_size + 300 for name in sorted(names)]
    outcomes = collections.Counter()
    for trial in range(trials):
        copy = scratch / str(trial)  # TensorStore caches what it read, by path
        shutil.copytree(source, copy)
        [name] = rng.choices(sorted(names), weights)
        kind = rng.choice(["flip", "flip", "truncate", "delete", "zero", "empty"])
        damage(copy / name, kind, rng)
        lines = []
        mesh = ((2, 2, 2), (1, 8, 1))[trial % 2]
        restored = opened(copy).restore(abstract(mesh), log=lines.append)
        assert same_bits(restored.state, host_state(restored.step)), (kind, name)
        assert restored.record == RECORD, (kind, name)
        shutil.rmtree(copy)
        if restored.step == 30:
            outcomes["harmless"] += 1
            assert not lines
        else:
            outcomes["fell back"] += 1
            assert restored.step == 20, (kind, name)
            assert len(lines) == 1
            assert "STEP 30 IS DAMAGED" in lines[0]
    return outcomes


def test_damage_is_never_restored(three_steps, tmp_path):
    outcomes = damaged_trials(three_steps, tmp_path, 12, seed=1)
    assert outcomes["fell back"] >= 3, outcomes


@pytest.mark.slow
def test_damage_is_never_restored_in_100_trials(three_steps, tmp_path):
    outcomes = damaged_trials(three_steps, tmp_path, 100, seed=2)
    print(outcomes)
    assert outcomes["fell back"] >= 40, outcomes


def test_a_flipped_bit_in_array_data_is_named(three_steps, tmp_path):
    copy = shutil.copytree(three_steps, tmp_path / "copy")
    chunk = max((copy / "30" / "state").rglob("d/*"), key=lambda path: path.stat().st_size)
    damage(chunk, "flip", random.Random(4))
    with pytest.raises(CheckpointError, match="checkpoint of step 30 is damaged"):
        opened(copy).restore(abstract(), step=30)
    params = jax.tree.map(lambda x: x, abstract().params)
    lines = []
    restored = restore_params(copy, params, log=lines.append)
    assert restored.step in (20, 30)  # 30 only if the bit lies in an array that was not asked for
    assert same_bits(restored.state, host_state(restored.step).params)


def test_all_damaged_is_an_error_and_changes_nothing(three_steps, tmp_path):
    copy = shutil.copytree(three_steps, tmp_path / "copy")
    os.truncate(copy / "10" / "state" / "manifest.ocdbt", 0)
    (copy / "20" / "record" / "record.json").unlink()
    text = (copy / "30" / "record" / "record.json").read_text()
    (copy / "30" / "record" / "record.json").write_text(text.replace("batch_size", "batch_site"))
    before = files_of(copy)
    lines = []
    with pytest.raises(NoUsableCheckpoint) as caught:
        opened(copy).restore(abstract(), log=lines.append)
    assert len(lines) == 3
    assert all(f"step {step}" in str(caught.value) for step in (10, 20, 30))
    assert "crc32" in str(caught.value)
    assert files_of(copy) == before


def test_after_falling_back_the_run_goes_on_and_the_damaged_step_is_set_aside(
    three_steps, tmp_path
):
    copy = shutil.copytree(three_steps, tmp_path / "copy")
    os.truncate(copy / "30" / "state" / "manifest.ocdbt", 0)
    store = opened(copy)
    assert store.restore(abstract(), log=lambda line: None).step == 20
    assert (copy / "30").exists()
    assert store.save(25, device_state(25), RECORD)
    assert store.save(30, device_state(30), RECORD)
    store.close()
    assert (copy / "set_aside" / "30").is_dir()
    assert checkpoints.committed_steps(copy) == [20, 25, 30]
    assert same_bits(opened(copy).restore(abstract()).state, host_state(30))


def test_saving_into_a_foreign_run_is_refused(three_steps, tmp_path):
    copy = shutil.copytree(three_steps, tmp_path / "copy")
    before = files_of(copy)
    with pytest.raises(CheckpointError, match="was not restored"):
        opened(copy).save(40, device_state(40), RECORD)
    assert files_of(copy) == before


def test_another_model_is_not_damage(three_steps):
    rows = abstract(state=host_state(0, rows=32))
    with pytest.raises(CheckpointError) as caught:
        opened(three_steps).restore(rows)
    assert not isinstance(caught.value, NoUsableCheckpoint)
    message = str(caught.value)
    assert "params/token_embedder: saved float32[24, 64], the model has float32[32, 64]" in message
    assert "1 arrays differ" in message


def test_another_dtype_is_refused_not_cast(three_steps):
    half = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16, sharding=x.sharding),
        abstract().params,
    )
    with pytest.raises(CheckpointError, match=r"saved float32\[16\], the model has bfloat16\[16\]"):
        restore_params(three_steps, half)


def test_missing_and_surplus_arrays_are_listed_ten_at_most(three_steps):
    want = abstract()
    leaf = want.params["encoder"]["final_norm"].pop("scale")
    want.params["many"] = {f"w{i:02}": leaf for i in range(14)}
    with pytest.raises(CheckpointError) as caught:
        opened(three_steps).restore(want)
    message = str(caught.value)
    assert message.count("params/many/") == 10
    assert "and 5 more" in message  # four new ones and the one that went
    want.params["many"] = {"w": leaf}
    with pytest.raises(CheckpointError, match=r"final_norm/scale: saved .* no such array"):
        opened(three_steps).restore(want)


def test_a_mesh_that_does_not_divide_is_no_damage(three_steps):
    mesh = jax.make_mesh((5,), ("x",), axis_types=(AxisType.Auto,), devices=jax.devices()[:5])
    bad = NamedSharding(mesh, PartitionSpec("x"))
    want = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=bad), abstract().params
    )
    with pytest.raises(CheckpointError, match="params/"):
        restore_params(three_steps, want)


def test_parameters_alone_without_shardings(three_steps):
    want = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), host_state(0).params)
    restored = restore_params(three_steps, want, step=20)
    assert restored.step == 20
    assert same_bits(restored.state, host_state(20).params)
    with pytest.raises(CheckpointError, match="holds no step 25; it has: 10, 20, 30"):
        restore_params(three_steps, want, step=25)


def test_records_alone(three_steps, tmp_path):
    newest = checkpoints.latest_record(three_steps)
    assert (newest.step, newest.content) == (30, RECORD)
    assert checkpoints.read_record(three_steps, 10).step == 10
    with pytest.raises(CheckpointError, match="holds no step 11"):
        checkpoints.read_record(three_steps, 11)
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        checkpoints.latest_record(tmp_path)
    copy = shutil.copytree(three_steps, tmp_path / "copy")
    (copy / "30" / "record" / "record.json").write_bytes(b"\xff\x00")
    assert checkpoints.latest_record(copy).step == 20


def test_a_record_of_a_newer_format_is_no_damage(three_steps, tmp_path):
    copy = shutil.copytree(three_steps, tmp_path / "copy")
    path = copy / "30" / "record" / "record.json"
    body = json.loads(path.read_text())["body"] | {"format": 99}
    checksum = checkpoints.record._checksum(body)
    path.write_text(json.dumps({"body": body, "crc32": checksum}))
    with pytest.raises(CheckpointError, match="update t5jax"):
        opened(copy).restore(abstract())


def test_retention_keeps_newest_periodic_and_best_steps(tmp_path):
    config = CheckpointConfig(save_every_steps=2, keep_newest=2, keep_every_steps=10, keep_best=1)
    losses = {2: 9.0, 4: 1.0, 6: 5.0, 8: float("nan"), 12: 4.0, 14: 3.0, 16: 2.0}
    metrics = {step: {"validation/loss": loss} for step, loss in losses.items()}
    store = save_steps(tmp_path, range(2, 19, 2), config, metrics)
    assert checkpoints.committed_steps(tmp_path) == [4, 10, 16, 18]
    store.close()
    again = Checkpoints(tmp_path, config)  # a new process knows the scores of the old one
    assert again.restore(abstract()).step == 18
    again.save(20, device_state(20), RECORD)
    again.add_metrics(20, {"validation/loss": 0.5})
    assert checkpoints.committed_steps(tmp_path) == [10, 18, 20]  # 4 is not the best any more
    again.save(22, device_state(22), RECORD)
    again.save(24, device_state(24), RECORD)
    again.close()
    assert checkpoints.committed_steps(tmp_path) == [10, 20, 22, 24]


def test_a_best_metric_that_does_not_exist_is_refused(tmp_path):
    config = CheckpointConfig(keep_best=1, best_metric="bleu", save_every_steps=2)
    store = Checkpoints(tmp_path, config)
    store.add_metrics(2, {"validation/loss": 1.0})  # not saved
    store.save(1, device_state(1), RECORD, awaits_metrics=True)
    store.add_metrics(1, {"validation/loss": 1.0})  # saved when the run was preempted
    store.save(2, device_state(2), RECORD, awaits_metrics=True)
    with pytest.raises(ConfigError, match=r"'bleu' is not among .* validation/loss"):
        store.add_metrics(2, {"validation/loss": 1.0})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"save_every_steps": 0}, "save_every_steps=0"),
        ({"keep_newest": 0}, "keep_newest=0"),
        ({"keep_every_steps": 1500}, "keep_every_steps=1500.*multiple"),
        ({"best_mode": "most"}, "best_mode='most'"),
    ],
)
def test_settings_are_checked(values, message):
    with pytest.raises(ConfigError, match=message):
        CheckpointConfig(**values)


def test_a_failing_write_names_errno_and_path_and_keeps_the_older_steps(tmp_path):
    """A limit on the size of a file makes the operating system refuse the writing itself."""
    store = save_steps(tmp_path, [1, 2])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(CheckpointWriteError) as caught:
            store.save(3, device_state(3), RECORD) and store.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG
    assert str(tmp_path) in str(caught.value)
    assert "step 3" in str(caught.value)
    assert store.committed() == [1, 2]
    restored = opened(tmp_path).restore(abstract())
    assert (restored.step, same_bits(restored.state, host_state(2))) == (2, True)
    assert store.save(3, device_state(3), RECORD)  # once there is room again
    store.close()
    assert checkpoints.committed_steps(tmp_path) == [1, 2, 3]
    assert not list(tmp_path.glob("*tmp*"))
    assert same_bits(opened(tmp_path).restore(abstract()).state, host_state(3))
