"""How much memory `t5jax convert` takes, both ways, beside what it converts.

    python benchmarks/conversion_memory.py [--sizes t5_small t5_1_1_base ...] [--folder /tmp]

A Hugging Face directory of random weights is written a block at a time, converted into a run and
back, each in a process of its own whose peak is taken. What Python, JAX and their libraries hold
anyway is the peak of converting a model of nothing; beyond it come blocks and, for the comparison
of logits, one matrix at a time (`--reference numpy`: transformers would load the whole model).
"""

import argparse
import dataclasses
import json
import os
import pathlib
import shutil
import sys
import tempfile
import time

import numpy as np

from t5jax.checkpoints import BlockArray
from t5jax.convert import huggingface_config, parameter_names, safetensors_files
from t5jax.model.config import SIZES, T5Config
from t5jax.model.layer_stack import layer_paths, layer_shape

NOTHING = T5Config(
    vocab_size=384, emb_dim=16, num_heads=2, head_dim=8, mlp_dim=32, num_encoder_layers=1,
    num_decoder_layers=1,
)  # fmt: skip


class Random(BlockArray):
    """Numbers that are made when they are read, small enough that no activation overflows."""

    def __init__(self, shape: tuple[int, ...]):
        self.shape, self.dtype = shape, np.dtype(np.float32)
        self.cut_axes = tuple(range(len(shape)))

    def read(self, region):
        shape = [part.stop - part.start for part in region]
        rng = np.random.default_rng([part.start for part in region])
        return rng.standard_normal(shape, np.float32) * np.float32(self.shape[-1] ** -0.5)


@dataclasses.dataclass(frozen=True)
class Measured:
    """Bytes and seconds of one conversion."""

    parameters: int
    largest: int
    peak: int
    seconds: float


def write_model(model: T5Config, folder: pathlib.Path) -> tuple[int, int]:
    """Fills the folder; (bytes of all parameters, of the largest one as t5jax keeps it)."""
    folder.mkdir()
    tensors, sizes = {}, []
    for path, leaf in parameter_names.parameters(model).items():
        sizes.append(4 * leaf.size)
        for place in layer_paths(path, leaf.shape):
            shape = layer_shape(path, leaf.shape)
            turned = shape if place == "token_embedder" else shape[::-1]
            tensors[parameter_names.HUGGINGFACE.name(place)] = Random(turned)
    safetensors_files.write_directory(folder, tensors, 10**10)
    config = huggingface_config.make_config(model, "float32")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}')
    return sum(sizes), max(sizes)


def convert(source: pathlib.Path, target: pathlib.Path) -> tuple[int, float]:
    """(peak resident bytes, seconds) of a process that converts."""
    words = ["-m", "t5jax", "convert", str(source), str(target), "--reference", "numpy"]
    begun = time.monotonic()
    out = os.open(os.devnull, os.O_WRONLY)
    number = os.posix_spawn(
        sys.executable,
        [sys.executable, *words],
        {**os.environ, "JAX_PLATFORMS": "cpu"},
        file_actions=[(os.POSIX_SPAWN_DUP2, out, 1)],
    )
    _, status, usage = os.wait4(number, 0)
    os.close(out)
    if status:
        raise RuntimeError(f"t5jax {' '.join(words[2:])} ended with status {status}")
    return usage.ru_maxrss * 1024, time.monotonic() - begun


def measure(model: T5Config, folder: pathlib.Path) -> dict[str, Measured]:
    """Of the conversion into a run and of that back; `folder` is empty again after it."""
    try:
        parameters, largest = write_model(model, folder / "theirs")
        into = convert(folder / "theirs", folder / "run")
        shutil.rmtree(folder / "theirs")
        back = convert(folder / "run", folder / "ours")
    finally:
        shutil.rmtree(folder)
        folder.mkdir()
    return {
        "into a run": Measured(parameters, largest, *into),
        "to Hugging Face": Measured(parameters, largest, *back),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["t5_small", "t5_1_1_base", "mt5_small"])
    parser.add_argument("--folder", help="with room for the largest model three times")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as temporary:
        folder = pathlib.Path(temporary)
        base = {way: found.peak for way, found in measure(NOTHING, folder).items()}
        columns = "{:12s} {:16s}" + " {:>9s}" * 6
        heads = "MB of it", "largest", "peak", "beneath", "x largest", "seconds"
        print(columns.format("model", "way", *heads))
        for size in chosen.sizes:
            for way, found in measure(SIZES[size](), folder).items():
                megabytes = (found.parameters, found.largest, found.peak, base[way])
                numbers = [f"{x / 1e6:.0f}" for x in megabytes]
                numbers += [f"{(found.peak - base[way]) / found.largest:.2f}"]
                numbers += [f"{found.seconds:.0f}"]
                print(columns.format(size, way, *numbers), flush=True)


if __name__ == "__main__":
    main()
