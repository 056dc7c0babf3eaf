"""`t5jax inspect data CONFIG`: what the model sees at a step, decoded, with masks and origins.

Steps are counted from 1, as in the log of training: step 1 is the first that a run makes.
"""

import numpy as np

from t5jax.config import load
from t5jax.data.pipeline.loader import Loader
from t5jax.data.records import counted
from t5jax.errors import ConfigError, DataError
from t5jax.run.build import TrainLoader, open_evaluation_loaders, open_train_loader
from t5jax.training.losses import predicting_side


def run(config_file: str, flags: list[str], *, split: str, step: int, num_rows: int) -> None:
    for name, value, least in (("--step", step, 1), ("--rows", num_rows, 1)):
        if value < least:
            raise ConfigError(f"{name} {value}: at least {least}")
    config = load(config_file, flags)
    loaders: dict[str, TrainLoader] = {"": open_train_loader(config)} if split == "train" else {}
    loaders = loaders or dict(open_evaluation_loaders(config, split))
    if not loaders:
        raise DataError(
            f"no task of {config.data.mixture} has a split {split!r}; t5jax cache CONFIG"
        )
    for loader in loaders.values():
        if not isinstance(loader, Loader):
            raise ConfigError(
                "data.cache_dir is None: rows of a step can be asked for only where there is a "
                "store; set data.cache_dir and run t5jax cache"
            )
        _print_step(loader, step, num_rows)


def _print_step(loader: Loader, step: int, num_rows: int) -> None:
    for component in loader.components:
        directory = component.store.directory if component.store else "in memory"
        print(
            f"{component.name}: {directory}, {counted(component.rows.num_rows, 'row')} an epoch of "
            f"{component.rows.examples_per_row:.2f} examples"
        )
    if loader.mixing is not None and len(loader.components) > 1:
        for name, share in loader.mixing.shares((step - 1) * loader.batch_size).items():
            print(f"  {share:8.3%} of the rows at step {step}  {name}")
    print(
        f"{counted(loader.num_rows, 'row')}, {counted(loader.num_steps, 'step')} of "
        f"{counted(loader.batch_size, 'row')}"
    )
    rows = loader.rows(step - 1)
    for name, x in rows.items():
        print(f"  {name:24s} {x.dtype} {x.shape}, {np.mean(x != 0):6.1%} not 0")
    for row in range(min(num_rows, loader.batch_size)):
        _print_row(loader, {name: x[row] for name, x in rows.items()}, step, row)


def _print_row(loader: Loader, row: dict[str, np.ndarray], step: int, index: int) -> None:
    print(f"\nstep {step}, row {index}")
    stored = all(component.store for component in loader.components)
    for origin in loader.origins(step - 1, index) if stored else ():
        place = origin.place
        if origin.feature == "text":
            where = (
                f"documents {place.first_document} to {place.last_document}, "
                f"token {place.token_offset:,} on"
            )
        elif origin.feature == "inputs":
            where = f"example {place.first_document}"
        else:
            continue
        print(f"  from    {origin.task}, {place.source}: {where}")
    side = predicting_side(row)
    names = {"inputs": "encoder_input_tokens", "targets": f"{side}_target_tokens"}
    names = {name: key for name, key in names.items() if key in row}
    for name, key in names.items():
        ids, segments = row[key], row.get(f"{key.split('_')[0]}_segment_ids")
        for segment in [None] if segments is None else range(1, int(segments.max()) + 1):
            shown = ids[ids != 0] if segment is None else ids[segments == segment]
            text = loader.vocabulary.decode(shown).replace("\n", "\\n")
            print(f"  {name:7s} {'' if segment is None else f'{segment}: '}{text}")
    legend = "   ('.' text, 'S' sentinel, 'E' EOS, '_' padding; x12: 12 of them)"
    for name, key in names.items():
        print(f"  {name:7s} {_kinds(loader, row[key])}{legend if name == 'targets' else ''}")
    print(f"  weights {_marks(row[f'{side}_loss_weights'])}")
    if "decoder_causal_attention" in row:
        print(f"  prefix  {_marks(row['decoder_causal_attention'])}")


def _marks(flags: np.ndarray) -> str:
    return _runs("".join("1" if flag else "0" for flag in flags))


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
