"""The seqio side: examples of registered tasks, and what the token cache is told of them."""

import gzip
import json
import pathlib
import sys

import numpy as np
import pytest

from t5jax.data.config import DataConfig, objective_of, source_of
from t5jax.data.objectives import SpanCorruption
from t5jax.data.sources import JsonLines
from t5jax.data.tasks import registry
from t5jax.data.tf_runtime import check_version, import_seqio, import_tensorflow
from t5jax.data.vocabularies import ByteVocabulary, SentencePieceVocabulary
from t5jax.errors import ConfigError, DataError

LENGTHS = {"inputs": 512, "targets": 114}
WORDS = ["the", "rows", "of", "a", "table", "are", "read", "in", "their", "order", "and", "each"]


@pytest.fixture(scope="module")
def seqio():
    return import_seqio()


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> pathlib.Path:
    """Five files of documents of different lengths."""
    folder, rng = tmp_path_factory.mktemp("texts"), np.random.default_rng(7)
    for shard in range(5):
        texts = [" ".join(rng.choice(WORDS, rng.integers(1, 90))) for _ in range(13 + shard)]
        lines = "".join(json.dumps({"text": f"{shard} {text}"}) + "\n" for text in texts)
        (folder / f"part-{shard}.json.gz").write_bytes(gzip.compress(lines.encode()))
    return folder


def config(files, mixture="jsonl_span_corruption", **settings) -> DataConfig:
    settings = {"vocabulary": ByteVocabulary(extra_ids=100), "cache_dir": "cache"} | settings
    if mixture == "jsonl_span_corruption":
        settings |= {"train_files": (f"{files}/part-*.json.gz",)}
    return DataConfig(mixture=mixture, **settings)


def examples(task, lengths=LENGTHS, **settings) -> list[dict[str, list[int]]]:
    dataset = task.get_dataset(lengths, settings.pop("split", "train"), **settings)
    return [{k: v.tolist() for k, v in row.items()} for row in dataset.as_numpy_iterator()]


def restore(row: dict[str, list[int]], vocab_size: int, num_sentinels: int = 100) -> list[int]:
    """The tokens before corruption: each sentinel of the inputs replaced by its span in the
    targets."""
    first = vocab_size - num_sentinels
    spans, span = {}, []
    for token in row["targets"][:-1]:
        if token >= first:
            spans[token] = span = []
        else:
            span.append(token)
    return [
        original
        for token in row["inputs"][:-1]
        for original in (spans[token] if token >= first else [token])
    ]


def test_rows_are_t5s_and_give_back_the_text(files, seqio):
    data = config(files)
    rows = examples(registry.register(data), shuffle=False, seed=5)
    sentinels = [data.vocabulary.sentinel_id(i) for i in range(28)]
    full, tail = rows[:-1], rows[-1]
    assert len(full) > 15
    for row in full:  # facts of the published code: raw 568, 85 noise tokens, 28 spans, 512 and 114
        assert (len(row["inputs"]), len(row["targets"])) == (512, 114)
        assert row["inputs"][-1] == row["targets"][-1] == 1
        for name in ("inputs", "targets"):
            assert [token for token in row[name] if token >= sentinels[-1]] == sentinels
        assert row["inputs"][0] < sentinels[-1], "a row begins with text"
        assert row["targets"][0] == sentinels[0]
        assert row["targets"][-2] < sentinels[-1], "no sentinel closes the targets"
        assert len(restore(row, data.vocabulary.vocab_size)) == 568
    noise, spans = SpanCorruption().counts(len(restore(tail, data.vocabulary.vocab_size)))
    assert len(tail["targets"]) == noise + spans + 1
    source = source_of(data)
    shards = [list(source.documents("train", shard)) for shard in source.shards("train")]
    documents = interleaved(shards)
    assert len(documents) == 75 < 128, "one group of joined documents"
    text = np.concatenate([data.vocabulary.encode(t, sentinels=False) for t in documents])
    restored = [token for row in rows for token in restore(row, data.vocabulary.vocab_size)]
    assert restored == text.tolist()


def interleaved(shards: list[list[str]], block: int = 16) -> list[str]:
    """Rounds of `block` documents of each shard, as seqio reads files."""
    longest = max(map(len, shards))
    return [t for start in range(0, longest, block) for own in shards for t in own[start:][:block]]


