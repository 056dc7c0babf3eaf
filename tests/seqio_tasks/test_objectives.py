"""Objectives as seqio steps: rows of the same text, noise of the same distribution."""

import numpy as np
import pytest

from t5jax.data.objectives import SpanCorruption, parse_objective
from t5jax.data.seqio_bridge.span_corruption import SpanCorruptionPreprocessor
from t5jax.data.vocabularies import ByteVocabulary
from t5jax.errors import ConfigError
from t5jax.seqio_tasks import register
from t5jax.seqio_tasks.objectives import ObjectivePreprocessor

BYTES = ByteVocabulary(extra_ids=100)
LENGTHS = {"inputs": 61, "targets": 67}
EOS = 1
# One of each noise mask; with these codes corrupted rows still hold all of their text.
UNIQUE = ["iid_15_u_u", "span_3_50_u_u", "reg_1-5_15_u_u"]


@pytest.fixture(scope="module")
def documents() -> list[str]:
    rng = np.random.default_rng(3)
    words = ["the", "rows", "of", "a", "table", "stand", "in", "their", "order", "and", "wait"]
    return [" ".join(rng.choice(words, rng.integers(3, 40))) for _ in range(60)]


@pytest.fixture
def rows_of(seqio, documents, tmp_path):
    """(name of an objective, lengths) -> rows of seqio's task over the documents."""
    path = tmp_path / "documents.txt"
    path.write_text("\n\n".join(documents) + "\n")

    def rows(objective, lengths=LENGTHS, **settings):
        register([f"text:{objective}"], vocabulary=BYTES, train_files=(str(path),))
        task = seqio.get_mixture_or_task(f"text:{objective}".replace("-", "_"))
        dataset = task.get_dataset(lengths, "train", **({"shuffle": False, "seed": 5} | settings))
        return [{k: v.tolist() for k, v in row.items()} for row in dataset.as_numpy_iterator()]

    return rows


def text_ids(documents, *, eos: bool) -> list[int]:
    """All documents joined, as T5 joins them."""
    end = [EOS] * eos
    return [token for text in documents for token in [*BYTES.encode(text).tolist(), *end]]


def cut(ids, raw):
    return [ids[start : start + raw] for start in range(0, len(ids), raw)]


def restored(row) -> list[int]:
    """The tokens before corruption: each sentinel of the inputs is a run of noise, and the targets
    have those runs between theirs, a first one where the row begins with noise."""
    is_sentinel = lambda token: token >= BYTES.first_sentinel_id
    targets, inputs = row["targets"][:-1], row["inputs"][:-1]
    runs: list[list[int]] = [] if is_sentinel(targets[0]) else [[]]
    for token in targets:
        if is_sentinel(token):
            runs.append([])
        else:
            runs[-1].append(token)
    noise = iter(runs)
    return [x for token in inputs for x in (next(noise) if is_sentinel(token) else [token])]


@pytest.mark.parametrize("name", UNIQUE)
def test_the_text_can_be_put_back(rows_of, documents, name):
    objective = parse_objective(name)
    raw = objective.lengths(61, 67).raw
    rows = rows_of(name)
    assert len(rows) > 50
    expected = cut(text_ids(documents, eos=False), raw)
    whole = [row for row in rows if len(row["targets"]) < 67]  # i.i.d. noise may be cut
    assert len(whole) >= 0.9 * len(rows)
    for row, text in zip(rows, expected, strict=True):
        if row in whole:
            assert restored(row) == text
        assert row["inputs"][-1] == row["targets"][-1] == EOS
        sentinels = [x for x in row["inputs"] if x >= BYTES.first_sentinel_id]
        assert sentinels == [BYTES.sentinel_id(i) for i in range(len(sentinels))]


def test_objectives_without_randomness_equal_the_joined_text(rows_of, documents):
    lengths = {"targets": 67}
    rows = [row["targets"] for row in rows_of("full_language_model", lengths)]
    assert rows == cut(text_ids(documents, eos=True), 67)
    rows = [row["targets"] for row in rows_of("language_model", lengths)]
    assert rows == [[*row, EOS] for row in cut(text_ids(documents, eos=False), 66)]


def test_a_prefix_lm_splits_the_text(rows_of, documents):
    rows = rows_of("prefix_lm")
    joined = [row["inputs"][:-1] + row["targets"][:-1] for row in rows]
    assert joined == cut(text_ids(documents, eos=False), 60)
    lengths = [len(row["targets"]) - 1 for row in rows[:-1]]
    assert min(lengths) < 15
    assert max(lengths) > 45
    assert abs(np.mean(lengths) - 30) < 10


@pytest.mark.slow
def test_several_examples_in_a_row_suit_the_pre_packed_converter(seqio, rows_of):
    lengths = dict.fromkeys(
        (
            *("inputs", "inputs_segment_ids", "inputs_positions"),
            *("targets", "targets_segment_ids", "targets_positions"),
        ),
        48,
    )
    rows = rows_of("packed_prefix_lm", lengths)
    assert set(rows[0]) == set(lengths)
    for row in rows[:-1]:
        assert all(len(value) == 48 for value in row.values())
        assert set(row["inputs_segment_ids"]) == set(row["targets_segment_ids"]) == {1, 2}
    batches = seqio.get_dataset(
        "text:packed_prefix_lm", lengths, seqio.PrePackedEncDecFeatureConverter(pack=False)
    )
    batch = next(batches.as_numpy_iterator())
    assert batch["decoder_segment_ids"].tolist() != [0] * 48


