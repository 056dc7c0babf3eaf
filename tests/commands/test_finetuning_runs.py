"""Fine-tuning as runs: begun with another's parameters, resumed, evaluated, merged, refused."""

import dataclasses
import json
import pathlib
import re
import shutil

import numpy as np
import pytest

from t5jax.checkpoints import leaves_by_path, read_record, restore_params
from t5jax.cli import main
from t5jax.config import RunConfig, WarmStart, from_text, load_config, to_text
from t5jax.errors import CheckpointError, ConfigError
from t5jax.run import build
from t5jax.run.build import build_program
from t5jax.run.initialize import begin
from t5jax.training.peft import (
    Adapters,
    AllParameters,
    Freeze,
    GradualUnfreezing,
    LoRA,
    PromptTuning,
    Strategy,
    TrainOnly,
)
from tests.commands.saved_runs import bits, restore_run, save_record, save_run

LORA = LoRA(rank=3, alpha=6.0)
RUNS: dict[str, tuple[Strategy, dict]] = {
    "plain": (AllParameters(), {}),
    "lora": (LORA, {}),
    "adapters": (Adapters(), {"adapter_dim": 8}),
    "prompt": (PromptTuning(), {"prompt_length": 5}),
}


@pytest.fixture(scope="module")
def plain(tiny_text) -> RunConfig:
    return load_config(str(tiny_text / "tiny.py"), ["--train.num-train-steps", "50"])


@pytest.fixture(scope="module")
def runs(plain, tmp_path_factory):
    """Name of RUNS -> workdir of such a run, made when it is first asked for."""
    folder, made = tmp_path_factory.mktemp("runs"), {}

    def run(name: str, *, whole: bool = True) -> pathlib.Path:
        if (name, whole) not in made:
            path = folder / f"{name}_{whole}"
            config = dataclasses.replace(finetuned(plain, name, "elsewhere"), workdir=str(path))
            saved = save_run(config, path, steps=(30,)) if whole else save_record(config, path)
            made[name, whole] = saved
        return made[name, whole]

    return run


def finetuned(plain: RunConfig, name: str, path) -> RunConfig:
    """A config of this kind that begins with the run at `path`."""
    strategy, needs = RUNS[name]
    return dataclasses.replace(
        plain,
        model=dataclasses.replace(plain.model, **needs),
        init=WarmStart() if name == "plain" else WarmStart(path=str(path)),
        finetuning=strategy,
    )


def start(config: RunConfig):
    return begin(config, build_program(config))


# ---- where it begins


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("adapters", "prompt")]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lora", *SLOW])
def test_what_is_added_begins_fresh_and_the_rest_is_the_other_runs(plain, runs, name):
    config = finetuned(plain, name, runs("plain"))
    config.check()
    began = start(config)
    given, found = (
        restore_run(str(runs("plain"))).params,
        bits(began.state.params),
    )
    assert bits(given).items() <= found.items()
    added = found.keys() - bits(given).keys()
    assert added
    arrays = leaves_by_path(began.state.params)
    assert began.source["fresh_parameters"] == sum(arrays[path].size for path in added)
    for path in added:
        if path.endswith(("_lora/b", "adapter/up")):
            assert not np.asarray(arrays[path]).any(), path
    if name == "prompt":
        table = np.asarray(given["token_embedder"])
        assert all((table == row).all(axis=1).any() for row in np.asarray(arrays["prompt"]))
    slots = {path.split("/mu/")[-1] for path in leaves_by_path(began.state.opt_state)}
    assert not slots & bits(given).keys() or name == "adapters"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lora", "adapters"])
def test_what_the_other_run_has_added_is_taken_over(plain, runs, name):
    began = start(finetuned(plain, name, runs(name)))
    assert began.state.step == 0
    record = read_record(runs(name) / "checkpoints", 30)
    arrays = leaves_by_path(began.state.params)
    assert {f"params/{path}" for path in arrays} == {
        path for path in record.leaves if path.startswith("params/")
    }
    assert "fresh_parameters" not in began.source
    (path,) = [p for p in arrays if re.search(r"encoder.*(query_lora/b|adapter/up)$", p)]
    assert np.asarray(arrays[path]).any()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "other", "reason"),
    [
        ("plain", "lora", "(?s)query_lora/a.*no such array.*LoRA factors: .* `t5jax merge`"),
        ("plain", "adapters", "model.adapter_dim = 0: .* has 8; set that"),
        ("adapters", "lora", "`t5jax merge`"),
        ("lora", "prompt", "model.prompt_length = 0: .* has 5"),
    ],
)
def test_what_would_be_lost_is_refused(plain, runs, name, other, reason):
    path = str(runs(other, whole=other == "lora"))
    config = dataclasses.replace(finetuned(plain, name, path), init=WarmStart(path=path))
    with pytest.raises(ConfigError, match=reason):
        start(config)


