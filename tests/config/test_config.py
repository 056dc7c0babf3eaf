"""Config files, flags and the effective config as text: what is taken and how the rest is refused.

`python tests/config/test_config.py` writes the golden texts of all files in configs/ again.
"""

import dataclasses
import functools
import pathlib
import subprocess
import sys

import pytest

from t5jax.checkpoints import CheckpointConfig
from t5jax.cli import split_flags
from t5jax.config import RunConfig, TrainConfig, from_text, load_config, override, to_text
from t5jax.config.migration import VERSION
from t5jax.data.config import DataConfig
from t5jax.data.vocabularies import ByteVocabulary
from t5jax.errors import ConfigError
from t5jax.model.config import T5Config, t5_1_1_base, t5_1_1_small
from t5jax.sharding import MeshConfig
from t5jax.training.optimizers import Adafactor, AdamW, OptaxOptimizer
from t5jax.training.schedules import Constant, Cosine

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.py"))
GOLDEN = ROOT / "tests" / "golden" / "configs"
TINY = """
from t5jax.config import RunConfig, TrainConfig
from t5jax.data.config import DataConfig
from t5jax.data.vocabularies import ByteVocabulary
from t5jax.model.config import T5Config
from t5jax.training.optimizers import AdamW


def config():
    return RunConfig(
        workdir="runs/tiny",
        model=T5Config(vocab_size=384, emb_dim=24, num_heads=3, head_dim=5, mlp_dim=40),
        data=DataConfig(
            mixture="docstrings_span_corruption", vocabulary=ByteVocabulary(extra_ids=100),
            inputs_length=64, cache_dir="runs/data",
        ),
        train=TrainConfig(num_train_steps=30, batch_size=16),
        optimizer=AdamW(learning_rate=0.003),
    )
"""


@pytest.fixture
def tiny(tmp_path) -> str:
    return write(tmp_path, TINY)


def test_a_config_is_found_by_its_module_name_and_knows_it(tmp_path, monkeypatch):
    """As `t5jax.configs.quickstart` of the installed package; its `__name__` is what data.modules
    can name, whether it is found by path or by name."""
    (tmp_path / "my_configs").mkdir()
    file = tmp_path / "my_configs" / "named.py"
    file.write_text(TINY.replace('workdir="runs/tiny"', 'workdir=f"runs/{__name__}"'))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    expected = "runs/my_configs.named"
    assert load_config("my_configs/named.py").workdir == expected
    assert load_config("my_configs.named").workdir == expected
    assert load_config(str(file)).workdir == expected
    monkeypatch.chdir("/")
    assert load_config(str(file)).workdir == "runs/t5jax_config_named"
    with pytest.raises(ConfigError, match=r"there is no config file my_configs\.nmaed"):
        load_config("my_configs.nmaed")


def write(folder: pathlib.Path, text: str) -> str:
    file = folder / "tiny.py"
    file.write_text(text)
    return str(file)


def run_config(**changes) -> RunConfig:
    sections = {
        "workdir": "runs/x",
        "model": T5Config(),
        "data": DataConfig(
            mixture="docstrings_span_corruption",
            vocabulary=ByteVocabulary(extra_ids=100),
            cache_dir="runs/data",
        ),
        "train": TrainConfig(num_train_steps=7),
    }
    return RunConfig(**{**sections, **changes})


def refused(path: str, *flags: str, capsys) -> str:
    """What a user reads; the exit code is checked."""
    with pytest.raises(SystemExit) as end:
        load_config(path, list(flags))
    assert end.value.code == 64
    out, err = capsys.readouterr()
    return " ".join((out + err).replace("│", " ").split())


# ---- the configs that are shipped


@functools.cache
def shipped(name: str) -> RunConfig:
    return load_config(str(ROOT / "configs" / f"{name}.py"))


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_golden_text(file):
    golden = GOLDEN / f"{file.stem}.txt"
    hint = (
        "after a change that is meant, run `python tests/config/test_config.py` and read the diff"
    )
    assert golden.exists(), f"no {golden}: {hint}"
    assert golden_text(shipped(file.stem)) == golden.read_text(), hint


def golden_text(config: RunConfig) -> str:
    """The effective config without the version of its text."""
    version, _, text = to_text(config).partition("\n")
    assert version == f"config_version = {VERSION}"
    return text


