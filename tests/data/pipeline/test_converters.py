"""Converters against seqio's feature converters, on the same examples, value for value."""

import gzip
import itertools
import json

import numpy as np
import pytest

from t5jax.data.objectives import PackedPrefixLM
from t5jax.data.pipeline.converters import (
    Features,
    batch_shapes,
    convert,
    encoder,
    encoder_decoder,
    lm,
    prefix_lm,
)
from t5jax.data.registry.row_format import RowFormat
from t5jax.data.tensorflow_import import import_seqio, import_tensorflow
from t5jax.data.vocabularies import ByteVocabulary, SentencePieceVocabulary
from t5jax.errors import ConfigError

MASK_ID = 7


def row_format(converter, inputs_length, targets_length, **settings):
    joined = inputs_length + targets_length if converter == "prefix_lm" else None
    return RowFormat(
        converter=converter,
        inputs_length=inputs_length,
        targets_length=targets_length,
        joined_length=joined,
        settings=settings,
    )


def shapes_for(converter, inputs_length, targets_length, packed=False):
    return batch_shapes(row_format(converter, inputs_length, targets_length), packed=packed)


def ragged_examples(count, inputs_length, targets_length, seed=0):
    """Most are short; every feature ends with 1."""
    rng = np.random.default_rng(seed)
    return [
        tuple(
            np.append(rng.integers(3, 11, int(length * rng.random() ** 2)), 1).astype(np.int32)
            for length in (inputs_length, targets_length)
        )
        for _ in range(count)
    ]


def seqio_batch(converter, examples, lengths):
    """{key: [rows, length]} of seqio's converter over the examples in their order."""
    tf = import_tensorflow()
    columns = [{"inputs": i, "targets": t} for i, t in examples]
    if "inputs" not in lengths:
        columns = [{"targets": example["targets"]} for example in columns]
    spec = {name: tf.TensorSpec([None], tf.int32) for name in columns[0]}
    dataset = tf.data.Dataset.from_generator(lambda: iter(columns), output_signature=spec)
    rows = list(converter(dataset, lengths).as_numpy_iterator())
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]}


def padded(examples, inputs_length, targets_length):
    arrays = [np.zeros((len(examples), n), np.int32) for n in (inputs_length, targets_length)]
    for row, example in enumerate(examples):
        for array, tokens in zip(arrays, example, strict=True):
            array[row, : len(tokens)] = tokens
    return Features(*arrays)


def packed(rows, widths):
    """Features of rows of examples, written out token by token."""
    found = {}
    for feature, (name, width) in enumerate(widths.items()):
        arrays = np.zeros((3, len(rows), width), np.int32)
        for row, examples in enumerate(rows):
            column = 0
            for number, example in enumerate(examples, start=1):
                for place, token in enumerate(example[feature]):
                    arrays[:, row, column] = token, number, place
                    column += 1
        found |= dict(zip((name, f"{name}_segments", f"{name}_positions"), arrays, strict=True))
    return Features(**found)


def next_fit(lengths_NF, limits_F):
    """The first example of each row; a row takes examples in order until one does not fit."""
    starts, used = [], None
    for example, need in enumerate(lengths_NF):
        if used is None or (used + need > limits_F).any():
            starts.append(example)
            used = np.zeros(len(limits_F), np.int64)
        used = used + need
    return starts


def packed_as_seqio(examples, lengths_NF, limits_F):
    """The rows of next fit, which seqio begins anew after every max(limits) examples."""
    rows, size = [], max(limits_F)
    for first in range(0, len(examples), size):
        group = examples[first : first + size]
        starts = next_fit(lengths_NF[first : first + size], limits_F)
        rows += [group[start:end] for start, end in itertools.pairwise([*starts, len(group)])]
    return rows


def assert_equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    for key, array in ours.items():
        assert array.dtype == np.int32, key
        np.testing.assert_array_equal(array, theirs[key], err_msg=key)


def shapes_of(batch):
    return {key: array.shape[1:] for key, array in batch.items()}


S, T = 23, 14


def real_examples(real_data, inputs_length, targets_length):
    """Questions with passages and their answers, and reviews with theirs, as ids of T5's file."""
    vocabulary = SentencePieceVocabulary(path=str(real_data / "tokenizer/t5/spiece.model"))
    with gzip.open(real_data / "superglue/BoolQ/validation.jsonl.gz", "rt") as lines:
        rows = [json.loads(line) for line in itertools.islice(lines, 40)]
    texts = [(f"boolq question: {r['question']}", str(r["label"])) for r in rows]
    texts += [(f"boolq passage: {r['passage']}", r["question"]) for r in rows]
    with gzip.open(real_data / "glue/SST-2/validation.tsv.gz", "rt") as lines:
        for line in itertools.islice(lines, 1, 150):
            sentence, label = line.rstrip("\n").split("\t")
            texts.append((f"sst2 sentence: {sentence}", "positive" if label == "1" else "negative"))
    limits = inputs_length, targets_length
    return [
        tuple(
            np.append(vocabulary.encode(text)[: limit - 1], 1).astype(np.int32)
            for text, limit in zip(pair, limits, strict=True)
        )
        for pair in texts
    ]