@pytest.mark.slow
def test_what_would_stay_as_it_begins_is_refused(plain, runs):
    config = finetuned(plain, "lora", runs("plain"))
    config.model = dataclasses.replace(config.model, adapter_dim=8)
    with pytest.raises(ConfigError, match=r"has no params/.*adapter/.* LoRA does not train it"):
        start(config)


@pytest.mark.slow
def test_factors_of_another_rank_are_refused(plain, runs):
    config = finetuned(plain, "lora", runs("lora"))
    config.finetuning = LoRA(rank=2)
    with pytest.raises(
        ConfigError, match=r"saved float32\[1, 24, 3\], the model has float32\[1, 24, 2\]"
    ):
        start(config)


# ---- as text, as flags, checked


@pytest.mark.parametrize(
    "strategy",
    [
        AllParameters(),
        TrainOnly(patterns=("norm", "^decoder/.*")),
        Freeze(patterns=("'quoted'",)),
        Adapters(),
        GradualUnfreezing(num_episodes=3),
        LoRA(rank=4, alpha=2.5, patterns=("wi_0",)),
        PromptTuning(),
    ],
    ids=lambda strategy: type(strategy).__name__,
)
def test_text_keeps_every_strategy(plain, strategy):
    config = dataclasses.replace(plain, finetuning=strategy)
    assert from_text(to_text(config)) == config
    assert f"finetuning: {type(strategy).__name__}" in to_text(config).splitlines()


def config_file(plain: RunConfig, folder: pathlib.Path, strategy: str) -> str:
    text = pathlib.Path(plain.workdir).parent.joinpath("tiny.py").read_text()
    text = text.replace("def config()", "from t5jax.training.peft import *\n\n\ndef config()")
    text = text.replace("        optimizer=", f"        finetuning={strategy},\n        optimizer=")
    (folder / "finetune.py").write_text(text)
    return str(folder / "finetune.py")


def test_flags_change_a_strategy(plain, tmp_path):
    file = config_file(plain, tmp_path, "LoRA(rank=2)")
    flags = "--finetuning.rank 5 --finetuning.patterns wi_0 wo --init.path runs/x"
    config = load_config(file, flags.split())
    assert config.finetuning == LoRA(rank=5, patterns=("wi_0", "wo"))
    file = config_file(plain, tmp_path, "GradualUnfreezing()")
    config = load_config(file, ["--finetuning.num-episodes", "4", "--init.path", "runs/x"])
    assert config.finetuning == GradualUnfreezing(num_episodes=4)


@pytest.mark.parametrize(
    ("strategy", "flags", "reason"),
    [
        ("LoRA()", "", "finetuning: LoRA, but init.path = None: name the workdir"),
        ("Adapters()", "--init.path x", "Adapters, but model.adapter_dim = 0"),
        ("PromptTuning()", "--init.path x", "PromptTuning, but model.prompt_length = 0"),
        ("GradualUnfreezing(num_episodes=31)", "--init.path x", "31: the run has 30 steps"),
        ("LoRA(ranks=3)", "", "LoRA.*'ranks'; did you mean rank"),
        ("Freeze()", "", "Freeze.*missing 1 required .*'patterns'"),
        ("'lora'", "", "finetuning = 'lora': a str, but the field is declared as"),
    ],
)
def test_configs_that_are_refused(plain, tmp_path, strategy, flags, reason):
    with pytest.raises(ConfigError, match=reason):
        load_config(config_file(plain, tmp_path, strategy), flags.split())


def test_a_prompt_and_packed_rows_are_refused(plain, monkeypatch):
    class Packed:
        lengths, element_spec = (9, 9), {"encoder_segment_ids": None}

    monkeypatch.setattr(build, "open_loader", lambda *args, **kwargs: Packed())
    config = finetuned(plain, "prompt", "x")
    with pytest.raises(ConfigError, match=r"model.prompt_length = 5: .* set data.pack = False"):
        build.build_train_loader(config, build.resolve_mixture(config))


# ---- merged


