"""Next sentence prediction: pairs, exchanges, and that a shard always gives the same."""

import dataclasses

import pytest

from t5jax.data.benchmarks.nsp import TASKS, SentencePairs, neighbouring_pairs, nsp_examples
from t5jax.data.records import BadRecord, Row
from t5jax.errors import ConfigError


@dataclasses.dataclass
class Documents:
    texts: list

    def splits(self):
        return ("train",)

    def shards(self, split):
        return ["only"]

    def records(self, split, shard):
        for i, text in enumerate(self.texts):
            yield text if isinstance(text, BadRecord) else Row({"text": text}, f"line {i + 1}")


def numbered(documents, sentences):
    return [" ".join(f"D{d} says {s}." for s in range(sentences)) for d in range(documents)]


def test_pairs_stay_within_a_line():
    text = "One. Two! Three?\nAlone.\n\nFour... Five"
    assert list(neighbouring_pairs(text)) == [
        ("One.", "Two!"),
        ("Two!", "Three?"),
        ("Four...", "Five"),
    ]


def test_example_text():
    (example,) = nsp_examples(Row({"first": "One.", "second": "Two!", "label": 1}, "p"))
    assert example == {"inputs": "nsp: One. Two!", "targets": "next"}
    task = TASKS[0]
    assert task.postprocess("not_next", example=example, is_target=False) == 0
    assert task.choices(example) == ["not_next", "next"]


def test_half_of_the_pairs_are_exchanged_and_labelled():
    texts = numbered(61, 12)
    true_pairs = {pair for text in texts for pair in neighbouring_pairs(text)}
    source = SentencePairs(documents=Documents(texts), block=17)
    rows = list(source.records("train", "only"))
    assert len(rows) == 61 * 11
    for row in rows:
        # An exchange may by chance bring a true neighbour only if a sentence occurs twice.
        assert ((row["first"], row["second"]) in true_pairs) == (row["label"] == 1)
    assert 0.4 < sum(row["label"] for row in rows) / len(rows) < 0.6
    # Exchanging loses nothing: first and second sentences are those of the pairs.
    assert sorted(row["second"] for row in rows) == sorted(second for _, second in true_pairs)
    assert len({row["first"] for row in rows if row["label"] == 0}) > 200


def test_shards_are_deterministic_and_blocks_are_independent():
    source = SentencePairs(documents=Documents(numbered(29, 5)), block=7)
    rows = list(source.records("train", "only"))
    assert rows == list(source.records("train", "only"))
    longer = SentencePairs(documents=Documents(numbered(53, 5)), block=7)
    assert rows[: 28 * 4] == list(longer.records("train", "only"))[: 28 * 4]
    other = SentencePairs(documents=Documents(numbered(29, 5)), block=7, seed=1)
    assert rows != list(other.records("train", "only"))


@pytest.mark.parametrize(("share", "labels"), [(1.0, {1}), (0.0, {0})])
def test_share_of_neighbours(share, labels):
    documents = Documents(numbered(9, 5))  # 36 pairs: none is left over
    rows = list(SentencePairs(documents=documents, neighbours=share).records("train", "only"))
    assert {row["label"] for row in rows} == labels


def test_bad_records_are_passed_on_and_settings_checked():
    bad = BadRecord("line 1", "not valid UTF-8")
    source = SentencePairs(documents=Documents([bad, "One. Two.", "Alone."]))
    first, second = source.records("train", "only")
    assert first is bad
    assert second == {"first": "One.", "second": "Two.", "label": 1}
    with pytest.raises(ConfigError, match="block"):
        SentencePairs(documents=Documents([]), block=0)
