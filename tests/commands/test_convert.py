"""`t5jax convert` as a user goes: in, out, and every way in which it refuses."""

import dataclasses
import json
import pathlib
import random
import shutil

import jax
import numpy as np
import pytest

from benchmarks import conversion_memory
from t5jax.checkpoints import open_step, read_record, restore_params
from t5jax.cli import main
from t5jax.config import WarmStart, from_text, load_config
from t5jax.convert import verify
from t5jax.data.vocabularies import ByteVocabulary, SentencePieceVocabulary, train_sentencepiece
from t5jax.model.config import T5Config
from t5jax.runtime import ExitCode
from t5jax.training.peft import LoRA
from tests.commands.saved_runs import save_run
from tests.convert.foreign import (
    VARIANTS,
    huggingface_config,
    huggingface_weights,
    model_of,
    our_params,
    random_weights,
    read_safetensors,
    t5x_name,
    tiny_huggingface,
    write_huggingface,
    write_safetensors,
    write_t5x,
)
from tests.data.vocabularies.prose import SENTENCES

NUMPY = ("--reference", "numpy")


def convert(*words) -> int:
    return main(["convert", *map(str, words)])


def report(folder) -> dict:
    return json.loads((pathlib.Path(folder) / "conversion.json").read_text())


# ---- there and back


@pytest.mark.parametrize(
    "variant",
    [pytest.param(variant, marks=pytest.mark.slow) for variant in VARIANTS],
)
def test_hugging_face_there_and_back(tmp_path, variant, capsys):
    """Every bit of every array; logits compared both times."""
    source = tiny_huggingface(tmp_path / "hf", variant)
    run, back = tmp_path / "run", tmp_path / "back"
    assert convert(source, run, *NUMPY) == ExitCode.DONE
    assert convert(run, back, *NUMPY) == ExitCode.DONE
    want = read_safetensors(source / "model.safetensors")
    found = read_safetensors(back / "model.safetensors")
    assert set(found) == set(want)
    for name, array in want.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    for folder in (run, back):
        content = report(folder)
        [check] = content["checks"]
        assert check["relative_error"] < 1e-5
        assert check["passed"]
        assert "largest difference" in (folder / "conversion.txt").read_text()
    model_type = json.loads((back / "config.json").read_text())["model_type"]
    assert model_type == ("umt5" if variant == "umt5" else "t5")
    printed = capsys.readouterr().out
    assert "compared with NumPy" in printed
    assert f"t5jax predict {run}" in printed


@pytest.fixture(scope="module")
def imported(tmp_path_factory) -> pathlib.Path:
    """The workdir of an imported ByT5."""
    folder = tmp_path_factory.mktemp("imported")
    assert convert(tiny_huggingface(folder / "hf", "byt5"), folder / "run", *NUMPY) == 0
    return folder / "run"


def test_what_an_imported_run_is(imported):
    record = read_record(imported / "checkpoints", 0)
    config = from_text(record.content["config"])
    config.check()
    assert config.workdir == str(imported)
    assert config.data.vocabulary == ByteVocabulary()
    assert config.data.cache_dir is None
    assert config.model == model_of("byt5")
    assert (imported / "config.txt").read_text() == record.content["config"]
    assert record.content["converted_from"]["format"] == "huggingface"
    weights = our_params(random_weights(config.model), config.model)
    tree: dict = {}
    for path, x in weights.items():
        *parents, name = path.split("/")
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[name] = jax.ShapeDtypeStruct(x.shape, x.dtype)
    restored = restore_params(imported / "checkpoints", tree)
    for keys, array in jax.tree_util.tree_leaves_with_path(restored.state):
        path = jax.tree_util.keystr(keys, simple=True, separator="/")
        np.testing.assert_array_equal(np.asarray(array), weights[path])


def test_the_report_names_every_array(imported):
    content = report(imported)
    arrays = {array["name"]: array for array in content["arrays"]}
    wo = arrays["params/encoder/layers/mlp/wo"]
    assert wo["shape"] == [5, 22, 18]
    assert wo["made_of"] == [
        f"encoder.block.{i}.layer.1.DenseReluDense.wo.weight" for i in range(5)
    ]
    assert content["source"]["format"] == "huggingface"
    assert content["model"]["num_decoder_layers"] == 1
    assert content["optimizer_slots"] is False
    total = sum(int(np.prod(array["shape"])) for array in arrays.values())
    assert total == content["parameters"]