def test_every_golden_text_has_its_config():
    assert {file.stem for file in GOLDEN.glob("*.txt")} == {file.stem for file in CONFIGS}
    assert CONFIGS, "configs/ is somewhere else"


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_a_header_says_how_and_on_what_it_runs(file):
    header = file.read_text().split('"""')[1]
    for word in ("Command:", "Hardware:", "Result:"):
        assert f"\n{word}" in header, f"{file.name} has no line {word}"
    assert shipped(file.stem).workdir == f"runs/{file.stem}", "runs do not share a workdir"


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_the_text_of_a_config_reads_back(file):
    config = shipped(file.stem)
    assert from_text(to_text(config)) == config


SIZES = ("small", "base", "large", "xl", "xxl")


@pytest.mark.parametrize("size", SIZES)
def test_the_published_recipe(size):
    config = shipped(f"t5_1_1_{size}_c4")
    assert (config.train.num_train_steps, config.train.batch_size) == (1_000_000, 2048)
    assert (config.data.inputs_length, config.data.targets_length) == (512, None)
    assert isinstance(config.optimizer, Adafactor)
    assert config.loss.z_loss == 1e-4
    # auto: bfloat16 on what these are for
    assert (config.model.dropout_rate, config.model.dtype) == (0.0, "auto")
    rate = config.optimizer.learning_rate_at(config.train.num_train_steps)
    assert float(rate(0)) == float(rate(10_000)) == pytest.approx(0.01)
    assert float(rate(40_000)) == pytest.approx(0.005)


@pytest.mark.parametrize("size", SIZES)
def test_nanot5s_recipe(size):
    config = shipped(f"t5_1_1_{size}_c4_nanot5")
    assert (config.train.num_train_steps, config.train.batch_size) == (65_536, 128)
    assert isinstance(config.optimizer, AdamW)
    assert config.optimizer.rms_scaled
    assert (config.model.dropout_rate, config.loss.z_loss) == (0.0, 0.0)
    rate = config.optimizer.learning_rate_at(config.train.num_train_steps)
    assert float(rate(0)) == pytest.approx(1e-2)
    assert float(rate(10_000)) == pytest.approx(2e-2)
    assert float(rate(65_536)) == pytest.approx(1e-5)


DEVICES = {"small": 8, "base": 8, "large": 32, "xl": 64, "xxl": 128}
NANOT5_DEVICES = {"small": 1, "base": 1, "large": 8, "xl": 8, "xxl": 8}


@pytest.mark.parametrize("size", SIZES)
def test_the_layouts_fit_the_hardware_of_the_headers(size):
    for devices, suffix in ((DEVICES, "c4"), (NANOT5_DEVICES, "c4_nanot5")):
        config = shipped(f"t5_1_1_{size}_{suffix}")
        config.check_mesh(devices[size])
        _, fsdp, _ = config.mesh.shape(devices[size])
        assert config.model.emb_dim % fsdp == 0


# ---- the effective config as text


def test_text_keeps_every_kind_of_value():
    config = run_config(
        model=t5_1_1_small(unroll_layers="all", mlp_activations=("relu",)),
        optimizer=OptaxOptimizer(
            factory="optax.lion", arguments={"b1": 0.85}, schedule=Constant(warmup_steps=3)
        ),
        checkpoints=CheckpointConfig(save_every_steps=3, keep_every_steps=9),
        mesh=MeshConfig(tensor=2, vocab=()),
    )
    text = to_text(config)
    assert from_text(text) == config
    for line in (
        "optimizer: OptaxOptimizer",
        "optimizer.schedule: Constant",
        "optimizer.schedule.warmup_steps = 3",
        "optimizer.arguments = {'b1': 0.85}",
        "data.vocabulary: ByteVocabulary",
        "model.unroll_layers = 'all'",
        "mesh.vocab = ()",
        "checkpoints.keep_every_steps = 9",
    ):
        assert line in text.splitlines()


def test_a_field_that_a_saved_text_lacks_gets_its_default():
    text = to_text(run_config())
    shorter = "".join(x for x in text.splitlines(True) if not x.startswith("train.max_bad_steps"))
    assert shorter != text
    assert from_text(shorter) == run_config()


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("train.seed = 0", "train.sead = 0", "unknown fields: train.sead"),
        ("train.seed = 0", "train.seed = nought", "line .* of a saved config: 'train.seed = nou"),
        ("train.seed = 0", "garbage", "is not `field = value`: 'garbage'"),
        ("optimizer: Adafactor", "optimizer: Adafacto", "optimizer: Adafacto, which does not"),
        ("train.num_train_steps = 7\n", "", "num_train_steps"),
        ("train.seed = 0", "train.batch_size = 0", "train.batch_size = 0: must be at least 1"),
    ],
)
def test_damaged_text_is_refused(old, new, reason):
    text = to_text(run_config())
    assert old in text
    with pytest.raises(ConfigError, match=reason):
        from_text(text.replace(old, new, 1))


