"""The seqio side: span corruption as a preprocessor, and vocabularies of either as the other's."""

import functools
import gzip
import itertools
import json
import pathlib

import numpy as np
import pytest

from t5jax.data import registry
from t5jax.data.config import DataConfig
from t5jax.data.objectives import SpanCorruption
from t5jax.data.records import Rejected, Row
from t5jax.data.registry.texts import task_documents
from t5jax.data.sources import JsonLines
from t5jax.data.tensorflow_import import check_version, import_seqio, import_tensorflow
from t5jax.data.vocabularies import ByteVocabulary, SentencePieceVocabulary
from t5jax.errors import ConfigError

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


def register(data):
    """The config's documents with span corruption, as a user would register it with seqio."""
    from t5jax.data.seqio_bridge.span_corruption import SpanCorruptionPreprocessor
    from t5jax.data.seqio_bridge.vocabularies import TextVocabulary

    seqio, tf = import_seqio(), import_tensorflow()

    def documents(path):
        lines = tf.data.TextLineDataset(path, compression_type="GZIP")
        return lines.map(
            lambda line: {"targets": tf.strings.regex_replace(line, r'\{"text": "(.*)"\}', r"\1")}
        )

    seqio.TaskRegistry.remove(data.mixture)
    feature = seqio.Feature(TextVocabulary(data.vocabulary), add_eos=True)
    return seqio.TaskRegistry.add(
        data.mixture,
        source=seqio.FileDataSource(documents, {"train": data.train_files[0]}),
        preprocessors=[
            functools.partial(seqio.preprocessors.tokenize, copy_pretokenized=False),
            seqio.CacheDatasetPlaceholder(),
            SpanCorruptionPreprocessor(SpanCorruption()),
            seqio.preprocessors.append_eos_after_trim,
        ],
        output_features={"inputs": feature, "targets": feature},
    )


def texts_in(data, split="train"):
    """What the config's task tokenises, shard by shard."""
    texts = task_documents(registry.find_task(data.mixture, data), data)
    return [list(texts.documents(split, s, Rejected())) for s in texts.shards(split)]


def examples(task, lengths=LENGTHS, **settings) -> list[dict[str, list[int]]]:
    dataset = task.get_dataset(lengths, settings.pop("split", "train"), **settings)
    return [
        {name: row[name].tolist() for name in ("inputs", "targets")}
        for row in dataset.as_numpy_iterator()
    ]


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


def test_rows_follow_t5_and_reconstruct_the_text(files, seqio):
    data = config(files)
    rows = examples(register(data), shuffle=False, seed=5)
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
    shards = [[document["text"] for document in shard] for shard in texts_in(data)]
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
def test_noise_counts_in_tensorflow_equal_the_table(length, density, mean, noise, spans):
    from t5jax.data.seqio_bridge.span_corruption import random_spans_mask

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


def test_masks_are_distributed_as_the_objectives(seqio):
    """The same distribution: probability of noise by position, within sampling error."""
    from t5jax.data.seqio_bridge.span_corruption import random_spans_mask

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


@pytest.mark.slow
def test_the_converter_packs_our_examples(files, seqio):
    data = config(files)
    register(data)
    dataset = seqio.get_dataset(
        data.mixture,
        LENGTHS,
        seqio.EncDecFeatureConverter(pack=True),
        shuffle=True,
        seed=11,
        shard_info=seqio.ShardInfo(1, 2),
    )
    rows = list(dataset.as_numpy_iterator())
    assert len(rows) > 3
    for row in rows:
        assert {k: v.shape for k, v in row.items()} == {
            **dict.fromkeys(ENCODER_KEYS, (512,)),
            **dict.fromkeys(DECODER_KEYS, (114,)),
        }
        assert row["encoder_segment_ids"][0] == row["decoder_segment_ids"][0] == 1
        assert row["decoder_input_tokens"][0] == 0
        assert np.array_equal(row["decoder_loss_weights"], row["decoder_target_tokens"] > 0)


@pytest.mark.slow
def test_hosts_divide_the_files(files, seqio):
    data = config(files)
    task = register(data)
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


def json_texts(path: pathlib.Path) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line)["text"] for line in file]


def test_seqio_and_t5jax_encode_alike(real_data, seqio):
    """tf_text would disagree with the sentencepiece library; the task must not use it."""
    from t5jax.data.seqio_bridge.vocabularies import TextVocabulary

    ours = SentencePieceVocabulary(path=str(real_data / "tokenizer" / "t5" / "spiece.model"))
    vocabulary = TextVocabulary(ours)
    source = JsonLines(train_files=(f"{real_data}/text/c4/en/c4-train.00000*.json.gz",))
    records = itertools.islice(source.records("train", source.shards("train")[0]), 60)
    texts = [record["text"] for record in records if isinstance(record, Row)]
    assert len(texts) == 60
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
    task = register(config(files))
    with pytest.raises(ConfigError, match="targets_length=113 is too short"):
        task.get_dataset({"inputs": 512, "targets": 113}, "train")
    with pytest.raises(ConfigError, match="needs 114 sentinels"):
        task.get_dataset({"inputs": 2048, "targets": 600}, "train")
    with pytest.raises(ConfigError, match="needs sequence_length"):
        task.get_dataset(None, "train")


def test_only_reconstructible_vocabularies_are_accepted(seqio, real_data):
    from t5jax.data.seqio_bridge.vocabularies import our_vocabulary

    path = str(real_data / "tokenizer" / "t5" / "spiece.model")
    ours = our_vocabulary(seqio.SentencePieceVocabulary(path, extra_ids=100))
    assert ours == SentencePieceVocabulary(path=path, extra_ids=100)
    for vocabulary in (
        seqio.SentencePieceVocabulary(path, extra_ids=100, reverse_extra_ids=False),
        seqio.PassThroughVocabulary(size=100),
    ):
        with pytest.raises(ConfigError, match="cannot be cached"):
            our_vocabulary(vocabulary)


def test_an_overwritten_package_is_detected(seqio):
    check_version("seqio", seqio.__version__)
    with pytest.raises(ConfigError, match=r"code says 0\.0\.18\.dev.*force-reinstall"):
        check_version("seqio", "0.0.18.dev20250227")
