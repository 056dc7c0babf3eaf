"""PEFT directories (LoRA) as source and target: adapter_config.json and its safetensors file.

PEFT stores for every adapted matrix W [out, in] the factors A [rank, in] and B [out, rank], under
`base_model.model.MODULE.lora_A.weight` and `.lora_B.weight` with the module's name in transformers,
and computes W + scale · B A. t5jax keeps W as [in, out] and the factors as a [in, rank] and
b [rank, out], of all layers of a stack in one array; scale is alpha / rank.
"""

import dataclasses
import json
import math
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.numpy

from t5jax.checkpoints import BlockArray, Region, open_step
from t5jax.config import from_record
from t5jax.convert import parameter_names, safetensors_files
from t5jax.convert.lazy_arrays import AxisSlice, Cast, Finite, InMemory, Transposed
from t5jax.convert.parameter_names import HUGGINGFACE
from t5jax.convert.source_checkpoint import SourceCheckpoint, Weights
from t5jax.data.atomic_files import write_json_file
from t5jax.errors import CheckpointError, ConfigError, writing
from t5jax.model.config import T5Config
from t5jax.model.layer_stack import layer_paths, stack_of
from t5jax.training.peft import LORA_SUFFIX, LoRA

CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
_PREFIX = "base_model.model."
_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<factor>[AB])(\.default)?\.weight")

# Settings that change nothing of what a trained adapter computes on T5, with their reason.
_WITHOUT_EFFECT = {
    "peft_type": "checked", "r": "read", "lora_alpha": "read", "use_rslora": "read",
    "base_model_name_or_path": "read", "target_modules": "the file's tensors say which",
    "exclude_modules": "likewise", "layers_to_transform": "likewise", "layers_pattern": "likewise",
    "auto_mapping": "Python classes", "task_type": "likewise", "revision": "of the base",
    "peft_version": "a note", "inference_mode": "of the object", "lora_dropout": "of training",
    "runtime_config": "where it runs", "megatron_core": "a module's name",
    "ensure_weight_tying": "of modules_to_save", "corda_config": "of the start of training",
    "eva_config": "of the start of training", "qalora_group_size": "of use_qalora",
}  # fmt: skip
# Ways to begin that leave the base's weights as they are; the others change them.
_PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")


class WithFactors(BlockArray):
    """W + scale · a b of a weight [..., in, out] and its factors [..., in, r] and [..., r, out]."""

    def __init__(self, weight: BlockArray, a: BlockArray, b: BlockArray, scale: float):
        self._weight, self._a, self._b, self._scale = weight, a, b, scale
        self.shape, self.dtype, self.cut_axes = weight.shape, np.dtype(np.float32), weight.cut_axes

    def read(self, region: Region) -> np.ndarray:
        *stack, rows, columns = region
        rank = slice(0, self._a.shape[-1])
        a = self._a.read((*stack, rows, rank)).astype(np.float32)
        b = self._b.read((*stack, rank, columns)).astype(np.float32)
        return self._weight.read(region).astype(np.float32) + np.float32(self._scale) * (a @ b)


def with_factors(
    params: Mapping[str, BlockArray], finetuning: LoRA
) -> dict[str, BlockArray]:  # fmt: skip
    """The parameters of the model alone, LoRA's factors added to their weights as they are read."""
    scale, merged = finetuning.alpha / finetuning.rank, {}
    for path, array in params.items():
        if f"{LORA_SUFFIX}/" in path:
            continue
        a, b = (params.get(f"{path}{LORA_SUFFIX}/{name}") for name in "ab")
        merged[path] = array if a is None or b is None else WithFactors(array, a, b, scale)
    return merged


# ---- reading


