"""Vocabularies through the command line: trained, extended, and a run that goes on with more."""

import json
import pathlib

import jax
import numpy as np
import pytest
from sentencepiece import sentencepiece_model_pb2

from t5jax.checkpoints import Checkpoints, read_record
from t5jax.cli import main
from t5jax.commands.vocab import train_vocabulary
from t5jax.config import load_config, to_text
from t5jax.data.config import DataConfig
from t5jax.data.registry import add_mixture, add_task
from t5jax.data.sources import TextFiles
from t5jax.data.tasks import Equal, ExampleTask, Mixture
from t5jax.data.vocabularies import Extension, SentencePieceVocabulary, train_sentencepiece
from t5jax.model.registry import init_params
from t5jax.runtime import ExitCode

PIECES = 120


@pytest.fixture(scope="module")
def folder(tiny_text, tmp_path_factory) -> pathlib.Path:
    """A config like tiny.py's with a SentencePiece vocabulary, trained by the command."""
    folder = tmp_path_factory.mktemp("vocab")
    text = (tiny_text / "tiny.py").read_text()
    text = text.replace("import ByteVocabulary", "import SentencePieceVocabulary")
    for name in ("run", "cache"):
        text = text.replace(f"{tiny_text}/{name}", f"{folder}/{name}")
    text = text.replace(
        "ByteVocabulary(extra_ids=100)",
        f'SentencePieceVocabulary(path="{folder}/old.model", extra_ids=100)',
    )
    text = text.replace("vocab_size=384", "vocab_size=231")
    text = text.replace("num_train_steps=30", "num_train_steps=2")
    text = text.replace("eval_every_steps=15, num_eval_rows=37", "eval_every_steps=0")
    (folder / "old.py").write_text(text)
    changed = {"old.model": "new.model", f"{folder}/run": f"{folder}/grown", "231": "256"}
    changed |= {f"{folder}/cache": f"{folder}/new_cache", "num_train_steps=2": "num_train_steps=3"}
    for before, after in changed.items():
        assert before in text
        text = text.replace(before, after)
    (folder / "new.py").write_text(text)
    words = ["--num-pieces", str(PIECES), "--max-characters", "30000"]
    assert main(["vocab", "train", str(folder / "old.py"), *words]) == 0
    return folder


@pytest.fixture(scope="module")
def extended(folder) -> Extension:
    (folder / "pieces.txt").write_text("⟨sep⟩\n\\n\n")
    command = ["vocab", "extend", str(folder / "old.model"), "--pieces", "☂", "☀"]
    command += ["--pieces-file", str(folder / "pieces.txt"), "--from", str(folder / "old.py")]
    command += ["--num-pieces", "3", "--max-characters", "30000"]
    assert main([*command, "-o", str(folder / "new.model")]) == 0
    return Extension.load(str(folder / "new.model"))


def test_settings_of_training_reach_the_file(folder):
    other = str(folder / "bytes.model")
    words = ["--num-pieces", "370", "--max-characters", "30000", "--byte-fallback"]
    words += ["--character-coverage", "0.99", "--data.vocabulary.path", other]
    assert main(["vocab", "train", str(folder / "old.py"), *words]) == 0
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(pathlib.Path(other).read_bytes())
    assert proto.trainer_spec.byte_fallback
    assert proto.trainer_spec.character_coverage == pytest.approx(0.99)


def test_sentinels_and_tasks_that_are_only_evaluated_give_no_text(tmp_path):
    for split in ("train", "validation"):
        rows = [f"{split} sentence number {n} of the story" for n in range(300)]
        (tmp_path / f"{split}.txt").write_text("\n\n".join(rows))
    train, validation = ((str(tmp_path / f"{s}.txt"),) for s in ("train", "validation"))
    asked = ExampleTask(
        name="asked_only",
        description="",
        source=lambda data: TextFiles(validation_files=validation),
        examples=lambda row: [{"inputs": row.text("text"), "targets": "yes"}],
        splits=("validation",),
    )
    filled = ExampleTask(
        name="filled",
        description="",
        source=lambda data: TextFiles(train_files=train),
        examples=lambda row: [{"inputs": "<extra_id_0> of", "targets": "<extra_id_10> the story"}],
        splits=("train",),
    )
    tasks = (add_task(asked).name, add_task(filled).name, "text_span_corruption")
    mixture = add_mixture(Mixture(name="asked_mix", tasks=tasks, rate=Equal()))
    data = DataConfig(
        mixture=mixture.name,
        train_files=train,
        vocabulary=SentencePieceVocabulary(path=str(tmp_path / "new.model")),
        targets_length=128,
        cache_dir=None,
    )
    train_vocabulary(data, num_pieces=50)
    texts = (tmp_path / "train.txt").read_text().split("\n\n")
    of_train = train_sentencepiece(
        [part for text in texts for part in (" of", " the story", text)],
        str(tmp_path / "other.model"),
        vocab_size=50,
        num_chars=20_000_000,
    )
    assert data.vocabulary.fingerprint == of_train.fingerprint


