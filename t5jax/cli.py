"""The command line: parses, imports the act that was asked for, maps errors to exit codes.

Nothing heavy is imported before it is needed: `t5jax --help` answers at once.
"""

import argparse
import re
import sys
from typing import NoReturn

from t5jax import __version__
from t5jax.acts.answering_options import export_options, predict_options, score_options

DESCRIPTION = """\
Train, fine-tune and evaluate T5-family models in JAX on TPU and GPU meshes.
Every run is a Python config file; --section.field VALUE changes a value of it.
"""
EPILOG = """\
examples:
  t5jax cache configs/quickstart.py --new-vocabulary 1000    vocabulary and tokens, once
  t5jax train configs/quickstart.py --train.num-train-steps 2000
  t5jax train configs/quickstart.py --help          every setting, with its value
  t5jax evaluate runs/quickstart
  t5jax predict runs/quickstart "The <extra_id_0> of the array."
  t5jax predict runs/mine --input texts.jsonl --output answers.jsonl --decoding.num-beams 4
  t5jax score runs/mine --input pairs.tsv --output scores.jsonl
  t5jax inspect model configs/t5_1_1_base_c4.py
  t5jax inspect data configs/quickstart.py --step 100
  t5jax convert flan-t5-small runs/flan_t5_small    from Hugging Face, T5X, Mesh TensorFlow
  t5jax convert runs/flan_t5_small out --to huggingface
"""
SETTINGS = """\
settings: any value of the config as --section.field VALUE, after everything else; a
list takes the words up to the next option, and none empty it (--data.validation-files);
`t5jax train CONFIG --help` lists them with their values
"""
SETTINGS_OF_A_RUN = """\
settings: any value of the run's config as --section.field VALUE, after everything else;
config.txt in WORKDIR lists them with their values
"""
EVALUATE_EXAMPLES = """\
examples:
  t5jax evaluate runs/mine                              losses and metrics of the newest step
  t5jax evaluate runs/mine --tasks glue_cola_v002 squad_v010_allanswers --decoding.num-beams 4
  t5jax evaluate runs/mine --evaluation.ranking total   rank the classes instead of decoding
  t5jax evaluate runs/mine --follow --keep-best glue/average
  t5jax evaluate runs/mine --split test --submission out
"""
CONVERT_NOTES = """\
SOURCE is found out by what it holds:
  a Hugging Face directory    config.json and safetensors: T5, T5 1.1, FLAN-T5, mT5, umT5, ByT5
  a T5X checkpoint            checkpoint_N with zarr arrays, a directory of these, or one file
  a Mesh TensorFlow one       model.ckpt-N without an ending, or the directory
  a run of t5jax              its workdir
TARGET must not exist. It is a run's workdir, for t5jax evaluate and predict, or with --to
huggingface a directory for transformers. It appears when everything is written and the logits of
both models agree; conversion.txt and .json in it say what became of every array.

examples:
  t5jax convert flan-t5-small runs/flan_t5_small
  t5jax convert t5x/t5_1_1_base/checkpoint_1000000 runs/t5_1_1_base --vocabulary spiece.model
  t5jax convert mesh/small/model.ckpt-1000000 runs/t5_small --vocabulary spiece.model
  t5jax convert runs/mine mine-hf --to huggingface --dtype bfloat16
"""
TASKS_EXAMPLES = """\
examples:
  t5jax tasks                                           everything that has a name
  t5jax tasks --filter translate
  t5jax tasks super_glue_boolq_v102                     what it is, which settings it reads
  t5jax tasks docstrings:prefix_lm --config configs/quickstart.py
  t5jax tasks my_task --config configs/mine.py --split validation --html my_task.html
  t5jax tasks all_mix                                   a mixture: sizes and rates
"""


def main(argv: list[str] | None = None) -> int:
    """Runs the act that `argv` names; returns the exit code (see runtime.ExitCode)."""
    words, flags = split_flags(sys.argv[1:] if argv is None else argv)
    arguments, unknown = _parser().parse_known_args(words)
    if arguments.act == "predict":  # argparse overlooks texts that come after an option
        arguments.text += [word for word in unknown if not word.startswith("-")]
        unknown = [word for word in unknown if word.startswith("-")]
    if unknown:
        arguments.parser.error(
            f"unrecognized arguments: {' '.join(unknown)}\nvalues of the config are set with "
            "--section.field VALUE (or --workdir DIR); a config's --help lists them"
        )
    from t5jax.runtime.exits import run_guarded

    act = _settings_help if arguments.show_settings else _ACTS[arguments.act]
    return run_guarded(lambda: act(arguments, flags))


