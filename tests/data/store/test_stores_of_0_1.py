"""Stores that t5jax 0.1 made (tests/golden/v0_1): opened, verified, kept, refused."""

import itertools
import json
import os
import pathlib
import shutil
import sys

import numpy as np
import pytest

from t5jax.cli import main
from t5jax.data.registry import names
from t5jax.data.store import version_2
from t5jax.data.store.build import build_cache
from t5jax.data.store.reader import FORMAT_VERSION, META, TokenStore, checksum, read_info
from t5jax.data.store.verify import check_files
from t5jax.data.vocabularies import ByteVocabulary
from t5jax.errors import DataError

GOLDEN = pathlib.Path(__file__).parents[2] / "golden" / "v0_1"
VOCABULARY = ByteVocabulary(extra_ids=100)
STORES = {  # documents and CacheInfo.fingerprint, as 0.1 gave them
    "text/train": (31, "48cc349f7c642b99153c1cfeb31c52dcfc9e875c814439e7cf1db7167c88cb75"),
    "text/validation": (7, "5431acff58b8c47921bf4a3ad72f76a48d3b69596c574ae23e5d550790359bfc"),
    "golden_reviews/train": (
        29,
        "af78614bd8913a022b0edb625064f7f277185423e357f18b9c613c9a0bae97b9",
    ),
    "golden_reviews/validation": (
        11,
        "402a45cccf94ee84bd5418d6b7818647abf788cba15ebfdc42b8a373bf08822b",
    ),
}
# When the files were last written, in ns: a store knows its sources by size and time.
WRITTEN = {
    "text.txt": 1795988340189242917,
    "text-dev.txt": 1795988340189410301,
    "reviews.tsv": 1795988340189622279,
    "dev.tsv": 1795988340189763795,
}
TASKS = '''
from t5jax.data.registry import add_mixture, add_task
from t5jax.data.sources import Tsv
from t5jax.data.tasks import ExampleTask, Mixture, Proportional


def examples(row):
    """`review: <text>` -> bad or good."""
    yield {"inputs": f"review: {row.text('text')}", "targets": ["bad", "good"][int(row["label"])]}


add_task(
    ExampleTask(
        name="golden_reviews",
        description="is a review good or bad?",
        source=lambda data: Tsv(train_files=("reviews.tsv",), validation_files=("dev.tsv",)),
        examples=examples,
    )
)
tasks = ("golden_reviews", "text_span_corruption")
add_mixture(Mixture(name="golden_mix", tasks=tasks, rate=Proportional(maximum=50)))
'''
CONFIG = """
from t5jax.config import RunConfig, TrainConfig
from t5jax.data.config import DataConfig
from t5jax.data.vocabularies import ByteVocabulary
from t5jax.model.config import T5Config
from t5jax.training.optimizers import Adafactor
from t5jax.training.schedules import Rsqrt


def config() -> RunConfig:
    return RunConfig(
        workdir="run",
        model=T5Config(vocab_size=384, emb_dim=8, num_heads=1, head_dim=8, mlp_dim=8,
                       num_encoder_layers=1, num_decoder_layers=1),
        data=DataConfig(mixture="golden_mix", modules=("tasks_of_golden_mix",),
                        train_files=("text.txt",), validation_files=("text-dev.txt",),
                        vocabulary=ByteVocabulary(extra_ids=100), inputs_length=61,
                        targets_length=23, cache_dir="cache"),
        train=TrainConfig(num_train_steps=1, batch_size=8),
        optimizer=Adafactor(learning_rate=0.3, schedule=Rsqrt(warmup_steps=3)),
    )
"""


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of the stores with their sources, and a config of now, in the current folder."""
    folder = shutil.copytree(GOLDEN, tmp_path / "copied")
    for name, time in WRITTEN.items():
        os.utime(folder / name, ns=(time, time))
    (folder / "config.py").write_text(CONFIG)
    (folder / "tasks_of_golden_mix.py").write_text(TASKS)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(names, "_own", {})
    monkeypatch.delitem(sys.modules, "tasks_of_golden_mix", raising=False)
    return folder


def contents(folder):
    """Of the files of its stores, but for the builder's lock."""
    return {path: path.read_bytes() for path in folder.glob("*/*/*") if path.name != ".lock"}


def sources_of(name):
    """The texts that the stores were made of, read here without t5jax."""
    split = name.partition("/")[2]
    if name.startswith("text"):
        path = GOLDEN / {"train": "text.txt", "validation": "text-dev.txt"}[split]
        return {"text": [text.strip("\n") for text in path.read_text().split("\n\n")]}
    path = GOLDEN / {"train": "reviews.tsv", "validation": "dev.tsv"}[split]
    rows = [line.split("\t") for line in path.read_text().splitlines()[1:]]
    return {
        "inputs": [f"review: {text}" for text, _ in rows],
        "targets": [("bad", "good")[int(label)] for _, label in rows],
    }


