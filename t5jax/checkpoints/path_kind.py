"""What a path is that should be a run of t5jax, by its files' names, and what to do with it."""

import json
import pathlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from t5jax.paths import started_elsewhere

CHECKPOINTS = "checkpoints"
HF_CONFIG, PEFT_CONFIG = "config.json", "adapter_config.json"
_WEIGHT_FILES = {
    ".safetensors": "a file of weights",
    ".bin": "a file of weights (PyTorch)",
    ".pt": "a file of weights (PyTorch)",
    ".pth": "a file of weights (PyTorch)",
    ".ckpt": "a file of weights (PyTorch)",
    ".h5": "a file of weights (Keras)",
    ".msgpack": "a file of weights (Flax)",
    ".npz": "a file of arrays (NumPy)",
    ".onnx": "an ONNX model",
    ".gguf": "a GGUF file (llama.cpp)",
}
_VOCABULARIES = {".model": "a SentencePiece model", ".spm": "a SentencePiece model"}
_RUN_FILES = ("config.txt", "metrics.jsonl")
_ORBAX_FILES = ("_CHECKPOINT_METADATA", "_METADATA", "manifest.ocdbt", "checkpoint_metadata")
_HF_FILES = (
    "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
    "pytorch_model.bin.index.json", "tf_model.h5", "flax_model.msgpack",
)  # fmt: skip
_STEP_OF_T5X = re.compile(r"checkpoint_\d+")


class PathKind(NamedTuple):
    """`is_a` continues a sentence that begins with the path; `advice` is what to do."""

    name: str  # huggingface, peft, t5x, mesh_tf, step, inside_run, folder_of_runs, …
    is_a: str
    advice: str

    def __str__(self) -> str:
        return f"{self.is_a}: {self.advice}"


def kind_of(path: str) -> PathKind | None:
    """What a local path is, if it is no run; None for a run with checkpoints, for a URL, and where
    nothing can be told."""
    if "://" in path:
        return None
    place = pathlib.Path(path)
    if (place / CHECKPOINTS).is_dir() and any(_steps(place / CHECKPOINTS)):
        return None
    if not place.exists():
        return _index_of_mesh_tf(place) or _absent(path)
    if place.is_file():
        return _kind_of_file(path, place)
    for test in _FOLDERS:
        found = test(path, place)
        if found is not None:
            return found
    return None


def explain(path: str, otherwise: str) -> str:
    """`PATH is a Hugging Face directory: …`, or `PATH holds no checkpoints: otherwise`."""
    kind = kind_of(path)
    return f"{path} holds no checkpoints: {otherwise}" if kind is None else f"{path} {kind}"


def _absent(path: str) -> PathKind:
    elsewhere = started_elsewhere(path)
    if elsewhere:
        there, _, advice = elsewhere.partition(": ")
        return PathKind("absent", f"is not here{there}", advice)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", path) and not pathlib.Path(path).parent.exists():
        advice = (
            "give the workdir of a run; a model of the Hugging Face hub is downloaded (hf download "
            f"{path} --local-dir DIR) and converted first (t5jax convert DIR RUN)"
        )
        return PathKind("absent", "holds no checkpoints, there is no such folder", advice)
    advice = f"give the workdir of a run (`t5jax train` prints it); seen from {pathlib.Path.cwd()}"
    return PathKind("absent", "holds no checkpoints, there is no such folder", advice)


# ---- files