@pytest.fixture(params=["random", pytest.param("real", marks=pytest.mark.slow)])
def examples_and_lengths(request):
    if request.param == "random":
        return ragged_examples(90, S, T), S, T
    return real_examples(request.getfixturevalue("real_data"), 101, 37), 101, 37


def test_encoder_decoder(examples_and_lengths):
    examples, inputs_length, targets_length = examples_and_lengths
    lengths = {"inputs": inputs_length, "targets": targets_length}
    seqio = import_seqio()
    theirs = seqio_batch(seqio.EncDecFeatureConverter(pack=False), examples, lengths)
    ours = encoder_decoder(padded(examples, inputs_length, targets_length))
    assert_equal(ours, theirs)
    assert shapes_of(ours) == shapes_for("encoder_decoder", inputs_length, targets_length)


def test_encoder_decoder_packed(examples_and_lengths):
    examples, inputs_length, targets_length = examples_and_lengths
    lengths = {"inputs": inputs_length, "targets": targets_length}
    lengths_NF = np.array([[len(i), len(t)] for i, t in examples])
    rows = packed_as_seqio(examples, lengths_NF, list(lengths.values()))
    assert max(map(len, rows)) > 2
    theirs = seqio_batch(import_seqio().EncDecFeatureConverter(pack=True), examples, lengths)
    ours = encoder_decoder(packed(rows, lengths))
    assert_equal(ours, theirs)
    shapes = shapes_for("encoder_decoder", inputs_length, targets_length, packed=True)
    assert shapes_of(ours) == shapes


def test_lm(examples_and_lengths):
    examples, inputs_length, targets_length = examples_and_lengths
    theirs = seqio_batch(
        import_seqio().LMFeatureConverter(pack=False), examples, {"targets": targets_length}
    )
    ours = lm(padded(examples, inputs_length, targets_length))
    assert_equal(ours, theirs)
    assert shapes_of(ours) == shapes_for("lm", inputs_length, targets_length)


def test_lm_packed(examples_and_lengths):
    examples, inputs_length, targets_length = examples_and_lengths
    lengths_N1 = np.array([[len(t)] for _, t in examples])
    rows = packed_as_seqio(examples, lengths_N1, [targets_length])
    theirs = seqio_batch(
        import_seqio().LMFeatureConverter(pack=True), examples, {"targets": targets_length}
    )
    widths = {"inputs": sum(len(i) for i, _ in examples), "targets": targets_length}
    ours = lm(packed(rows, widths))
    assert_equal(ours, theirs)
    assert shapes_of(ours) == shapes_for("lm", inputs_length, targets_length, packed=True)


@pytest.mark.parametrize("loss_on_targets_only", [True, False])
def test_prefix_lm(examples_and_lengths, loss_on_targets_only):
    examples, inputs_length, targets_length = examples_and_lengths
    # Without inputs, and with inputs as long as they may be.
    examples = [*examples, (examples[0][0][:0], examples[0][1])]
    examples += [(np.full(inputs_length, 5, np.int32), np.full(targets_length, 6, np.int32))]
    lengths = {"inputs": inputs_length, "targets": targets_length}
    converter = import_seqio().PrefixLMFeatureConverter(
        loss_on_targets_only=loss_on_targets_only, pack=False
    )
    features = padded(examples, inputs_length, targets_length)
    ours = prefix_lm(features, loss_on_targets_only=loss_on_targets_only)
    assert_equal(ours, seqio_batch(converter, examples, lengths))
    assert shapes_of(ours) == shapes_for("prefix_lm", inputs_length, targets_length)


@pytest.mark.parametrize("loss_on_targets_only", [True, False])
def test_prefix_lm_packed(examples_and_lengths, loss_on_targets_only):
    """seqio packs inputs and targets to their joint length: inputs may take more than their own."""
    examples, inputs_length, targets_length = examples_and_lengths
    length = inputs_length + targets_length
    lengths_N1 = np.array([[len(i) + len(t)] for i, t in examples])
    rows = packed_as_seqio(examples, lengths_N1, [length])
    assert any(sum(len(i) for i, _ in row) > inputs_length for row in rows)
    converter = import_seqio().PrefixLMFeatureConverter(
        loss_on_targets_only=loss_on_targets_only, pack=True
    )
    theirs = seqio_batch(converter, examples, {"inputs": inputs_length, "targets": targets_length})
    features = packed(rows, {"inputs": length, "targets": length})
    ours = prefix_lm(features, loss_on_targets_only=loss_on_targets_only, length=length)
    assert_equal(ours, theirs)
    shapes = shapes_for("prefix_lm", inputs_length, targets_length, packed=True)
    assert shapes_of(ours) == shapes


