"""The table of names, `parse_objective`, records, and what holds for every objective."""

import numpy as np
import pytest
from objective_rows import EOS, MOVED, VOCABULARY, MovedVocabulary, tokens_of

from t5jax.data.objectives import (
    OBJECTIVES,
    UL2_DENOISERS,
    Denoising,
    IidNoise,
    PrefixLM,
    RandomSpans,
    RegularSpans,
    SpanCorruption,
    objective_from_dict,
    parse_objective,
)
from t5jax.errors import ConfigError

ALL = pytest.mark.parametrize("name", OBJECTIVES)


@ALL
def test_text_and_record_give_the_objective_back(name):
    objective = parse_objective(name)
    assert (
        objective
        == OBJECTIVES[name]
        == parse_objective(str(objective))
        == objective_from_dict(objective.to_dict())
    )
    assert type(parse_objective(str(objective))) is type(objective)


@ALL
def test_rows_do_not_depend_on_their_batch(name):
    objective = OBJECTIVES[name]
    lengths_B = np.random.default_rng(3).integers(4, 97, 23)
    tokens_BL, ids_B = tokens_of(23, 97), np.random.default_rng(1).permutation(10**6)[:23]
    whole = objective.apply(tokens_BL, ids_B, 6, VOCABULARY, lengths_B)
    order = np.random.default_rng(2).permutation(23)
    for part in (order[:1], order[:7], order[7:]):
        found = objective.apply(tokens_BL[part], ids_B[part], 6, VOCABULARY, lengths_B[part])
        for rows, all_rows in zip(found, whole, strict=True):
            np.testing.assert_array_equal(rows, None if all_rows is None else all_rows[part])


@ALL
@pytest.mark.parametrize("ragged", [False, True])
def test_special_ids_are_the_vocabularys(name, ragged):
    """The rows of another numbering are the rows, numbered so; cut ones, too."""
    moved = MovedVocabulary(extra_ids=100)
    ends = {"pad_id": moved.pad_id, "eos_id": moved.eos_id}
    assert len({*ends.values(), moved.unk_id, 0, 1, 2, *moved.sentinel_ids}) > 103
    lengths_B = np.random.default_rng(3).integers(0, 97, 23) if ragged else None
    tokens_BL, ids_B = tokens_of(23, 97), np.arange(23)
    expected = OBJECTIVES[name].apply(tokens_BL, ids_B, 6, VOCABULARY, lengths_B)
    found = OBJECTIVES[name].apply(MOVED[tokens_BL], ids_B, 6, moved, lengths_B)
    pairs = [(found, expected)]
    if expected.inputs_segments is None:
        pairs.append((found.trimmed(31, 17, **ends), expected.trimmed(31, 17)))
    for ours, wanted in pairs:
        np.testing.assert_array_equal(ours.inputs, MOVED[wanted.inputs])
        np.testing.assert_array_equal(ours.targets, MOVED[wanted.targets])
        for rows, same in zip(ours[2:], wanted[2:], strict=True):
            np.testing.assert_array_equal(rows, same)


@ALL
def test_short_rows_equal_rows_of_that_length(name):
    objective = OBJECTIVES[name]
    tokens_BL, ids_B = tokens_of(5, 150), np.arange(5) + 40
    lengths_B = np.array([150, 61, 9, 148, 0])
    padded = objective.apply(tokens_BL, ids_B, 8, VOCABULARY, lengths_B)
    for row, length in enumerate(lengths_B[:-1]):
        alone = objective.apply(tokens_BL[[row], :length], ids_B[[row]], 8, VOCABULARY)
        for many, one in zip(padded, alone, strict=True):
            if one is not None:
                width = min(many.shape[1], one.shape[1])
                assert many[row, :width].tolist() == one[0, :width].tolist()
                assert not many[row, width:].any()
                assert not one[0, width:].any()
    assert not any(x[4].any() for x in padded if x is not None)


@ALL
def test_rows_fit_the_lengths_and_end_with_eos(name):
    objective = OBJECTIVES[name]
    inputs_length = 50
    need = objective.lengths(inputs_length, 50) if "lm" in name or "lang" in name else None
    need = need or objective.lengths(inputs_length)
    coded = objective.apply(tokens_of(90, need.raw), np.arange(90), 3, VOCABULARY)
    assert coded.inputs.shape[1] <= need.inputs <= inputs_length
    assert coded.targets.shape[1] <= need.targets
    assert coded.inputs.dtype == coded.targets.dtype == np.int32
    assert coded.targets.any(axis=1).all()
    if not objective.documents_end_with_eos:
        for ids_BK in (coded.inputs, coded.targets):
            for row in ids_BK:
                assert row.size == 0 or row[row != 0][-1] == EOS
                assert (row == EOS).sum() == (row.size > 0)
    assert objective.packs == (coded.inputs_segments is not None)


