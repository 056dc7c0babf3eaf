"""Transfer: the same fine-tuning from a pretrained checkpoint and from scratch, task by task.

    python benchmarks/transfer.py OUT --pretrained RUN --vocabulary words.model --data DATA

Every line of the table is `t5jax train configs/small_finetuning*.py` with the flags that are
printed, evaluated by the run itself on the whole validation split. What is finished is not run
again. Writes OUT/transfer.md (values, intervals, paired differences) and OUT/transfer.png (curves).
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
from typing import NamedTuple

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from t5jax.acts.saved_run import read_config
from t5jax.data.tasks import registry
from t5jax.evaluation.answers import read_answers
from t5jax.evaluation.questions import TaskQuestions, predictions_of, read_questions, targets_of
from t5jax.evaluation.report import Report, read_report
from t5jax.metrics.confidence import paired_difference

ROOT = pathlib.Path(__file__).parents[1]


class Task(NamedTuple):
    """A task of the table, and how long its texts are."""

    name: str
    inputs_length: int = 128
    targets_length: int = 8


TASKS = {
    "SST-2": Task("glue_sst2_v002"),
    "CoLA": Task("glue_cola_v002"),
    "MRPC": Task("glue_mrpc_v002"),
    "STS-B": Task("glue_stsb_v002"),
    "BoolQ": Task("super_glue_boolq_v102", 256),
    "SQuAD": Task("squad_v010_allanswers", 256, 32),
    "Multi30k En-De": Task("multi30k_ende", 64, 64),
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
    parser.add_argument("--steps", type=int, default=400)
    options = parser.parse_args()
    for title in options.tasks:
        for way in options.ways:
            run(options, title, way)
    (options.out / "transfer.md").write_text(table(options))
    print((options.out / "transfer.md").read_text())
    draw(options)


def workdir(options: argparse.Namespace, title: str, way: str) -> pathlib.Path:
    return options.out / f"{TASKS[title].name}_{way.replace(' ', '_')}"


def run(options: argparse.Namespace, title: str, way: str) -> None:
    """Trains one line of the table, or goes on with it."""
    folder, task, (config, flags) = workdir(options, title, way), TASKS[title], WAYS[way]
    if finished(options, title, way) is not None:
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
        "--train.num-train-steps": options.steps,
        "--evaluation.every-steps": options.steps // 4,
        "--checkpoints.save-every-steps": options.steps,
    }
    words = [str(word) for pair in settings.items() for word in pair] + flags
    for act in ("cache", "train"):
        command = ["-m", "t5jax", act, str(ROOT / "configs" / f"{config}.py"), *words]
        print("t5jax", *command[2:], flush=True)
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, *command], check=True, env=environment)


def finished(options: argparse.Namespace, title: str, way: str) -> Report | None:
    """What the evaluation after the last step of a run has found."""
    return read_report(evaluations(options, title, way) / str(options.steps))


def evaluations(options: argparse.Namespace, title: str, way: str) -> pathlib.Path:
    return workdir(options, title, way) / "evaluations" / "validation"


def table(options: argparse.Namespace) -> str:
    """Markdown: a line for every metric and way, with its difference from the run from scratch."""
    lines = ["| task | metric | examples | way | value | interval | less that from scratch |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for title in options.tasks:
        for way in options.ways:
            report, differences = finished(options, title, way), difference(options, title, way)
            assert report is not None
            for line in report.lines:
                shown = differences.get(line.metric, "–")
                lines.append(
                    f"| {title} | {line.metric} | {line.examples} | {way} | {line.value:.2f} | "
                    f"[{line.low:.2f}, {line.high:.2f}] | {shown} |"
                )
    return "\n".join(lines) + "\n"


def difference(options: argparse.Namespace, title: str, way: str) -> dict[str, str]:
    """By metric, how much better than from scratch on the same examples, with its interval."""
    if way == SCRATCH or SCRATCH not in options.ways:
        return {}
    task = questions(options, title)
    said = [predictions(options, title, one, task) for one in (way, SCRATCH)]
    shown = {}
    for metric in task.metrics:
        for name, estimate in paired_difference(metric, targets_of(task), *said).items():
            shown[name] = f"{estimate.value:+.2f} [{estimate.low:+.2f}, {estimate.high:+.2f}]"
    return shown


def questions(options: argparse.Namespace, title: str) -> TaskQuestions:
    data = read_config(str(workdir(options, title, SCRATCH)), None, [], act="transfer")[0].data
    task = read_questions(registry.find_task(TASKS[title].name, data), data, "validation")
    assert task is not None
    return task


def predictions(options: argparse.Namespace, title: str, way: str, task: TaskQuestions) -> list:
    file = evaluations(options, title, way) / str(options.steps) / f"{task.task}.jsonl"
    return predictions_of(task, [answer.text for answer in read_answers(file, task)])


def draw(options: argparse.Namespace) -> None:
    """The first metric of every task over the steps, a line for every way."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(options.tasks), 3), layout="constrained")
    panels = figure.subplots(1, len(options.tasks), squeeze=False)[0]
    for panel, title in zip(panels, options.tasks, strict=True):
        for way in options.ways:
            steps, values, metric = curve(workdir(options, title, way))
            panel.plot(steps, values, marker="o", markersize=3, label=way)
        panel.set_title(f"{title}, {metric}", fontsize=9)
        panel.set_xlabel("steps", fontsize=8)
        panel.tick_params(labelsize=8)
    panels[0].legend(fontsize=7)
    figure.savefig(options.out / "transfer.png", dpi=110)


def curve(folder: pathlib.Path) -> tuple[list[int], list[float], str]:
    """(steps, values, name) of the first metric that a run's evaluations report."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    found = [record for record in records if record["kind"] == "evaluation"]
    about = ("kind", "step", "time", "split")
    metric = next(name for name in found[0] if name not in about)
    return [r["step"] for r in found], [r[metric] for r in found], metric


if __name__ == "__main__":
    main()
