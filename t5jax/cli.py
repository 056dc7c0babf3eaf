"""The command line: parses, imports the act that was asked for, maps errors to exit codes.

Nothing heavy is imported before it is needed: `t5jax --help` answers at once.
"""

import argparse
import sys

from t5jax import __version__

DESCRIPTION = """\
Train, fine-tune and evaluate T5-family models in JAX on TPU and GPU meshes.
Every run is a Python config file; --section.field VALUE changes a value of it.
"""
EPILOG = """\
examples:
  t5jax vocab train configs/quickstart.py           a vocabulary from the run's own text
  t5jax cache configs/quickstart.py                 tokenise the text once
  t5jax train configs/quickstart.py --train.num-train-steps 2000
  t5jax train configs/quickstart.py --help          every setting, with its value
  t5jax evaluate runs/quickstart
  t5jax predict runs/quickstart "The <extra_id_0> of the array."
  t5jax inspect model configs/t5_1_1_base_c4.py
  t5jax inspect data configs/quickstart.py --step 100
"""


def main(argv: list[str] | None = None) -> int:
    """Runs the act that `argv` names; returns the exit code (see runtime.ExitCode)."""
    parser = _parser()
    arguments, flags = parser.parse_known_args(sys.argv[1:] if argv is None else argv)
    takes_flags = getattr(arguments, "takes_flags", False)
    if flags and not takes_flags:
        parser.error(f"unrecognized arguments: {' '.join(flags)}")
    from t5jax.runtime.exits import run_guarded

    return run_guarded(lambda: _ACTS[arguments.act](arguments, flags))


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "t5jax", description=DESCRIPTION, epilog=EPILOG, formatter_class=raw, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"t5jax {__version__}")
    acts = parser.add_subparsers(dest="act", required=True, metavar="ACT")

    def act(name: str, summary: str, first: str | None, about_first: str = "") -> argparse.ArgumentParser:
        # A config's own --help is tyro's, with every setting: so argparse's is off there.
        new = acts.add_parser(
            name, help=summary, description=summary, allow_abbrev=False, add_help=first != "config"
        )
        if first is not None:
            new.add_argument(first, metavar=first.upper(), help=about_first)
            new.set_defaults(takes_flags=True)
        return new

    config = "Python file that defines config() -> RunConfig"
    workdir = "of a run: the folder that holds its checkpoints"
    act("train", "run a config to its end; resumes what its workdir holds", "config", config)

    evaluate = act("evaluate", "loss and perplexity of a checkpoint", "workdir", workdir)
    evaluate.add_argument("--split", default="validation")
    evaluate.add_argument("--step", type=int, help="default: the newest good checkpoint")
    evaluate.add_argument("--num-rows", type=int, help="default: the whole split")
    evaluate.add_argument("--baselines", action="store_true", help="count models beside it")
    evaluate.add_argument("--json", action="store_true")

    predict = act("predict", "fill the blanks <extra_id_0> … of texts", "workdir", workdir)
    predict.add_argument("text", nargs="*", help="default: lines of standard input")
    predict.add_argument("--file", help="a file with a text a line")
    predict.add_argument("--step", type=int, help="default: the newest good checkpoint")
    predict.add_argument("--max-length", type=int, default=64, help="tokens of output (64)")
    predict.add_argument("--batch-size", type=int, default=8)
    predict.add_argument("--json", action="store_true", help="JSON lines: input, output, filled")

    inspect = acts.add_parser("inspect", help="look at a model or its data before a run")
    kinds = inspect.add_subparsers(dest="kind", required=True, metavar="WHAT")
    model = kinds.add_parser("model", help="parameters, shapes, shardings, memory", add_help=False)
    data = kinds.add_parser("data", help="decoded rows of a step, with masks", add_help=False)
    for kind in (model, data):
        kind.add_argument("config", metavar="CONFIG", help=config)
        kind.set_defaults(takes_flags=True)
    data.add_argument("--split", default="train")
    data.add_argument("--step", type=int, default=0)
    data.add_argument("--rows", type=int, default=2)

    cache = act("cache", "tokenise a config's data into the store that training reads", "config", config)
    cache.add_argument("--split", action="append", default=[], help="default: all; repeatable")
    cache.add_argument("--num-processes", type=int, default=2)
    cache.add_argument("--overwrite", action="store_true", help="replace a store of something else")

    vocab = acts.add_parser("vocab", help="vocabularies")
    train = vocab.add_subparsers(dest="kind", required=True, metavar="WHAT").add_parser(
        "train", help="a T5-compatible SentencePiece model from a config's text", add_help=False
    )
    train.add_argument("config", metavar="CONFIG", help=config)
    train.add_argument("--num-pieces", type=int, default=32000, help="without the sentinels")
    train.add_argument("--max-characters", type=int, default=100_000_000, help="of text to read")
    train.set_defaults(takes_flags=True)

    tasks = act("tasks", "the tasks that can be trained on", None)
    tasks.add_argument("name", nargs="?", help="show decoded examples of this task")
    tasks.add_argument("--config", help="config that names files and modules of the tasks")
    tasks.add_argument("--split", default="train")
    tasks.add_argument("--examples", type=int, default=3)
    tasks.set_defaults(takes_flags=True)
    return parser


def _train(a: argparse.Namespace, flags: list[str]) -> None:
    from t5jax.acts import train

    train.run(a.config, flags)


def _evaluate(a: argparse.Namespace, flags: list[str]) -> None:
    from t5jax.acts import evaluate

    evaluate.run(
        a.workdir,
        flags,
        split=a.split,
        step=a.step,
        num_rows=a.num_rows,
        with_baselines=a.baselines,
        as_json=a.json,
    )


def _predict(a: argparse.Namespace, flags: list[str]) -> None:
    from t5jax.acts import predict

    predict.run(
        a.workdir,
        a.text,
        flags,
        file=a.file,
        step=a.step,
        max_length=a.max_length,
        batch_size=a.batch_size,
        as_json=a.json,
    )


def _inspect(a: argparse.Namespace, flags: list[str]) -> None:
    if a.kind == "model":
        from t5jax.acts import inspect_model

        inspect_model.run(a.config, flags)
    else:
        from t5jax.acts import inspect_data

        inspect_data.run(a.config, flags, split=a.split, step=a.step, num_rows=a.rows)


def _cache(a: argparse.Namespace, flags: list[str]) -> None:
    from t5jax.acts import cache

    cache.run(
        a.config, flags, splits=a.split, num_processes=a.num_processes, overwrite=a.overwrite
    )


def _vocab(a: argparse.Namespace, flags: list[str]) -> None:
    from t5jax.acts import vocab

    vocab.run(a.config, flags, num_pieces=a.num_pieces, max_characters=a.max_characters)


def _tasks(a: argparse.Namespace, flags: list[str]) -> None:
    from t5jax.acts import tasks

    tasks.run(a.name, a.config, flags, split=a.split, num_examples=a.examples)


_ACTS = {
    "train": _train,
    "evaluate": _evaluate,
    "predict": _predict,
    "inspect": _inspect,
    "cache": _cache,
    "vocab": _vocab,
    "tasks": _tasks,
}

if __name__ == "__main__":
    sys.exit(main())
