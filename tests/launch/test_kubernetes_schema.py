"""The manifests hold by the types of JobSet and Kubernetes; what a server refuses does not."""

import copy
import pathlib

import pytest

yaml = pytest.importorskip("yaml")
pytest.importorskip("jsonschema", reason="jsonschema is not installed: make .venv/installed-lint")

from tests.launch import kubernetes_schema  # noqa: E402 (it imports jsonschema)

GKE = pathlib.Path(__file__).parents[2] / "launch" / "gke"
SPEC = "spec.replicatedJobs[0].template.spec"
POD = f"{SPEC}.template.spec"


def test_every_manifest_holds(capsys):
    paths = sorted(str(path) for path in GKE.glob("*.yaml"))
    assert len(paths) >= 4
    assert kubernetes_schema.main(paths) == 0
    count = sum(len(list(yaml.safe_load_all(pathlib.Path(path).read_text()))) for path in paths)
    assert capsys.readouterr().out.startswith(f"{count} manifests hold")


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("apiVersion", "jobset.x-k8s.io/v1", "apiVersion: 'jobset.x-k8s.io/v1alpha2' was expected"),
        ("spec.maxRestarts", 100, "spec: Additional properties are not allowed ('maxRestarts'"),
        ("spec.failurePolicy.maxRestarts", "100", "maxRestarts: '100' is not of type 'integer'"),
        ("spec.failurePolicy.restartStrategy", "Blocking", "'Blocking' is not one of"),
        ("spec.failurePolicy.rules[0].name", "cannot-be", "rules[0].name: 'cannot-be' does not"),
        ("spec.failurePolicy.rules[0].action", "FailJob", "'FailJob' is not one of"),
        ("spec.replicatedJobs[0].name", "Slice", "replicatedJobs[0].name: 'Slice' does not match"),
        ("spec.replicatedJobs[0].template", {}, "template: 'spec' is a required property"),
        (f"{SPEC}.completionMode", "indexed", "'indexed' is not one of ['Indexed'"),
        (f"{SPEC}.completions", None, f"{SPEC}.completions: None is not of type 'integer'"),
        (f"{SPEC}.podFailurePolicy.rules[0].onPodConditions", [], "rules[0]: "),  # and exit codes
        (f"{SPEC}.podFailurePolicy.rules[0].onExitCodes.values", [64, 300], "300 is greater"),
        (f"{POD}.restartPolicy", "OnFailure", f"{POD}.restartPolicy: 'Never' was expected"),
        (f"{POD}.terminationGracePeriod", 300, "('terminationGracePeriod' was unexpected)"),
        (f"{POD}.containers[0].env[0].value", 1, "env[0].value: 1 is not of type 'string'"),
        (f"{POD}.containers[0].command", "t5jax train", "'t5jax train' is not of type 'array'"),
        (f"{POD}.containers[0].resources.limits.cpu", "8 cores", "limits.cpu: '8 cores'"),
        (f"{POD}.containers[0].volumeMounts[0].mountPath", None, "mountPath: None is not"),
        (f"{POD}.volumes[0].emptyDir", {}, "volumes[0]: "),  # two sources
        (f"{POD}.nodeSelector.slices", 2, "nodeSelector.slices: 2 is not of type 'string'"),
    ],
)
def test_what_a_server_refuses_is_found_at_its_place(place, value, said):
    jobset = yaml.safe_load((GKE / "jobset_tpu.yaml").read_text())
    assert kubernetes_schema.problems_of(jobset) == []
    wrong = with_value(jobset, place, value)
    problems = kubernetes_schema.problems_of(wrong)
    assert any(said in problem for problem in problems), problems


@pytest.mark.parametrize("place", ["status", "spec.template.spec.restartPolicy", "spec.template"])
def test_a_job_without_what_it_needs_is_refused(place):
    *_, job = yaml.safe_load_all((GKE / "job.yaml").read_text())
    if place == "status":
        rules = job["spec"]["podFailurePolicy"]["rules"]
        (conditions,) = [r["onPodConditions"] for r in rules if "onPodConditions" in r]
        del conditions[0]["status"]
    else:
        *parents, last = place.split(".")
        inner = job
        for name in parents:
            inner = inner[name]
        del inner[last]
    name = place.rpartition(".")[2]
    assert any(f"'{name}' is a required" in p for p in kubernetes_schema.problems_of(job))


def test_an_object_of_another_kind_is_refused(tmp_path, capsys):
    path = tmp_path / "pod.yaml"
    path.write_text("apiVersion: v1\nkind: Pod\n---\njust text\n")
    assert kubernetes_schema.main([str(path)]) == 1
    assert capsys.readouterr().out.splitlines()[:2] == [
        f"{path}: kind: 'Pod' is not one of JobSet, Job, Service",
        f"{path}: kind: None is not one of JobSet, Job, Service",
    ]


def with_value(document, place, value):
    """A copy in which `value` stands at a place like a.b[0].c."""
    document = copy.deepcopy(document)
    *parents, last = place.replace("[", ".[").split(".")
    key = lambda word: int(word[1:-1]) if word.startswith("[") else word
    inner = document
    for word in parents:
        inner = inner[key(word)]
    inner[key(last)] = value
    return document