# ---- flags


def test_flags_change_values_of_every_kind(tiny):
    flags = """--workdir runs/other --train.batch-size 32 --optimizer.learning-rate 0.5
        --optimizer.rms_scaled True --optimizer.schedule.warmup-steps 4 --model.unroll-layers all
        --data.vocabulary.extra-ids 99 --data.targets-length None --checkpoints.keep-every-steps
        2000 --mesh.data -1 --mesh.mlp data tensor --mesh.heads --model.dtype=float32"""
    config = load_config(tiny, flags.split())
    expected = dataclasses.replace(
        load_config(tiny),
        workdir="runs/other",
        mesh=MeshConfig(mlp=("data", "tensor"), heads=()),
        checkpoints=CheckpointConfig(keep_every_steps=2000),
        optimizer=AdamW(learning_rate=0.5, rms_scaled=True, schedule=Cosine(warmup_steps=4)),
    )
    expected.train.batch_size = 32
    expected.model.unroll_layers = "all"
    expected.model.dtype = "float32"
    expected.data.vocabulary.extra_ids = 99
    assert config == expected


def test_a_list_is_emptied_by_its_flag_alone(tmp_path):
    """Wherever the flag stands: last, before another setting, before an option of the command."""
    files = 'train_files=("a.txt", "b.txt"), validation_files=("c.txt",), mixture='
    text = write(tmp_path, TINY.replace("mixture=", files).replace("docstrings_", "text_"))
    assert load_config(text).data.validation_files == ("c.txt",)
    for line in (
        "--data.validation-files",
        "--data.validation_files --data.seed 3",
        "--data.validation-files --num-processes 2",
    ):
        words, flags = split_flags(["cache", text, *line.split()])
        assert "--data.validation-files" not in words
        data = load_config(text, flags).data
        assert (data.train_files, data.validation_files) == (("a.txt", "b.txt"), ())
    other = "--data.train-files --data.mixture docstrings_span_corruption --data.validation-files"
    data = load_config(text, other.split()).data
    assert (data.train_files, data.validation_files) == ((), ())


@pytest.mark.parametrize("spelt", ["", "()", "[]", "None"])
def test_other_ways_to_spell_an_empty_list_are_refused(tiny, spelt):
    reason = r"mesh.relpos_buckets = \('.*',\): .* give --mesh.relpos-buckets with nothing after it"
    for flags in (["--mesh.relpos-buckets", spelt], [f"--mesh.relpos-buckets={spelt}"]):
        with pytest.raises(ConfigError, match=reason):
            load_config(tiny, flags)


def test_a_union_section_keeps_its_class(tiny):
    config = load_config(
        tiny, ["--optimizer.beta1", "0.8", "--optimizer.schedule.final-fraction", "0.1"]
    )
    assert config.optimizer == AdamW(
        learning_rate=0.003, beta1=0.8, schedule=Cosine(final_fraction=0.1)
    )
    saved = override(from_text(to_text(config)), ["--optimizer.eps", "1e-6"], program="x")
    assert dataclasses.replace(config.optimizer, eps=1e-6) == saved.optimizer