@pytest.mark.slow
def test_a_merged_run_is_the_plain_model_with_the_same_output(runs, tmp_path, capsys):
    target = tmp_path / "merged"
    assert main(["merge", str(runs("lora")), str(target)]) == 0
    assert re.search(r"step 0 is step 30 .* differ by \d\.\de", capsys.readouterr().out)
    record = read_record(target / "checkpoints", 0)
    config = from_text(record.content["config"])
    assert (config.finetuning, config.init) == (AllParameters(), WarmStart())
    assert config.workdir == str(target)
    assert record.content["merged_from"] == {"workdir": str(runs("lora")), "step": 30}
    assert (target / "config.txt").read_text() == record.content["config"]
    assert record.content["data"] == {"next_row": 7}
    merged = restore_run(str(target))
    whole = restore_run(str(runs("lora")))
    assert bits(merged.params) == bits(whole.params), "what evaluate and predict use of the run"
    assert whole.program.finetuning == AllParameters()
    before = leaves_by_path(begin_state(runs("lora")))
    after = leaves_by_path(merged.params)
    for path, x in after.items():
        expected = np.asarray(before[path])
        if f"{path}_lora/a" in before:
            assert re.search(r"attention/(query|value)$", path)
            a, b = (np.asarray(before[f"{path}_lora/{name}"]) for name in "ab")
            np.testing.assert_allclose(x, expected + 2.0 * a @ b, atol=1e-6)
        else:
            np.testing.assert_array_equal(x, expected)
    # A second time would write over it.
    assert main(["merge", str(runs("lora")), str(target)]) == 64
    assert "holds a run already" in capsys.readouterr().err


def begin_state(workdir: pathlib.Path) -> dict:
    config = from_text(read_record(workdir / "checkpoints", 30).content["config"])
    config.init = WarmStart(path=str(workdir))
    return start(config).state.params


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("adapters", "cannot be merged: adapters are layers of their own, between the others"),
        ("prompt", "cannot be merged: a prompt is input to the encoder"),
        ("plain", "AllParameters, which adds no parameters: there is nothing to merge"),
    ],
)
def test_what_cannot_be_merged(runs, tmp_path, capsys, name, reason):
    run = runs(name, whole=False)
    assert main(["merge", str(run), str(tmp_path / "merged")]) == 64
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "merged").exists()


@pytest.mark.slow
def test_parameters_alone_are_not_read_from_a_run_that_has_more(plain, runs):
    params = build_program(plain).abstract_state.params
    with pytest.raises(CheckpointError, match=r"query_lora/a: saved .* no such array"):
        restore_params(runs("lora") / "checkpoints", params)


# ---- run


def records(workdir: pathlib.Path, kind: str) -> list[dict]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


WORDS = {
    "lora": ("LoRA(rank=3)", ""),
    "adapters": ("Adapters()", "--model.adapter-dim 8"),
    "prompt": ("PromptTuning()", "--model.prompt-length 5"),
    "unfreezing": ("GradualUnfreezing(num_episodes=2)", ""),
    "freeze": ("Freeze(patterns=('encoder',))", ""),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(x, marks=pytest.mark.long) if x in ("adapters", "unfreezing", "freeze") else x
        for x in WORDS
    ],
)
def test_a_run_is_trained_resumed_evaluated_and_asked(tiny, plain, runs, tmp_path, capsys, name):
    strategy, flags = WORDS[name]
    words = ["train", config_file(plain, tmp_path, strategy), "--init.path", str(runs("plain"))]
    words += ["--checkpoints.save-every-steps", "3", "--optimizer.learning-rate", "0.001"]
    words += ["--train.eval-every-steps", "3", *flags.split()]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main([*words, "--train.num-train-steps", "6", "--workdir", str(whole)]) == 0
    (started,) = records(whole, "started")
    assert started["of_step"] == 30
    assert ("trained_parameters" in started) == (name != "unfreezing")
    assert main([*words, "--train.num-train-steps", "6", "--workdir", str(parts)]) == 0
    shutil.rmtree(parts / "checkpoints/6")
    assert main([*words, "--train.num-train-steps", "6", "--workdir", str(parts)]) == 0
    assert [record["step"] for record in records(parts, "resumed")] == [3]
    losses = lambda run: [(r["step"], r["train/loss_hex"]) for r in records(run, "train")]
    assert losses(parts) == losses(whole) + losses(whole)[3:]
    capsys.readouterr()
    assert main(["evaluate", str(whole), "--num-rows", "37", "--json"]) == 0
    said, recorded = json.loads(capsys.readouterr().out), records(whole, "evaluation")[-1]
    for metric in ("loss", "accuracy"):
        assert said[metric] == pytest.approx(recorded[f"eval/validation/{metric}"], rel=1e-6)
    assert main(["predict", str(whole), "A <extra_id_0>.", "--decoding.max-length", "5"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    frozen = read_record(runs("plain") / "checkpoints", 30).leaves
    now = read_record(whole / "checkpoints", 6).leaves
    same = {p for p in frozen if p.startswith("params/") and now[p] == frozen[p]}
    assert ("params/encoder/layers/mlp/wi_0" in same) == (name != "unfreezing")
