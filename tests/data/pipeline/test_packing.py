"""Packing against the algorithms written out in loops, and on the lengths of real examples."""

import gzip
import itertools
import json

import numpy as np
import pytest

from t5jax.data.pipeline.packing import pack_examples
from t5jax.data.vocabularies import SentencePieceVocabulary
from t5jax.errors import DataError


def lengths_of(count, limits, seed=0):
    """Most are short, some as long as a row, some empty."""
    rng = np.random.default_rng(seed)
    shares = rng.beta(0.7, 3.0, (count, len(limits)))
    lengths_NF = np.rint(shares * np.array(limits)).astype(np.int64)
    lengths_NF[rng.random(count) < 0.03] = limits
    return lengths_NF


def next_fit(lengths_NF, limits):
    """The first example of each row, as seqio's greedy packer makes them: a row takes examples in
    order until one does not fit."""
    starts, used = [], None
    for example, need in enumerate(lengths_NF):
        if used is None or (used + need > limits).any():
            starts.append(example)
            used = np.zeros(len(limits), np.int64)
        used = used + need
    return starts


def slow_best_fit(lengths_NF, limits):
    """Sets of examples: the longest first, each into the fullest row that takes it."""
    shares = (lengths_NF / limits).sum(1)
    rows = []
    for example in sorted(range(len(lengths_NF)), key=lambda i: (-shares[i], i)):
        need = lengths_NF[example]
        fitting = [row for row in rows if (row["used"] + need <= limits).all()]
        if fitting:
            row = max(fitting, key=lambda row: (row["used"] / limits).sum())
        else:
            row = {"used": np.zeros(len(limits), np.int64), "examples": []}
            rows.append(row)
        row["used"] = row["used"] + need
        row["examples"].append(example)
    return [sorted(row["examples"]) for row in rows]


def rows_of(order_N, row_ends_R):
    return [order_N[a:b].tolist() for a, b in itertools.pairwise([0, *row_ends_R])]


@pytest.mark.parametrize("limits", [(64,), (32, 16), (8, 64, 16)])  # shares exact in binary
@pytest.mark.parametrize(("count", "window"), [(1, 8), (5, 8), (97, 128), (300, 300)])
def test_best_fit(limits, count, window):
    lengths_NF = lengths_of(count, limits, seed=count)
    found = rows_of(*pack_examples(lengths_NF, np.array(limits), window))
    assert found == slow_best_fit(lengths_NF, np.array(limits))


@pytest.mark.parametrize("limits", [(512,), (512, 62), (29, 31, 37)])
@pytest.mark.parametrize(("count", "window"), [(0, 64), (64, 64), (65, 64), (5003, 64)])
def test_every_example_is_in_one_row_that_holds_it(limits, count, window):
    lengths_NF = lengths_of(count, limits)
    order_N, row_ends_R = pack_examples(lengths_NF, np.array(limits), window)
    assert order_N.dtype == row_ends_R.dtype == np.int64
    rows = rows_of(order_N, row_ends_R)
    assert sorted(order_N.tolist()) == list(range(count))
    for row in rows:
        assert row == sorted(row) != []
        assert len({example // window for example in row}) == 1
        assert (lengths_NF[row].sum(0) <= limits).all()
    assert count < 5000 or len(rows) < 0.9 * len(next_fit(lengths_NF, limits))


def test_windows_are_packed_on_their_own():
    """Also beyond the number of windows that are packed at the same time."""
    limits, window = np.array([100, 30]), 16
    lengths_NF = lengths_of(70 * window + 5, limits)
    order_N, row_ends_R = pack_examples(lengths_NF, limits, window)
    alone, first = [], 0
    while first < len(lengths_NF):
        rows = rows_of(*pack_examples(lengths_NF[first : first + window], limits, window))
        alone += [[first + example for example in row] for row in rows]
        first += window
    assert rows_of(order_N, row_ends_R) == alone


def test_an_example_that_no_row_holds_is_refused():
    lengths_NF = np.array([[3, 2], [10, 5], [2, 6]])
    with pytest.raises(DataError, match="example 2 has 6 tokens of feature 1, a row has 5"):
        pack_examples(lengths_NF, np.array([10, 5]))
    pack_examples(lengths_NF, np.array([10, 6]))


@pytest.fixture(scope="module")
def real_lengths(real_data):
    """[N, 2]: inputs and targets, EOS included, of BoolQ and SST-2 as T5 words them."""
    vocabulary = SentencePieceVocabulary(path=str(real_data / "tokenizer/t5/spiece.model"))
    pairs = []
    with gzip.open(real_data / "superglue/BoolQ/train.jsonl.gz", "rt") as lines:
        for line in itertools.islice(lines, 1200):
            row = json.loads(line)
            text = f"boolq question: {row['question']} passage: {row['passage']}"
            pairs.append((text, str(row["label"])))
    with gzip.open(real_data / "glue/SST-2/train.tsv.gz", "rt") as lines:
        for line in itertools.islice(lines, 1, 6001):
            sentence, label = line.rstrip("\n").split("\t")
            pairs.append((f"sst2 sentence: {sentence}", "positive" if label == "1" else "negative"))
    order = np.random.default_rng(0).permutation(len(pairs))
    lengths = np.array([[len(vocabulary.encode(text)) + 1 for text in pair] for pair in pairs])
    return lengths[order]


@pytest.mark.parametrize("limits", [(512, 114), (512, 62), (256, 32), (1024, 256)])
def test_real_examples_fill_rows_better_than_seqio(real_lengths, limits):
    """Non-padding share of the inputs against the greedy packer, which the converters' tests show
    to be seqio's; its groups of max(limits) examples only make it worse."""
    lengths_NF = np.minimum(real_lengths, limits)
    greedy = lengths_NF.sum(0) / (len(next_fit(lengths_NF, limits)) * np.array(limits))
    _, row_ends_R = pack_examples(lengths_NF, np.array(limits))
    ours = lengths_NF.sum(0) / (len(row_ends_R) * np.array(limits))
    assert (ours > greedy).all()
    assert (ours > 0.95).any()