def _kind_of_file(path: str, place: pathlib.Path) -> PathKind:
    folder = place.parent
    suffix = place.suffix.lower()
    if place.name == "checkpoint" and _is_msgpack(place):
        return _t5x(str(folder))
    if place.suffix == ".index" or _is_msgpack(place):
        return _mesh_tf(path.removesuffix(".index")) if suffix == ".index" else _t5x(path)
    if suffix == ".gguf":
        advice = (
            "t5jax does not read its quantised weights: convert the model that it was made of, "
            "t5jax convert HF_DIR RUN"
        )
        return PathKind("weights", f"is {_WEIGHT_FILES[suffix]}", advice)
    if suffix in _WEIGHT_FILES:
        of_folder = kind_of(str(folder))
        if of_folder is not None and of_folder.name in ("huggingface", "peft"):
            advice = f"its folder {of_folder}"
        else:
            advice = (
                "one file is no model: give the folder that has config.json and the tokenizer "
                "beside it, t5jax convert FOLDER RUN"
            )
        return PathKind("weights", f"is {_WEIGHT_FILES[suffix]}", advice)
    if suffix in _VOCABULARIES or place.name == "tokenizer.json":
        advice = "give the workdir of a run; a vocabulary belongs in data.vocabulary.path"
        return PathKind("vocabulary", f"is {_VOCABULARIES.get(suffix, 'a tokenizer')}", advice)
    if suffix == ".py":
        advice = "give the workdir of the run that was trained with it (t5jax train prints it)"
        return PathKind("config", "is a config file", advice)
    if place.name in _RUN_FILES:
        return PathKind("inside_run", "is a file of a run", f"give the folder, {folder}")
    return PathKind("file", "is a file", "give the workdir of a run, which is a folder")


# ---- folders


def _inside_run(path: str, place: pathlib.Path) -> PathKind | None:
    """The folder of checkpoints, that of a step, or one of its items."""
    whole = place.absolute()
    for folder in (whole, *list(whole.parents)[:3]):
        if folder.name != CHECKPOINTS:
            continue
        run = folder.parent if place.is_absolute() else _as_written(path, whole, folder.parent)
        if whole == folder:
            if not any(_steps(folder)):
                return None
            return PathKind("inside_run", "is the folder of a run's checkpoints", f"give {run}")
        step = whole.relative_to(folder).parts[0]
        if step.isdecimal():
            advice = f"give {run} and the step, --step {step} (init.step = {step})"
            what = "is one step of a run" if whole.parent == folder else "is a part of a step"
            return PathKind("step", what, advice)
    return None


def _as_written(path: str, whole: pathlib.Path, run: pathlib.Path) -> pathlib.Path:
    """The run's folder, relative as the path was given where that is possible."""
    ups = len(whole.parts) - len(run.parts)
    given = pathlib.Path(path)
    return run if len(given.parts) <= ups else given.parents[ups - 1]


def _peft(path: str, place: pathlib.Path) -> PathKind | None:
    if not (place / PEFT_CONFIG).is_file():
        return None
    settings = _json(place / PEFT_CONFIG)
    kind = settings.get("peft_type", "adapter")
    base = settings.get("base_model_name_or_path") or "its base model"
    advice = (
        f"it holds the difference to {base} alone: t5jax convert {path} RUN --base BASE, where "
        f"BASE is the Hugging Face directory of {base} or a run made of it, then give RUN"
    )
    return PathKind("peft", f"is a PEFT directory ({kind})", advice)


def _huggingface(path: str, place: pathlib.Path) -> PathKind | None:
    names = [name for name in _HF_FILES if (place / name).is_file()]
    settings = _json(place / HF_CONFIG)
    if not names and "model_type" not in settings:
        return None
    kind = settings.get("model_type", "no config.json")
    architecture = (settings.get("architectures") or [kind])[0]
    advice = f"convert it first, t5jax convert {path} RUN, then give RUN"
    return PathKind("huggingface", f"is a Hugging Face directory ({architecture})", advice)


def _foreign_checkpoint(path: str, place: pathlib.Path) -> PathKind | None:
    index = place / "checkpoint"
    if (index.is_file() and _is_msgpack(index)) or any(
        _STEP_OF_T5X.fullmatch(child.name) and child.is_dir() for child in place.iterdir()
    ):
        return _t5x(path)
    if (place / "saved_model.pb").is_file():
        advice = "it was exported; give the workdir of the run that it was made of"
        return PathKind("saved_model", "is a SavedModel of TensorFlow", advice)
    prefixes = sorted(child.name.removesuffix(".index") for child in place.glob("*.index"))
    return _mesh_tf(f"{path.rstrip('/')}/{prefixes[-1]}") if prefixes else None