@pytest.mark.parametrize(
    ("length", "density", "mean", "noise", "spans"),
    [
        (568, 0.15, 3.0, 85, 28),
        (1137, 0.15, 3.0, 171, 57),
        (1193, 0.15, 20.0, 179, 9),
        (1006, 0.5, 64.0, 503, 8),
        (600, 0.15, 64.0, 90, 1),
        (2, 0.15, 3.0, 1, 1),
        (190, 0.15, 3.0, 29, 10),
    ],
)
def test_noise_counts_in_tensorflow_are_the_table(length, density, mean, noise, spans):
    from t5jax.data.tasks.span_corruption import random_spans_mask

    tf = import_tensorflow()
    objective = SpanCorruption(noise_density=density, mean_noise_span_length=mean)
    assert objective.counts(length) == (noise, spans)
    for seed in range(5):
        seeds = [tf.constant([seed, 1]), tf.constant([seed, 2])]
        mask = random_spans_mask(tf.constant(length), objective, seeds).numpy()
        starts = np.flatnonzero(np.diff(mask.astype(int), prepend=0) == 1)
        assert (mask.size, mask.sum(), len(starts)) == (length, noise, spans)
        assert not mask[0]
        assert mask[-1]


def test_masks_are_spread_as_the_cached_backends(seqio):
    """The same distribution: probability of noise by position, within sampling error."""
    from t5jax.data.tasks.span_corruption import random_spans_mask

    tf, objective, count, length = import_tensorflow(), SpanCorruption(), 700, 97
    make = tf.function(
        lambda seed: random_spans_mask(tf.constant(length), objective, [[seed, 0], [seed, 1]])
    )
    ours = np.stack([make(tf.constant(seed)).numpy() for seed in range(count)]).mean(0)
    theirs = objective.noise_mask(np.arange(20_000), 3, length).mean(0)
    error = np.sqrt(theirs * (1 - theirs) / count) + 1e-9
    assert np.abs((ours - theirs) / error).max() < 5


ENCODER_KEYS = {"encoder_input_tokens", "encoder_segment_ids", "encoder_positions"}
DECODER_KEYS = {f"decoder_{name}" for name in ("input_tokens", "target_tokens", "loss_weights")}
DECODER_KEYS |= {"decoder_segment_ids", "decoder_positions"}


def test_the_converter_packs_our_examples(files, seqio):
    data = config(files)
    registry.register(data)
    dataset = seqio.get_dataset(
        data.mixture,
        LENGTHS,
        seqio.EncDecFeatureConverter(pack=True),
        shuffle=True,
        seed=11,
        shard_info=seqio.ShardInfo(1, 2),
    )
    rows = list(dataset.as_numpy_iterator())
    assert len(rows) > 5
    for row in rows:
        assert {k: v.shape for k, v in row.items()} == {
            **dict.fromkeys(ENCODER_KEYS, (512,)),
            **dict.fromkeys(DECODER_KEYS, (114,)),
        }
        assert row["encoder_segment_ids"][0] == row["decoder_segment_ids"][0] == 1
        assert row["decoder_input_tokens"][0] == 0
        assert np.array_equal(row["decoder_loss_weights"], row["decoder_target_tokens"] > 0)


def test_hosts_divide_the_files(files, seqio):
    data = config(files)
    task = registry.register(data)
    whole, first, second = (
        sum(len(restore(row, data.vocabulary.vocab_size)) for row in rows)
        for rows in (
            examples(task, shuffle=False),
            *(examples(task, seed=2, shard_info=seqio.ShardInfo(i, 2)) for i in range(2)),
        )
    )
    assert whole == first + second
    sizes = [sum(len(text.encode()) for text in json_texts(p)) for p in sorted(files.iterdir())]
    assert first == sum(sizes[::2])


def test_a_seed_fixes_the_order_of_files(files, seqio):
    source = registry.register(config(files)).source
    orders = [
        [row["text"] for row in source.get_dataset("train", seed=seed).as_numpy_iterator()]
        for seed in (3, 3, 4)
    ]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])


def json_texts(path: pathlib.Path) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line)["text"] for line in file]