TASK = """
from t5jax.data.sources import Tsv
from t5jax.data.tasks import ExampleTask
from t5jax.data.registry import add_task


def examples(row):
    yield {"inputs": f"verdict: {row.text('text')}", "targets": ["bad", "good"][int(row["label"])]}


source = Tsv(train_files=("train.tsv",), validation_files=("validation.tsv",))
add_task(
    ExampleTask(
        name="verdicts",
        description="is it good or bad?",
        source=lambda data: source,
        examples=examples,
        splits=("train", "validation"),
    )
)
"""
FINETUNING = """
from t5jax.data.config import DataConfig
from t5jax.recipes import saved_config, t5_finetuning


def config():
    old = saved_config("run")
    data = DataConfig(
        mixture="verdicts", modules=("verdicts",), vocabulary=old.data.vocabulary,
        inputs_length=32, targets_length=8, cache_dir=None,
    )
    run = t5_finetuning("tuned", old.model, data, pretrained="run")
    run.train.num_train_steps, run.train.batch_size, run.train.eval_every_steps = 2, 8, 2
    run.checkpoints.save_every_steps = 2
    run.runtime.detect_cluster = False
    return run
"""


@pytest.mark.slow
def test_a_model_of_hugging_face_is_used(tmp_path, monkeypatch, capsys):
    """In, answers and a loss on one's own task, fine-tuned on it, out again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "verdicts.py").write_text(TASK)
    for split in ("train", "validation"):
        rows = [f"{split} crate {i} of quinces\t{i % 2}" for i in range(40)]
        (tmp_path / f"{split}.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n")
    (tmp_path / "tune.py").write_text(FINETUNING)
    tiny_huggingface(tmp_path / "hf", "byt5")
    assert convert("hf", "run", *NUMPY) == 0
    assert main(["predict", "run", "A <extra_id_0>.", "--decoding.max-length", "4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["input"] == "A <extra_id_0>."
    flags = ["--data.mixture", "verdicts", "--data.modules", "verdicts", "--train.batch-size", "8"]
    flags += ["--data.inputs-length", "32", "--data.targets-length", "8"]
    assert main(["evaluate", "run", "--num-rows", "3", "--json", *flags]) == 0
    before = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert before["num_rows"] == 3
    assert main(["train", "tune.py"]) == 0
    first = json.loads((tmp_path / "tuned/metrics.jsonl").read_text().splitlines()[0])
    assert "run" in json.dumps(first)
    assert convert("tuned", "out", *NUMPY) == 0
    old, new = (read_safetensors(tmp_path / x / "model.safetensors") for x in ("hf", "out"))
    assert set(old) == set(new)
    assert any((old[name] != new[name]).any() for name in old)


@pytest.mark.slow
def test_the_vocabulary_comes_along(tmp_path):
    """A SentencePiece model is copied into the run, and out again."""
    make = lambda name, size: train_sentencepiece(
        SENTENCES * 3, str(tmp_path / name), vocab_size=size
    )
    vocabulary = make("small.model", 70)
    source = tiny_huggingface(tmp_path / "hf", "t5_1_1")
    (source / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer"}')
    (source / "spiece.model").write_bytes((tmp_path / "small.model").read_bytes())
    run = tmp_path / "run"
    assert convert(source, run, *NUMPY) == 0
    config = from_text((run / "config.txt").read_text())
    assert config.data.vocabulary == SentencePieceVocabulary(path=f"{run}/vocabulary.model")
    assert config.data.vocabulary.fingerprint == vocabulary.fingerprint
    assert convert(run, tmp_path / "back", *NUMPY) == 0
    there = (tmp_path / "back/spiece.model").read_bytes()
    assert there == (tmp_path / "small.model").read_bytes()
    # The run is another folder now; then its vocabulary is taken away, and named by hand.
    run = run.rename(tmp_path / "moved")
    assert convert(run, tmp_path / "moved_back", *NUMPY) == 0
    assert main(["predict", str(run), "A word.", "--decoding.max-length", "3"]) == 0
    (run / "vocabulary.model").rename(tmp_path / "elsewhere.model")
    assert convert(run, tmp_path / "without", *NUMPY) == ExitCode.DATA
    words = ("--vocabulary", tmp_path / "elsewhere.model")
    assert convert(run, tmp_path / "again", *words, *NUMPY) == 0
    assert make("other.model", 71).fingerprint != vocabulary.fingerprint
    words = ("--vocabulary", tmp_path / "other.model")
    assert convert(run, tmp_path / "third", *words, *NUMPY) == ExitCode.CONFIG


@pytest.mark.slow
def test_half_precision_in_shards(tmp_path, imported):
    """bfloat16 and back: our float32 holds every bit of it."""
    one, run, two = (tmp_path / name for name in ("one", "run", "two"))
    words = ("--dtype", "bfloat16", "--max-shard-size", "20KB", *NUMPY)
    assert convert(imported, one, *words) == 0
    shards = sorted(path.name for path in one.glob("model-*.safetensors"))
    assert len(shards) > 2
    assert max(path.stat().st_size for path in one.glob("model-*")) < 30_000
    assert json.loads((one / "config.json").read_text())["dtype"] == "bfloat16"
    assert convert(one, run, *NUMPY) == 0
    assert report(run)["arrays"][0]["from_dtype"] == "bfloat16"
    assert convert(run, two, *words) == 0
    assert sorted(path.name for path in two.glob("model-*.safetensors")) == shards
    for name in shards:
        assert (one / name).read_bytes() == (two / name).read_bytes()


@pytest.mark.slow
def test_stored_logits_are_compared(tmp_path, imported, monkeypatch, capsys):
    """Where transformers is not installed: what the export left beside the weights."""
    monkeypatch.setattr(verify.transformers_t5, "is_installed", lambda: False)
    folder = tmp_path / "hf"
    assert convert(imported, folder) == 0
    assert convert(folder, tmp_path / "run") == 0
    assert "compared with t5jax_golden.json" in capsys.readouterr().out
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-4 * 18 * 100 + 3] ^= 0x40  # an exponent: nothing but the logits can tell
    file.write_bytes(data)
    assert convert(folder, tmp_path / "damaged") == ExitCode.NO_CHECKPOINT
    assert "not the same model" in capsys.readouterr().err
    assert not (tmp_path / "damaged").exists()
    assert (tmp_path / "damaged.unfinished/conversion.json").exists()


# ---- T5X, with slots


@pytest.fixture(scope="module")
def t5x(tmp_path_factory) -> pathlib.Path:
    """A checkpoint of step 12 with second moments, none of them factored."""
    folder = tmp_path_factory.mktemp("t5x") / "checkpoint_12"
    rng = np.random.default_rng(5)
    leaves = {"state/step": np.array(12, np.int32)}
    for name, x in random_weights(model_of("byt5")).items():
        leaves[f"target/{t5x_name(name)}"] = x
        at = f"state/param_states/{t5x_name(name)}"
        leaves[f"{at}/v"] = rng.random(x.shape).astype(np.float32)
        leaves |= {f"{at}/{slot}": np.zeros(1, np.float32) for slot in ("v_row", "v_col", "m")}
    return write_t5x(folder, leaves)


CONFIG = """
from t5jax.checkpoints import CheckpointConfig
from t5jax.config import from_text, RunConfig

