"""Evaluation examples of a task registered with seqio, as seqio's Evaluator caches them."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from t5jax.data.config import DataConfig
from t5jax.data.records import BadRecordPolicy, Rejected
from t5jax.data.seqio_bridge import datasets
from t5jax.data.seqio_bridge.steps import features_of
from t5jax.data.seqio_bridge.tasks import seqio_task
from t5jax.data.tasks.task import SeqioTask

SEED = 42  # of steps with random numbers: what seqio's Evaluator gives them


class SeqioExample(NamedTuple):
    """One example: `inputs` and `targets` as texts, "" where the task has no inputs.

    Attributes:
      ids: int32, of the inputs, trimmed to the run's length, EOS where the steps put it.
      target_ids: int32, of the targets, likewise.
      features: all that the steps leave, as seqio gives it to a postprocessor: arrays and bytes.
      is_truncated: whether the inputs were longer.
    """

    inputs: str
    targets: str
    ids: np.ndarray
    target_ids: np.ndarray
    features: Mapping[str, Any]
    is_truncated: bool


def seqio_examples(
    task: SeqioTask, data: DataConfig, split: str, rejected: Rejected | None = None
) -> Iterator[SeqioExample]:
    """The examples of a split, in order, made with the run's lengths. Raises DataError where the
    task's steps fail, under the policy for bad records; what is left out is counted."""
    own = seqio_task(task.name)
    whole = datasets.without_last_trim(own)
    limits = {"inputs": data.inputs_length, "targets": data.targets_length}
    eos_ids = _eos_ids(own) if whole is not own else {}

    def make() -> Any:
        dataset = datasets.whole_dataset(whole, split, limits, SEED)
        datasets.check_rows_of_ids(dataset.element_spec, own)
        return dataset

    policy = BadRecordPolicy(policy=data.on_bad_record, max_fraction=data.max_bad_fraction)
    for number, example in enumerate(datasets.examples_of(make, own, split, policy, rejected)):
        if "inputs" in own.output_features:  # 0 is padding, which the encoder does not see
            place = f"task {task.name}, {split} example {number}"
            datasets.check_ids(example["inputs"], "inputs", own, place, least=0)
        ids = {
            name: datasets.trimmed(example[name], limits[name], eos_ids.get(name))
            for name in features_of(own)
        }
        features = {**example, **ids}
        texts = {name: _text(features, name, own.output_features[name]) for name in ids}
        yield SeqioExample(
            inputs=texts.get("inputs", ""),
            targets=texts["targets"],
            ids=ids.get("inputs", np.zeros(0)).astype(np.int32),
            target_ids=ids["targets"].astype(np.int32),
            features=features,
            is_truncated="inputs" in ids and len(ids["inputs"]) < len(example["inputs"]),
        )


def _eos_ids(task: Any) -> dict[str, int]:
    """EOS of the features that end in one."""
    features = {name: task.output_features[name] for name in features_of(task)}
    return {name: x.vocabulary.eos_id for name, x in features.items() if x.add_eos}


def _text(example: Mapping[str, Any], name: str, feature: Any) -> str:
    """What the ids were made of, where the task's steps kept it."""
    kept = example.get(f"{name}_pretokenized")
    if kept is None:
        return feature.vocabulary.decode(example[name].tolist())
    return kept.decode("utf-8") if isinstance(kept, bytes) else str(kept)
