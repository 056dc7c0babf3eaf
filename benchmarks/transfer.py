"""Transfer: the same fine-tuning from a pretrained checkpoint and from scratch, task by task.

    python benchmarks/transfer.py OUT --pretrained RUN --vocabulary words.model --data DATA

Every line of the table is `t5jax train configs/small_finetuning*.py` with the flags that are
printed, evaluated by the run itself on the validation split. What is finished is not run again.
Writes OUT/transfer.md (values, intervals, paired differences) and OUT/transfer.png (curves) of
everything that is finished in OUT.
"""

import argparse
import json
import math
import os
import pathlib
import subprocess
import sys
from typing import NamedTuple

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from t5jax.data import registry
from t5jax.evaluation.examples import TaskExamples, load_task_examples
from t5jax.evaluation.predictions import read_predictions
from t5jax.evaluation.report import EvaluationReport, read_evaluation_report
from t5jax.metrics.confidence import paired_difference
from t5jax.run.restore import read_saved_config

ROOT = pathlib.Path(__file__).parents[1]


class Task(NamedTuple):
    """A task of the table, how long its texts are, and how much of it two cores have time for."""

    name: str
    inputs_length: int = 128
    targets_length: int = 8
    steps: int = 240
    num_examples: int | None = None  # of the validation split, the first ones; None: all


TASKS = {
    "SST-2": Task("glue_sst2_v002", steps=400),
    "CoLA": Task("glue_cola_v002"),
    "MRPC": Task("glue_mrpc_v002"),
    "STS-B": Task("glue_stsb_v002"),
    "BoolQ": Task("super_glue_boolq_v102", 256, steps=120),
    "SQuAD": Task("squad_v010_allanswers", 256, 32, steps=200, num_examples=1000),
    "Multi30k En-De": Task("multi30k_ende", 64, 64, steps=400),
}
START, SCRATCH = "pretrained", "from scratch"
WAYS = {  # config, flags
    START: ("small_finetuning", []),
    SCRATCH: ("small_finetuning", ["--init.path", "None"]),
    "adapters": ("small_finetuning_adapters", []),
    "gradual unfreezing": ("small_finetuning_unfreezing", []),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--pretrained", required=True)
    parser.add_argument("--vocabulary", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    options = parser.parse_args()
    for title in options.tasks:
        for way in options.ways:
            run(options, title, way)
    (options.out / "transfer.md").write_text(table(options.out))
    print((options.out / "transfer.md").read_text())
    draw(options.out)


def workdir(out: pathlib.Path, title: str, way: str) -> pathlib.Path:
    return out / f"{TASKS[title].name}_{way.replace(' ', '_')}"


def run(options: argparse.Namespace, title: str, way: str) -> None:
    """Trains one line of the table, or goes on with it."""
    folder, task, (config, flags) = workdir(options.out, title, way), TASKS[title], WAYS[way]
    if finished(options.out, title, way) is not None:
        return
    settings = {
        "--workdir": folder,
        "--data.mixture": task.name,
        "--data.datasets-dir": options.data,
        "--data.vocabulary.path": options.vocabulary,
        "--data.cache-dir": options.out / "data",
        "--data.inputs-length": task.inputs_length,
        "--data.targets-length": task.targets_length,
        "--decoding.max-length": task.targets_length,
        "--init.path": options.pretrained,
        "--train.num-train-steps": task.steps,
        "--evaluation.every-steps": task.steps // 4,
        "--evaluation.num-examples": task.num_examples,
        "--checkpoints.save-every-steps": task.steps,
    }
    words = [str(word) for pair in settings.items() for word in pair] + flags
    for act in ("cache", "train"):
        command = ["-m", "t5jax", act, str(ROOT / "configs" / f"{config}.py"), *words]
        print("t5jax", *command[2:], flush=True)
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, *command], check=True, env=environment)


def finished(out: pathlib.Path, title: str, way: str) -> EvaluationReport | None:
    """What the evaluation after the last step of a run has found."""
    return read_evaluation_report(evaluation_folder(out, title, way))


def evaluation_folder(out: pathlib.Path, title: str, way: str) -> pathlib.Path:
    """The folder of the evaluation after the last step."""
    return workdir(out, title, way) / "evaluations" / "validation" / str(TASKS[title].steps)


def table(out: pathlib.Path) -> str:
    """Markdown: a line for every metric and way, with its difference from the run from scratch."""
    lines = ["| task | metric | examples | way | value | interval | less that from scratch |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for title in TASKS:
        for way in WAYS:
            report = finished(out, title, way)
            if report is None:
                continue
            differences = difference(out, title, way)
            for line in report.lines:
                shown = differences.get(line.metric, "–")
                lines.append(
                    f"| {title} | {line.metric} | {line.examples} | {way} | {line.value:.2f} | "
                    f"[{line.low:.2f}, {line.high:.2f}] | {shown} |"
                )
    return "\n".join(lines) + "\n"


def difference(out: pathlib.Path, title: str, way: str) -> dict[str, str]:
    """By metric, how much better than from scratch on the same examples, with its interval."""
    if way == SCRATCH or finished(out, title, SCRATCH) is None:
        return {}
    task = examples(out, title)
    outputs = [predictions(out, title, one, task) for one in (way, SCRATCH)]
    targets = task.postprocessed_targets()
    shown = {}
    for metric in task.metrics:
        for name, estimate in paired_difference(metric, targets, *outputs).items():
            shown[name] = f"{estimate.value:+.2f} [{estimate.low:+.2f}, {estimate.high:+.2f}]"
    return shown


def examples(out: pathlib.Path, title: str) -> TaskExamples:
    data = read_saved_config(
        str(workdir(out, title, SCRATCH)), None, lambda config: config, command="transfer"
    )[0].data
    task = registry.find_task(TASKS[title].name, data)
    found = load_task_examples(task, data, "validation", TASKS[title].num_examples)
    assert found is not None
    return found


def predictions(out: pathlib.Path, title: str, way: str, task: TaskExamples) -> list:
    file = evaluation_folder(out, title, way) / f"{task.task}.jsonl"
    texts = [prediction.text for prediction in read_predictions(file, task)]
    return task.postprocessed_predictions(texts)


def draw(out: pathlib.Path) -> None:
    """The first metric of every task over the steps, a line for every way."""
    from matplotlib.figure import Figure

    titles = [title for title in TASKS if any(finished(out, title, way) for way in WAYS)]
    rows = math.ceil(len(titles) / 4)
    figure = Figure(figsize=(12, 2.8 * rows + 0.4), layout="constrained")
    shown = {}
    for number, title in enumerate(titles, 1):
        panel = figure.add_subplot(rows, 4, number)
        for color, way in enumerate(WAYS):
            if finished(out, title, way) is not None:
                steps, values, metric = curve(workdir(out, title, way))
                (shown[way],) = panel.plot(steps, values, f"C{color}o-", markersize=3)
                panel.set_title(f"{title}, {metric}", fontsize=9)
        panel.set_xlabel("steps", fontsize=8)
        panel.tick_params(labelsize=8)
    figure.legend(shown.values(), shown.keys(), loc="outside upper center", ncols=4, fontsize=9)
    figure.savefig(out / "transfer.png", dpi=110)


def curve(folder: pathlib.Path) -> tuple[list[int], list[float], str]:
    """(steps, values, name) of the first metric that a run's evaluations report."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    found = [record for record in records if record["kind"] == "evaluation"]
    key = next(name for name in found[0] if name.startswith("eval/"))
    return [r["step"] for r in found], [r[key] for r in found], key.rpartition("/")[2]


if __name__ == "__main__":
    main()