def config() -> RunConfig:
    config = from_text(open("{run}/config.txt").read())
    config.train.num_train_steps, config.train.batch_size = 14, 8
    config.train.eval_every_steps = 0
    config.data.mixture, config.data.inputs_length = "docstrings_span_corruption", 40
    config.checkpoints = CheckpointConfig(save_every_steps=1)
    config.tracking.seconds_between_lines = 0
    config.runtime.detect_cluster = False
    return config
"""


@pytest.mark.slow
def test_training_goes_on_from_t5x(t5x, tmp_path):
    """Step, parameters and second moments are T5X's; the data begin at their beginning."""
    run = tmp_path / "run"
    assert convert(t5x, run) == 0
    assert report(run)["optimizer_slots"] is True
    assert report(run)["target"]["step"] == 12
    record = read_record(run / "checkpoints", 12)
    assert record.leaves["opt_state/v/encoder/layers/mlp/wo"].shape == (5, 22, 18)
    assert record.leaves["opt_state/v_row/encoder/layers/mlp/wo"].shape == (1,)
    (tmp_path / "go_on.py").write_text(CONFIG.format(run=run))
    assert main(["train", str(tmp_path / "go_on.py")]) == 0
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if line["kind"] == "train"]
    assert steps == [13, 14]
    saved = read_record(run / "checkpoints", 14)
    assert saved.content["data"]["next_row"] == 16


@pytest.mark.slow
def test_slots_can_be_left_behind(t5x, tmp_path):
    assert convert(t5x, tmp_path / "run", "--no-slots") == 0
    assert read_record(tmp_path / "run/checkpoints", 0).step == 0
    assert report(tmp_path / "run")["source"]["step"] == 12