def test_seqio_makes_the_cached_backends_tokens(real_data, seqio):
    """tf_text would disagree with the sentencepiece library; the task must not use it."""
    from t5jax.data.tasks.seqio_adapters import TextVocabulary

    ours = SentencePieceVocabulary(path=str(real_data / "tokenizer" / "t5" / "spiece.model"))
    vocabulary = TextVocabulary(ours)
    source = JsonLines(train_files=(f"{real_data}/text/c4/en/c4-train.00000*.json.gz",))
    texts = list(source.documents("train", source.shards("train")[0]))[:60]
    texts += ["a literal <extra_id_0> and <pad> </s>", ""]
    for text in texts:
        expected = ours.encode(text, sentinels=False)
        assert np.array_equal(vocabulary.encode_tf(text).numpy(), expected)
    assert (vocabulary.vocab_size, vocabulary.extra_ids) == (32100, 100)
    sentinel = vocabulary.decode_tf(np.array([[32099, 8774, 1, 0], [8774, 0, 0, 0]], np.int32))
    assert [text.decode() for text in sentinel.numpy()] == ["<extra_id_0> Hello", "Hello"]
    assert vocabulary == TextVocabulary(ours)
    assert vocabulary != TextVocabulary(ByteVocabulary())


def test_lengths_that_do_not_fit_are_refused(files, seqio):
    task = registry.register(config(files))
    with pytest.raises(ConfigError, match="targets_length=113 is too short"):
        task.get_dataset({"inputs": 512, "targets": 113}, "train")
    with pytest.raises(ConfigError, match="needs 114 sentinels"):
        task.get_dataset({"inputs": 2048, "targets": 600}, "train")
    with pytest.raises(ConfigError, match="needs sequence_length"):
        task.get_dataset(None, "train")


def test_damaged_files_stop_the_seqio_pipeline(tmp_path, seqio):
    path = tmp_path / "a.json.gz"
    lines = b"".join(b'{"text": "text number %d of these"}\n' % i for i in range(900))
    path.write_bytes(gzip.compress(lines)[:-500])
    data = config(tmp_path, train_files=(str(path),))
    data.train_files = (str(path),)
    with pytest.raises(Exception, match=r"DataError.*a\.json\.gz.*truncated gzip"):
        examples(registry.register(data), num_epochs=1)


def test_preview_shows_decoded_examples(files, seqio):
    data = config(files, inputs_length=64)
    shown = registry.preview(data, num_examples=2)
    assert len(shown) == 2
    assert len(shown[0].inputs) == 64
    assert shown[0].inputs_text.startswith("0 ")
    assert "<extra_id_0>" in shown[0].inputs_text
    assert shown[0].targets_text.startswith("<extra_id_0>")


# ---- a user's own module -------------------------------------------------------------------------

MODULE = """
import functools
import seqio, tensorflow as tf
from t5jax.data.objectives import SpanCorruption
from t5jax.data.tasks.span_corruption import SpanCorruptionPreprocessor

def first_column(dataset):
    return dataset.map(lambda line: {"text": tf.strings.split(line, "\\t")[0]})

FEATURES = {k: seqio.Feature(seqio.ByteVocabulary(extra_ids=100)) for k in ("inputs", "targets")}
REKEY = functools.partial(seqio.preprocessors.rekey, key_map={"inputs": None, "targets": "text"})
STEPS = [
    first_column,
    REKEY,
    seqio.preprocessors.tokenize,
    seqio.CacheDatasetPlaceholder(),
    SpanCorruptionPreprocessor(SpanCorruption(mean_noise_span_length=5.0)),
    seqio.preprocessors.append_eos_after_trim,
]

def shout(dataset):
    return dataset.map(lambda x: {"targets": tf.strings.upper(x["targets"]), "inputs": ""})

ABSENT = seqio.Feature(seqio.SentencePieceVocabulary("absent.model", extra_ids=100))

def add(name, steps, features=FEATURES):
    source = seqio.TextLineDataSource({"train": "PATH"})
    seqio.TaskRegistry.add(name, source=source, preprocessors=steps, output_features=features)

add("mine", STEPS)
add("mine_loud", [*STEPS[:2], shout, *STEPS[2:]])
add("mine_supervised", [*STEPS[:3], seqio.preprocessors.append_eos])
add("mine_unread", STEPS, {"inputs": ABSENT, "targets": ABSENT})
add("mine_changed", [*STEPS[:5], shout, STEPS[5]])
seqio.MixtureRegistry.add("mine_mixed", ["mine", "mine_loud"], default_rate=1.0)
"""


