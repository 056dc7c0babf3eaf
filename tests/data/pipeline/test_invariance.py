"""The order of examples is a function: of no number of hosts, and of no kill -9.

A trial is a random mixture. Its rows of steps 0 .. N are read in one process, as 2 and 4 hosts read
them, and by children that are killed at random moments and resume, with another number of hosts,
from the state that they saved last. What is compared is a digest of every step's whole batch.
"""

import dataclasses
import hashlib
import json
import multiprocessing
import pathlib
import random
import signal
import time

import numpy as np
import pytest

from t5jax.data.objectives import FullLanguageModel, PrefixLM, SpanCorruption
from t5jax.data.pipeline.example_rows import ExampleRows
from t5jax.data.pipeline.loader import Component, Loader
from t5jax.data.pipeline.mixing import Mixing, Phase
from t5jax.data.pipeline.streaming import StreamingLoader, StreamingTask
from t5jax.data.pipeline.text_rows import TextRows
from t5jax.data.registry.row_format import RowFormat
from t5jax.data.rng import derive_seed
from tests.data.number_stores import (
    VOCABULARY,
    examples_of_shards,
    numbered,
    random_examples,
    stream_of,
    texts_of_shards,
)

STEPS, SAVE_EVERY = 37, 4
HOSTS = (1, 2, 4, 8)
OBJECTIVES = (SpanCorruption(), SpanCorruption(mean_noise_span_length=5.0), PrefixLM())


@dataclasses.dataclass(frozen=True)
class Task:
    """A task of a trial; `shards` hold documents, or pairs of inputs and targets."""

    name: str
    shards: list
    objective: SpanCorruption | PrefixLM | FullLanguageModel | None
    pack: bool

    def rows(self, streams, seed):
        lengths = {"inputs_length": 41, "targets_length": 43}
        if self.objective is not None:
            return TextRows(streams["text"], self.objective, VOCABULARY, **lengths, seed=seed)
        size = VOCABULARY.vocab_size
        return ExampleRows(streams, **lengths, vocab_size=size, seed=seed, pack=self.pack)

    def streams(self):
        if self.objective is not None:
            return {"text": stream_of(self.shards)}
        sides = enumerate(("inputs", "targets"))
        return {name: stream_of([[p[i] for p in s] for s in self.shards]) for i, name in sides}

    def texts(self):
        make = texts_of_shards if self.objective is not None else examples_of_shards
        return make(self.shards)


@dataclasses.dataclass(frozen=True)
class Trial:
    """Everything of a trial is drawn from its number."""

    number: int
    live: bool

    def loader(self):
        rng = random.Random(self.number)
        tasks = [self._task(rng, f"task{i}") for i in range(rng.randrange(2, 5))]
        batch_size, seed = 8 * rng.randrange(1, 6), rng.randrange(10**6)
        firsts = [0, *sorted(rng.sample(range(1, STEPS), rng.randrange(3)))]
        phases = [
            Phase(first * batch_size, tuple(rng.uniform(0.2, 5.0) for _ in tasks))
            for first in firsts
        ]
        settings = {
            "batch_size": batch_size,
            "row_format": RowFormat(
                converter="encoder_decoder", inputs_length=41, targets_length=43
            ),
            "mixing": Mixing(phases, [task.name for task in tasks]),
        }
        seeds = [derive_seed(seed, task.name) for task in tasks]
        if self.live:
            return StreamingLoader([*map(_live, tasks, seeds)], VOCABULARY, **settings)
        components = [
            Component(name=task.name, rows=task.rows(task.streams(), seed), store=None)
            for task, seed in zip(tasks, seeds, strict=True)
        ]
        return Loader(components, VOCABULARY, **settings)

    def _task(self, rng, name):
        sizes = [rng.randrange(0, 90) for _ in range(rng.randrange(9, 40))] + [101]
        cuts = sorted(rng.sample(range(len(sizes)), 2))
        if rng.random() < 0.5:
            content, objective = numbered(sizes), rng.choice(OBJECTIVES)
        else:
            content, objective = random_examples(len(sizes), 45, 44, seed=rng.randrange(99)), None
        shards = [content[: cuts[0]], content[cuts[0] : cuts[1]], content[cuts[1] :]]
        return Task(name, shards, objective, pack=rng.random() < 0.5)