def test_prefix_lm_without_targets():
    examples = [(np.array([5, 1], np.int32), np.zeros(0, np.int32))]
    converter = import_seqio().PrefixLMFeatureConverter(pack=False)
    theirs = seqio_batch(converter, examples, {"inputs": 4, "targets": 3})
    assert_equal(prefix_lm(padded(examples, 4, 3)), theirs)


def test_prefix_lm_refuses_rows_that_are_too_long():
    features = padded([(np.full(9, 5), np.full(6, 5))], 9, 6)
    assert prefix_lm(features, length=15)["decoder_target_tokens"].shape == (1, 15)
    with pytest.raises(ConfigError, match="length=14: a row has 15 tokens"):
        prefix_lm(features, length=14)


def aligned(examples):
    """Inputs as long as targets, some of them the mask."""
    rng = np.random.default_rng(1)
    return [
        (np.where(rng.random(len(t)) < 0.3, MASK_ID, t).astype(np.int32), t) for _, t in examples
    ]


def test_encoder(examples_and_lengths):
    examples, _, length = examples_and_lengths
    examples = aligned(examples)
    lengths = {"inputs": length, "targets": length}
    converter = import_seqio().EncoderFeatureConverter(mask_id=MASK_ID, pack=False)
    ours = encoder(padded(examples, length, length), mask_id=MASK_ID)
    assert ours["encoder_loss_weights"].any()
    assert_equal(ours, seqio_batch(converter, examples, lengths))
    assert shapes_of(ours) == shapes_for("encoder", length, length)
    with pytest.raises(ConfigError, match="inputs_length=5, targets_length=4"):
        encoder(padded([], 5, 4), mask_id=MASK_ID)


def test_encoder_packed(examples_and_lengths):
    examples, _, length = examples_and_lengths
    examples = aligned(examples)
    lengths = {"inputs": length, "targets": length}
    lengths_NF = np.array([[len(i), len(t)] for i, t in examples])
    rows = packed_as_seqio(examples, lengths_NF, [length, length])
    converter = import_seqio().EncoderFeatureConverter(mask_id=MASK_ID, pack=True)
    ours = encoder(packed(rows, lengths), mask_id=MASK_ID)
    assert_equal(ours, seqio_batch(converter, examples, lengths))
    assert shapes_of(ours) == shapes_for("encoder", length, length, packed=True)


def test_rows_without_examples_are_empty():
    features = packed([[], [([5, 1], [6, 1])]], {"inputs": 4, "targets": 5})
    for name, settings in (("encoder_decoder", {}), ("lm", {}), ("prefix_lm", {})):
        batch = convert(features, row_format(name, 4, 5, **settings))
        for key, array in batch.items():
            assert not array[0].any(), (name, key)
            assert array[1].any(), (name, key)


def test_packed_prefix_lm_as_a_prepacked_batch():
    """seqio's converter for examples that come packed, on what the objective makes."""
    half = 17
    tokens_BL = np.random.default_rng(0).integers(3, 250, (6, 2 * half))
    coded = PackedPrefixLM().apply(tokens_BL, np.arange(6), 3, ByteVocabulary(extra_ids=100))
    ours = encoder_decoder(Features(**coded._asdict()))
    tf, seqio = import_tensorflow(), import_seqio()
    names = {name: name.replace("segments", "segment_ids") for name in coded._fields}
    dataset = tf.data.Dataset.from_tensor_slices(
        {names[name]: array for name, array in coded._asdict().items()}
    )
    lengths = dict.fromkeys(names.values(), half)
    converter = seqio.PrePackedEncDecFeatureConverter(pack=False)
    rows = list(converter(dataset, lengths).as_numpy_iterator())
    assert_equal(ours, {key: np.stack([row[key] for row in rows]) for key in rows[0]})
    assert (ours["decoder_loss_weights"] == 1).all()


def test_shapes_are_those_of_the_batch_of_every_converter():
    features = padded(ragged_examples(3, 9, 9), 9, 9)
    for name in ("encoder_decoder", "lm", "prefix_lm", "encoder"):
        settings = {"mask_id": MASK_ID} if name == "encoder" else {}
        rows = row_format(name, 9, 9, **settings)
        batch = convert(features, rows)
        assert shapes_of(batch) == batch_shapes(rows, packed=False), name
        assert max(rows.lengths) == max(shape[0] for shape in shapes_of(batch).values()), name
    blank = features._replace(inputs=features.inputs[:, :0])
    assert_equal(lm(blank), lm(features))
