"""How much text seqio and we prepare per CPU-second, and how fast our loader seeks and restores.

    python benchmarks/data_loader.py                     # docstrings of the installed packages
    python benchmarks/data_loader.py --text 'c4-train.*.json.gz' --vocabulary spiece.model

T5's pre-training, span corruption to 512 inputs and 114 targets, in three ways: (a) seqio's own
pipeline (tf_text's tokeniser, span corruption in TensorFlow, its packing converter; texts already
in memory), (b) ours live (read, tokenise, corrupt), (c) ours from a tokenised store. All take turns
in processes of their own on one core, and what counts is the process's own CPU time per token that
is not padding, after a warm-up. With the package `t5` importable (a) uses its preprocessor,
otherwise ours of the same arithmetic in TensorFlow; the table says which.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import numpy as np

from t5jax.data.config import DataConfig
from t5jax.data.vocabularies import SentencePieceVocabulary, train_sentencepiece

LENGTHS = {"inputs": 512, "targets": 114}
WAYS = ("seqio", "live", "cached")
TOKEN_NAMES = ("encoder_input_tokens", "decoder_target_tokens")


def data_config(args: argparse.Namespace, *, cached: bool) -> DataConfig:
    files = {"train_files": tuple(args.text)} if args.text else {}
    return DataConfig(
        mixture="jsonl_span_corruption" if args.text else "docstrings_span_corruption",
        vocabulary=SentencePieceVocabulary(path=args.vocabulary),
        cache_dir=args.cache_dir if cached else None,
        seed=args.seed,
        **files,
    )


def texts(args: argparse.Namespace) -> Iterator[str]:
    from t5jax.data.records import Rejected
    from t5jax.data.registry.resolve import checked_tasks
    from t5jax.data.registry.texts import task_documents

    data = data_config(args, cached=False)
    found = task_documents(checked_tasks(data)[0], data)
    for shard in found.shards("train"):
        for document in found.documents("train", shard, Rejected()):
            yield document["text"]


# ---- the three ways: functions that give batches without end


def seqio_batches(args: argparse.Namespace) -> Iterator[dict]:
    from t5jax.data.tensorflow_import import import_seqio, import_tensorflow

    tf, seqio = import_tensorflow(), import_seqio()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    documents = list(texts(args))
    corruption, _ = tf_span_corruption()
    vocabulary = seqio.SentencePieceVocabulary(args.vocabulary, extra_ids=100)
    library = seqio.preprocessors
    task = seqio.TaskRegistry.add(
        "benchmark",
        source=seqio.FunctionDataSource(
            lambda split, shuffle_files, seed=None: tf.data.Dataset.from_tensor_slices(
                {"text": documents}
            ),
            splits=("train",),
        ),
        preprocessors=[
            lambda ds: library.rekey(ds, key_map={"inputs": None, "targets": "text"}),
            library.tokenize,
            corruption,
            library.append_eos_after_trim,
        ],
        output_features={name: seqio.Feature(vocabulary, add_eos=True) for name in LENGTHS},
    )
    assert task is not None
    dataset = seqio.get_dataset(
        mixture_or_task_name="benchmark",
        task_feature_lengths=LENGTHS,
        dataset_split="train",
        shuffle=True,
        num_epochs=None,
        feature_converter=seqio.EncDecFeatureConverter(pack=True),
        seed=args.seed,
    )
    return dataset.batch(args.batch_size).as_numpy_iterator()


def tf_span_corruption():
    """(T5's preprocessor, or ours of the same arithmetic; its name)."""
    try:
        import t5.data.preprocessors

        return t5.data.preprocessors.span_corruption, "t5's"
    except ImportError:
        from t5jax.data.objectives import SpanCorruption
        from t5jax.data.seqio_bridge.span_corruption import SpanCorruptionPreprocessor

        return SpanCorruptionPreprocessor(SpanCorruption()), "t5jax's, in TensorFlow"


def our_batches(args: argparse.Namespace, *, cached: bool) -> Iterator[dict]:
    from t5jax.data.pipeline.opening import open_loader
    from t5jax.data.registry.resolve import resolve

    loader = open_loader(resolve(data_config(args, cached=cached)), batch_size=args.batch_size)
    step = 0
    while True:
        yield loader.rows(step)
        step += 1


def measure(args: argparse.Namespace) -> None:
    """Prints tokens per CPU-second of one way, in this process."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    way = args.measure
    batches = seqio_batches(args) if way == "seqio" else our_batches(args, cached=way == "cached")
    for _ in range(args.warm_up):
        next(batches)
    tokens, start = 0, time.process_time()
    while time.process_time() - start < args.seconds:
        batch = next(batches)
        tokens += sum(int(np.count_nonzero(batch[name])) for name in TOKEN_NAMES)
    print(json.dumps({"tokens_per_cpu_second": tokens / (time.process_time() - start)}))


# ---- side by side


def compare(args: argparse.Namespace) -> None:
    """The three ways in turns, and the ratios within each turn."""
    rounds = []
    for number in range(args.rounds):
        rates = {way: in_own_process(way) for way in WAYS}
        rounds.append(rates)
        print(f"turn {number}: " + ", ".join(f"{w} {r / 1e6:.2f} M" for w, r in rates.items()))
    print(f"\ntokens (not padding) per CPU-second, median of {args.rounds} turns, one core;")
    print(f"seqio with span corruption of {tf_span_corruption()[1]}")
    for way in WAYS:
        rate = statistics.median(rates[way] for rates in rounds)
        ratio = statistics.median(rates[way] / rates["seqio"] for rates in rounds)
        print(f"  {way:7s} {rate / 1e6:8.2f} M   {ratio:6.2f} times seqio")


def in_own_process(way: str) -> float:
    command = [sys.executable, __file__, *sys.argv[1:], "--measure", way]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(ended.stderr)
    return json.loads(ended.stdout.splitlines()[-1])["tokens_per_cpu_second"]


def seek_and_restore(args: argparse.Namespace) -> None:
    from t5jax.data.pipeline.opening import open_loader
    from t5jax.data.registry.resolve import resolve

    def new_loader():
        return open_loader(resolve(data_config(args, cached=True)), batch_size=args.batch_size)

    loader = new_loader()
    steps = iter(range(10**7, 10**9, 1_000_003))
    print(f"\nseek to a step beyond 10^7, with its batch: "
          f"{milliseconds(lambda: loader.rows(next(steps))):.2f} ms")  # fmt: skip
    state = loader.state(123_456)

    def restore() -> None:
        loader.restore(state, next(steps))

    print(f"restore a state: {milliseconds(restore):.3f} ms")
    opened = milliseconds(lambda: reopen(new_loader, state))
    print(f"open the store, restore, first batch: {opened:.2f} ms")
    print(f"state: {len(json.dumps(state))} bytes")


def reopen(new_loader: Callable, state: dict) -> None:
    loader = new_loader()
    loader.restore(state, 123_456)
    loader.rows(123_456)


def milliseconds(work: Callable[[], object], repeats: int = 9) -> float:
    def once() -> float:
        start = time.perf_counter()
        work()
        return 1e3 * (time.perf_counter() - start)

    return statistics.median(once() for _ in range(repeats))


def prepare(args: argparse.Namespace) -> None:
    """Trains the vocabulary and builds the store where they are not there."""
    from t5jax.commands.cache import build_stores

    folder = pathlib.Path(args.cache_dir)
    folder.mkdir(parents=True, exist_ok=True)
    if not pathlib.Path(args.vocabulary).exists():
        train_sentencepiece(texts(args), args.vocabulary, vocab_size=args.pieces)
    build_stores(data_config(args, cached=True), splits=["train"], num_processes=1)


def parse() -> argparse.Namespace:
    folder = pathlib.Path(tempfile.gettempdir()) / "t5jax-benchmark"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", nargs="*", help="JSON lines files (default: docstrings)")
    parser.add_argument("--vocabulary", default=str(folder / "vocabulary.model"))
    parser.add_argument("--pieces", type=int, default=8000, help="of a vocabulary to be trained")
    parser.add_argument("--cache-dir", default=str(folder))
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=8.0, help="CPU time of each measurement")
    parser.add_argument("--warm-up", type=int, default=5, help="batches")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--measure", choices=WAYS, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = parse()
    if args.measure:
        return measure(args)
    prepare(args)
    compare(args)
    return seek_and_restore(args)


if __name__ == "__main__":
    main()