def open_peft(path: str, base: SourceCheckpoint) -> SourceCheckpoint:
    """The adapter in `path` over its base: parameters with LoRA's factors beside them.

    Raises:
      ConfigError: a setting of the adapter is one that t5jax's LoRA does not have, by name.
      CheckpointError: files are missing or damaged, or the tensors do not fit the base.
    """
    directory = pathlib.Path(path)
    settings = read_settings(directory)
    factors = _read_factors(directory, base.model)
    rank, scale = _rank_and_scale(settings, factors, str(directory / CONFIG))
    params, origins = dict(base.params), dict(base.origins)
    leaves = parameter_names.parameters(base.model)
    missing: list[str] = []
    adapted = sorted({_stacked(layer_path) for layer_path in factors})
    for name in adapted:
        layers = layer_paths(name, leaves[name].shape)
        pairs = [factors.get(layer_path) for layer_path in layers]
        missing += [layer for layer, pair in zip(layers, pairs, strict=True) if pair is None]
        *_, inputs, outputs = leaves[name].shape
        shapes = {"a": (inputs, rank), "b": (rank, outputs)}
        for factor, shape in shapes.items():
            arrays = [np.zeros(shape, np.float32) if p is None else p[factor] for p in pairs]
            whole = np.stack(arrays) if stack_of(name) else arrays[0]
            params[f"{name}{LORA_SUFFIX}/{factor}"] = InMemory(whole)
        modules = [HUGGINGFACE.name(layer).removesuffix(".weight") for layer in layers]
        origins[name] = [
            f"{origin} + {scale:g} * {module}.lora_B @ lora_A"
            for origin, module in zip(base.origins[name], modules, strict=True)
        ]
    notes = [*base.notes, f"LoRA of rank {rank} over {base.path}, of {', '.join(adapted)}"]
    if missing:
        notes.append(f"{len(missing)} layers have no factors: theirs are 0 ({missing[0]}, …)")
    if settings.get("lora_dropout"):
        notes.append(f"lora_dropout {settings['lora_dropout']} is of training; t5jax has none")
    patterns = tuple(f"^{re.escape(name)}$" for name in adapted)
    return dataclasses.replace(
        base,
        kind="peft",
        path=path,
        params=params,
        origins=origins,
        notes=notes,
        weights=_merged_weights(base, factors, scale),
        step=None,
        end_ids=base.end_ids or (base.model.eos_id,) * (base.kind == "t5jax"),
        slots=None,
        slot_settings={},
        finetuning=LoRA(rank=rank, alpha=scale * rank, patterns=patterns),
        base=base.path,
    )


def read_settings(directory: pathlib.Path) -> dict[str, Any]:
    """adapter_config.json. Raises ConfigError for what t5jax's LoRA does not have, by name."""
    file = directory / CONFIG
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}; fetch it again") from error
    if not isinstance(settings, dict):
        raise CheckpointError(f"{file} holds no settings, but a {type(settings).__name__}")
    kind = settings.get("peft_type")
    if kind != "LORA":
        raise ConfigError(
            f"{file}: peft_type = {kind!r} is not read, LORA is: merge it with peft "
            "(merge_and_unload, save_pretrained), then convert that Hugging Face directory"
        )
    start = settings.get("init_lora_weights")
    refused = {
        name: value
        for name, value in settings.items()
        if value not in (None, False, "none", [], {}, "") and name not in _WITHOUT_EFFECT
    }
    if start in _PLAIN_STARTS:
        refused.pop("init_lora_weights", None)
    if refused:
        name, value = next(iter(refused.items()))
        raise ConfigError(
            f"{file}: {name} = {value!r} is not read: t5jax's LoRA has no such setting; merge it "
            "with peft (merge_and_unload, save_pretrained), then convert that Hugging Face "
            "directory"
        )
    return settings


def base_of(directory: pathlib.Path) -> str | None:
    """The base that the adapter names."""
    return read_settings(directory).get("base_model_name_or_path")


