"""t5jax: train, fine-tune and evaluate T5-family models in JAX on TPU and GPU meshes.

The public API; every name is imported when it is first used, so that `import t5jax` costs nothing.

    import t5jax

    run = t5jax.load("runs/quickstart")          # a saved run: predict, score, evaluate
    t5jax.train(t5jax.load_config("my_run.py"))  # what `t5jax train my_run.py` does
    t5jax.add_task(t5jax.ExampleTask(...))       # a task of your own

Names that are modules: `sizes` (t5_1_1_base(), mt5_small(), ...), `metrics`, `objectives`,
`schedules`, `recipes`, `testing`.
"""

import importlib
from typing import TYPE_CHECKING, Any

from t5jax.version import __version__

if TYPE_CHECKING:
    from t5jax import metrics, recipes, testing
    from t5jax.checkpoints import CheckpointConfig
    from t5jax.config import RunConfig, TrainConfig, WarmStart, load_config
    from t5jax.data import objectives
    from t5jax.data.config import DataConfig
    from t5jax.data.records import BadColumn, Row
    from t5jax.data.registry import add_mixture, add_task
    from t5jax.data.sources import (
        ArrayRecord,
        HuggingFace,
        JsonLines,
        Parquet,
        TextFiles,
        Tfds,
        TfRecord,
        Tsv,
    )
    from t5jax.data.tasks import (
        Custom,
        Equal,
        ExampleTask,
        LanguageAlpha,
        Mixture,
        Proportional,
        Scheduled,
        TextTask,
        UniMax,
    )
    from t5jax.data.vocabularies import (
        ByteVocabulary,
        HuggingFaceVocabulary,
        SentencePieceVocabulary,
    )
    from t5jax.decoding.config import DecodingConfig
    from t5jax.errors import ConfigError, DataError
    from t5jax.evaluation.config import EvaluationConfig
    from t5jax.inference.loaded_run import LoadedRun, load
    from t5jax.model import config as sizes
    from t5jax.model.config import T5Config
    from t5jax.run.trainer import train
    from t5jax.runtime import RuntimeConfig
    from t5jax.sharding import MeshConfig
    from t5jax.tracking import TrackingConfig
    from t5jax.training import schedules
    from t5jax.training.losses import CrossEntropy
    from t5jax.training.optimizers import Adafactor, AdamW, OptaxOptimizer
    from t5jax.training.peft import Adapters, GradualUnfreezing, LoRA, PromptTuning, TrainOnly

# Module: the names that it defines; (name here, name there) where these differ, "" for the module.
_EXPORTS: dict[str, tuple[str | tuple[str, str], ...]] = {
    "t5jax.inference.loaded_run": ("load", "LoadedRun"),
    "t5jax.run.trainer": ("train",),
    "t5jax.config": ("load_config", "RunConfig", "TrainConfig", "WarmStart"),
    "t5jax.model.config": ("T5Config", ("sizes", "")),
    "t5jax.data.config": ("DataConfig",),
    "t5jax.decoding.config": ("DecodingConfig",),
    "t5jax.evaluation.config": ("EvaluationConfig",),
    "t5jax.sharding": ("MeshConfig",),
    "t5jax.checkpoints": ("CheckpointConfig",),
    "t5jax.tracking": ("TrackingConfig",),
    "t5jax.runtime": ("RuntimeConfig",),
    "t5jax.training.losses": ("CrossEntropy",),
    "t5jax.training.optimizers": ("Adafactor", "AdamW", "OptaxOptimizer"),
    "t5jax.training.schedules": (("schedules", ""),),
    "t5jax.training.peft": ("Adapters", "GradualUnfreezing", "LoRA", "PromptTuning", "TrainOnly"),
    "t5jax.data.vocabularies": (
        "ByteVocabulary",
        "HuggingFaceVocabulary",
        "SentencePieceVocabulary",
    ),
    "t5jax.data.registry": ("add_mixture", "add_task"),
    "t5jax.data.tasks": (
        "Custom",
        "Equal",
        "ExampleTask",
        "LanguageAlpha",
        "Mixture",
        "Proportional",
        "Scheduled",
        "TextTask",
        "UniMax",
    ),
    "t5jax.data.sources": (
        "ArrayRecord",
        "HuggingFace",
        "JsonLines",
        "Parquet",
        "TextFiles",
        "Tfds",
        "TfRecord",
        "Tsv",
    ),
    "t5jax.data.records": ("BadColumn", "Row"),
    "t5jax.data.objectives": (("objectives", ""),),
    "t5jax.metrics": (("metrics", ""),),
    "t5jax.recipes": (("recipes", ""),),
    "t5jax.testing": (("testing", ""),),
    "t5jax.errors": ("ConfigError", "DataError"),
}
_PLACES: dict[str, tuple[str, str]] = {}
for _module, _names in _EXPORTS.items():
    for _name in _names:
        _here, _there = (_name, _name) if isinstance(_name, str) else _name
        _PLACES[_here] = (_module, _there)

__all__ = [
    "Adafactor",
    "AdamW",
    "Adapters",
    "ArrayRecord",
    "BadColumn",
    "ByteVocabulary",
    "CheckpointConfig",
    "ConfigError",
    "CrossEntropy",
    "Custom",
    "DataConfig",
    "DataError",
    "DecodingConfig",
    "Equal",
    "EvaluationConfig",
    "ExampleTask",
    "GradualUnfreezing",
    "HuggingFace",
    "HuggingFaceVocabulary",
    "JsonLines",
    "LanguageAlpha",
    "LoRA",
    "LoadedRun",
    "MeshConfig",
    "Mixture",
    "OptaxOptimizer",
    "Parquet",
    "PromptTuning",
    "Proportional",
    "Row",
    "RunConfig",
    "RuntimeConfig",
    "Scheduled",
    "SentencePieceVocabulary",
    "T5Config",
    "TextFiles",
    "TextTask",
    "TfRecord",
    "Tfds",
    "TrackingConfig",
    "TrainConfig",
    "TrainOnly",
    "Tsv",
    "UniMax",
    "WarmStart",
    "__version__",
    "add_mixture",
    "add_task",
    "load",
    "load_config",
    "metrics",
    "objectives",
    "recipes",
    "schedules",
    "sizes",
    "testing",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 't5jax' has no attribute {name!r}")
    module, there = _PLACES[name]
    found = importlib.import_module(module)
    return getattr(found, there) if there else found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