def test_extended(folder, extended):
    new = SentencePieceVocabulary(path=str(folder / "new.model"))
    assert extended.pieces[:4] == ("☂", "☀", "⟨sep⟩", "\n")
    assert len(extended.pieces) == 7
    assert new.vocab_size == PIECES + 7 + 100
    assert {PIECES, PIECES + 1, PIECES + 2, PIECES + 3} <= set(new.encode("☂a☀⟨sep⟩\nb").tolist())


@pytest.fixture(scope="module")
def old_run(folder, extended) -> pathlib.Path:
    """What a run of old.py would have left, as far as growing reads it: saved in a moment."""
    config = load_config(str(folder / "old.py"))
    params = init_params(config.model, jax.random.key(7))
    record = {"config": to_text(config), "vocabulary": extended.old_fingerprint}
    checkpoints = Checkpoints(folder / "run/checkpoints", config.checkpoints)
    checkpoints.save(2, {"params": params}, record)
    checkpoints.close()
    return folder / "run"


@pytest.mark.slow
def test_a_run_goes_on_with_the_larger_vocabulary(folder, old_run, extended, capsys):
    new = str(folder / "new.py")
    assert main(["cache", new]) == 0
    assert main(["vocab", "grow", str(old_run), new]) == 0
    assert "step 0 has the parameters of" in capsys.readouterr().out
    record = read_record(folder / "grown/checkpoints", 0)
    assert record.content["grown_from"] == {"workdir": str(old_run), "step": 2}
    assert record.content["vocabulary"] == extended.new_fingerprint
    assert (folder / "grown/config.txt").read_text() == record.content["config"]
    assert record.leaves["params/token_embedder"].shape == (256, 24)
    before = read_record(old_run / "checkpoints", 2).leaves
    tables = {"params/token_embedder", "params/logits_dense"}
    for path, leaf in before.items():
        if path.startswith("params/"):
            assert (record.leaves[path] == leaf) == (path not in tables), path
    # A second time would write over a run.
    assert main(["vocab", "grow", str(old_run), new]) == ExitCode.CONFIG
    assert "holds a run already" in capsys.readouterr().err
    assert main(["train", new]) == 0
    lines = (folder / "grown/metrics.jsonl").read_text().splitlines()
    steps = [record for record in map(json.loads, lines) if record["kind"] == "train"]
    assert [step["step"] for step in steps] == [1, 2, 3]
    assert all(np.isfinite(step["train/loss"]) for step in steps)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model.num-heads", "6"], "model.num_heads = 6: the run that is grown has 3"),
        (["--data.vocabulary.path", "{folder}/old.model"], "was not made by `t5jax vocab extend`"),
        (["--data.vocabulary.extra-ids", "90"], "extra_ids = 90 is not as it was"),
        (["--model.vocab-size", "226"], "model.vocab_size = 226: the vocabulary has 227 ids"),
    ],
)
def test_what_cannot_grow(folder, old_run, capsys, flags, message):
    flags = [flag.format(folder=folder) for flag in flags]
    command = ["vocab", "grow", str(old_run), str(folder / "new.py")]
    assert main([*command, "--workdir", str(folder / "never"), *flags]) in (
        ExitCode.CONFIG,
        ExitCode.DATA,
    )
    assert message in capsys.readouterr().err
    assert not (folder / "never").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--num-pieces", "3"], "--from CONFIG and --num-pieces N go together"),
        (["--pieces", "☂", "--data.seed", "3"], "--data.seed has no effect without --from"),
        (["--pieces-file", "nowhere.txt"], "--pieces-file nowhere.txt: there is no such file"),
        ([], "there are no pieces to add"),
    ],
)
def test_what_cannot_be_extended(folder, capsys, words, message):
    out = folder / "never.model"
    assert main(["vocab", "extend", str(folder / "old.model"), "-o", str(out), *words]) in (
        ExitCode.CONFIG,
        ExitCode.DATA,
    )
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_a_published_vocabulary_is_not_trained(folder, capsys):
    flags = ["--data.vocabulary.path", "t5"]
    assert main(["vocab", "train", str(folder / "old.py"), *flags]) == ExitCode.CONFIG
    assert "data.vocabulary.path = t5 is a published file" in capsys.readouterr().err
    assert load_config(str(folder / "old.py"), flags).data.vocabulary.path == "t5"


def test_a_new_vocabulary_where_another_is(folder, capsys):
    words = ["cache", str(folder / "old.py"), "--new-vocabulary"]
    assert main([*words, "77"]) == ExitCode.CONFIG
    said = capsys.readouterr().err
    assert f"old.model exists and has {PIECES} pieces; name a new file" in said
    assert main([*words, str(PIECES)]) == 0  # the same command again