@pytest.fixture
def module(tmp_path, monkeypatch, seqio):
    path = tmp_path / "lines.tsv"
    path.write_text("".join(f"{word} and more\t{i}\n" for i, word in enumerate(WORDS)))
    (tmp_path / "my_tasks.py").write_text(MODULE.replace("PATH", str(path)))
    (tmp_path / "bad_tasks.py").write_text("raise RuntimeError('no such thing')\n")
    (tmp_path / "needy_tasks.py").write_text("import a_missing_package\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "my_tasks"
    sys.modules.pop("my_tasks", None)
    for name in [n for n in seqio.TaskRegistry.names() if n.startswith("mine")]:
        seqio.TaskRegistry.remove(name)
    seqio.MixtureRegistry.remove("mine_mixed")


def test_a_users_task_gives_the_cache_its_text(module):
    data = config(None, "mine", modules=(module,))
    data.check()
    source = source_of(data)
    assert objective_of(data) == SpanCorruption(mean_noise_span_length=5.0)
    assert source.splits() == ("train",)
    texts = [t for shard in source.shards("train") for t in source.documents("train", shard)]
    assert texts == [f"{word} and more" for word in WORDS]
    with pytest.raises(DataError, match="no split 'test'"):
        source.shards("test")
    loud = source_of(config(None, "mine_loud", modules=(module,)))
    assert next(loud.documents("train", "all")) == "THE AND MORE"
    rows = {row.name: row for row in registry.list_tasks((module,))}
    assert rows["mine"].splits == ("train",)
    assert "mean_noise_span_length=5.0" in rows["mine"].objective
    assert rows["mine_supervised"].objective.startswith("not cacheable")


@pytest.mark.parametrize(
    ("mixture", "settings", "message"),
    [
        ("mine_supervised", {}, "cannot be cached for pretraining.*SpanCorruptionPreprocessor"),
        ("mine_changed", {}, "the cache would leave out the rest"),
        ("mine_mixed", {}, "mixture of several tasks"),
        ("mine_unread", {}, "task mine_unread: its vocabulary absent.model cannot be read from /"),
        ("minee", {}, "no task 'minee'.*did you mean mine"),
        ("mine", {"vocabulary": ByteVocabulary()}, "data.vocabulary=.*must agree"),
        ("mine", {"modules": ("no_tasks",)}, "names 'no_tasks', but there is no such module"),
        ("mine", {"modules": ("bad_tasks",)}, "bad_tasks .* failed: RuntimeError: no such thing"),
        ("mine", {"modules": ("needy_tasks",)}, "imports 'a_missing_package'"),
    ],
)
def test_what_cannot_be_cached_is_refused(module, mixture, settings, message):
    data = config(None, mixture, **({"modules": (module,)} | settings))
    with pytest.raises(ConfigError, match=message):
        source_of(data)


def test_builtin_tasks_give_the_cache_their_own_source(files, seqio):
    data = config(files)
    registry.register(data)
    source, objective, vocabulary = registry.task_source(data.mixture)
    assert source == source_of(data)
    assert objective == objective_of(data)
    assert vocabulary.fingerprint == data.vocabulary.fingerprint


def test_only_vocabularies_that_can_be_rebuilt_are_taken(seqio, real_data):
    from t5jax.data.tasks.seqio_adapters import our_vocabulary

    path = str(real_data / "tokenizer" / "t5" / "spiece.model")
    ours = our_vocabulary(seqio.SentencePieceVocabulary(path, extra_ids=100))
    assert ours == SentencePieceVocabulary(path=path, extra_ids=100)
    for vocabulary in (
        seqio.SentencePieceVocabulary(path, extra_ids=100, reverse_extra_ids=False),
        seqio.PassThroughVocabulary(size=100),
    ):
        with pytest.raises(ConfigError, match="cannot be cached"):
            our_vocabulary(vocabulary)


def test_an_overwritten_package_is_noticed(seqio):
    check_version("seqio", seqio.__version__)
    with pytest.raises(ConfigError, match=r"code says 0\.0\.18\.dev.*force-reinstall"):
        check_version("seqio", "0.0.18.dev20250227")
