"""`t5jax plan CONFIG --topology T`: compiles a run's step for a machine that is not there, and
prints what it will take."""

import itertools
import math
import pathlib
import sys

from t5jax import runtime
from t5jax.config import RunConfig, read_config
from t5jax.data.atomic_files import write_json_file
from t5jax.errors import ConfigError
from t5jax.planning.abstract_run import with_vocabulary
from t5jax.planning.child import plan_in_child
from t5jax.planning.compilation import Step
from t5jax.planning.found_config import check_found_config, write_found_config
from t5jax.planning.nearest import nearest_that_fits
from t5jax.planning.plan import Plan, make_plan
from t5jax.planning.plan_cache import PlanCache, default_folder, through
from t5jax.planning.report import report
from t5jax.planning.search import Budget, search
from t5jax.planning.search_report import search_as_json, search_report
from t5jax.planning.topology import parse_topology, prepare_process
from t5jax.runtime import ExitCode
from t5jax.tracking.progress import CountProgress

DOES_NOT_FIT = 1  # exit code of a step that does not fit its devices


def plan_command(
    config_file: str,
    flags: list[str],
    *,
    topology: str,
    slices: int,
    step: Step,
    price_per_chip_hour: float | None,
    json_file: str | None,
) -> int:
    """The exit code: 0 where the step fits, DOES_NOT_FIT where it does not."""
    if price_per_chip_hour is not None and not 0 <= price_per_chip_hour < math.inf:
        raise ConfigError(f"--price-per-chip-hour {price_per_chip_hour}: give 0 or more")
    target = parse_topology(topology, slices)
    prepare_process(target)
    config = _read(config_file, flags)
    _say(f"compiling the {step} step for {target}: seconds on CPU, minutes for TPU and GPU")
    plan = make_plan(config, target, step, price_per_chip_hour=price_per_chip_hour)
    print(report(plan))
    content = plan.as_json()
    if not plan.fits:
        content["nearest"] = _offer_nearest(plan)
    if json_file is not None:
        write_json_file(pathlib.Path(json_file), content)
    return ExitCode.DONE if plan.fits else DOES_NOT_FIT


def _offer_nearest(plan: Plan) -> dict | None:
    """Prints the nearest layout that fits; it as JSON."""
    print(f"\nrefused: {plan.memory_gb:.2f} GB of a device's {plan.hbm_gb:.2f} GB")
    if plan.step != "train":
        print("a smaller evaluation.batch_size, or a larger mesh.fsdp or mesh.tensor, needs less")
        return None
    _say("looking for the nearest layout that fits")
    found = nearest_that_fits(plan, log=_say)
    if found is None:
        print(
            "no layout with more microbatches, remat or mesh.fsdp fits on these devices: take "
            "more of them, a smaller model or shorter inputs"
        )
        return None
    print(
        f"what fits: {found.flags}\n           {found.plan.memory_gb:.2f} GB, "
        f"{found.plan.step_seconds:.3f} s a step, MFU {found.plan.mfu:.1%}"
    )
    return {"flags": found.flags, **found.plan.as_json()}


def _read(config_file: str, flags: list[str]) -> RunConfig:
    """The config of a plan, whose profiles of flags are set; those for other platforms' compilers
    change nothing."""
    config = read_config(config_file, flags)
    with_vocabulary(config)[0].check()
    for line in runtime.set_flags(config.runtime.flags, started=runtime.devices_are_started()):
        _say(line)
    return config


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def search_command(
    config_file: str,
    flags: list[str],
    *,
    topology: str,
    slices: int,
    step: Step,
    search_minutes: float,
    search_compiles: int,
    json_file: str | None,
    write: str | None,
) -> int:
    """The exit code: 0 where a layout fits, DOES_NOT_FIT where none does."""
    if step != "train":
        raise ConfigError(f"--search looks for layouts of the train step, not of --step {step}")
    budget = Budget(seconds=60 * search_minutes, compiles=search_compiles)
    if write is not None:
        check_found_config(write, config_file)
    target = parse_topology(topology, slices)
    prepare_process(target)
    config = _read(config_file, flags)
    progress = CountProgress(sys.stderr, None, "layouts compiled", seconds_between_lines=0.0)
    done = itertools.count(1)

    def compiles(config, seconds):
        plan = plan_in_child(config, target, seconds)
        progress.update(next(done))
        return plan

    cache = PlanCache(default_folder())
    result = search(config, target, through(cache, target, compiles), budget, log=progress.message)
    print(search_report(result))
    if json_file is not None:
        write_json_file(pathlib.Path(json_file), search_as_json(result))
    if result.best is None:
        tried = any(trial.plan is not None for trial in result.trials)
        possible = any(not trial.reason.startswith("does not fit") for trial in result.trials)
        more = "take more devices, a smaller model or shorter inputs"
        if possible and not tried:
            more = f"compiling takes longer than --search-minutes {search_minutes:g}; give it more"
        print(f"\nfound none: {more}")
        return DOES_NOT_FIT
    print(f"\nbest: {result.best.candidate.flags}")
    if write is not None:
        write_found_config(write, config_file, flags, result)
        print(f"written: {write}   t5jax train {write}")
    return ExitCode.DONE
