"""Names of logged metrics, `group/name`: the same in metrics.jsonl, TensorBoard and wandb.

Groups: `train` (of one step), `task/TASK` (of one task's rows in that step), `throughput`, `data`
(of stores in a bucket), `mixture`, `norm` (of tensors), `goodput` (of the run so far), and
`eval/SPLIT` or `eval/SPLIT/TASK` (of an evaluation). docs/metrics.md lists every key with its
unit. Files of version 0.1 had other names; `with_current_keys` renames them as they are read.
"""

from typing import Any

TRAIN_LOSS = "train/loss"
TRAIN_TEXT_LOSS = "train/text_loss"
LEARNING_RATE = "train/learning_rate"
THROUGHPUT = (
    "throughput/tokens_per_second_per_device",
    "throughput/sequences_per_second_per_device",
    "throughput/seconds_per_step",
    "throughput/mfu",
)

_RECORD = frozenset({"kind", "step", "time", "split"})  # of every record: no metrics
_THROUGHPUT_0_1 = {key.removeprefix("throughput/") for key in THROUGHPUT}
_MIXTURE_0_1 = "share of rows of "


def eval_key(split: str, name: str) -> str:
    """`split` is "validation", or "validation/TASK"."""
    return f"eval/{split}/{name}"


def with_current_keys(record: dict[str, Any]) -> dict[str, Any]:
    """A record of metrics.jsonl with the names of version 0.1 replaced by today's."""
    return {_current_key(record, key): value for key, value in record.items()}


def _current_key(record: dict[str, Any], key: str) -> str:
    if key in _RECORD:
        return key
    if record["kind"] == "train" and "/" not in key:
        return f"throughput/{key}" if key in _THROUGHPUT_0_1 else f"train/{key}"
    if record["kind"] == "evaluation" and not key.startswith("eval/"):
        return eval_key(record["split"], key)
    return key.replace(_MIXTURE_0_1, "mixture/weight/", 1) if key.startswith(_MIXTURE_0_1) else key
