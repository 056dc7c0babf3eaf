"""`t5jax evaluate WORKDIR`: loss and perplexity of a checkpoint on a split."""

import json

import jax

from t5jax.acts.saved_run import open_run
from t5jax.assembly import open_evaluation_loaders
from t5jax.data.opening import open_in_order
from t5jax.errors import ConfigError, DataError
from t5jax.evaluation.loss import (
    baselines,
    evaluate_loss,
    loss_metrics,
    rows_to_read,
    unigram_entropy,
)


def run(
    workdir: str, flags: list[str], *, split: str, step: int | None, num_rows: int | None,
    with_baselines: bool, as_json: bool,
) -> None:  # fmt: skip
    if num_rows is not None and num_rows < 1:
        raise ConfigError(f"--num-rows {num_rows}: at least 1; without it, the whole split")
    saved = open_run(workdir, step, flags, act="evaluate")
    found: dict[str, dict[str, float]] = {}
    for name, loader in open_evaluation_loaders(saved.config, split, num_rows).items():
        sums = evaluate_loss(saved.program, saved.params, loader, num_rows)
        found[name] = loss_metrics(sums) | {
            "num_rows": rows_to_read(loader, num_rows),
            "unigram_entropy": unigram_entropy(loader, num_rows),
        }
        if with_baselines:
            train = open_in_order(
                saved.config.data,
                "train",
                batch_size=loader.batch_size,
                architecture=saved.config.model.architecture,
            )
            models = baselines(train[name], loader, num_rows)
            found[name] |= {"unigram_model": models.unigram, "bigram_model": models.bigram}
    if not found:
        raise DataError(
            f"no task of {saved.config.data.mixture} has a split {split!r} in "
            f"{saved.config.data.cache_dir}; make it with: t5jax cache CONFIG"
        )
    if jax.process_index() != 0:
        return
    for name, metrics in found.items():
        if as_json:
            print(json.dumps({"step": saved.step, "split": split, "task": name, **metrics}))
            continue
        print(f"step {saved.step} of {workdir} on {split} of {name}")
        for metric, value in metrics.items():
            print(f"  {metric:16s} {value:12,.4f}  {_NOTES.get(metric, '')}".rstrip())


_NOTES = {
    "loss": "nats per target token",
    "accuracy": "share of target tokens, EOS included, that are the likeliest given those before",
    "text_loss": "nats per text token (sentinels and EOS left out)",
    "unigram_entropy": "nats: entropy of these rows' text tokens, by their own frequencies",
    "unigram_model": "nats: frequencies of the training split",
    "bigram_model": "nats: given the token before, from the training split",
}