def test_loading_leaves_nothing_behind(tiny):
    load_config(tiny, ["--model.emb-dim", "48"])
    assert load_config(tiny).model.emb_dim == 24


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        # unknown
        ("--optimizer.learning-rte 1", "--optimizer.learning-rte --optimizer.learning-rate FLOAT"),
        ("--vocabulary.extra-ids 1", "--data.vocabulary.extra-ids INT"),
        ("--optimizer.factored False", "Unrecognized --optimizer.factored"),  # of another class
        ("--optimizer.schedule.decay-fraction 1", "Unrecognized decay-fraction"),
        ("stray", "Unrecognized stray"),
        # wrong type
        ("--train.batch-size ten", "--train.batch-size 'ten' INT"),
        ("--train.batch-size 1.5", "--train.batch-size '1.5' INT"),
        ("--train.batch-size", "--train.batch-size Expected 1"),
        ("--model.tied-embeddings yes", "--model.tied-embeddings 'yes' True False"),
        ("--model.unroll-layers some", "--model.unroll-layers 'some' INT|{auto,all}"),
        ("--runtime.process-id first", "--runtime.process-id 'first' {None}|INT"),
        # bad value
        ("--model.dtype float16", "--model.dtype 'float16' bfloat16 float32"),
        ("--train.batch-size 0", "train.batch_size = 0: must be at least 1"),
        ("--train.seed 4294967296", "train.seed = 4294967296: from 0 to 2^32 - 1"),
        ("--train.num-train-steps 2147483648", "2147483648: at most 2^31 - 1"),
        ("--model.mlp-activations gelu linear relu", "one activation, or two"),
        ("--model.mlp-activations swish", "'swish' is not one of linear, relu"),
        ("--optimizer.learning-rate -1", "AdamW.learning_rate is -1.0"),
        ("--checkpoints.keep-every-steps 1500", "multiple of checkpoints.save_every_steps=1000"),
        ("--loss.normalizer constant", "loss.normalizing_factor = None"),
    ],
)
def test_flags_that_do_not_fit_are_refused(tiny, capsys, flags, words):
    said = refused(tiny, *flags.split(), capsys=capsys)
    for word in words.split() if "--" in words or "Unrec" in words else [words]:
        assert word in said, said
    assert "For full helptext" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ("--train.num-microbatches 3", "batch_size = 16 does not divide into .*microbatches = 3"),
        ("--data.mixture docstring_span_corruption", "did you mean docstrings_span_corruption"),
        ("--data.train-files x.txt", r"data.train_files=\('x.txt',\) has no effect"),
        ("--data.mixture text_span_corruption", "data.train_files is empty"),
        ("--data.inputs-length 4096", "sentinels"),
        ("--checkpoints.keep-best 1 --checkpoints.best-metric validation/los", "validation/loss, "),
        # numbers that nothing can be done with
        ("--loss.z-loss nan", "loss.z_loss = nan: must be a finite number"),
        ("--tracking.seconds-between-lines inf", "seconds_between_lines = inf: must be a finite"),
        ("--mesh.batch dat", "mesh.batch: 'dat' is not one of"),
        ("--optimizer.schedule.warmup-steps 31", "warmup_steps is 31, longer than the run of 30"),
        # without effect
        (
            "--checkpoints.keep-steps 4 31 40",
            r"keep_steps: \[31, 40\] come after the last of train",
        ),
        ("--train.eval-every-steps 0 --train.num-eval-rows 5", "num_eval_rows = 5 has no effect"),
        (
            "--train.eval-every-steps 0 --checkpoints.keep-best 1",
            "keep_best = 1 .*needs evaluations",
        ),
        (
            "--train.eval-every-steps 300 --checkpoints.keep-best 1",
            "eval_every_steps = 300 divides",
        ),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(tiny, flags, reason):
    with pytest.raises(ConfigError, match=reason):
        load_config(tiny, flags.split())


def test_help_shows_every_setting_with_its_value(tiny, capsys):
    with pytest.raises(SystemExit) as end:
        load_config(tiny, ["--help"])
    assert end.value.code == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for line in golden_text(load_config(tiny)).splitlines():
        name = line.split(" = ")[0].split(":")[0].replace("_", "-")
        if " = " in line:
            assert f"--{name} " in said, name
    assert "rows of the global batch, over all hosts and devices (default: 16)" in said
    assert "--optimizer.learning-rate FLOAT (default: 0.003)" in said


# ---- the mesh


@pytest.mark.parametrize(
    ("flags", "devices", "reason"),
    [
        ("--mesh.fsdp 3", 8, "data=-1 x fsdp=3 x tensor=1 does not make 8 devices"),
        ("--mesh.data 2 --mesh.fsdp 2", 8, "data=2 x fsdp=2 x tensor=1 does not make 8"),
        ("--mesh.fsdp -1", 8, "only one of data, fsdp can be -1"),
        ("--mesh.tensor 0", 8, "mesh.tensor = 0"),
        ("--train.batch-size 12", 8, "12 in 1 microbatches gives 12 rows.* 8 replicas .mesh 8x1x1"),
        ("--train.num-microbatches 4", 8, "16 in 4 microbatches gives 4 rows.* 8 replicas"),
        ("--mesh.tensor 4", 8, "model.num_heads = 3 does not divide among 4 devices"),
        ("--mesh.fsdp 2 --mesh.batch data --mesh.embed", 8, "mesh.fsdp = 2: nothing is divided"),
    ],
)
def test_sizes_that_do_not_divide_the_mesh(tiny, flags, devices, reason):
    config = load_config(tiny, flags.split())
    with pytest.raises(ConfigError, match=reason):
        config.check_mesh(devices)


