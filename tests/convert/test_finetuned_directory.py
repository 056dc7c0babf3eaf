"""A user's way in one act: a T5 with added tokens as transformers saves it is converted, evaluated,
fine-tuned, evaluated, asked, and given back; transformers then says what t5jax says."""

import json
import pathlib

import pytest

import t5jax
from t5jax.cli import main
from t5jax.data.vocabularies import train_sentencepiece
from tests.data.vocabularies.prose import SENTENCES

pytestmark = [pytest.mark.parity, pytest.mark.slow]
torch = pytest.importorskip("torch", reason="needs the `parity` extra")
transformers = pytest.importorskip("transformers", reason="needs the `parity` extra")

OWN = ["{", "}", "\n", "<sep>"]
PAIRS = [  # targets with their spaces where T5's own tokenizer has them
    ("red <sep> one", "{ red}\n{ one}"),
    ("blue <sep> two", "{ blue}\n{ two}"),
    ("green {old}", "{ green}\n old"),
    ("two\nlines", "lines{ two}"),
    ("one <sep> blue", "{ one}\n blue"),
]
WORDS = ["red one blue two", "green old two", "lines one blue"]
TASK = """
import t5jax


def examples(row):
    yield {"inputs": row.text("text"), "targets": row.text("json")}


t5jax.add_task(
    t5jax.ExampleTask(
        name="braces",
        description="words into braces",
        source=lambda data: t5jax.JsonLines(
            train_files=("pairs.jsonl",), validation_files=("held_out.jsonl",)
        ),
        examples=examples,
        metrics=(t5jax.metrics.accuracy,),
    )
)
"""
CONFIG = """
from t5jax.recipes import saved_config
from t5jax.training.optimizers import AdamW
from t5jax.training.schedules import Constant


def config():
    run = saved_config("converted")
    run.workdir, run.init.path = "tuned", "converted"
    run.data.mixture, run.data.modules, run.data.cache_dir = "braces", ("braces_task",), "stores"
    run.data.inputs_length, run.data.targets_length = 19, 17
    run.train.num_train_steps, run.train.batch_size = 150, 8
    run.train.eval_every_steps = 0
    run.optimizer = AdamW(learning_rate=1e-2, schedule=Constant())
    run.model.dropout_rate = 0.0
    return run
"""


@pytest.fixture
def directory(tmp_path, monkeypatch) -> pathlib.Path:
    """The working directory, with the tokenizer and the random model of a user in `source`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    plain = tmp_path / "plain"
    plain.mkdir()
    train_sentencepiece([*SENTENCES, *WORDS] * 5, str(plain / "spiece.model"), vocab_size=83)
    tokenizer = transformers.T5Tokenizer.from_pretrained(str(plain), extra_ids=100)
    assert tokenizer.add_tokens(OWN[:2]) == 2
    assert tokenizer.add_tokens([transformers.AddedToken("\n", normalized=False)]) == 1
    tokenizer.add_special_tokens({"additional_special_tokens": ["<sep>"]})
    config = transformers.T5Config(
        vocab_size=64, d_model=35, d_kv=9, d_ff=57, num_layers=2, num_heads=3,
        decoder_start_token_id=0, feed_forward_proj="gated-gelu",
    )  # fmt: skip
    torch.manual_seed(3)
    model = transformers.T5ForConditionalGeneration(config)
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained("source")
    tokenizer.save_pretrained("source")
    for name, pairs in (("pairs", PAIRS), ("held_out", PAIRS[1:4])):
        rows = [json.dumps({"text": text, "json": target}) for text, target in pairs]
        pathlib.Path(f"{name}.jsonl").write_text("\n".join(rows) + "\n")
    pathlib.Path("braces_task.py").write_text(TASK)
    pathlib.Path("tune.py").write_text(CONFIG)
    return tmp_path


def test_from_transformers_and_back(directory, capsys):
    assert main(["convert", "source", "converted"]) == 0
    assert "greedy" in capsys.readouterr().out
    assert accuracy("converted", capsys) < 50
    assert main(["cache", "tune.py"]) == 0
    assert main(["train", "tune.py"]) == 0
    assert accuracy("tuned", capsys) == 100
    run = t5jax.load("tuned")
    vocabulary, texts = run.config.data.vocabulary, [text for text, _ in PAIRS]
    assert run.predict(texts) == [target for _, target in PAIRS]
    assert main(["convert", "tuned", "given_back", "--to", "huggingface"]) == 0

    tokenizer = transformers.AutoTokenizer.from_pretrained("given_back")
    before = transformers.AutoTokenizer.from_pretrained("source")
    assert tokenizer.get_added_vocab() == before.get_added_vocab()
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained("given_back").eval()
    for name in ("pad_token_id", "eos_token_id", "unk_token_id"):
        assert getattr(tokenizer, name) == getattr(before, name)
    for text, target in PAIRS:
        ids = tokenizer(text, return_tensors="pt").input_ids
        assert ids[0].tolist() == [*vocabulary.encode(text).tolist(), vocabulary.eos_id]
        said = model.generate(ids, do_sample=False, max_new_tokens=17)[0].tolist()
        assert vocabulary.decode(said[1 : said.index(vocabulary.eos_id)]) == target


def accuracy(workdir: str, capsys) -> float:
    """Of the task's validation split, as the command reports it."""
    capsys.readouterr()
    words = ["evaluate", workdir, "--tasks", "braces", "--data.modules", "braces_task", "--json"]
    assert main([*words, "--only", "metrics"]) == 0
    found = json.loads(capsys.readouterr().out)
    return found["metrics"]["braces/accuracy"]
