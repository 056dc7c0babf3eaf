"""The converter, lengths and refusals of every architecture; rows packed to their joint length."""

import dataclasses

import numpy as np
import pytest

from t5jax.data.config import DataConfig
from t5jax.data.pipeline.loader import Loader
from t5jax.data.pipeline.streaming import StreamingLoader
from t5jax.data.registry import add_mixture, add_task, names
from t5jax.data.registry.resolve import resolve
from t5jax.data.tasks import Custom, ExampleTask, Mixture, TextTask
from t5jax.data.vocabularies import ByteVocabulary
from t5jax.errors import ConfigError
from t5jax.evaluation.loss import ngram_baselines, unigram_entropy
from tests.data.pipeline.loaders import open_in_order, open_loader
from tests.data.pipeline.test_opening import SOURCE, cached, pairs_of

VOCABULARY = ByteVocabulary(extra_ids=100)
TWO_STACKS = ("encoder_decoder", "shared_encoder_decoder")


@pytest.fixture(autouse=True)
def own_tasks(monkeypatch):
    monkeypatch.setattr(names, "_own", {})
    for name, prefix in (("plain", ""), ("marked", "[R] ")):
        add_task(
            TextTask(
                name=name, description="", corpus="prose", source=lambda d: SOURCE, prefix=prefix
            )
        )
    add_task(
        ExampleTask(
            name="reverse",
            description="",
            source=lambda data: SOURCE,
            examples=pairs_of,
            splits=SOURCE.splits(),
        )
    )
    rates = {"plain": 1.0, "reverse": 1.0}
    add_mixture(Mixture(name="both", tasks=tuple(rates), rate=Custom(weights=rates)))


def config(mixture="plain", **settings):
    settings = {"cache_dir": None, "inputs_length": 47, "seed": 4} | settings
    return DataConfig(mixture=mixture, vocabulary=VOCABULARY, **settings)


def row_format(architecture, mixture="plain", **settings):
    data = config(mixture, **settings)
    return resolve(data, architecture).row_format


@pytest.mark.parametrize(
    ("architecture", "settings", "converter", "lengths"),
    [
        ("encoder_decoder", {}, "encoder_decoder", (47, 12)),
        ("shared_encoder_decoder", {}, "encoder_decoder", (47, 12)),
        # A denoising objective for a language model: inputs and targets one behind the other.
        ("decoder_only", {}, "prefix_lm", (0, 59)),
        ("prefix_lm", {}, "prefix_lm", (0, 59)),
        ("prefix_lm", {"mixture": "marked"}, "prefix_lm", (0, 57)),  # 4 of the 47 are the prefix
        ("prefix_lm", {"objective": "prefix_lm"}, "prefix_lm", (0, 48)),
        ("prefix_lm", {"objective": "packed_prefix_lm"}, "prefix_lm", (0, 94)),
        ("prefix_lm", {"mixture": "reverse", "targets_length": 9}, "prefix_lm", (0, 56)),
        ("decoder_only", {"objective": "lm", "targets_length": 48}, "lm", (0, 48)),
        ("decoder_only", {"objective": "full_lm", "targets_length": 48}, "lm", (0, 48)),
        ("encoder_only", {"objective": "bert_style"}, "encoder", (47, 0)),
        ("encoder_only", {"objective": "mass_style"}, "encoder", (47, 0)),
    ],
)
def test_converter_and_lengths(architecture, settings, converter, lengths):
    found = row_format(architecture, **settings)
    assert (found.converter, found.lengths) == (converter, lengths)
    loader = open_loader(config(**settings), batch_size=3, architecture=architecture)
    batch = loader.rows(0)
    assert loader.lengths == lengths
    assert {name: x.shape for name, x in batch.items()} == {
        name: spec.shape for name, spec in loader.element_spec.items()
    }
    side = "encoder" if architecture == "encoder_only" else "decoder"
    assert batch[f"{side}_loss_weights"].any(axis=1).all()
    if converter != "encoder_decoder":
        width = max(lengths)
        assert {x.shape for x in batch.values()} == {(3, width)}


@pytest.mark.parametrize(
    ("architecture", "settings", "message"),
    [
        *(
            (
                name,
                {"objective": "lm", "targets_length": 20},
                f"no inputs, .* = '{name}' needs some",
            )
            for name in (*TWO_STACKS, "prefix_lm", "encoder_only")
        ),
        ("encoder_only", {}, "plain has objective SpanCorruption.*take data.objective = 'bert_sty"),
        ("encoder_only", {"objective": "iid_15_r_f"}, "predicts masked tokens"),  # none is marked
        ("encoder_only", {"mixture": "reverse", "targets_length": 47}, "reverse has examples of"),
        (
            "encoder_only",
            {"mixture": "marked", "objective": "bert_style", "targets_length": 47},
            r"marked puts '\[R\] ' before its inputs",
        ),
        (
            "encoder_only",
            {"objective": "bert_style", "targets_length": 50},
            "data.targets_length = 50, data.inputs_length = 47: .* leave data.targets_length out",
        ),
        ("encoder_decoder", {"loss_on_targets_only": False}, "no effect: .* not for encoder_dec"),
        (
            "decoder_only",
            {"loss_on_targets_only": False, "objective": "lm", "targets_length": 20},
            "no effect: .* and there are no inputs; leave it out",
        ),
    ],
)
def test_refuses(architecture, settings, message):
    with pytest.raises(ConfigError, match=message):
        row_format(architecture, **settings)