def _live(task, seed):
    return StreamingTask(
        task.name,
        task.texts(),
        "train",
        VOCABULARY,
        task.rows,
        settings={},
        seed=seed,
        block_tokens=1500,
    )


def digest_of_step(loaders, step):
    """Of the whole batch, put together from what each host reads: blocks one after the other."""
    size = loaders[0].batch_size // len(loaders)
    parts = [
        loader.rows(step, range(host * size, (host + 1) * size))
        for host, loader in enumerate(loaders)
    ]
    digest = hashlib.sha256()
    for name in sorted(parts[0]):
        whole = np.concatenate([part[name] for part in parts])
        digest.update(f"{name} {whole.shape} {whole.dtype}".encode() + whole.tobytes())
    return digest.hexdigest()


def digests(trial, hosts):
    loaders = [trial.loader() for _ in range(hosts)]
    return [digest_of_step(loaders, step) for step in range(STEPS)]


def run_from_last_state(trial, hosts, folder):
    """What a training process does with its data: a line per step, a state every few steps."""
    loaders, step = [trial.loader() for _ in range(hosts)], 0
    if (folder / "state").exists():
        step, state = json.loads((folder / "state").read_text())
        for loader in loaders:
            loader.restore(state, step)
    with open(folder / "lines", "a") as lines:
        while step < STEPS:
            lines.write(f"{step} {digest_of_step(loaders, step)}\n")
            lines.flush()
            step += 1
            if step % SAVE_EVERY == 0:
                (folder / "new").write_text(json.dumps([step, loaders[0].state(step)]))
                (folder / "new").rename(folder / "state")


def killed_runs(trial, folder, rng):
    """Starts and kills the run until it comes to its end; the number of kills in the middle."""
    context = multiprocessing.get_context("fork")
    for kills in range(30):
        hosts = HOSTS[(trial.number + kills) % len(HOSTS)]
        child = context.Process(target=run_from_last_state, args=(trial, hosts, folder))
        child.start()
        if kills < 3:
            wanted = number_of_lines(folder) + rng.randrange(1, STEPS // 2)
            while child.is_alive() and number_of_lines(folder) < wanted:
                time.sleep(0.0005)
            child.kill()
        child.join()
        if child.exitcode == 0:
            return kills
        assert child.exitcode == -signal.SIGKILL
    raise AssertionError("the run does not come to its end")


def number_of_lines(folder):
    path = pathlib.Path(folder / "lines")
    return path.read_bytes().count(b"\n") if path.exists() else 0


def check(trial, folder):
    """The number of kills that the trial's run went through."""
    folder.mkdir()
    expected = digests(trial, 1)
    assert len(set(expected)) == STEPS
    for hosts in HOSTS[1:]:
        assert digests(trial, hosts) == expected
    kills = killed_runs(trial, folder, random.Random(trial.number))
    lines = [line.split() for line in (folder / "lines").read_text().splitlines()]
    assert {int(step) for step, _ in lines} == set(range(STEPS))
    assert [step for step, digest in lines if expected[int(step)] != digest] == []
    return kills


@pytest.mark.slow
def test_order_survives_hosts_and_kills(tmp_path):
    kills = [check(Trial(n, live=n == 4), tmp_path / str(n)) for n in range(5)]
    assert sum(kills) >= 5


@pytest.mark.slow
def test_order_survives_hosts_and_kills_200_times(tmp_path, long_trials):
    trials = 200 if long_trials else 20
    kills = [check(Trial(n, live=False), tmp_path / str(n)) for n in range(1000, 1000 + trials)]
    print(f"{trials} trials, {sum(kills)} kills")
    assert sum(kills) >= 1.5 * trials


@pytest.mark.long
@pytest.mark.slow
def test_live_order_survives_hosts_and_kills(tmp_path, long_trials):
    trials = 40 if long_trials else 4
    kills = [check(Trial(n, live=True), tmp_path / str(n)) for n in range(2000, 2000 + trials)]
    print(f"{trials} live trials, {sum(kills)} kills")
    assert sum(kills) >= 1.5 * trials
