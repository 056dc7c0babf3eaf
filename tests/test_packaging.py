"""The wheel in an empty environment, away from the repository: commands, configs, own task, API."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
OWN = """
import t5jax


def examples(row):
    yield {"inputs": f"last: {row.text('text')}", "targets": row.text("text").split()[-1]}


t5jax.add_task(
    t5jax.ExampleTask(
        name="last_word",
        description="the last word",
        source=lambda data: t5jax.Tsv(train_files=("rows.tsv",), validation_files=("dev.tsv",)),
        examples=examples,
        metrics=(t5jax.metrics.accuracy,),
    )
)


def config():
    return t5jax.RunConfig(
        workdir="own",
        model=t5jax.T5Config(
            vocab_size=384, emb_dim=24, num_heads=3, head_dim=5, mlp_dim=40,
            num_encoder_layers=1, num_decoder_layers=1, dtype="float32",
        ),
        data=t5jax.DataConfig(
            mixture="last_word", modules=(__name__,), inputs_length=40, targets_length=9,
            vocabulary=t5jax.ByteVocabulary(extra_ids=100), cache_dir="cache",
        ),
        train=t5jax.TrainConfig(num_train_steps=2, batch_size=4, eval_every_steps=0),
        tracking=t5jax.TrackingConfig(tensorboard=False, plot=False),
    )
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> pathlib.Path:
    """An environment with the lock's packages and the wheel; its folder is not the repository."""
    folder = tmp_path_factory.mktemp("wheel")
    uv = [sys.executable, "-m", "uv"]
    build = [sys.executable, "-m", "build", "--installer", "uv", "--outdir", str(folder / "dist")]
    subprocess.run([*build, str(ROOT)], check=True)
    subprocess.run(
        [*uv, "venv", "--quiet", "--python", sys.executable, "env"], cwd=folder, check=True
    )
    (wheel,) = (folder / "dist").glob("t5jax-*.whl")
    assert list((folder / "dist").glob("t5jax-*.tar.gz"))
    install = [*uv, "pip", "install", "--quiet", "--python", "env/bin/python"]
    lock = str(ROOT / "requirements.lock")
    subprocess.run([*install, "--require-hashes", "-r", lock], cwd=folder, check=True)
    subprocess.run([*install, "--no-deps", str(wheel)], cwd=folder, check=True)
    (folder / "work").mkdir()
    return folder


def run(installed: pathlib.Path, *words: str) -> str:
    keep = ("HOME", "LANG", "XLA_FLAGS", "TMPDIR")
    environment = {name: os.environ[name] for name in keep if name in os.environ}
    environment |= {"PATH": f"{installed}/env/bin:/usr/bin:/bin", "JAX_PLATFORMS": "cpu"}
    found = subprocess.run(
        words, cwd=installed / "work", env=environment, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout + found.stderr


@pytest.mark.slow
def test_a_task_of_ones_own_trains_and_the_run_loads(installed):
    work = installed / "work"
    (work / "own.py").write_text(OWN)
    for name, numbers in (("rows.tsv", range(30)), ("dev.tsv", range(30, 41))):
        rows = "".join(f"a word {n}\n" for n in numbers)
        (work / name).write_text(f"text\n{rows}")
    run(installed, "t5jax", "cache", "own.py")
    assert "finished" in run(installed, "t5jax", "train", "own.py")
    code = "import t5jax; print(t5jax.__file__, t5jax.load('own').predict(['last: a word 7']))"
    assert f"{installed}/env/" in run(installed, "python", "-c", code)


@pytest.mark.slow
def test_a_config_of_the_package_is_found_by_its_name(installed):
    shown = run(installed, "t5jax", "train", "t5jax.configs.quickstart", "--help")
    assert "--train.num-train-steps" in shown
    assert "configs.quickstart" in shown


@pytest.mark.slow
def test_the_quickstart_trains_away_from_the_repository(installed):
    name = "t5jax.configs.quickstart"
    run(installed, "python", "-m", "t5jax.data.docstring_corpus.rows", "runs/data/quickstart/text")
    pieces = ("--num-pieces", "2000", "--max-characters", "500000")
    run(installed, "t5jax", "vocab", "train", name, *pieces)
    run(installed, "t5jax", "cache", name)
    flags = ("--train.num-train-steps", "60", "--train.eval-every-steps", "0")
    flags += ("--train.num-eval-rows", "None", "--checkpoints.save-every-steps", "60")
    flags += ("--model.num-encoder-layers", "1", "--model.num-decoder-layers", "1")  # to compile
    assert "finished" in run(installed, "t5jax", "train", name, *flags)