_FLAG = re.compile(r"--[A-Za-z][\w-]*(\.[\w-]+)+(=.*)?|--workdir(=.*)?", re.DOTALL)


def split_flags(words: list[str]) -> tuple[list[str], list[str]]:
    """(the words for the act, the `--section.field VALUE ...` that change its config).

    Only workdir has no section. A setting takes the words after it up to the next option, because
    it may be a list; so what an act is about comes before the settings.
    """
    rest: list[str] = []
    flags: list[str] = []
    taking = False
    for place, word in enumerate(words):
        if word == "--":
            return rest + words[place:], flags
        if _FLAG.fullmatch(word):
            flags.append(word)
            taking = "=" not in word
        elif taking and not re.match(r"-(?![\d.])", word):
            flags.append(word)
        else:
            rest.append(word)
            taking = False
    return rest, flags


class _Parser(argparse.ArgumentParser):
    """Ends with our exit code for a wrong command line; argparse's is 2."""

    def error(self, message: str) -> NoReturn:
        from t5jax.runtime.exits import ExitCode

        self.print_usage(sys.stderr)
        self.exit(ExitCode.CONFIG, f"{self.prog}: error: {message}\n")


class _Help(argparse.Action):
    """Prints the help of an act; after a CONFIG its settings and their values follow."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        parser.print_help()
        if getattr(namespace, "config", None) is None:
            parser.exit()
        namespace.show_settings = True


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = _Parser(
        "t5jax", description=DESCRIPTION, epilog=EPILOG, formatter_class=raw, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"t5jax {__version__}")
    acts = parser.add_subparsers(dest="act", required=True, metavar="ACT")
    _train_options(_act(acts, "train", "run a config to its end; resumes what its workdir holds"))
    _evaluate_options(_act(acts, "evaluate", "losses and metrics of a checkpoint", of_a_run=True))
    predict = _act(acts, "predict", "answer texts, or fill their blanks", of_a_run=True)
    _workdir_option(predict)
    predict_options(predict)
    score = _act(acts, "score", "log-likelihood of targets given their inputs", of_a_run=True)
    _workdir_option(score)
    score_options(score)
    export = _act(acts, "export", "a run as StableHLO or as a SavedModel", of_a_run=True)
    _workdir_option(export)
    export_options(export)
    summary = "a run with LoRA factors as a run of the plain model"
    _merge_options(_act(acts, "merge", summary, of_a_run=True))
    inspect = _group(acts, "inspect", "look at a model or its data before a run")
    _config_option(_act(inspect, "model", "parameters, shapes, shardings, memory"))
    _inspect_data_options(_act(inspect, "data", "decoded rows of a step, with masks"))
    _cache_options(_act(acts, "cache", "tokenise a config's data into the store training reads"))
    vocab = _group(acts, "vocab", "vocabularies")
    _vocab_train_options(
        _act(vocab, "train", "a T5-compatible SentencePiece model of a config's text")
    )
    _vocab_extend_options(
        _act(vocab, "extend", "a SentencePiece model with more pieces; the old ids stay")
    )
    _vocab_grow_options(
        _act(vocab, "grow", "begin a run with another's parameters and an extended vocabulary")
    )
    _convert_options(
        _act(acts, "convert", "weights from and to Hugging Face, from T5X and Mesh TensorFlow")
    )
    _tasks_options(_act(acts, "tasks", "what can be trained on, and what the model sees of it"))
    return parser


def _act(acts, name: str, summary: str, *, of_a_run: bool = False) -> argparse.ArgumentParser:
    """`of_a_run`: the act is given the folder of a run, and finds the config there."""
    epilog = SETTINGS_OF_A_RUN if of_a_run else SETTINGS
    new = acts.add_parser(
        name, help=summary, description=f"{summary}.", epilog=epilog, allow_abbrev=False,
        add_help=False, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    shown = "show this help" if of_a_run else "after a CONFIG file: its settings too"
    new.add_argument("-h", "--help", action=_Help, nargs=0, help=shown)
    new.set_defaults(parser=new, show_settings=False)
    return new


def _group(acts, name: str, summary: str):
    group = acts.add_parser(name, help=summary, description=f"{summary}.", allow_abbrev=False)
    return group.add_subparsers(dest="kind", required=True, metavar="WHAT")


def _config_option(act: argparse.ArgumentParser) -> None:
    act.add_argument("config", metavar="CONFIG", help="Python file with config() -> RunConfig")


def _workdir_option(act: argparse.ArgumentParser) -> None:
    act.add_argument("run", metavar="WORKDIR", help="folder of a run, with its checkpoints")
    act.add_argument("--step", type=int, help="default: the newest good checkpoint")


def _train_options(act: argparse.ArgumentParser) -> None:
    _config_option(act)


def _evaluate_options(act: argparse.ArgumentParser) -> None:
    act.epilog = f"{EVALUATE_EXAMPLES}\n{SETTINGS_OF_A_RUN}"
    _workdir_option(act)
    act.add_argument("--split", default="validation", help="(validation)")
    act.add_argument(
        "--tasks", nargs="+", default=[], metavar="NAME", help="answer these, not the run's own"
    )
    act.add_argument("--only", choices=("loss", "metrics"), help="default: what the tasks have")
    act.add_argument("--num-rows", type=int, help="of which losses are taken (all)")
    act.add_argument("--baselines", action="store_true", help="unigram and bigram models beside it")
    act.add_argument("--output", metavar="DIR", help="of predictions (WORKDIR/evaluations)")
    act.add_argument("--submission", metavar="DIR", help="write files for GLUE and SuperGLUE")
    act.add_argument("--follow", action="store_true", help="every checkpoint as it appears")
    act.add_argument(
        "--wait", type=float, default=3600.0, metavar="SECONDS",
        help="with --follow: how long for a new checkpoint (3600)",
    )  # fmt: skip
    act.add_argument(
        "--keep-best", metavar="TASK/METRIC", help="copy the best checkpoint to WORKDIR/best"
    )
    act.add_argument("--lowest", action="store_true", help="with --keep-best: less is better")
    act.add_argument("--json", action="store_true", help="lines of JSON")


def _merge_options(act: argparse.ArgumentParser) -> None:
    _workdir_option(act)
    act.add_argument("target", metavar="TARGET", help="workdir of the new run")


def _inspect_data_options(act: argparse.ArgumentParser) -> None:
    _config_option(act)
    act.add_argument("--split", default="train", help="(train)")
    act.add_argument("--step", type=int, default=1, help="as training counts them, from 1 (1)")
    act.add_argument("--rows", type=int, default=2, help="how many of the batch to show (2)")


def _cache_options(act: argparse.ArgumentParser) -> None:
    _config_option(act)
    act.add_argument(
        "--split", action="append", default=[], help="default: all; may be given several times"
    )
    act.add_argument(
        "--num-processes", type=int, default=1, help="(1); with --verify: files read at a time"
    )
    act.add_argument(
        "--new-vocabulary", type=int, metavar="PIECES", help="first train one, if there is none"
    )
    act.add_argument("--overwrite", action="store_true", help="replace a store of something else")
    act.add_argument(
        "--verify", action="store_true",
        help="make nothing: read every byte of the stores that are there and compare checksums; "
        "exit code 1 when a file is damaged",
    )  # fmt: skip


def _vocab_train_options(act: argparse.ArgumentParser) -> None:
    _config_option(act)
    act.add_argument(
        "--num-pieces", type=int, default=32_000, help="without the sentinels (32 000)"
    )
    act.add_argument(
        "--max-characters", type=int, default=100_000_000, help="of text to read (100 000 000)"
    )
    act.add_argument(
        "--character-coverage", type=float, default=0.9995,
        help="share of the text's characters that get pieces (0.9995)",
    )  # fmt: skip
    act.add_argument(
        "--byte-fallback", action="store_true", help="spell the other characters as bytes"
    )


def _vocab_extend_options(act: argparse.ArgumentParser) -> None:
    act.add_argument("file", metavar="FILE", help="SentencePiece model, or t5, mt5, umt5")
    act.add_argument("-o", "--output", required=True, metavar="OUT", help="the new model")
    act.add_argument("--extra-ids", type=int, help="sentinels on top of FILE (100)")
    act.add_argument(
        "--pieces", nargs="+", default=[], metavar="PIECE",
        help=r"texts to be one id wherever they stand, as they are; \n and \t are understood",
    )  # fmt: skip
    act.add_argument("--pieces-file", metavar="FILE", help="the same, one a line")
    act.add_argument("--from", dest="source", metavar="CONFIG", help="learn pieces from its text")
    act.add_argument("--num-pieces", type=int, help="how many to learn")
    act.add_argument(
        "--max-characters", type=int, default=20_000_000, help="of text to read (20 000 000)"
    )


def _vocab_grow_options(act: argparse.ArgumentParser) -> None:
    _workdir_option(act)
    act.add_argument(
        "config", metavar="CONFIG", help="of the new run: extended vocabulary, larger table"
    )


def _convert_options(act: argparse.ArgumentParser) -> None:
    act.epilog = CONVERT_NOTES
    act.add_argument("source", metavar="SOURCE", help="what to convert")
    act.add_argument("target", metavar="TARGET", help="a directory that does not exist yet")
    act.add_argument(
        "--to", choices=("t5jax", "huggingface"),
        help="default: huggingface of a run, t5jax of anything else",
    )  # fmt: skip
    act.add_argument("--step", type=int, help="of SOURCE; default: its newest")
    act.add_argument(
        "--vocabulary", metavar="FILE",
        help="SentencePiece model, tokenizer.json, or t5, mt5, umt5, byt5; default: SOURCE's own",
    )  # fmt: skip
    act.add_argument("--extra-ids", type=int, help="sentinels on top of FILE (100)")
    act.add_argument(
        "--dtype", choices=("float32", "bfloat16"), help="of Hugging Face's weights (float32)"
    )
    act.add_argument(
        "--max-shard-size", default="5GB", help="of a file with Hugging Face's weights (5GB)"
    )
    act.add_argument(
        "--no-slots", action="store_true", help="leave the optimizer's slots of T5X or Mesh behind"
    )
    act.add_argument(
        "--reference", choices=("auto", "transformers", "golden", "numpy"), default="auto",
        help="what the logits are compared with: transformers, logits stored in SOURCE, or T5 in "
        "NumPy; auto takes the first of these that is there",
    )  # fmt: skip


def _tasks_options(act: argparse.ArgumentParser) -> None:
    act.epilog = f"{TASKS_EXAMPLES}\n{SETTINGS}"
    act.add_argument(
        "name",
        metavar="NAME",
        nargs="?",
        help="a task, a mixture, CORPUS:OBJECTIVE; default: all",
    )
    act.add_argument(
        "--config", help="read the task with this config's files, modules, vocabulary and lengths"
    )
    act.add_argument("--filter", metavar="TEXT", help="only what has TEXT in name or description")
    act.add_argument("--split", default="train", help="of the examples (train)")
    act.add_argument("--examples", type=int, default=3, help="how many to show (3)")
    act.add_argument("--scan", type=int, default=2000, help="how many to measure (2000)")
    act.add_argument("--html", metavar="FILE", help="write a page: rows in colour, spans, plots")
    act.add_argument("--json", action="store_true", help="the same as JSON")


def _settings_help(a: argparse.Namespace, flags: list[str]) -> None:
    from t5jax.config import load, override

    override(load(a.config, flags), ["--help"], program=f"{a.parser.prog} {a.config}")


def _train(a: argparse.Namespace, flags: list[str]) -> None:
    from t5jax.acts import train

    train.run(a.config, flags)


def _evaluate(a: argparse.Namespace, flags: list[str]) -> None:
    from t5jax.acts import evaluate

    if a.follow and a.step is not None:
        a.parser.error("--follow takes every step: leave out --step")
    if a.lowest and not a.keep_best:
        a.parser.error("--lowest says which is best: give --keep-best TASK/METRIC")
    options = evaluate.Options(
        split=a.split,
        tasks=tuple(a.tasks),
        only=a.only,
        num_rows=a.num_rows,
        with_baselines=a.baselines,
        output=a.output,
        submission=a.submission,
        keep_best=a.keep_best,
        best_mode="min" if a.lowest else "max",
        as_json=a.json,
    )
    if a.follow:
        evaluate.follow(a.run, flags, options, most_seconds=a.wait)
    else:
        evaluate.run(a.run, flags, options, step=a.step)


def _predict(a: argparse.Namespace, flags: list[str]) -> None:
    from t5jax.acts import predict

    predict.run_words(a, flags)


def _score(a: argparse.Namespace, flags: list[str]) -> None:
    from t5jax.acts import score

    score.run_words(a, flags)


def _export(a: argparse.Namespace, flags: list[str]) -> None:
    from t5jax.acts import export

    export.run(
        a.run,
        a.target,
        flags,
        step=a.step,
        file_format=a.format,
        inputs_length=a.inputs_length,
        targets_length=a.targets_length,
        platforms=a.platforms,
    )


def _merge(a: argparse.Namespace, flags: list[str]) -> None:
    from t5jax.acts import merge

    merge.run(a.run, a.target, flags, step=a.step)


def _inspect(a: argparse.Namespace, flags: list[str]) -> None:
    if a.kind == "model":
        from t5jax.acts import inspect_model

        inspect_model.run(a.config, flags)
    else:
        from t5jax.acts import inspect_data

        inspect_data.run(a.config, flags, split=a.split, step=a.step, num_rows=a.rows)


def _cache(a: argparse.Namespace, flags: list[str]) -> int | None:
    from t5jax.acts import cache

    if a.verify:
        if a.overwrite or a.new_vocabulary:
            a.parser.error("--verify makes nothing: leave --overwrite and --new-vocabulary out")
        return cache.verify(a.config, flags, splits=a.split, num_threads=a.num_processes)
    cache.run(
        a.config,
        flags,
        splits=a.split,
        num_processes=a.num_processes,
        overwrite=a.overwrite,
        new_vocabulary=a.new_vocabulary,
    )


def _vocab(a: argparse.Namespace, flags: list[str]) -> None:
    {"train": _vocab_train, "extend": _vocab_extend, "grow": _vocab_grow}[a.kind](a, flags)


def _vocab_train(a: argparse.Namespace, flags: list[str]) -> None:
    from t5jax.acts import vocab

    vocab.train(
        a.config,
        flags,
        num_pieces=a.num_pieces,
        max_characters=a.max_characters,
        character_coverage=a.character_coverage,
        byte_fallback=a.byte_fallback,
    )


def _vocab_extend(a: argparse.Namespace, flags: list[str]) -> None:
    from t5jax.acts import vocab

    vocab.extend(
        a.file,
        flags,
        output=a.output,
        extra_ids=a.extra_ids,
        pieces=a.pieces,
        pieces_file=a.pieces_file,
        config_file=a.source,
        num_pieces=a.num_pieces,
        max_characters=a.max_characters,
    )


def _vocab_grow(a: argparse.Namespace, flags: list[str]) -> None:
    from t5jax.acts import grow

    grow.run(a.run, a.config, flags, step=a.step)


def _convert(a: argparse.Namespace, flags: list[str]) -> None:
    if flags:
        a.parser.error(f"t5jax convert takes no settings of a config: {' '.join(flags)}")
    from t5jax.acts import convert

    options = convert.Options(
        to=a.to,
        step=a.step,
        vocabulary=a.vocabulary,
        extra_ids=a.extra_ids,
        dtype=a.dtype,
        max_shard_size=a.max_shard_size,
        with_slots=not a.no_slots,
        reference=a.reference,
    )
    convert.run(a.source, a.target, options)


def _tasks(a: argparse.Namespace, flags: list[str]) -> None:
    from t5jax.acts import tasks

    options = tasks.Options(
        split=a.split,
        num_examples=a.examples,
        scan=a.scan,
        html=a.html,
        filter_text=a.filter,
        as_json=a.json,
    )
    tasks.run(a.name, a.config, flags, options)


_ACTS = {
    "train": _train,
    "evaluate": _evaluate,
    "predict": _predict,
    "score": _score,
    "export": _export,
    "merge": _merge,
    "inspect": _inspect,
    "cache": _cache,
    "vocab": _vocab,
    "tasks": _tasks,
    "convert": _convert,
}

if __name__ == "__main__":
    sys.exit(main())