@ALL
def test_seeds_and_rows_differ(name):
    objective, tokens_BL = OBJECTIVES[name], np.repeat(tokens_of(1, 200), 2, axis=0)
    first = objective.apply(tokens_BL, np.arange(2), 1, VOCABULARY)
    other = objective.apply(tokens_BL, np.arange(2), 2, VOCABULARY)
    is_random = "full_l" not in name and "language" not in name and name != "lm"
    same_inputs = first.inputs.tobytes() == other.inputs.tobytes()
    assert same_inputs != is_random
    assert (first.inputs[0].tobytes() == first.inputs[1].tobytes()) != is_random


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("span_corruption", SpanCorruption()),
        (" span_corruption ( noise_density = 0.25,\n mean_noise_span_length=5 ) ",
         SpanCorruption(noise_density=0.25, mean_noise_span_length=5)),
        ("SpanCorruption(noise_density=0.5)", SpanCorruption(noise_density=0.5)),
        ("span_10_15_u_u", SpanCorruption(mean_noise_span_length=10.0)),
        ("span_7_30_u_u", SpanCorruption(noise_density=0.3, mean_noise_span_length=7.0)),
        ("span_3_15_d_d",
         Denoising(mask=RandomSpans(), inputs_code="drop", targets_code="drop")),
        ("reg_2-4_20_g_f",
         Denoising(
             mask=RegularSpans(noise_density=0.2, min_span_length=2, max_span_length=4),
             inputs_code="gather", targets_code="full_text")),
        ("iid_5_r10s90_f",
         Denoising(
             mask=IidNoise(noise_density=0.05),
             inputs_code="random_or_mask", targets_code="full_text")),
        ("denoising(mask=RegularSpans(noise_density=0.2), targets_code='full_text')",
         Denoising(mask=RegularSpans(noise_density=0.2), targets_code="full_text")),
        ("bert_style(mask=iid(noise_density=0.3))",
         Denoising(
             mask=IidNoise(noise_density=0.3),
             inputs_code="random_or_mask", targets_code="full_text")),
        ("prefix_lm(suffix_fraction=0.25)", PrefixLM(suffix_fraction=0.25)),
    ],
)  # fmt: skip
def test_parse_objective(text, expected):
    assert parse_objective(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("span_coruption", "did you mean span_corruption"),
        ("IidNoise(noise_density=0.1)", "objective 'IidNoise' is unknown"),
        ("iid_15_u_x", "is unknown; did you mean iid_15_u_u"),
        ("span_corruption(noise_densty=0.25)", "'noise_densty'; did you mean noise_density"),
        ("language_model(density=1)", r"no setting 'density' \(it has: none\)"),
        ("span_corruption(0.25)", "write its settings as name=value"),
        ("span_corruption(noise_density='high')", "value of the wrong type"),
        ("span_corruption(noise_density=high)", "'high' is not a value"),
        ("span_corruption(noise_density=0.25", "is not a name"),
        ("span_corruption(noise_density=)", "in its settings"),
        ("span_corruption(noise_density=2)", "noise_density=2"),
        ("denoising(mask=Iid(noise_density=1))", "noise mask 'Iid' is unknown"),
        ("denoising(mask='iid')", "value of the wrong type"),
        ("", "is not a name"),
    ],
)
def test_invalid_objectives_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_objective(text)


def test_records_of_other_kinds_are_refused():
    with pytest.raises(ConfigError, match="'shuffling' is unknown"):
        objective_from_dict({"objective": "shuffling"})
    with pytest.raises(ConfigError, match="noise mask 'white' is unknown"):
        objective_from_dict({"objective": "denoising", "mask": {"mask": "white"}})
    with pytest.raises(ConfigError, match="no setting 'density'"):
        objective_from_dict({"objective": "span_corruption", "density": 0.15})
    old = {"objective": "span_corruption", "noise_density": 0.15, "mean_noise_span_length": 3.0}
    assert objective_from_dict(old) == SpanCorruption()
    assert SpanCorruption().to_dict() == old


def test_ul2_is_the_papers_table():
    assert sum(denoiser.rate for denoiser in UL2_DENOISERS) == pytest.approx(1.0)
    spans = {
        (d.mode, d.objective.mean_noise_span_length, d.objective.noise_density)
        for d in UL2_DENOISERS
        if isinstance(d.objective, SpanCorruption)
    }
    assert spans == {
        *(("[NLU]", 3, 0.15), ("[NLU]", 8, 0.15)),
        *(("[NLG]", 3, 0.5), ("[NLG]", 8, 0.5), ("[NLG]", 64, 0.15), ("[NLG]", 64, 0.5)),
    }
    (suffix,) = [d for d in UL2_DENOISERS if d.mode == "[S2S]"]
    assert suffix.objective == PrefixLM(suffix_fraction=0.25)
    assert len({d.name for d in UL2_DENOISERS}) == len(UL2_DENOISERS) == 7


def test_ul2_inputs_length_limit():
    for denoiser in UL2_DENOISERS:
        denoiser.objective.check(inputs_length=403, targets_length=403, num_sentinels=100)
    with pytest.raises(ConfigError, match="needs 101 sentinels"):
        SpanCorruption(noise_density=0.5).check(
            inputs_length=404, targets_length=404, num_sentinels=100
        )
