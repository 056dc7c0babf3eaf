"""Rows of examples: each once per epoch, packed or not, trimmed and ended as seqio does it."""

import numpy as np
import pytest

from t5jax.data.pipeline.example_rows import ExampleRows
from t5jax.data.tensorflow_import import import_seqio, import_tensorflow
from t5jax.errors import DataError
from tests.data.number_stores import EOS, VOCABULARY, random_examples, stream_of, text_tokens

INPUTS, TARGETS, COUNT = 23, 11, 137


def examples():
    """Some are longer than a row, some empty."""
    return random_examples(COUNT, INPUTS + 6, TARGETS + 4, seed=3)


def streams_of(pairs, borders=(0, 40, 40, 99)):
    ends = [*borders[1:], len(pairs)]
    parts = [pairs[a:b] for a, b in zip(borders, ends, strict=True)]
    return {
        "inputs": stream_of([[x for x, _ in part] for part in parts]),
        "targets": stream_of([[y for _, y in part] for part in parts]),
    }


def rows_of(pairs=None, **changes):
    settings = {
        "inputs_length": INPUTS,
        "targets_length": TARGETS,
        "vocab_size": VOCABULARY.vocab_size,
        "seed": 5,
    } | changes
    return ExampleRows(streams_of(examples() if pairs is None else pairs), **settings)


def epoch(rows, number):
    return rows.read(np.arange(number * rows.num_rows, (number + 1) * rows.num_rows))


def shown(got, packed):
    """(inputs, targets) of every example in the rows, as tuples without padding."""
    found = []
    for row in range(len(got.inputs)):
        if not packed:
            sides = [x[row][x[row] != 0] for x in (got.inputs, got.targets)]
            found.append(tuple(tuple(side.tolist()) for side in sides))
            continue
        both = ((got.inputs, got.inputs_segments), (got.targets, got.targets_segments))
        for segment in range(1, max(int(s[row].max()) for _, s in both) + 1):
            sides = [x[row][s[row] == segment] for x, s in both]
            found.append(tuple(tuple(side.tolist()) for side in sides))
    return found


def trimmed(ids, limit, rule="after_trim"):
    ids = ids.tolist()
    if rule == "after_trim":
        return (*ids[: limit - 1], EOS)
    return tuple([*ids, EOS][:limit] if rule == "before_trim" else ids[:limit])


RULES = ["after_trim", "before_trim", "none"]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("pack", [True, False])
def test_every_example_once_per_epoch(pack, shuffle, rule):
    rows = rows_of(pack=pack, shuffle=shuffle, eos={"inputs": rule, "targets": "after_trim"})
    want = sorted((trimmed(x, INPUTS, rule), trimmed(y, TARGETS)) for x, y in examples())
    orders = []
    for number in range(3 if shuffle else 1):
        got = shown(epoch(rows, number), pack)
        assert sorted(got) == want
        orders.append(got)
    if shuffle:
        assert orders[0] != orders[1] != orders[2] != orders[0]
    elif not pack:
        assert orders[0] == [(trimmed(x, INPUTS, rule), trimmed(y, TARGETS)) for x, y in examples()]
    assert rows.examples_per_row == COUNT / rows.num_rows
    assert (rows.num_rows == COUNT) is not pack
    assert rows.num_examples == COUNT


def test_packing_saves_rows_and_says_how_full_they_are():
    rows = rows_of()
    assert rows.examples_per_row > 1.1
    got = epoch(rows, 0)
    for name, limit in (("inputs", INPUTS), ("targets", TARGETS)):
        tokens = getattr(got, name)
        assert tokens.shape == (rows.num_rows, limit)
        assert rows.fill[name] == pytest.approx((tokens != 0).mean())
    lengths = np.array([[len(x), len(y)] for x, y in examples()])
    assert rows.lengths("inputs").tolist() == lengths[:, 0].tolist()
    assert rows.num_trimmed == {
        "inputs": (lengths[:, 0] > INPUTS - 1).sum(),
        "targets": (lengths[:, 1] > TARGETS - 1).sum(),
    }
    assert min(rows.num_trimmed.values()) > 10


def test_segments_and_positions_count_examples_and_their_tokens():
    rows = rows_of()
    got = epoch(rows, 1)
    for name in ("inputs", "targets"):
        tokens = getattr(got, name)
        segments, positions = getattr(got, f"{name}_segments"), getattr(got, f"{name}_positions")
        np.testing.assert_array_equal(segments > 0, tokens > 0)  # every example ends with EOS
        for row in range(rows.num_rows):
            ends = np.flatnonzero(tokens[row] == EOS)
            sizes = np.diff([-1, *ends])
            filled = sizes.sum()
            want = np.repeat(np.arange(1, len(sizes) + 1), sizes)
            np.testing.assert_array_equal(segments[row, :filled], want)
            counted = np.concatenate([np.arange(size) for size in sizes])
            np.testing.assert_array_equal(positions[row, :filled], counted)
            assert not segments[row, filled:].any()
            assert not positions[row, filled:].any()
    assert rows_of(pack=False).read(np.arange(3)).inputs_segments is None


