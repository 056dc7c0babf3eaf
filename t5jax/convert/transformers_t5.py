"""Reference logits of Hugging Face transformers, whose loader must find every weight."""

import importlib.util
import os
from typing import Any

import numpy as np

from t5jax.convert.probe_inputs import ProbeInputs
from t5jax.errors import CheckpointError
from t5jax.model.config import T5Config


def is_installed() -> bool:
    return all(importlib.util.find_spec(name) for name in ("transformers", "torch"))


def fits_into_memory(weights_nbytes: int) -> bool:
    """Whether the model, which transformers loads whole, takes less than half of free memory."""
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        with open("/proc/meminfo") as lines:
            found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
        free = int(found[0]) * 1024 if found else free
    except (OSError, ValueError):
        return True
    return weights_nbytes < free / 2


def transformers_logits(
    directory: str, model: T5Config, probe: ProbeInputs
) -> tuple[np.ndarray, str]:
    """(float32 [R, V] at the probe's positions, the version that computed them).

    Raises CheckpointError when the loader misses a weight or finds an unexpected one.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    import transformers

    with _silent(transformers):
        loaded: Any = transformers.AutoModelForSeq2SeqLM.from_pretrained(
            directory, dtype=torch.float32, output_loading_info=True, local_files_only=True
        )
    theirs, info = loaded
    problems = {kind: sorted(map(str, keys)) for kind, keys in info.items() if keys}
    if problems:
        raise CheckpointError(
            f"{directory}: transformers {transformers.__version__} loads it with {problems}"
        )
    if model.per_layer_relative_bias:
        # transformers 5 sets this to true for every umT5 and scales its logits by it.
        theirs.config.tie_word_embeddings = model.tied_embeddings
    tensor = lambda array: torch.from_numpy(array.astype(np.int64))
    with torch.no_grad():
        found = theirs.eval()(
            input_ids=tensor(probe.encoder_tokens),
            attention_mask=tensor(probe.encoder_tokens > 0),
            decoder_input_ids=tensor(probe.decoder_inputs),
            use_cache=False,
        ).logits
        picked = found[tensor(probe.rows), tensor(probe.positions)]
    return picked.float().numpy(), f"transformers {transformers.__version__}"


class _silent:
    """Silences warnings and progress bars: transformers warns of every untied T5 1.1."""

    def __init__(self, transformers):
        self._logging = transformers.utils.logging

    def __enter__(self):
        self._before = self._logging.get_verbosity(), self._logging.is_progress_bar_enabled()
        self._logging.set_verbosity_error()
        self._logging.disable_progress_bar()

    def __exit__(self, *_):
        verbosity, bars = self._before
        self._logging.set_verbosity(verbosity)
        if bars:
            self._logging.enable_progress_bar()
