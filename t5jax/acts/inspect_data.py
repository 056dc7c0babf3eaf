"""`t5jax inspect data CONFIG`: what the model sees at a step, decoded, with masks and origins."""

import numpy as np

from t5jax.assembly import open_loader
from t5jax.config import load
from t5jax.data.loader import Loader
from t5jax.errors import ConfigError


def run(config_file: str, flags: list[str], *, split: str, step: int, num_rows: int) -> None:
    for name, value, least in (("--step", step, 0), ("--rows", num_rows, 1)):
        if value < least:
            raise ConfigError(f"{name} {value}: at least {least}")
    loader = open_loader(load(config_file, flags), split, shuffle=split == "train")
    print(
        f"{loader.cache.directory}: {loader.cache.num_tokens:,} tokens, {loader.num_rows:,} rows "
        f"an epoch, {loader.num_steps:,} steps of {loader.batch_size} rows"
    )
    rows = loader.rows(step)
    for name, x in rows.items():
        print(f"  {name:24s} {x.dtype} {x.shape}, {np.mean(x != 0):6.1%} not 0")
    for row in range(min(num_rows, loader.batch_size)):
        _print_row(loader, {name: x[row] for name, x in rows.items()}, step, row)


def _print_row(loader: Loader, row: dict[str, np.ndarray], step: int, index: int) -> None:
    print(f"\nstep {step}, row {index}")
    for place in loader.documents_of(step, index):
        documents = f"documents {place.first_document} to {place.last_document}"
        print(f"  from    {place.source}: {documents}, token {place.token_offset:,} on")
    inputs, targets = row["encoder_input_tokens"], row["decoder_target_tokens"]
    for name, ids in (("inputs", inputs), ("targets", targets)):
        text = loader.vocabulary.decode(ids[ids != 0]).replace("\n", "\\n")
        print(f"  {name:7s} {text}")
    print(f"  inputs  {_kinds(loader, inputs)}")
    print(f"  targets {_kinds(loader, targets)}   ('.' text, 'S' sentinel, 'E' EOS, '_' padding)")
    print(f"  weights {_runs(''.join('1' if w else '0' for w in row['decoder_loss_weights']))}")


def _kinds(loader: Loader, ids: np.ndarray) -> str:
    text = loader.vocabulary.is_text(ids)
    kinds = np.where(text, ".", np.where(ids == 0, "_", np.where(ids == 1, "E", "S")))
    return _runs("".join(kinds.tolist()))


def _runs(marks: str) -> str:
    """Runs of the same mark, the long ones as a mark and a count."""
    pieces, start = [], 0
    for i in range(1, len(marks) + 1):
        if i == len(marks) or marks[i] != marks[start]:
            length = i - start
            pieces.append(marks[start] * length if length < 4 else f"{marks[start]}x{length} ")
            start = i
    return "".join(pieces)
