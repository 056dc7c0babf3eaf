"""How much text the cached loader prepares per CPU-second, and how fast it seeks and restores.

    python benchmarks/data_loader.py                      # 50 M random tokens in a temporary store
    python benchmarks/data_loader.py --store runs/cache/c4/train --batch-size 128

Prints the median and best of several repeats: CPU-seconds are this process's own, so that a busy
machine disturbs them less than wall time (caches and clock rates are still shared).
"""

import argparse
import collections
import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Iterator

import numpy as np

from t5jax.data.cache import TokenCache, build_cache
from t5jax.data.loader import Loader, Prefetcher
from t5jax.data.objectives import SpanCorruption
from t5jax.data.vocabularies import ByteVocabulary


@dataclasses.dataclass
class RandomText:
    """`shards` shards of printable random text; its bytes are its tokens."""

    num_shards: int
    characters: int
    document: int = 2000

    def shards(self, split: str) -> list[str]:
        return [f"{split}-{number}" for number in range(self.num_shards)]

    def documents(self, split: str, shard: str) -> Iterator[str]:
        generator = np.random.default_rng(int(shard.rsplit("-", 1)[1]))
        for _ in range(self.characters // self.num_shards // self.document):
            yield generator.integers(32, 127, self.document, np.uint8).tobytes().decode()


def measure(loader: Loader, steps: int, repeats: int) -> list[float]:
    """Source tokens (before corruption) per CPU-second, one figure per repeat."""
    raw = loader.objective.lengths(loader.inputs_length).raw
    rates = []
    for repeat in range(repeats):
        loader.rows(repeat * steps)
        start = time.process_time()
        for step in range(repeat * steps, (repeat + 1) * steps):
            loader.rows(step)
        rates.append(steps * loader.batch_size * raw / (time.process_time() - start))
    return rates


def milliseconds(work, repeats: int = 9) -> float:
    def once() -> float:
        start = time.perf_counter()
        work()
        return 1e3 * (time.perf_counter() - start)

    return statistics.median(once() for _ in range(repeats))


def report(cache: TokenCache, args: argparse.Namespace) -> None:
    vocabulary, objective = cache.vocabulary(), SpanCorruption()
    lengths = objective.lengths(args.inputs_length)

    def new_loader() -> Loader:
        return Loader(
            cache,
            objective,
            vocabulary,
            batch_size=args.batch_size,
            inputs_length=args.inputs_length,
            targets_length=lengths.targets,
            seed=args.seed,
        )

    loader = new_loader()
    print(
        f"store: {cache.num_tokens} tokens in {len(cache.info.shards)} shards, {cache.info.dtype}; "
        f"rows of {lengths.raw} -> {lengths.inputs}/{lengths.targets}, batch {args.batch_size}"
    )
    rates = measure(loader, args.steps, args.repeats)
    model = (lengths.inputs + lengths.targets) / lengths.raw
    for name, rate in (("median", statistics.median(rates)), ("best", max(rates))):
        print(
            f"{name}: {rate / 1e6:.1f} M source tokens, {rate * model / 1e6:.1f} M model tokens, "
            f"{rate / lengths.raw / 1e3:.1f} k examples per CPU-second"
        )
    far = 10**9 // args.batch_size
    print(f"seek to example 1e9 and its batch: {milliseconds(lambda: loader.rows(far)):.2f} ms")
    state = loader.state(1234)

    def restore() -> None:
        restored = new_loader()
        restored.restore(state, 1234)
        restored.rows(1234)

    print(f"new loader, restore, first batch: {milliseconds(restore):.2f} ms")
    print(f"state: {len(json.dumps(state))} bytes")
    with Prefetcher(loader.rows) as batches:
        start = time.perf_counter()
        collections.deque(zip(range(args.steps), batches, strict=False), maxlen=0)
        rate = args.steps * args.batch_size * lengths.raw / (time.perf_counter() - start)
    print(f"through the prefetch thread: {rate / 1e6:.1f} M source tokens per second of wall time")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", help="directory of a token store (default: random bytes)")
    parser.add_argument("--tokens", type=int, default=50_000_000, help="of the random store")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--inputs-length", type=int, default=512)
    parser.add_argument("--steps", type=int, default=40, help="per repeat")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    if args.store:
        return report(TokenCache.open(args.store), args)
    with tempfile.TemporaryDirectory() as directory:
        source = RandomText(num_shards=8, characters=args.tokens)
        build_cache(source, "train", directory, vocabulary=ByteVocabulary(), progress=print)
        return report(TokenCache.open(directory), args)


if __name__ == "__main__":
    main()