def _rank_and_scale(
    settings: Mapping[str, Any], factors: Mapping[str, dict[str, np.ndarray]], file: str
) -> tuple[int, float]:
    """The factors' rank, and the scale of their product."""
    rank, alpha = settings.get("r"), settings.get("lora_alpha")
    if not isinstance(rank, int) or not isinstance(alpha, int | float):
        raise CheckpointError(f"{file}: r = {rank!r}, lora_alpha = {alpha!r}: two numbers expected")
    for layer_path, pair in factors.items():
        if pair["a"].shape[1] != rank:
            raise CheckpointError(
                f"{file}: r = {rank}, but the factors of {layer_path} have rank "
                f"{pair['a'].shape[1]}"
            )
    return rank, alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def _read_factors(directory: pathlib.Path, model: T5Config) -> dict[str, dict[str, np.ndarray]]:
    """Layer path -> {"a": [in, rank], "b": [rank, out]}, float32."""
    file = directory / WEIGHTS
    if not file.is_file() and (directory / PICKLE).is_file():
        raise ConfigError(
            f"{directory / PICKLE} is a pickle, which can run any code when it is read; t5jax "
            "reads safetensors only: save the adapter again with today's peft (save_pretrained)"
        )
    shapes = {
        HUGGINGFACE.name(layer_path).removesuffix(".weight"): (layer_path, leaf.shape[-2:])
        for path, leaf in parameter_names.parameters(model).items()
        for layer_path in layer_paths(path, leaf.shape)
        if len(leaf.shape) - bool(stack_of(path)) == 2
    }
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, array in safetensors_files.read_file(file).items():
        match = _FACTOR.fullmatch(name.removeprefix(_PREFIX))
        module = match["module"] if match else None
        if match is None or module not in shapes or module == "shared":
            raise CheckpointError(f"{file}: {name} has no place in LoRA over this base")
        layer_path, (inputs, outputs) = shapes[module]
        value = Finite(Cast(array, np.float32), f"{file}: {name}").whole().T
        expected = inputs if match["factor"] == "A" else outputs
        if value.ndim != 2 or value.shape[match["factor"] == "B"] != expected:
            raise CheckpointError(
                f"{file}: {name} has shape {list(array.shape)}, the base's matrix is {outputs} x "
                f"{inputs}: an adapter of another base"
            )
        found.setdefault(layer_path, {})[match["factor"].lower()] = value
    lonely = [path for path, pair in found.items() if len(pair) != 2]
    if lonely or not found:
        what = f"one factor of {lonely[0]} is missing" if lonely else "it holds no factors"
        raise CheckpointError(f"{file}: {what}; fetch it again")
    return found


def _stacked(layer_path: str) -> str:
    """`encoder/layers/3/mlp/wo` -> `encoder/layers/mlp/wo`."""
    return re.sub(r"^(\w+/layers)/\d+/", r"\1/", layer_path)


def _merged_weights(
    base: SourceCheckpoint, factors: Mapping[str, dict[str, np.ndarray]], scale: float
) -> Weights:
    """The base's weights by their names in transformers, W + scale · B A in the layout there: what
    an implementation of its own (`numpy_t5`) is given to compare logits."""
    arrays = dict(base.weights.arrays) if base.kind == "huggingface" and base.weights else {}
    if not arrays:
        for path, array in base.params.items():
            for layer, layer_path in enumerate(layer_paths(path, array.shape)):
                view = AxisSlice(array, layer) if stack_of(path) else array
                is_matrix = len(view.shape) == 2 and layer_path != "token_embedder"
                arrays[HUGGINGFACE.name(layer_path)] = Transposed(view) if is_matrix else view
    for layer_path, pair in factors.items():
        name = HUGGINGFACE.name(layer_path)
        b, a = InMemory(pair["b"].T), InMemory(pair["a"].T)  # B [out, r] and A [r, in]
        arrays[name] = WithFactors(arrays[name], b, a, scale)
    return Weights(naming=HUGGINGFACE, where=base.path, arrays=arrays)


# ---- writing


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraRun:
    """The LoRA factors of a run of t5jax."""

    path: str
    step: int
    finetuning: LoRA
    base: str  # the run or directory that it began with
    model: T5Config
    factors: dict[str, tuple[np.ndarray, np.ndarray]]  # layer path -> a [in, r], b [r, out]


