"""`t5jax export WORKDIR TARGET`: decoding and scoring as StableHLO or SavedModel."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from t5jax.commands.target_folder import TargetFolder
from t5jax.data.atomic_files import write_json_file
from t5jax.data.vocabularies import save_vocabulary
from t5jax.errors import ConfigError
from t5jax.export import saved_model, stablehlo
from t5jax.export.exported_run import MANIFEST, ExportedRun
from t5jax.export.functions import ExportFunctions
from t5jax.export.verification import verification_inputs, verify_export
from t5jax.inference.loaded_run import LoadedRun, load_with_flags
from t5jax.version import __version__

CHECK = "check.npz"  # ids and the answers to them, to be compared wherever the export goes
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def export_command(
    workdir: str, target: str, flags: list[str], *, step: int | None, file_format: str,
    inputs_length: int | None, targets_length: int | None, platforms: Sequence[str],
) -> None:  # fmt: skip
    """Writes TARGET if its outputs equal those of the run."""
    for platform in platforms:
        if platform not in PLATFORMS:
            raise ConfigError(f"--platforms {platform}: choose of {', '.join(PLATFORMS)}")
    place = TargetFolder(target, last=MANIFEST, ending=f".unfinished-{os.getpid()}")
    loaded = load_with_flags(workdir, step, flags, (), command="export", batch_size=8)
    if jax.process_count() > 1:
        raise ConfigError("export needs all parameters in one process: start it alone")
    functions = _functions(loaded, inputs_length, targets_length)
    if file_format == "savedmodel":
        saved_model.check_tensorflow(functions.decoding.num_beams)
    try:
        manifest = _write(place.begin(), loaded, functions, file_format, platforms)
        place.complete()
    finally:
        place.remove()
    checked = manifest["checked"]
    print(
        f"{target}: step {loaded.step} of {workdir} as {file_format}, for {', '.join(platforms)}\n"
        f"checked with {' and '.join(map(str, checked['batch_sizes']))} rows against the run: "
        f"{checked['num_same_outputs']} of {checked['num_outputs']} outputs are the same, scores "
        f"of tokens differ by at most {checked['max_token_score_difference']:.1e} nats"
    )


def _functions(
    loaded: LoadedRun, inputs_length: int | None, targets_length: int | None
) -> ExportFunctions:
    config = loaded.config
    return ExportFunctions(
        model=config.model,
        decoding=config.decoding,
        num_ids=config.data.vocabulary.vocab_size,
        inputs_length=config.data.inputs_length if inputs_length is None else inputs_length,
        targets_length=config.decoding.max_length if targets_length is None else targets_length,
    )


def _write(
    folder: pathlib.Path,
    loaded: LoadedRun,
    functions: ExportFunctions,
    file_format: str,
    platforms: Sequence[str],
) -> dict[str, Any]:
    """Writes and checks an export; returns its manifest."""
    params = jax.device_get(loaded.params[0])
    stablehlo_format = file_format == "stablehlo"
    write = stablehlo.write_stablehlo if stablehlo_format else saved_model.write_saved_model
    write(folder, functions, params, platforms)
    save_vocabulary(loaded.config.data.vocabulary, folder)
    manifest = _manifest(loaded, functions, file_format, platforms)
    write_json_file(folder / MANIFEST, manifest)
    exported = ExportedRun(folder).functions
    manifest["checked"] = verify_export(exported, loaded.texts.generator, functions)
    inputs, targets = verification_inputs(functions)
    answers = exported["predict"](inputs)
    np.savez(
        folder / CHECK,
        inputs=inputs,
        targets=targets,
        tokens=answers["tokens"],
        scores=answers["scores"],
        target_scores=exported["score"](inputs, targets)["scores"],
    )
    write_json_file(folder / MANIFEST, manifest)
    return manifest


def _manifest(
    loaded: LoadedRun, functions: ExportFunctions, file_format: str, platforms: Sequence[str]
) -> dict[str, Any]:
    (member,) = loaded.members
    return {
        "format": file_format,
        "versions": {"t5jax": __version__, "jax": jax.__version__},
        "run": {"workdir": member.workdir, "step": member.step, "parameters": member.fingerprint},
        "platforms": list(platforms),
        "functions": list(functions.arguments),
        "inputs_length": functions.inputs_length,
        "targets_length": functions.targets_length,
        "dtype": functions.model.dtype,
        "special_ids": {
            name: getattr(functions.model, name)
            for name in ("pad_id", "eos_id", "decoder_start_id")
        },
        "decoding": functions.decoding.to_dict(),
        "end_of_inputs": loaded.texts.end_of_inputs.tolist(),
        "vocabulary": loaded.config.data.vocabulary.to_dict(),
    }
