"""t5jax cache."""

import argparse

from t5jax.cli.command import Command, call, take_over_option


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--split", dest="splits", metavar="SPLIT", action="append", default=[],
        help="split to cache; default: all; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--num-processes",
        type=int,
        default=1,
        help="processes (1); with --verify: files read at a time",
    )
    parser.add_argument(
        "--engine", choices=("processes", "ray"), default="processes",
        help="what tokenises: processes of this host (the default), or tasks of a running Ray "
        "cluster (t5jax[ray])",
    )  # fmt: skip
    parser.add_argument(
        "--new-vocabulary",
        type=int,
        metavar="PIECES",
        help="train a vocabulary first, if there is none",
    )
    parser.add_argument(
        "--part", metavar="I/N",
        help="make only part I (0 to N-1) of the shards: hosts that share a disk or a bucket make "
        "one each, in any order, at once, repeatedly",
    )  # fmt: skip
    parser.add_argument(
        "--finish", action="store_true",
        help="complete the stores when every part is made, or name what is missing",
    )  # fmt: skip
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a store of other data or settings"
    )
    parser.add_argument(
        "--verify", action="store_true",
        help="build nothing: read the existing stores and compare checksums; "
        "exit code 1 when a file is damaged",
    )  # fmt: skip
    take_over_option(parser)


def _cache(a: argparse.Namespace, flags: list[str]) -> int | None:
    from t5jax.commands.cache import cache_command, cache_verify_command

    if a.part and (a.finish or a.verify):
        a.parser.error("--part makes some of the shards: leave --finish and --verify to the end")
    if (a.part or a.finish) and a.overwrite:
        a.parser.error(
            "a part that is repeated would undo itself with --overwrite: delete the store's folder"
        )
    if (a.part or a.finish) and a.new_vocabulary:
        a.parser.error(
            "parts need the vocabulary: t5jax vocab train CONFIG --num-pieces "
            f"{a.new_vocabulary} first, without --new-vocabulary here"
        )
    if a.engine == "ray" and (a.finish or a.verify):
        a.parser.error("--engine ray tokenises: leave it out with --finish and --verify")
    if a.engine == "ray" and a.num_processes != 1:
        a.parser.error("--engine ray uses the CPUs that the cluster has: leave --num-processes out")
    if a.verify:
        if a.take_over:
            a.parser.error("--verify builds nothing: leave --take-over out")
        if a.overwrite or a.new_vocabulary or a.finish:
            a.parser.error(
                "--verify builds nothing: leave --overwrite, --finish and --new-vocabulary out"
            )
        return call(cache_verify_command, a, flags)
    call(cache_command, a, flags)


CACHE = Command(
    "cache", "tokenise a config's data into the store training reads", _cache, "config", _options
)