def test_a_row_is_a_function_of_its_number():
    rows = rows_of()
    ids = np.random.default_rng(2).integers(0, 10**12, 91)
    together = rows.read(ids)
    for place in (0, 40, 90):
        for whole, alone in zip(together, rows.read(ids[[place]]), strict=True):
            np.testing.assert_array_equal(alone[0], whole[place])
    assert rows.read(ids[:0]).inputs.shape == (0, INPUTS)


def test_rows_beyond_a_single_pass_are_empty():
    rows = rows_of(shuffle=False)
    got = rows.read(np.array([rows.num_rows, 10**9, 0]))
    for array in got:
        assert not array[:2].any()
        assert array[2].any()
    assert rows.stretches(rows.num_rows) == []


# --- seqio ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rules", [("after_trim", "before_trim"), ("before_trim", "after_trim")])
def test_trimming_and_eos_are_seqios(rules):
    """Each feature goes through seqio's own step, on the same examples."""
    seqio, tf = import_seqio(), import_tensorflow()
    limits = {"inputs": INPUTS, "targets": TARGETS}
    features = {
        name: seqio.Feature(seqio.ByteVocabulary(), add_eos=True, required=False) for name in limits
    }
    pairs = examples()
    spec = {name: tf.TensorSpec([None], tf.int32) for name in limits}
    source = tf.data.Dataset.from_generator(
        lambda: ({"inputs": x, "targets": y} for x, y in pairs), output_signature=spec
    )
    rules = dict(zip(limits, rules, strict=True))
    steps = {
        "after_trim": lambda ds: seqio.preprocessors.append_eos_after_trim(
            ds, sequence_length=limits, output_features=features
        ),
        "before_trim": lambda ds: seqio.trim_dataset(
            seqio.preprocessors.append_eos(ds, output_features=features), limits, features
        ),
    }
    theirs = {
        name: [example[name].tolist() for example in steps[rule](source).as_numpy_iterator()]
        for name, rule in rules.items()
    }
    rows = rows_of(pack=False, shuffle=False, eos=rules)
    got = rows.read(np.arange(COUNT))
    for name in limits:
        ours = [row[row != 0].tolist() for row in getattr(got, name)]
        assert ours == theirs[name]
    assert any(
        row[-1] != EOS for row in theirs["inputs" if rules["inputs"][0] == "b" else "targets"]
    )


# --- where tokens come from, refusals ---------------------------------------------------------


@pytest.mark.parametrize("pack", [True, False])
def test_stretches_are_what_a_row_shows(pack):
    rows, pairs = rows_of(pack=pack), examples()
    seen = []
    for row_id in range(rows.num_rows):
        got = rows.read(np.array([row_id]))
        stretches = rows.stretches(row_id)
        for name, tokens in (("inputs", got.inputs), ("targets", got.targets)):
            told = [range(start + 3, start + 3 + n) for f, start, n, _ in stretches if f == name]
            streamed = np.concatenate([x if name == "inputs" else y for x, y in pairs])
            want = [int(streamed[place - 3]) for part in told for place in part]
            assert text_tokens(tokens).tolist() == want
        seen += [example for feature, _, _, example in stretches if feature == "inputs"]
    assert sorted(seen) == list(range(COUNT))


@pytest.mark.parametrize("bad", [0, VOCABULARY.vocab_size, 65535])
def test_bad_ids_are_named(bad):
    pairs = examples()
    longest = max(range(COUNT), key=lambda i: len(pairs[i][1]))
    pairs[longest][1][0] = bad
    with pytest.raises(DataError, match=rf"feature targets: ids .*{bad}.* not all ids"):
        epoch(rows_of(pairs), 0)


def test_no_examples_are_refused():
    empty = {name: stream_of([[], []]) for name in ("inputs", "targets")}
    with pytest.raises(DataError, match="without examples"):
        ExampleRows(empty, inputs_length=5, targets_length=7, vocab_size=9, seed=0)


def test_identity_tells_settings_apart():
    variants = [
        rows_of(),
        rows_of(seed=6),
        rows_of(inputs_length=24),
        rows_of(targets_length=12),
        rows_of(shuffle=False),
        rows_of(pack=False),
        rows_of(eos={"targets": "none"}),
    ]
    assert len({str(rows.identity()) for rows in variants}) == len(variants)


@pytest.mark.parametrize("joined_length", [None, INPUTS + TARGETS])
def test_targets_alone_fill_rows_and_leave_the_inputs_empty(joined_length):
    """Text of a language model; in a mixture with examples that have inputs rows are as wide."""
    targets = [y for _, y in examples()]
    rows = ExampleRows(
        {"targets": stream_of([targets])},
        inputs_length=INPUTS,
        targets_length=TARGETS,
        vocab_size=VOCABULARY.vocab_size,
        seed=5,
        joined_length=joined_length,
    )
    got = epoch(rows, 0)
    assert got.inputs.shape == (rows.num_rows, joined_length or INPUTS)
    assert not got.inputs.any()
    assert not got.inputs_segments.any()
    expected = [((), trimmed(ids, TARGETS)) for ids in targets]
    assert sorted(shown(got, packed=True)) == sorted(expected)
    assert rows.num_trimmed.keys() == rows.fill.keys() == {"targets"}
    assert rows.fill["targets"] == np.mean(got.targets != 0)
    assert {name for name, *_ in rows.stretches(0)} == {"targets"}
