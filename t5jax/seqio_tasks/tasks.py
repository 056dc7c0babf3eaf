"""A `seqio.Task` for each task of t5jax: source, steps, features, postprocessor, metrics."""

import functools
from typing import Any

from t5jax.data.config import DataConfig
from t5jax.data.objectives import Objective, parse_objective
from t5jax.data.tasks.task import ExampleTask, TextTask
from t5jax.data.tensorflow_import import import_seqio
from t5jax.seqio_tasks.objectives import PACKING, ObjectivePreprocessor
from t5jax.seqio_tasks.scoring import metric_functions, postprocessor
from t5jax.seqio_tasks.sources import TaskSource
from t5jax.seqio_tasks.vocabularies import seqio_vocabulary

seqio = import_seqio()

_LENGTH = 512  # of rows, where an objective is only asked whether it has inputs


def task_for_seqio(task: TextTask | ExampleTask, data: DataConfig, name: str) -> Any:
    """The `seqio.Task` under a name. No file is opened."""
    source = TaskSource(task, data)
    if isinstance(task, TextTask):
        objective = parse_objective(data.objective) if data.objective else task.objective
        return seqio.Task(name, source=source, **_of_text(task, objective, data))
    feature = seqio.Feature(seqio_vocabulary(data.vocabulary, sentinels=True), add_eos=True)
    return seqio.Task(
        name,
        source=source,
        preprocessors=[
            seqio.preprocessors.tokenize,
            seqio.CacheDatasetPlaceholder(),
            seqio.preprocessors.append_eos_after_trim,
        ],
        output_features={"inputs": feature, "targets": feature},
        postprocess_fn=postprocessor(task),
        metric_fns=metric_functions(task),
    )


def _of_text(task: TextTask, objective: Objective, data: DataConfig) -> dict[str, Any]:
    """Features and steps: an objective without inputs has no such feature."""
    has_inputs = bool(objective.lengths(_LENGTH, _LENGTH).inputs)
    vocabulary = seqio_vocabulary(data.vocabulary, sentinels=False)
    feature = seqio.Feature(vocabulary, add_eos=not objective.documents_end_with_eos)
    features = {"targets": feature} | ({"inputs": feature} if has_inputs else {})
    if objective.packs:
        numbers = seqio.Feature(seqio.PassThroughVocabulary(size=0), add_eos=False)
        features |= dict.fromkeys(PACKING, numbers)
    empty = {"inputs": None} if has_inputs else {}
    return {
        "preprocessors": [
            functools.partial(seqio.preprocessors.rekey, key_map={**empty, "targets": "text"}),
            functools.partial(seqio.preprocessors.tokenize, copy_pretokenized=False),
            seqio.CacheDatasetPlaceholder(),
            ObjectivePreprocessor(objective, task.prefix),
        ],
        "output_features": features,
    }
