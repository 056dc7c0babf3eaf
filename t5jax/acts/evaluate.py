"""`t5jax evaluate WORKDIR`: loss and perplexity of a checkpoint on a split."""

import json

import jax

from t5jax.acts.saved_run import open_run
from t5jax.assembly import open_loader
from t5jax.errors import ConfigError
from t5jax.evaluation.loss import baselines, evaluate_loss, unigram_entropy


def run(
    workdir: str, flags: list[str], *, split: str, step: int | None, num_rows: int | None,
    with_baselines: bool, as_json: bool,
) -> None:  # fmt: skip
    if num_rows is not None and num_rows < 1:
        raise ConfigError(f"--num-rows {num_rows}: at least 1; without it, the whole split")
    saved = open_run(workdir, step, flags, act="evaluate")
    loader = open_loader(saved.config, split, shuffle=False)
    metrics = evaluate_loss(saved.program, saved.params, loader, num_rows)
    metrics["unigram_entropy"] = unigram_entropy(loader, num_rows)
    if with_baselines:
        train = open_loader(saved.config, "train", shuffle=False)
        found = baselines(train, loader, num_rows)
        metrics |= {"unigram_model": found.unigram, "bigram_model": found.bigram}
    if jax.process_index() != 0:
        return
    if as_json:
        print(json.dumps({"step": saved.step, "split": split, **metrics}))
        return
    print(f"step {saved.step} of {workdir} on {split} of {saved.config.data.mixture}")
    for name, value in metrics.items():
        note = _NOTES.get(name, "")
        print(f"  {name:16s} {value:12,.4f}  {note}".rstrip())


_NOTES = {
    "loss": "nats per target token",
    "text_loss": "nats per text token (sentinels and EOS left out)",
    "unigram_entropy": "nats: entropy of these rows' text tokens, by their own frequencies",
    "unigram_model": "nats: frequencies of the training split",
    "bigram_model": "nats: given the token before, from the training split",
}