@pytest.mark.slow
def test_from_t5x_to_hugging_face(t5x, tmp_path):
    assert convert(t5x, tmp_path / "hf", "--to", "huggingface", *NUMPY) == 0
    found = read_safetensors(tmp_path / "hf/model.safetensors")
    want = huggingface_weights(random_weights(model_of("byt5")))
    for name, array in want.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    made_of = {array["name"]: array["made_of"] for array in report(tmp_path / "hf")["arrays"]}
    checks = report(tmp_path / "hf")["checks"]  # of the names there, and of the names here
    assert len(checks) == 2
    assert all(check["relative_error"] < 1e-5 for check in checks)
    name = "encoder.block.3.layer.0.SelfAttention.q.weight"
    assert made_of[name] == ["encoder/layers_3/attention/query/kernel"]


# ---- memory


@pytest.mark.slow
@pytest.mark.long
def test_memory_follows_the_largest_array(tmp_path):
    """Of 600 MB, the tables have 134 each."""
    model = T5Config(
        vocab_size=32768, emb_dim=1024, num_heads=16, head_dim=64, mlp_dim=2048,
        num_encoder_layers=4, num_decoder_layers=4,
    )  # fmt: skip
    beneath = conversion_memory.measure(conversion_memory.NOTHING, tmp_path)
    for way, found in conversion_memory.measure(model, tmp_path).items():
        assert found.parameters > 4.5 * found.largest
        assert found.peak - beneath[way].peak < 1.3 * found.largest, way


# ---- what is refused


@pytest.mark.slow
def test_factors_of_lora_have_to_be_merged(tiny_text, tmp_path, capsys):
    config = load_config(str(tiny_text / "tiny.py"), ["--train.num-train-steps", "50"])
    tuned = dataclasses.replace(
        config, finetuning=LoRA(rank=3), init=WarmStart(path="elsewhere"), workdir="tuned"
    )
    run = save_run(tuned, tmp_path / "tuned", steps=(30,))
    assert convert(run, tmp_path / "out") == ExitCode.CONFIG
    assert f"t5jax merge {run}" in capsys.readouterr().err
    assert main(["merge", str(run), str(tmp_path / "merged")]) == 0
    assert convert(tmp_path / "merged", tmp_path / "out", *NUMPY) == 0
    read = lambda folder, step: open_step(folder / "checkpoints", "params", step).arrays("params")
    factors, merged = read(run, 30), read(tmp_path / "merged", 0)
    path = "encoder/layers/self_attention/query"
    a, b = (factors[f"{path}_lora/{name}"].whole() for name in "ab")
    whole = factors[path].whole() + 16.0 / 3 * a @ b
    written = read_safetensors(tmp_path / "out/model.safetensors")
    for found in (
        merged[path].whole()[0],
        written["encoder.block.0.layer.0.SelfAttention.q.weight"].T,
    ):
        np.testing.assert_allclose(found, whole[0], atol=1e-5)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nowhere", "out"], ExitCode.CONFIG, "there is no nowhere"),
        (["google/flan-t5-small", "out"], ExitCode.CONFIG, "hf download"),
        (["gs://bucket/model", "out"], ExitCode.CONFIG, "local files"),
        (["{empty}", "out"], ExitCode.CONFIG, "has no known format"),
        (["{hf}", "{empty}"], ExitCode.CONFIG, "exists already"),
        (["{hf}", "s3://bucket/out"], ExitCode.CONFIG, "s3:// is not written to"),
        (["{hf}", "out", "--step", "3"], ExitCode.CONFIG, "has no steps"),
        (["{hf}", "out", "--dtype", "bfloat16"], ExitCode.CONFIG, "has no effect"),
        (["{hf}", "out", "--extra-ids", "10"], ExitCode.CONFIG, "without --vocabulary"),
        (["{hf}", "out", "--vocabulary", "nothing"], ExitCode.CONFIG, "no such file"),
        (["{hf}", "out", "--max-shard-size", "big"], ExitCode.CONFIG, "--max-shard-size big"),
        (["{hf}", "out", "--model.emb-dim", "3"], ExitCode.CONFIG, "no settings"),
        (["{run}", "out", "--to", "t5jax"], ExitCode.CONFIG, "a run of t5jax already"),
        (["{run}", "out", "--step", "5"], ExitCode.NO_CHECKPOINT, "holds no step 5"),
        (["{run}", "out", "--no-slots"], ExitCode.CONFIG, "has no effect"),
        (["{run}", "out", "--to", "pytorch"], ExitCode.CONFIG, "invalid choice"),
    ],
)
def test_command_lines_that_cannot_be(tmp_path, imported, capsys, words, code, message):
    (tmp_path / "empty").mkdir()
    source = tiny_huggingface(tmp_path / "hf", "byt5")
    names = {"empty": tmp_path / "empty", "hf": source, "run": imported}
    words = [word.format(**names) for word in words]
    words[1] = words[1] if words[1] != "out" else str(tmp_path / "out")
    try:
        found = convert(*words)
    except SystemExit as end:
        found = end.code
    assert found == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def broken(folder, damage) -> pathlib.Path:
    source = tiny_huggingface(folder / "hf", "byt5")
    damage(source)
    return source


