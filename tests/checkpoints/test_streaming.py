"""Steps written and read a block at a time, against the ones that training writes."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5jax.checkpoints import (
    BlockArray,
    CheckpointConfig,
    Checkpoints,
    NoUsableCheckpoint,
    open_step,
    restore_params,
    save_streamed,
)
from t5jax.checkpoints.fingerprint import RunningFingerprint, fingerprints, leaves_by_path
from t5jax.errors import CheckpointError

RNG = np.random.default_rng(0)
STATE = {
    "step": np.array(7, np.int32),
    "params": {
        "stack": {"wi": RNG.normal(size=(3, 50, 40)).astype(np.float32)},
        "table": RNG.normal(size=(61, 7)).astype(np.float32),
        "zeros": np.zeros((90, 90), np.float32),
    },
    "slots": [RNG.normal(size=5).astype(np.float32), np.zeros((0, 3), np.float32)],
}


class Held(BlockArray):
    """An array in memory that is given out in blocks of its own choice."""

    def __init__(self, array, block=None):
        self._array, self._block = np.asarray(array), block
        self.shape, self.dtype = self._array.shape, self._array.dtype
        self.cut_axes = tuple(range(self._array.ndim))

    def block_shape(self, limit=0):
        return self._block or super().block_shape()

    def read(self, region):
        return self._array[region]


def held(state, blocks=None):
    blocks = blocks or {}
    return {path: Held(x, blocks.get(path)) for path, x in leaves_by_path(state).items()}


BLOCKS = {"params/stack/wi": (1, 50, 17), "params/table": (10, 7), "params/zeros": (90, 20)}


@pytest.fixture(scope="module")
def streamed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("streamed") / "checkpoints"
    save_streamed(folder, 7, held(STATE, BLOCKS), {"config": "here"})
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "checkpoints"
    checkpoints = Checkpoints(folder, CheckpointConfig())
    checkpoints.save(7, jax.tree.map(jnp.asarray, STATE), {"config": "here"})
    checkpoints.close()
    return folder


def abstract(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def assert_equal(found, want):
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(np.asarray(x), y), found, want)


def test_training_goes_on_from_it(streamed, tmp_path):
    """The whole state, verified, and the next save after it."""
    checkpoints = Checkpoints(streamed, CheckpointConfig())
    restored = checkpoints.restore(abstract(STATE))
    assert restored.step == 7
    assert restored.record == {"config": "here"}
    assert_equal(restored.state, STATE)


def test_parameters_alone(streamed):
    restored = restore_params(streamed, abstract(STATE["params"]))
    assert_equal(restored.state, STATE["params"])


def test_saves_follow_it(tmp_path):
    save_streamed(tmp_path, 7, held(STATE, BLOCKS), {})
    checkpoints = Checkpoints(tmp_path, CheckpointConfig(keep_newest=2))
    state = checkpoints.restore(abstract(STATE)).state
    for step in (8, 9):
        checkpoints.save(step, state, {})
    checkpoints.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["8", "9"]


def test_the_records_are_the_same(streamed, trained):
    """Shapes, types and fingerprints, whoever wrote them and in whatever blocks."""
    records = [
        json.loads((folder / "7/record/record.json").read_text()) for folder in (streamed, trained)
    ]
    assert records[0] == records[1]


@pytest.mark.parametrize("who", ["streamed", "trained"])
def test_read_in_parts(request, who):
    step = open_step(request.getfixturevalue(who), "params")
    assert step.record.step == 7
    arrays = step.arrays("params")
    assert set(arrays) == {"stack/wi", "table", "zeros"}
    for path, want in leaves_by_path(STATE["params"]).items():
        found = np.full(want.shape, np.nan, want.dtype)
        for region in arrays[path].regions(400):
            found[region] = arrays[path].read(region)
        np.testing.assert_array_equal(found, want)


def test_chunks_are_blocks(streamed):
    array = open_step(streamed, "params").arrays("params")["stack/wi"]
    assert array.cut_axes[:2] == (0, 2)


def test_nothing_is_written_over(streamed):
    with pytest.raises(CheckpointError, match="holds a run already"):
        save_streamed(streamed, 9, held(STATE), {})


def test_what_was_left_unfinished_is_cleared_away(tmp_path):
    class Broken(Held):
        def read(self, region):
            raise RuntimeError("the source is gone")

    with pytest.raises(RuntimeError, match="the source is gone"):
        save_streamed(tmp_path, 7, {"params/x": Broken(np.ones(3))}, {})
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        open_step(tmp_path, "params")
    save_streamed(tmp_path, 7, held(STATE), {})
    assert [path.name for path in tmp_path.iterdir()] == ["7"]


def test_damage_is_detected(tmp_path):
    """Of a record's numbers; TensorStore itself notices what zstd cannot unpack."""
    for step in (7, 8):
        checkpoints = Checkpoints(tmp_path, CheckpointConfig())
        if step == 8:
            checkpoints.restore(abstract(STATE))
        checkpoints.save(step, jax.tree.map(jnp.asarray, STATE), {})
        checkpoints.close()
    largest = max((tmp_path / "8/state").rglob("d/*"), key=lambda file: file.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    said = []
    assert open_step(tmp_path, "params", log=said.append).record.step == 7
    assert "STEP 8 IS DAMAGED" in said[0]
    with pytest.raises(CheckpointError, match="step 8 is damaged"):
        open_step(tmp_path, "params", 8)
    with pytest.raises(CheckpointError, match="holds no step 9"):
        open_step(tmp_path, "params", 9)
    (tmp_path / "7/record/record.json").unlink()
    with pytest.raises(NoUsableCheckpoint):
        open_step(tmp_path, "params")


@pytest.mark.parametrize("dtype", ["float32", "int32", "bfloat16"])
@pytest.mark.parametrize("block", [(1, 50, 17), (3, 50, 40), (2, 7, 40)])
def test_fingerprints_do_not_depend_on_blocks(dtype, block):
    array = jnp.asarray(STATE["params"]["stack"]["wi"] * 100).astype(dtype)
    running = RunningFingerprint(array.shape)
    for region in Held(array, block).regions():
        running.add(np.asarray(array)[region], [part.start for part in region])
    assert running.result() == fingerprints({"x": array})["x"]
