"""The steps (preprocessors) of a seqio task: what a tokenised store keeps, and what comes after."""

import dataclasses
import functools
import inspect
from typing import Any, NamedTuple

from t5jax.data.objectives import Objective
from t5jax.data.seqio_bridge.span_corruption import SpanCorruptionPreprocessor
from t5jax.data.tasks.task import EosRule
from t5jax.data.tensorflow_import import import_seqio
from t5jax.errors import ConfigError

seqio = import_seqio()

INPUTS_AND_TARGETS = ("inputs", "targets")
_TOKENIZERS = (seqio.preprocessors.tokenize, seqio.preprocessors.tokenize_and_append_eos)


class Steps(NamedTuple):
    """A task's steps, divided.

    Attributes:
      stored: those whose results a store keeps as they are, EOS included where they put it. With
        an objective they leave text, otherwise ids.
      objective: makes rows of the text; None for a task with examples.
      eos: by feature, what is added to the ids of `stored`.
      not_cacheable: why no store can stand for the task; None where one can.
    """

    stored: list[Any]
    objective: Objective | None
    eos: dict[str, EosRule]
    not_cacheable: str | None = None


def divided_steps(task: Any) -> Steps:
    """The steps of a `seqio.Task`. Raises ConfigError for steps that seqio refuses itself."""
    try:
        steps = list(task.preprocessors)
    except ValueError as error:  # such as sequence_length before the placeholder
        raise ConfigError(f"task {task.name}: {error}") from error
    if not getattr(task.source, "caching_permitted", True):
        return _live(task, "its source does not permit it (caching_permitted=False)")
    if own := own_methods(task, seqio.Task):
        return _live(task, f"its class {type(task).__name__} has a {own[0]} of its own")
    if any(isinstance(step, SpanCorruptionPreprocessor) for step in steps):
        return _with_objective(task, steps)
    places = [n for n, step in enumerate(steps) if _is_placeholder(step)]
    return _placed(task, steps, places[0]) if places else _without_placeholder(task, steps)


def features_of(task: Any) -> tuple[str, ...]:
    """Those of inputs and targets that the task has; its other features train nothing."""
    return tuple(name for name in INPUTS_AND_TARGETS if name in task.output_features)


def takes(step: Any, *names: str) -> bool:
    """Whether a step has one of these parameters, which seqio gives it."""
    if dataclasses.is_dataclass(step):
        known = {field.name for field in dataclasses.fields(step)}
    else:
        known = set(inspect.signature(step).parameters)
    bound = step.keywords if isinstance(step, functools.partial) else {}
    return any(name in known and name not in bound for name in names)


def own_methods(provider: Any, base: type) -> list[str]:
    """The methods that make the data set of a task or mixture, where its class replaces them."""
    made_by = ("get_dataset", "preprocess_precache", "preprocess_postcache", "get_task_dataset",
               "_preprocess_dataset", "_get_all_mixing_rates")  # fmt: skip
    kind = type(provider)
    return [x for x in made_by if getattr(kind, x, None) is not getattr(base, x, None)]


def ends_after_trim(task: Any) -> bool:
    """Whether the last step trims to the run's lengths and adds EOS behind."""
    steps = task.preprocessors
    return bool(steps) and _eos_rule(steps[-1]) == "after_trim"


def _with_objective(task: Any, steps: list[Any]) -> Steps:
    """tokenize, a placeholder or none, SpanCorruptionPreprocessor, EOS: the store keeps text."""
    kept = [step for step in steps if not _is_placeholder(step)]
    functions = [function_of(step) for step in kept]
    number = next(n for n, x in enumerate(kept) if isinstance(x, SpanCorruptionPreprocessor))
    if seqio.preprocessors.tokenize not in functions:
        return _live(task, "it has no seqio.preprocessors.tokenize")
    tokenize = functions.index(seqio.preprocessors.tokenize)
    if number != tokenize + 1:
        return _live(task, "SpanCorruptionPreprocessor must follow seqio's tokenize")
    if rest := _not_eos(kept[number + 1 :]):
        return _live(task, _after(rest))
    eos = _rules(task, kept[number + 1 :])
    if set(eos.values()) == {"none"}:
        return _live(task, "SpanCorruptionPreprocessor must be followed by append_eos")
    return Steps(kept[:tokenize], kept[number].objective, eos)


def _placed(task: Any, steps: list[Any], place: int) -> Steps:
    """The placeholder says what is kept, whatever made it (T0's has EOS already)."""
    if rest := _not_eos(steps[place + 1 :]):
        return _live(task, _after(rest))
    return Steps(steps[:place], None, _rules(task, steps[place + 1 :]))


def _without_placeholder(task: Any, steps: list[Any]) -> Steps:
    """Up to `tokenize`, where the author did not say; an epoch must not differ from another."""
    found = [n for n, step in enumerate(steps) if any(function_of(step) is x for x in _TOKENIZERS)]
    if not found:
        return _live(task, "it has no seqio.preprocessors.tokenize")
    cut = found[0] + 1
    if rest := _not_eos(steps[cut:]):
        return _live(task, _after(rest))
    random = [step for step in steps[:cut] if takes(step, "seed", "seeds")]
    if random:
        return _live(
            task,
            f"{_name(random[0])} draws random numbers, others in every epoch (a "
            "seqio.CacheDatasetPlaceholder behind it says that one draw may be kept)",
        )
    return Steps(steps[:cut], None, _rules(task, steps[cut:]))


def _live(task: Any, problem: str) -> Steps:
    """Made by seqio while it is read, EOS included."""
    return Steps(list(task.preprocessors), None, dict.fromkeys(features_of(task), "none"), problem)


def _not_eos(steps: list[Any]) -> list[Any]:
    """The steps, unless they are none or one that adds EOS."""
    return [] if not steps or (len(steps) == 1 and _eos_rule(steps[0])) else steps


def _after(steps: list[Any]) -> str:
    names = ", ".join(map(_name, steps))
    return f"after what is cached only EOS may be added, not {names}"


def _rules(task: Any, steps: list[Any]) -> dict[str, EosRule]:
    rule: EosRule = (_eos_rule(steps[0]) if steps else None) or "none"
    return {
        name: rule if task.output_features[name].add_eos else "none" for name in features_of(task)
    }


def _eos_rule(step: Any) -> EosRule | None:
    """Of seqio's own steps without arguments of the author's."""
    if isinstance(step, functools.partial) and (step.args or step.keywords):
        return None
    if function_of(step) is seqio.preprocessors.append_eos_after_trim:
        return "after_trim"
    return "before_trim" if function_of(step) is seqio.preprocessors.append_eos else None


def _is_placeholder(step: Any) -> bool:
    return isinstance(step, seqio.CacheDatasetPlaceholder)


def function_of(step: Any) -> Any:
    """What a partial calls; other functions themselves."""
    return step.func if isinstance(step, functools.partial) else step


def _name(step: Any) -> str:
    step = function_of(step)
    return getattr(step, "__name__", type(step).__name__)