def cut_short(source: pathlib.Path) -> None:
    file = source / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def without_a_tensor(source: pathlib.Path) -> None:
    weights = read_safetensors(source / "model.safetensors")
    del weights["decoder.block.0.layer.1.EncDecAttention.v.weight"]
    (source / "model.safetensors").unlink()
    write_safetensors(source / "model.safetensors", weights)


def another_architecture(source: pathlib.Path) -> None:
    (source / "config.json").write_text('{"model_type": "bart"}')


def a_pickle(source: pathlib.Path) -> None:
    (source / "model.safetensors").rename(source / "pytorch_model.bin")


def without_a_vocabulary(source: pathlib.Path) -> None:
    (source / "tokenizer_config.json").unlink()


def too_large_a_vocabulary(source: pathlib.Path) -> None:
    letters = random.Random(7)
    words = ["".join(letters.choices("abcdefghiklmnoprstu", k=5)) for _ in range(600)]
    sentences = [" ".join(words[i : i + 7]) for i in range(len(words))]
    train_sentencepiece(sentences, str(source / "spiece.model"), vocab_size=450)
    (source / "tokenizer_config.json").unlink()


@pytest.mark.slow
def test_a_vocabulary_of_few_sentinels_asks_for_a_task_when_one_is_used(tmp_path, capsys):
    """A converted run has no task: no objective asks for more sentinels than there are."""
    source = tiny_huggingface(tmp_path / "hf", "t5_1_1")
    letters = random.Random(5)
    words = ["".join(letters.choices("abcdefghi", k=4)) for _ in range(300)]
    train_sentencepiece(
        [" ".join(words[i : i + 7]) for i in range(300)],
        str(source / "spiece.model"),
        vocab_size=300,
    )
    settings = {"tokenizer_class": "T5Tokenizer", "extra_ids": 10}
    (source / "tokenizer_config.json").write_text(json.dumps(settings))
    out = tmp_path / "out"
    assert convert(source, out, *NUMPY) == 0
    vocabulary = from_text((out / "config.txt").read_text()).data.vocabulary
    assert (vocabulary.vocab_size, vocabulary.num_sentinels) == (310, 10)
    assert vocabulary.sentinel_id(0) == 309
    capsys.readouterr()
    assert main(["predict", str(out), words[0], "--decoding.max-length", "3"]) == 0
    assert main(["evaluate", str(out)]) == ExitCode.CONFIG
    assert "data.mixture = None: the run has no task yet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("damage", "code", "message"),
    [
        (cut_short, ExitCode.NO_CHECKPOINT, "cut short"),
        (without_a_tensor, ExitCode.NO_CHECKPOINT, "EncDecAttention.v.weight is missing"),
        (another_architecture, ExitCode.CONFIG, "model_type is 'bart'"),
        (a_pickle, ExitCode.CONFIG, "save_pretrained"),
        (too_large_a_vocabulary, ExitCode.CONFIG, "they do not fit"),
    ],
)
def test_sources_that_cannot_be(tmp_path, capsys, damage, code, message):
    assert convert(broken(tmp_path, damage), tmp_path / "out") == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_bytes_are_assumed_of_byt5_s_table_alone(tmp_path, capsys):
    source = broken(tmp_path, without_a_vocabulary)
    assert convert(source, tmp_path / "out", *NUMPY) == 0
    assert "vocabulary: bytes" in capsys.readouterr().out
    model = model_of("t5_1_1")
    weights = huggingface_weights(random_weights(model))
    other = write_huggingface(tmp_path / "other", weights, huggingface_config(model))
    without_a_vocabulary(other)
    assert convert(other, tmp_path / "out2") == ExitCode.CONFIG
    assert "holds no vocabulary" in capsys.readouterr().err


def test_a_damaged_run_is_passed_over(imported, tmp_path, capsys):
    """As everywhere: never silently another model."""
    run = tmp_path / "run"
    shutil.copytree(imported, run)
    largest = max((run / "checkpoints/0/state").rglob("d/*"), key=lambda file: file.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    assert convert(run, tmp_path / "out") == ExitCode.NO_CHECKPOINT
    assert "none can be used" in capsys.readouterr().err
