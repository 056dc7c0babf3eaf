"""`t5jax inspect`: what it prints of a model and of the rows of a step, against the things."""

import re
import types

import jax
import numpy as np
import pytest

from t5jax.cli import main
from t5jax.commands import inspect as inspect_module
from t5jax.config import load_config
from t5jax.data.vocabularies import ByteVocabulary
from t5jax.model.registry import init_params
from t5jax.run.build import build_evaluation_loaders, build_train_loader, resolve_mixture


def inspect(capsys, *words: str) -> str:
    assert main(["inspect", *words]) == 0
    return capsys.readouterr().out


def table(said: str) -> dict[str, list[str]]:
    """Parameter -> shape, sharding, shape per device, count."""
    rows = [re.split(r"  +", line) for line in said.split("\n\n")[0].splitlines()]
    assert rows[0] == ["parameter", "shape", "sharding", "per device", "count"]
    return {name: cells for name, *cells in rows[1:]}


def test_every_parameter_is_listed_with_its_count(tiny_text, capsys):
    said = inspect(capsys, "model", str(tiny_text / "tiny.py"))
    rows = table(said)
    model = load_config(str(tiny_text / "tiny.py")).model
    shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    expected = {
        jax.tree_util.keystr(path, simple=True, separator="/"): x
        for path, x in jax.tree_util.tree_leaves_with_path(shapes)
    }
    assert rows.keys() == expected.keys()
    for name, (shape, _, per_device, count) in rows.items():
        assert shape == per_device == "x".join(map(str, expected[name].shape))
        assert count == f"{expected[name].size:,}"
    assert rows["encoder/layers/self_attention/query"][0] == "1x24x15"
    total = sum(x.size for x in expected.values())
    assert f"parameters       {total:,}\n" in said
    assert "mesh             data=8 x fsdp=1 x tensor=1 over 8 cpu device(s)" in said
    gigabytes = total * 4 / 1e9
    assert f"parameters       {gigabytes:8.3f} GB per device, {gigabytes:8.3f} GB in all" in said
    assert "per step of 16 rows, 61 inputs and 14 targets" in said


@pytest.mark.slow
def test_layouts_are_shown_and_their_memory(tiny_text, capsys):
    flags = ["--mesh.fsdp", "2", "--mesh.tensor", "4", "--model.num-heads", "4"]
    large = ["--model.emb-dim", "512", "--model.mlp-dim", "1000", "--model.vocab-size", "40000"]
    said = inspect(capsys, "model", str(tiny_text / "tiny.py"), *flags, *large)
    rows = table(said)
    assert rows["token_embedder"] == ["40000x512", "tensor, fsdp", "10000x256", "20,480,000"]
    assert rows["decoder/layers/mlp/wo"] == [
        "1x1000x512",
        "-, tensor, fsdp",
        "1x250x256",
        "512,000",
    ]
    assert rows["encoder/final_norm/scale"] == ["512", "fsdp", "256", "512"]
    assert "mesh             data=1 x fsdp=2 x tensor=4 over 8" in said
    memory = re.search(r"\nparameters +([\d.]+) GB per device, +([\d.]+) GB in all", said)
    assert float(memory[2]) / float(memory[1]) == pytest.approx(8, rel=0.05)


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ("--mesh.fsdp 8 --model.emb-dim 20", "embed=20, which does not divide into fsdp = 8"),
        ("--mesh.tensor 8 --model.num-heads 8 --model.mlp-dim 44", "mlp=44, which does not divide"),
        ("--mesh.fsdp 3", "data=-1 x fsdp=3 x tensor=1 does not make 8 devices"),
    ],
)
def test_sizes_that_do_not_divide_are_named(tiny_text, capsys, flags, reason):
    assert main(["inspect", "model", str(tiny_text / "tiny.py"), *flags.split()]) == 64
    assert reason in capsys.readouterr().err


def test_rows_are_shown_decoded_with_their_masks_and_origins(tiny, capsys):
    config = str(tiny / "tiny.py")
    said = inspect(capsys, "data", config, "--step", "3", "--rows", "2")
    run = load_config(config)
    loader = build_train_loader(run, resolve_mixture(run))
    rows = loader.rows(2)  # the loader counts from 0
    assert f"{loader.num_rows:,} rows, {loader.num_steps:,} steps of 16 rows" in said
    assert "text_span_corruption: " in said
    assert f"{loader.num_rows:,} rows an epoch of 1.00 examples" in said
    for index in range(2):
        part = said.split(f"step 3, row {index}\n")[1]
        origin = loader.origins(2, index)[0]
        place = origin.place
        assert f"from    {origin.task}, {place.source}: documents {place.first_document} to" in part
        for side, name in (("inputs", "encoder_input"), ("targets", "decoder_target")):
            text = loader.vocabulary.decode(rows[f"{name}_tokens"][index]).replace("\n", "\\n")
            assert f"  {side:7s} {text}\n" in part
    assert "step 3, row 2" not in said


def test_a_text_of_a_row_is_one_line_whatever_ends_it_has(capsys):
    vocabulary = ByteVocabulary()
    text = "a\nb\rc\u2028d\x85e"
    ids = np.array([*vocabulary.encode(text), 1, 0])
    row = {
        "encoder_input_tokens": ids,
        "decoder_target_tokens": ids,
        "decoder_loss_weights": ids != 0,
    }
    loader = types.SimpleNamespace(
        vocabulary=vocabulary, components=(), origins=lambda step, index: ()
    )
    inspect_module._print_row(loader, row, 3, 0)
    assert capsys.readouterr().out.splitlines()[2:4] == [
        rf"  {name} a\nb\rc\u2028d\u0085e" for name in ("inputs ", "targets")
    ]


def test_marks_count_what_is_there(tiny, capsys):
    said = inspect(capsys, "data", str(tiny / "tiny.py"), "--rows", "1", "--split", "validation")
    run = load_config(str(tiny / "tiny.py"))
    (loader,) = build_evaluation_loaders(run, resolve_mixture(run), "validation").values()
    row = loader.rows(0)
    inputs = row["encoder_input_tokens"][0]
    marks = [line for line in said.splitlines() if re.fullmatch(r"  inputs  [.SE_x\d ]+", line)]
    (shown,) = marks
    counts = dict.fromkeys(".SE_", 0)
    for mark, run in re.findall(r"([.SE_])(?:x(\d+) )?", shown.removeprefix("  inputs  ")):
        counts[mark] += int(run or 1)
    sentinels = int(np.sum(inputs >= 259))
    assert counts == {".": len(inputs) - sentinels - 1, "S": sentinels, "E": 1, "_": 0}
    assert re.search(r"\n  weights 1x14", said)


def test_what_is_not_there_is_refused(tiny, tmp_path, capsys):
    words = ["inspect", "data", str(tiny / "tiny.py")]
    assert main([*words, "--data.cache-dir", str(tmp_path)]) == 65
    assert "t5jax cache" in capsys.readouterr().err
    assert main([*words, "--step", "0"]) == 64
    assert "--step 0: at least 1" in capsys.readouterr().err
    assert main([*words, "--rows", "0"]) == 64
    assert "--rows 0: at least 1" in capsys.readouterr().err