@pytest.mark.slow
def test_seeds_decide_the_noise_and_epochs_differ(rows_of):
    first, again, other = (rows_of("span_corruption", seed=seed) for seed in (5, 5, 6))
    assert first == again != other
    twice = rows_of("span_corruption", num_epochs=2)
    half = len(twice) // 2
    assert len(twice) > 2 * len(first) - 2
    assert twice[: half - 1] != twice[half:][: half - 1]


@pytest.mark.slow
@pytest.mark.parametrize(("density", "mean"), [(0.15, 3.0), (0.5, 8.0)])
def test_span_corruption_has_the_rows_of_the_published_steps(seqio, documents, density, mean):
    """Rows of T5's arithmetic in TensorFlow: the same text, lengths and sentinels, and the same
    probability of noise by place."""
    objective = SpanCorruption(noise_density=density, mean_noise_span_length=mean)
    ids = [BYTES.encode(text) for text in documents * 6]
    rows = {}
    for kind in (ObjectivePreprocessor, SpanCorruptionPreprocessor):
        rows[kind] = preprocessed(seqio, kind(objective), ids)
    ours, published = rows.values()
    published = [{k: [*v, EOS] for k, v in row.items()} for row in published]  # a step of its own
    assert len(ours) == len(published) > 300
    assert [restored(row) for row in ours] == [restored(row) for row in published]
    shape = lambda row: (len(row["inputs"]), len(row["targets"]))
    assert list(map(shape, ours)) == list(map(shape, published))
    raw = objective.lengths(61).raw
    masks = [
        np.array([noise_mask(row) for row in some if len(restored(row)) == raw]).mean(0)
        for some in (ours, published)
    ]
    count = len(ours)
    p = (masks[0] + masks[1]) / 2
    error = np.sqrt(2 * p * (1 - p) / count) + 1e-9
    assert np.abs((masks[0] - masks[1]) / error).max() < 5
    assert masks[0].mean() == masks[1].mean() == pytest.approx(density, abs=0.02)


def preprocessed(seqio, step, ids):
    from t5jax.data.tensorflow_import import import_tensorflow
    from t5jax.seqio_tasks.vocabularies import seqio_vocabulary

    tf = import_tensorflow()
    spec = {"targets": tf.TensorSpec([None], tf.int32)}
    dataset = tf.data.Dataset.from_generator(
        lambda: ({"targets": row} for row in ids), output_signature=spec
    )
    feature = seqio.Feature(seqio_vocabulary(BYTES, sentinels=False))
    features = {"inputs": feature, "targets": feature}
    step.sequence_length, step.output_features = LENGTHS, features
    with seqio.map_seed_manager(11):
        made = step(dataset)
    return [{k: v.tolist() for k, v in row.items()} for row in made.as_numpy_iterator()]


def noise_mask(row) -> list[bool]:
    """True for each token of the text that was hidden."""
    mask, targets = [], row["targets"][:-1]
    starts = [i for i, token in enumerate(targets) if token >= BYTES.first_sentinel_id]
    spans = iter(np.diff([*starts, len(targets)]) - 1)
    for token in row["inputs"][:-1]:
        mask += [True] * next(spans) if token >= BYTES.first_sentinel_id else [False]
    return mask


def test_a_prefix_stands_before_every_row(rows_of):
    prefix = BYTES.encode("[NLG] ").tolist()
    rows = rows_of("ul2_x_span_3_50")
    assert all(row["inputs"][: len(prefix)] == prefix for row in rows)
    assert all(len(row["inputs"]) <= 61 for row in rows)
    room = 61 - len(prefix)
    assert (
        len(restored(rows[0]))
        == len(prefix)
        + parse_objective("span_corruption(noise_density=0.5, mean_noise_span_length=3)")
        .lengths(room)
        .raw
    )


@pytest.mark.slow
def test_the_mixture_of_ul2_has_all_modes(rows_of):
    modes = {bytes(x - 3 for x in row["inputs"][:6]) for row in rows_of("ul2", num_epochs=1)}
    assert modes == {b"[NLU] ", b"[S2S] ", b"[NLG] "}


def test_sentinels_of_documents_are_text(seqio, tmp_path):
    (tmp_path / "one.txt").write_text("a <extra_id_0> b\n")
    settings = {"vocabulary": BYTES, "train_files": (str(tmp_path / "one.txt"),)}
    register(["text:language_model"], **settings)
    task = seqio.get_mixture_or_task("text:language_model")
    (row,) = task.get_dataset({"targets": 99}, "train", shuffle=False).as_numpy_iterator()
    assert row["targets"].tolist() == [*(b + 3 for b in b"a <extra_id_0> b"), EOS]


def test_settings_that_cannot_hold_a_row_are_refused(rows_of):
    with pytest.raises(ConfigError, match="targets_length=9 is too short"):
        rows_of("span_corruption", {"inputs": 61, "targets": 9})
    with pytest.raises(ConfigError, match="the objective prefix_lm makes rows of a length: give"):
        rows_of("prefix_lm", None)


def test_an_objective_of_the_register_replaces_those_of_the_tasks(seqio):
    register(["text_span_corruption"], objective="lm", vocabulary=BYTES)
    assert list(seqio.TaskRegistry.get("text_span_corruption").output_features) == ["targets"]
