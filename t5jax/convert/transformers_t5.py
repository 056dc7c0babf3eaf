"""A model as Hugging Face transformers loads it: reference logits and greedy outputs.

Its loader must find every weight.
"""

import importlib.util
import os
from collections.abc import Sequence
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


class TransformersT5:
    """The model of a directory, float32.

    Raises CheckpointError when the loader misses a weight or finds an unexpected one.
    """

    def __init__(self, directory: str, model: T5Config):
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        import torch
        import transformers

        self.version = f"transformers {transformers.__version__}"
        with _silent(transformers):
            loaded: Any = transformers.AutoModelForSeq2SeqLM.from_pretrained(
                directory, dtype=torch.float32, output_loading_info=True, local_files_only=True
            )
        self._model, info = loaded
        problems = {kind: sorted(map(str, keys)) for kind, keys in info.items() if keys}
        if problems:
            raise CheckpointError(f"{directory}: {self.version} loads it with {problems}")
        if model.per_layer_relative_bias:
            # transformers 5 sets this to true for every umT5 and scales its logits by it.
            self._model.config.tie_word_embeddings = model.tied_embeddings
        self._model.eval()
        self._start_id = model.decoder_start_id

    def logits(self, probe: ProbeInputs) -> np.ndarray:
        """float32 [R, V] at the probe's positions."""
        import torch

        tensor = lambda array: torch.from_numpy(array.astype(np.int64))
        with torch.no_grad():
            found = self._model(
                input_ids=tensor(probe.encoder_tokens),
                attention_mask=tensor(probe.encoder_mask),
                decoder_input_ids=tensor(probe.decoder_inputs),
                use_cache=False,
            ).logits
            picked = found[tensor(probe.rows), tensor(probe.positions)]
        return picked.float().numpy()

    def greedy(self, inputs: Sequence[Sequence[int]], num_ids: int, length: int) -> list[list[int]]:
        """What `generate` makes of each input with the directory's own start and end, greedily,
        choosing among the first `num_ids` ids; the end is included."""
        import torch
        import transformers

        own = self._model.generation_config
        spare = list(range(num_ids, self._model.config.vocab_size))
        bos = own.bos_token_id if own.bos_token_id is not None else self._start_id
        start = own.decoder_start_token_id if own.decoder_start_token_id is not None else bos
        config = transformers.GenerationConfig(
            decoder_start_token_id=start,
            eos_token_id=own.eos_token_id,
            pad_token_id=own.pad_token_id,
            max_new_tokens=length,
            suppress_tokens=spare or None,
        )
        outputs = []
        with torch.no_grad(), _silent(transformers):
            # Of all else that the directory sets, such as beams, nothing is left.
            self._model.generation_config = config
            for ids in inputs:
                row = torch.tensor([list(ids)])
                found = self._model.generate(row, attention_mask=torch.ones_like(row))
                outputs.append(found[0, 1:].tolist())
        self._model.generation_config = own
        return outputs


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