def test_loss_on_inputs_and_targets():
    data = config("reverse", targets_length=12, loss_on_targets_only=False)
    all_tokens = open_loader(data, batch_size=5, architecture="decoder_only").rows(0)
    data.loss_on_targets_only = True
    targets = open_loader(data, batch_size=5, architecture="decoder_only").rows(0)
    real = all_tokens["decoder_target_tokens"] > 0
    np.testing.assert_array_equal(all_tokens["decoder_loss_weights"], real)
    shown = targets.pop("decoder_causal_attention")
    assert 0.1 < targets["decoder_loss_weights"].sum() / real.sum() < 0.4
    # The first target is where full visibility ends and the loss begins.
    assert ((shown > 0) & (targets["decoder_loss_weights"] > 0)).sum() == (
        targets["decoder_positions"][shown > 0] == 0
    ).sum()


def pairs_in(batch):
    """{inputs text: targets text} of the rows of one sequence, by segments and weights."""
    found = {}
    for tokens, segments, weights in zip(
        batch["decoder_target_tokens"],
        batch["decoder_segment_ids"],
        batch["decoder_loss_weights"],
        strict=True,
    ):
        for segment in range(1, segments.max() + 1):
            here = segments == segment
            inputs, targets = tokens[here & (weights == 0)], tokens[here & (weights == 1)]
            assert inputs[-1] == targets[-1] == VOCABULARY.eos_id
            found[VOCABULARY.decode(inputs[:-1])] = VOCABULARY.decode(targets[:-1])
    return found


@pytest.mark.parametrize("live", [False, True])
def test_examples_are_packed_to_their_joint_length(tmp_path, live):
    """Every example once in an epoch, nothing cut that a row of two sides would not cut, and rows
    with more inputs than `inputs_length`."""
    settings = {"inputs_length": 44, "targets_length": 31}
    data = config("reverse", **settings) if live else cached(tmp_path, "reverse", **settings)
    data.seed = 4
    loader = open_loader(data, batch_size=7, architecture="prefix_lm")
    assert isinstance(loader, StreamingLoader if live else Loader)
    assert loader.lengths == (0, 75)
    pairs, most_inputs, filled = {}, 0, []
    for step in range(12):
        batch = loader.rows(step)
        pairs |= pairs_in(batch)
        shown = (batch["decoder_loss_weights"] == 0) & (batch["decoder_target_tokens"] > 0)
        most_inputs = max(most_inputs, shown.sum(axis=1).max())
        filled.append((batch["decoder_target_tokens"] > 0).mean())
    expected = dict(
        tuple(pairs_of(row)[0].values()) for shard in SOURCE.content["train"] for row in shard
    )
    assert pairs == expected
    assert most_inputs > 44
    assert np.mean(filled) > 0.65


def test_a_mixture_of_texts_and_examples_in_one_row(tmp_path):
    data = cached(tmp_path, "both", inputs_length=47, targets_length=12)
    loader = open_loader(data, batch_size=9, architecture="prefix_lm")
    assert loader.lengths == (0, 59)
    for step in range(4):
        batch = loader.rows(step)
        assert set(batch["task_ids"].tolist()) == {0, 1}
        for row, task in enumerate(batch["task_ids"]):
            inputs = next(iter(pairs_in({k: x[row : row + 1] for k, x in batch.items()
                                         if k != "task_ids"})))  # fmt: skip
            assert ("<extra_id_0>" in inputs) == (task == 0)


def test_enough_examples_are_read_for_the_rows_that_are_wanted():
    """A live split is read until the rows are full, of inputs and targets together."""
    data = config("reverse", inputs_length=44, targets_length=11)
    for architecture in ("prefix_lm", "encoder_decoder"):
        arguments = {"batch_size": 4, "architecture": architecture}
        few = open_in_order(data, "train", num_rows=9, **arguments)["reverse"]
        whole = open_in_order(data, "train", **arguments)["reverse"]
        assert 9 <= few.num_rows < whole.num_rows


def test_baselines_count_the_same_tokens_in_one_row(tmp_path):
    """Span corruption's targets follow the same words, whether inputs stand before them or apart;
    of masked tokens the text around them is known, of a language model's all but the first."""
    data = cached(tmp_path, "plain", inputs_length=47, targets_length=12)

    def of(architecture, **changes):
        changed = dataclasses.replace(data, **changes)
        split = lambda name: open_in_order(changed, name, batch_size=8, architecture=architecture)
        validation = split("validation")["plain"]
        return ngram_baselines(split("train")["plain"], validation), unigram_entropy(validation)

    apart, one_row = of("encoder_decoder"), of("prefix_lm")
    assert (*apart[0], apart[1]) == pytest.approx((*one_row[0], one_row[1]))
    assert apart[0].bigram < apart[0].unigram
    masked = of("encoder_only", objective="bert_style", targets_length=None)
    text = of("decoder_only", objective="lm", targets_length=48)
    assert masked[0].bigram < masked[0].unigram
    assert text[0].bigram < text[0].unigram
    assert text[1] == pytest.approx(masked[1], rel=0.1)


def test_unpacked_rows_hold_one_example():
    data = config("reverse", inputs_length=44, targets_length=11, pack=False)
    batch = open_loader(data, batch_size=7, architecture="prefix_lm").rows(0)
    assert "decoder_segment_ids" not in batch
    assert (np.diff(batch["decoder_causal_attention"], axis=1) <= 0).all()
    ends = (batch["decoder_target_tokens"] == VOCABULARY.eos_id).sum(axis=1)
    assert (ends == 2).all()