def _orbax(path: str, place: pathlib.Path) -> PathKind | None:
    if not any((place / name).exists() for name in _ORBAX_FILES):
        return None
    advice = (
        "t5jax reads those of its own runs, which lie in RUN/checkpoints/STEP: give RUN; from "
        "another program, save a T5X checkpoint or a Hugging Face directory and convert that"
    )
    return PathKind("orbax", "is an Orbax checkpoint, but no run of t5jax", advice)


def _unsaved_run(path: str, place: pathlib.Path) -> PathKind | None:
    if not any((place / name).is_file() for name in _RUN_FILES):
        return None
    advice = (
        "it saves the first after checkpoints.save_every_steps steps; train on (t5jax train), or "
        "give another run"
    )
    return PathKind("unsaved_run", "is a run that holds no checkpoints yet", advice)


def _store(path: str, place: pathlib.Path) -> PathKind | None:
    stores = [place / "META.json", *place.glob("*/*/META.json"), *place.glob("*/META.json")]
    if not any(store.is_file() for store in stores):
        return None
    advice = "give the workdir of a run; a store is named in data.cache_dir"
    return PathKind("store", "is a tokenised store", advice)


def _folder_of(path: str, place: pathlib.Path) -> PathKind | None:
    """A folder one too high: of runs, or of directories of another kind."""
    children = sorted(child for child in place.iterdir() if child.is_dir())
    runs = [child.name for child in children if any(_steps(child / CHECKPOINTS))]
    if runs:
        return PathKind("folder_of_runs", "is a folder of runs", f"give one: {_some(path, runs)}")
    for child in children[:50]:
        for test in (_peft, _huggingface):
            found = test(str(child), child)
            if found is not None:
                what = f"holds no checkpoints, but {child.name}, which {found.is_a}"
                return PathKind(f"folder_of_{found.name}", what, found.advice)
    return None


def _empty(path: str, place: pathlib.Path) -> PathKind | None:
    if any(place.iterdir()):
        return None
    advice = "give the workdir of a run (`t5jax train` prints it)"
    return PathKind("empty", "is an empty folder, it holds no checkpoints", advice)


_FOLDERS: tuple[Callable[[str, pathlib.Path], PathKind | None], ...] = (
    _empty,
    _inside_run,
    _peft,
    _huggingface,
    _foreign_checkpoint,
    _orbax,
    _unsaved_run,
    _store,
    _folder_of,
)


def _t5x(path: str) -> PathKind:
    advice = f"convert it first, t5jax convert {path} RUN --vocabulary FILE, then give RUN"
    return PathKind("t5x", "is a T5X checkpoint", advice)


def _mesh_tf(prefix: str) -> PathKind:
    advice = f"convert it first, t5jax convert {prefix} RUN --vocabulary FILE, then give RUN"
    return PathKind("mesh_tf", "is a Mesh TensorFlow checkpoint", advice)


def _index_of_mesh_tf(place: pathlib.Path) -> PathKind | None:
    """The prefix of a checkpoint's files, which is no file itself."""
    return _mesh_tf(str(place)) if place.with_name(f"{place.name}.index").is_file() else None


def _is_msgpack(file: pathlib.Path) -> bool:
    """Whether the file begins with a msgpack map, as T5X's do."""
    with open(file, "rb") as opened:
        first = opened.read(1)
    return bool(first) and (0x80 <= first[0] <= 0x8F or first[0] in (0xDE, 0xDF))


def _steps(directory: pathlib.Path) -> list[str]:
    if not directory.is_dir():
        return []
    return [child.name for child in directory.iterdir() if child.name.isdecimal()]


def _some(path: str, names: list[str]) -> str:
    shown = ", ".join(f"{path.rstrip('/')}/{name}" for name in names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown


def _json(file: pathlib.Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
