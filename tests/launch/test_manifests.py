"""Manifests, Dockerfile and the scripts beside them: Kubernetes, xpk, SkyPilot.

Fields are those of the APIs' types (JobSet v1alpha2, batch/v1, SkyPilot's task): a name that they
do not know is refused by the server, or ignored.
"""

import os
import pathlib
import re
import subprocess

import pytest

yaml = pytest.importorskip("yaml")
pytestmark = pytest.mark.usefixtures("default_signals")
LAUNCH = pathlib.Path(__file__).parents[2] / "launch"
VALUES = {"XLA_FLAGS": "--xla_a='two words' --xla_b=\"q\" $x", "NCCL_LINES": "one\ntwo\n"}

FIELDS = {
    "JobSet": "replicatedJobs network successPolicy failurePolicy startupPolicy suspend managedBy "
    "coordinator ttlSecondsAfterFinished volumeClaimPolicies",
    "failurePolicy": "maxRestarts restartStrategy rules",
    "failure rule": "name action onJobFailureReasons targetReplicatedJobs",
    "network": "enableDNSHostnames publishNotReadyAddresses subdomain",
    "replicated job": "name replicas template dependsOn groupName",
    "Job": "parallelism completions completionMode backoffLimit podFailurePolicy template "
    "podReplacementPolicy backoffLimitPerIndex maxFailedIndexes activeDeadlineSeconds "
    "ttlSecondsAfterFinished suspend",
    "pod": "subdomain restartPolicy terminationGracePeriodSeconds nodeSelector containers volumes "
    "serviceAccountName hostNetwork dnsPolicy tolerations affinity",
    "container": "name image command args env envFrom resources volumeMounts ports securityContext",
    "SkyPilot": "name num_nodes workdir resources volumes file_mounts envs setup run secrets",
}


def known(kind, mapping):
    assert set(mapping) <= set(FIELDS[kind].split()), f"{kind} has no such field"
    return mapping


def documents(name):
    return list(yaml.safe_load_all((LAUNCH / name).read_text()))


def job_specs():
    """Pairs (manifest's name, the spec of its Job)."""
    for name in ("jobset_tpu.yaml", "jobset_gpu.yaml"):
        (document,) = documents(f"gke/{name}")
        (replicated,) = document["spec"]["replicatedJobs"]
        yield name, replicated["template"]["spec"]
    yield "job.yaml", documents("gke/job.yaml")[1]["spec"]


JOBS = pytest.mark.parametrize(("name", "spec"), job_specs(), ids=[name for name, _ in job_specs()])