def open_lora_run(path: str, step: int | None = None) -> LoraRun:
    """Raises CheckpointError where there is no checkpoint, ConfigError for a run without LoRA."""
    stored = open_step(pathlib.Path(path) / "checkpoints", "params", step, log=print)
    config = from_record(stored.record.content, path)
    if not isinstance(config.finetuning, LoRA):
        raise ConfigError(
            f"--to peft: {path} was trained with {type(config.finetuning).__name__}, a PEFT "
            "directory holds LoRA's factors alone; convert it with --to huggingface"
        )
    params, factors = stored.arrays("params"), {}
    for path_of_a, array in params.items():
        name, _, factor = path_of_a.partition(f"{LORA_SUFFIX}/")
        if factor != "a":
            continue
        a, b = array.whole(), params[f"{name}{LORA_SUFFIX}/b"].whole()
        layers = layer_paths(name, params[name].shape)
        pairs = zip(a, b, strict=True) if stack_of(name) else [(a, b)]
        factors.update(zip(layers, pairs, strict=True))
    return LoraRun(
        path=path,
        step=stored.record.step,
        finetuning=config.finetuning,
        base=config.init.path or "",
        model=config.model,
        factors=factors,
    )


def write_peft(run: LoraRun, directory: pathlib.Path, base: str | None) -> int:
    """Writes a directory that `PeftModel.from_pretrained(model, DIRECTORY)` loads over the base;
    returns the number of tensors. Raises ConfigError for a matrix that transformers does not have.
    """
    tensors, modules = {}, []
    for layer_path, (a, b) in run.factors.items():
        if layer_path == "token_embedder":
            raise ConfigError(f"--to peft: {run.path} has factors of the token table, not written")
        try:
            module = HUGGINGFACE.name(layer_path).removesuffix(".weight")
        except KeyError as error:
            raise ConfigError(f"{layer_path}: transformers has no T5 with such a weight") from error
        modules.append(module)
        for factor, array in (("A", a), ("B", b)):
            name = f"{_PREFIX}{module}.lora_{factor}.weight"
            tensors[name] = np.ascontiguousarray(array.T, np.float32)
    with writing(directory / WEIGHTS):
        safetensors.numpy.save_file(tensors, directory / WEIGHTS, metadata={"format": "pt"})
    settings = {
        "alpha_pattern": {},
        "auto_mapping": None,
        "base_model_name_or_path": base or run.base,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "layers_pattern": None,
        "layers_to_transform": None,
        "lora_alpha": _whole(run.finetuning.alpha),
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": run.finetuning.rank,
        "rank_pattern": {},
        "revision": None,
        "target_modules": _target_modules(modules, run.model),
        "task_type": "SEQ_2_SEQ_LM",
        "use_dora": False,
        "use_rslora": False,
    }
    write_json_file(directory / CONFIG, settings)
    return len(tensors)


def check_written(run: LoraRun, directory: pathlib.Path) -> None:
    """Raises CheckpointError unless what was written is read as the run's factors, bit for bit."""
    read_settings(directory)
    found = _read_factors(directory, run.model)
    for layer_path, (a, b) in run.factors.items():
        pair = found[layer_path]
        if not (np.array_equal(pair["a"], a) and np.array_equal(pair["b"], b)):
            raise CheckpointError(f"{directory}: the factors of {layer_path} differ from the run's")


def _target_modules(modules: list[str], model: T5Config) -> list[str]:
    """`["q", "v"]` where that names the adapted modules and no others, else their whole names."""
    every = [
        HUGGINGFACE.name(layer_path).removesuffix(".weight")
        for path, leaf in parameter_names.parameters(model).items()
        for layer_path in layer_paths(path, leaf.shape)
    ]
    ends = sorted({module.rpartition(".")[2] for module in modules})
    named = {module for module in every if module.rpartition(".")[2] in ends}
    return ends if named == set(modules) else sorted(modules)


def _whole(alpha: float) -> int | float:
    return int(alpha) if alpha == int(alpha) else alpha