def test_meshes_that_fit(tiny):
    for flags, devices in (("", 8), ("--mesh.fsdp 8", 8), ("--mesh.tensor 3", 6), ("", 1)):
        load_config(tiny, flags.split()).check_mesh(devices)


# ---- config files


def test_a_missing_file_gets_a_suggestion(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "quickstart.py").write_text(TINY)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ConfigError, match=r"no config file configs/quikstart\.py; did you mean con"
    ):
        load_config("configs/quikstart.py")
    with pytest.raises(ConfigError, match=r"configs is a folder: give a config file"):
        load_config("configs")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("batch_size=16", "batchsize=16", r"line 17: TypeError.*did you mean batch_size\?"),
        ("batch_size=16", "batch_size=16.0", "train.batch_size = 16.0: a float.*declared as int"),
        ("batch_size=16", "batch_size='16'", "line 17: TypeError"),
        ("batch_size=16", "batch_size=True", "train.batch_size = True: a bool.*declared as int"),
        ("batch_size=16", "batch_size=-2", "line 17: train.batch_size = -2: must be at least 1"),
        ("learning_rate=0.003", "lerning_rate=1", "AdamW.*did you mean learning_rate"),
        ("emb_dim=24", "emb_dmi=24", "T5Config.*did you mean emb_dim"),
        ('"runs/data"', "7", "data.cache_dir = 7: a int"),
        ("inputs_length=64", 'train_files=["a"]', r"data.train_files = \['a'\]: a list"),
        ("optimizer=AdamW(learning_rate=0.003)", "optimizer='adamw'", "optimizer = 'adamw': a str"),
        ("AdamW(learning_rate=0.003)", "AdamW(learning_rate=0.003", "line .*SyntaxError"),
        ("import AdamW", "import AdamX", "line 6: ImportError"),
        ("return RunConfig", "RunConfig", "config.. returned NoneType, not a RunConfig"),
        ("return RunConfig", "return dict", "config.. returned dict, not a RunConfig"),
        ("def config", "def configure", "defines no function `config.. -> RunConfig`"),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path, old, new, reason):
    assert old in TINY
    with pytest.raises(ConfigError, match=reason) as found:
        load_config(write(tmp_path, TINY.replace(old, new)))
    assert "\n" not in str(found.value).strip()


def test_a_whole_number_is_a_float_and_no_other_type_is_mixed_up(tmp_path):
    config = load_config(write(tmp_path, TINY.replace("learning_rate=0.003", "learning_rate=1")))
    assert config.optimizer.learning_rate == 1


def test_a_file_that_is_not_python(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("train: {}\n")
    with pytest.raises(ConfigError, match=r"its name must end in \.py"):
        load_config(str(file))


def test_recipes_take_any_model():
    from t5jax.recipes import nanot5_pretraining

    config = nanot5_pretraining("runs/x", t5_1_1_base(dropout_rate=0.1), num_microbatches=4)
    assert (config.model.dropout_rate, config.train.num_microbatches) == (0.1, 4)
    config.check()


# ---- as a user


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("--optimizer.learning-rte", "1", "--optimizer.learning-rate FLOAT"),
        ("--mesh.fsdp", "3", "fsdp=3 x tensor=1 does not make 8 devices; set one of them to -1"),
    ],
)
def test_the_command_line_refuses(tiny, flag, value, said):
    command = [sys.executable, "-m", "t5jax", "train", tiny, flag, value]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert ended.returncode == 64
    assert said in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    assert len((ended.stdout + ended.stderr).splitlines()) < 12, "a few lines"


def write_golden_texts() -> None:
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for golden in GOLDEN.glob("*.txt"):
        golden.unlink()
    for file in CONFIGS:
        (GOLDEN / f"{file.stem}.txt").write_text(golden_text(load_config(str(file))))
        print(GOLDEN / f"{file.stem}.txt")


if __name__ == "__main__":
    write_golden_texts()