@JOBS
def test_jobs_start_one_process_a_node_and_leave_time_to_save(name, spec):
    known("Job", spec)
    pod = known("pod", spec["template"]["spec"])
    (container,) = pod["containers"]
    known("container", container)
    assert spec["completionMode"] == "Indexed"
    assert spec["parallelism"] == spec["completions"] > 1
    assert pod["restartPolicy"] == "Never"  # else podFailurePolicy is refused
    assert pod["terminationGracePeriodSeconds"] == 300
    fatal = spec["podFailurePolicy"]["rules"][0]
    assert fatal["action"] == "FailJob"
    assert fatal["onExitCodes"] == {
        "containerName": container["name"],
        "operator": "In",
        "values": [64, 65, 66, 73],
    }
    assert container["command"][:2] == ["t5jax", "train"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    assert {"secretRef": {"name": "t5jax-env", "optional": True}} in container["envFrom"]
    variables = {entry["name"]: entry for entry in container["env"]}
    assert variables["PYTHONUNBUFFERED"]["value"] == "1"
    if name == "jobset_tpu.yaml":  # GKE's variables say the same
        assert not [variable for variable in variables if variable.startswith("T5JAX_")]
        return
    assert variables["T5JAX_NUM_PROCESSES"]["value"] == str(spec["parallelism"])
    index = variables["T5JAX_PROCESS_ID"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert index == "metadata.annotations['batch.kubernetes.io/job-completion-index']"


@pytest.mark.parametrize("name", ["jobset_tpu.yaml", "jobset_gpu.yaml"])
def test_jobsets_start_again_as_a_whole_but_for_what_cannot_be_mended(name):
    (document,) = documents(f"gke/{name}")
    assert (document["apiVersion"], document["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    spec = known("JobSet", document["spec"])
    known("network", spec.get("network", {}))
    policy = known("failurePolicy", spec["failurePolicy"])
    assert policy["restartStrategy"] in ("Recreate", "BlockingRecreate")
    assert policy["maxRestarts"] == 100
    (rule,) = policy["rules"]
    known("failure rule", rule)
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    assert re.fullmatch("[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", rule["name"])  # JobSet asks it
    (replicated,) = spec["replicatedJobs"]
    known("replicated job", replicated)
    assert replicated["template"]["spec"]["backoffLimit"] == 0  # the set starts again, not the pod
    assert replicated["replicas"] == (2 if name == "jobset_tpu.yaml" else 1)


def test_coordinators_are_the_names_that_the_controllers_give_the_first_pod():
    (jobset,) = documents("gke/jobset_gpu.yaml")
    service, job = documents("gke/job.yaml")
    (replicated,) = jobset["spec"]["replicatedJobs"]
    name = jobset["metadata"]["name"]
    assert jobset["spec"]["network"]["enableDNSHostnames"] is True
    assert coordinator(replicated["template"]) == f"{name}-{replicated['name']}-0-0.{name}:8476"
    name = job["metadata"]["name"]
    pod = job["spec"]["template"]["spec"]
    assert coordinator(job) == f"{name}-0.{pod['subdomain']}:8476"
    assert service["kind"] == "Service"
    assert service["metadata"]["name"] == pod["subdomain"]
    assert service["spec"] == {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": {"batch.kubernetes.io/job-name": name},
    }


def coordinator(job):
    (container,) = job["spec"]["template"]["spec"]["containers"]
    return {entry["name"]: entry.get("value") for entry in container["env"]}["T5JAX_COORDINATOR"]


def test_an_indexed_job_does_not_count_preempted_pods():
    rules = documents("gke/job.yaml")[1]["spec"]["podFailurePolicy"]["rules"]
    ignored = [rule for rule in rules if rule["action"] == "Ignore"]
    assert ignored[0]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert ignored[1]["onExitCodes"]["values"] == [143]


# As kubectl: keeps the files of the secret and what is applied.
KUBECTL = """
printf '%s\\n' "$*" >>"$CALLS"
for word; do [[ $word != --from-file=* ]] || cp -r "${word#--from-file=}" "$CALLS.values"; done
"""


@pytest.fixture
def filled(tmp_path):
    """A manifest in which nothing in capitals is left."""
    text = (LAUNCH / "gke" / "job.yaml").read_text()
    for old, new in (("IMAGE:TAG", "r/t5jax:1"), ("CONFIG.py", "c.py"), ("/NAME", "/one")):
        text = text.replace(old, new)
    path = tmp_path / "job.yaml"
    path.write_text(text)
    return path


def script(name, *arguments, **variables):
    return subprocess.run(
        [LAUNCH / name, *arguments],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=20,
    )


def test_submit_makes_a_secret_of_the_named_variables(filled, stand_in, tmp_path):
    stand_in("kubectl", KUBECTL)
    variables = VALUES | {"T5JAX_ENV": "XLA_FLAGS NCCL_* NOT_SET", "CALLS": str(tmp_path / "calls")}
    result = script("gke/submit.sh", filled, "--namespace=ours", **variables)
    assert result.returncode == 0, result.stderr
    assert "T5JAX_ENV names NOT_SET" in result.stderr
    secret, first, second = (tmp_path / "calls").read_text().splitlines()
    assert secret.startswith("create secret generic t5jax-env --from-file=")
    assert secret.endswith("--dry-run=client -o yaml --namespace=ours")
    assert re.fullmatch(r"apply -f \S+/secret.yaml --namespace=ours", first)
    assert second == f"apply -f {filled} --namespace=ours"
    values = {path.name: path.read_text() for path in (tmp_path / "calls.values").iterdir()}
    assert VALUES.items() <= values.items()
    assert set(values) == {*VALUES, "T5JAX_ENV"}


@pytest.mark.parametrize("name", ["job.yaml", "jobset_tpu.yaml", "jobset_gpu.yaml"])
def test_submit_refuses_a_manifest_that_is_not_filled_in(stand_in, tmp_path, name):
    stand_in("kubectl", f"touch {tmp_path}/called\n")
    result = script("gke/submit.sh", LAUNCH / "gke" / name)
    assert result.returncode == 64
    assert "IMAGE:TAG" in result.stderr
    assert not (tmp_path / "called").exists()


def test_xpk_is_given_command_restarts_and_variables(stand_in, tmp_path):
    out = tmp_path / "out"
    stand_in(
        "xpk",
        f"""printf '%s\\n' "$@" >{out}
for word; do [[ $word != --env-file=* ]] || cat "${{word#*=}}" >{out}.env; done\n""",
    )
    arguments = ["run1", "r/t5jax:1", "--cluster=c", "--", "a config.py", "--workdir", "gs://b/r"]
    result = script("gke/xpk.sh", *arguments, T5JAX_ENV="FLAG", FLAG="--xla_a='x y'")
    assert result.returncode == 0, result.stderr
    words = out.read_text().splitlines()
    assert words[:4] == ["workload", "create", "--workload=run1", "--docker-image=r/t5jax:1"]
    assert {"--cluster=c", "--max-restarts=100", "--restart-on-exit-codes=70,75"} <= set(words)
    assert words[-1] == r"--command=exec t5jax train a\ config.py --workdir gs://b/r "
    assert (tmp_path / "out.env").read_text().split() == ["T5JAX_ENV", "FLAG"]
    refused = script("gke/xpk.sh", *arguments, T5JAX_ENV="FLAG", FLAG='"q"')
    assert refused.returncode == 64
    assert "FLAG holds a quote" in refused.stderr


@pytest.mark.parametrize("rank", [0, 1])
def test_skypilot_starts_one_process_a_node(tmp_path, rank):
    (task,) = documents("skypilot.yaml")
    known("SkyPilot", task)
    assert task["num_nodes"] == 2
    assert subprocess.run(["bash", "-n", "-c", task["setup"]]).returncode == 0
    (tmp_path / "launch").mkdir()
    stand_in_for_restart = tmp_path / "launch" / "restart.sh"
    stand_in_for_restart.write_text(
        '#!/usr/bin/env bash\nprintf "%s\\n" "$T5JAX_COORDINATOR" "$T5JAX_NUM_PROCESSES" '
        '"$T5JAX_PROCESS_ID" "$@"\n'
    )
    stand_in_for_restart.chmod(0o755)
    environment = {
        "PATH": os.environ["PATH"],
        "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2",
        "SKYPILOT_NUM_NODES": "2",
        "SKYPILOT_NODE_RANK": str(rank),
        "T5JAX_ARGUMENTS": "'a config.py' --workdir /runs/one",
    }
    run = lambda: subprocess.run(
        ["bash", "-c", task["run"]], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    lines = run().stdout.splitlines()
    assert lines[:3] == ["10.0.0.1:8476", "2", str(rank)]
    assert lines[3:] == [".venv/bin/t5jax", "train", "a config.py", "--workdir", "/runs/one"]
    environment["T5JAX_ARGUMENTS"] = ""
    assert run().returncode == 64


def test_dockerfile_installs_the_locked_versions_for_each_accelerator(tmp_path):
    text = (LAUNCH / "Dockerfile").read_text()
    root = LAUNCH.parent
    assert re.findall(r"^FROM (\S+)", text, re.MULTILINE) == ["python:3.11-slim"] * 2
    context = (LAUNCH / "Dockerfile.dockerignore").read_text().split()
    for copied in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE):
        for name in copied.split():
            assert (root / name).exists()
            assert f"!{name}" in context
    tomllib = pytest.importorskip("tomllib")
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert {"gcs", "tpu", "gpu"} <= set(extras)
    command = re.search(r'case "\$ACCELERATOR".*?esac', text, re.DOTALL)[0].replace("\\\n", "")
    for accelerator, expected in (("tpu", "gcs,tpu"), ("gpu", "gcs,gpu"), ("cpu", "gcs")):
        assert shell(f"ACCELERATOR={accelerator}; {command}; echo $extras") == (0, expected)
    assert shell(f"ACCELERATOR=npu; {command}")[0] == 64
    # The constraints are plain pins of every package of the lock.
    recipe = re.search(r"sed -e .*requirements.lock", text)[0]
    pins = subprocess.run(recipe, shell=True, cwd=root, capture_output=True, text=True).stdout
    locked = (root / "requirements.lock").read_text().count("==")
    assert len(re.findall(r"^[A-Za-z0-9._-]+==\S+", pins, re.MULTILINE)) == locked
    assert "--hash" not in pins
    assert "\\" not in pins


def shell(command):
    result = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    return result.returncode, result.stdout.strip()


def test_every_launcher_says_whether_it_has_been_run():
    files = [path for path in LAUNCH.rglob("*") if path.suffix in (".sh", ".yaml", ".sbatch")]
    assert len(files) >= 15
    for path in [*files, LAUNCH / "Dockerfile"]:
        text = path.read_text()
        assert "# Has been run: " in text, path
        assert len(text.splitlines()) <= 400