@pytest.mark.parametrize("name", STORES)
def test_opens_and_gives_the_same_rows(name):
    store = TokenStore.open(GOLDEN / "cache" / name, VOCABULARY)
    assert (store.info.documents, store.fingerprint) == STORES[name]
    assert store.info.format_version == version_2.FORMAT_VERSION < FORMAT_VERSION
    for feature, texts in sources_of(name).items():
        stream = store.streams[feature]
        offsets = stream.offsets()
        tokens = stream.read_rows(np.zeros(1, int), stream.num_tokens)[0]
        pieces = [tokens[a:b] for a, b in itertools.pairwise(offsets)]
        assert [VOCABULARY.decode(piece) for piece in pieces] == texts


def test_every_byte_is_verified(copied, capsys):
    assert main(["cache", "config.py", "--verify"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert all(line.endswith("all as written") for line in lines)
    path = copied / "cache/text/train/shard-00000.text.tokens"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    assert main(["cache", "config.py", "--verify"]) == 1


def test_is_kept_with_a_message(copied, capsys):
    before = contents(copied / "cache")
    assert main(["cache", "config.py"]) == 0
    kept = [line for line in capsys.readouterr().err.splitlines() if "t5jax 0.1" in line]
    assert len(kept) == 4
    assert all("with the same settings and is kept" in line for line in kept)
    assert not any("changed since" in line for line in kept)
    assert contents(copied / "cache") == before


def test_a_changed_source_is_reported(copied, capsys):
    os.utime(copied / "text.txt")
    assert main(["cache", "config.py"]) == 0
    changed = [line for line in capsys.readouterr().err.splitlines() if "changed since" in line]
    assert len(changed) == 1
    assert "cache/text/train was made by t5jax 0.1" in changed[0]
    assert "1 shard of its source changed since" in changed[0]


def test_is_built_again_with_overwrite(copied, capsys):
    assert main(["cache", "config.py", "--overwrite"]) == 0
    assert "t5jax 0.1" not in capsys.readouterr().err
    for name, (documents, fingerprint) in STORES.items():
        info = read_info(copied / "cache" / name)
        assert (info.documents, info.fingerprint) == (documents, fingerprint)
        assert info.format_version == FORMAT_VERSION
        assert not [file for file in check_files(copied / "cache" / name) if file.damage]


class Texts:
    """Texts of nothing but an identity."""

    features = ("text",)

    def __init__(self, identity):
        self._identity = identity

    def identity(self):
        return self._identity

    def shards(self, split):
        return ["text.txt"]

    def shard_fingerprint(self, split, shard):
        return ""


NOW = {
    "stated_version": 1,
    "source": {
        "type": "t5jax.TextFiles",
        "stated_version": 1,
        "train_files": ["text.txt"],
        "validation_files": ["text-dev.txt"],
        "test_files": [],
        "max_record_bytes": 67108864,
        "document": "blank lines",
    },
    "column": "text",
    "examples": None,
}


@pytest.mark.parametrize(
    ("setting", "value"),
    [("document", "line"), ("type", "t5jax.JsonLines"), ("newer", 1), ("train_files", ["a", "b"])],
)
def test_other_settings_are_refused(copied, setting, value):
    directory = copied / "cache/text/train"
    assert build_cache(Texts(NOW), "train", directory, vocabulary=VOCABULARY).documents == 31
    other = NOW | {"source": NOW["source"] | {setting: value}}
    with pytest.raises(DataError, match=rf"with another source .*source\.{setting}: .*, now "):
        build_cache(Texts(other), "train", directory, vocabulary=VOCABULARY)


def test_settings_beside_code_are_compared():
    """What 0.1 wrote for a class with settings, functions, a partial, a closure, a method."""
    stored = {
        "type": "a.b.Examples",
        "prefix": "p",
        "make": {"code": "933bc2d03b4e5d74", "closure": [1]},
        "partial": [{"code": "933bc2d03b4e5d74"}, [], {"n": 3}],
        "method": {"type": "builtins.method"},
    }
    here = {
        "type": "Examples",
        "source_text": "0",
        "prefix": "p",
        "make": {"source_text": "1", "closure": {"x": 2}},
        "partial": [{"source_text": "2"}, [], {"n": 3}],
        "method": {"method": [{"source_text": "1"}, None]},
    }

    def agree(**edited):
        old, new = version_2.comparable(stored, here | edited)
        return old == new

    assert agree()
    assert not agree(prefix="q")
    assert not agree(type="Others")
    assert not agree(partial=[{"source_text": "2"}, [], {"n": 4}])


def test_unknown_versions_are_refused(copied):
    path = copied / "cache/text/train" / META
    for version in (1, FORMAT_VERSION + 1, None):
        record = json.loads(path.read_bytes()) | {"format_version": version}
        record.pop("sha256")
        path.write_text(json.dumps(record | {"sha256": checksum(record)}))
        with pytest.raises(DataError, match="this t5jax reads"):
            read_info(path.parent)
