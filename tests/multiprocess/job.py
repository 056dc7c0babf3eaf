"""A small distributed program for the tests: `python job.py SCENARIO [ARGUMENT]`.

Every process sums over all devices once per step, as training does, so that a missing peer is
noticed in the same way.
"""

import os
import pathlib
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from t5jax import runtime
from t5jax.checkpoints import CheckpointConfig, Checkpoints
from t5jax.checkpoints.schedule import SaveSchedule
from t5jax.errors import ConfigError


def mesh():
    return jax.make_mesh((jax.device_count(),), ("fsdp",), axis_types=(AxisType.Auto,))


def spread(array: np.ndarray) -> jax.Array:
    sharding = NamedSharding(mesh(), PartitionSpec("fsdp"))
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def steps(number: int, per_step=lambda step: None) -> None:
    add = jax.jit(lambda x: (x + 1, jnp.sum(x)))
    x = spread(np.arange(16.0, dtype=np.float32))
    for step in range(1, number + 1):
        x, total = add(x)
        print(f"step {step} total {float(total)}", flush=True)
        per_step(step)
        time.sleep(0.05)


def agreement(directory: str) -> None:
    """All start-up checks: equal values pass, different ones are refused on every host."""
    host = jax.process_index()
    assert runtime.gather_texts(f"host {host} ä" * (host + 1)) == ["host 0 ä", "host 1 ä" * 2]
    assert runtime.of_first_host({"host": host}) == {"host": 0}
    runtime.agree("the config", "batch_size = 8\nseed = 1")
    runtime.check_shared_directory(f"{directory}/shared")
    if host == 0:
        assert os.listdir(f"{directory}/shared") == []
    attempts = {
        "config": lambda: runtime.agree("the config", f"batch_size = 8\nseed = {host}"),
        "unshared": lambda: runtime.check_shared_directory(f"{directory}/only_{host}", 0.5),
    }
    for name, attempt in attempts.items():
        try:
            attempt()
        except ConfigError as error:
            print(f"{name} refused: {error}", flush=True)
    raise ConfigError("enough")


def owning(directory: str) -> None:
    """Host 0 takes the lease for both; the next lease of the folder is refused to both."""
    with runtime.owned(directory, "the first"):
        runtime.agree("the lease", str(os.listdir(directory)))
        assert os.listdir(directory) == [".lease"]
        with runtime.owned(directory, "the second"):
            raise AssertionError("two write")


def failing(_) -> None:
    def fail(step):
        if step == 3 and jax.process_index() == 1:
            raise RuntimeError("a bad record on this host only")

    steps(10_000, fail)


def preempted(_) -> None:
    with runtime.Preemption() as preemption:

        def leave(step):
            if preemption.reached():
                raise runtime.Preempted(step)

        steps(10_000, leave)


def minutes(_) -> None:
    """Saves are due by the clock of host 0; that of host 1 runs twice as fast."""
    rate = 1 + jax.process_index()
    config = CheckpointConfig(save_every_minutes=0.3 / 60)
    schedule = SaveSchedule(config, lambda: time.monotonic() * rate)
    due = lambda step: schedule.due(step) and print(f"due after step {step}", flush=True)
    steps(30, due)


def stuck(_) -> None:
    watchdog = runtime.Watchdog(2.0)

    def sleep(step):
        watchdog.beat()
        if step == 3 and jax.process_index() == 1:
            time.sleep(1000)

    steps(10_000, sleep)


def endless(_) -> None:
    steps(10_000)


def finishing(_) -> None:
    steps(3)


def state(step: int) -> dict[str, jax.Array]:
    """One array per host's half, so that a damaged chunk is read by one host only."""
    rng = np.random.default_rng(step)
    return {"step": spread(np.full(8, step, np.int32)), "w": spread(rng.random((8, 5000)))}


def saving(directory: str) -> None:
    store = Checkpoints(directory, CheckpointConfig())
    for step in (1, 2):
        store.save(step, state(step), {"next_step": step})
    store.close()


def restoring(directory: str) -> None:
    store = Checkpoints(directory, CheckpointConfig())
    shape = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
    restored = store.restore(jax.tree.map(shape, state(0)))
    expected = state(restored.step)
    for name, array in restored.state.items():
        shards = expected[name].addressable_shards
        for ours, theirs in zip(array.addressable_shards, shards, strict=True):
            np.testing.assert_array_equal(ours.data, theirs.data)
    print(f"restored step {restored.step}", flush=True)
    store.save(3, state(3), {"next_step": 3})
    store.close()
    print(f"steps {sorted(p.name for p in pathlib.Path(directory).iterdir())}", flush=True)


def ambient(_) -> None:
    raise AssertionError("hosts with different settings have started")


def main() -> None:
    if sys.argv[1] == "ambient" and os.environ["T5JAX_PROCESS_ID"] == "1":
        jax.config.update("jax_default_prng_impl", "rbg")
    count = runtime.start_distributed(runtime.RuntimeConfig(heartbeat_timeout_seconds=10))
    assert count == jax.process_count()
    globals()[sys.argv[1]](sys.argv[2] if len(sys.argv) > 2 else None)


if __name__ == "__main__":
    sys.exit(runtime.run_guarded(main))
