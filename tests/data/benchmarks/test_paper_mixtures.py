"""Mixtures: nesting, leaving out, stages; the paper's mixtures against hand calculations."""

import pytest

from t5jax.data.benchmarks.mixtures import MIXTURES, UNSUPERVISED
from t5jax.data.benchmarks.supervised import SUPERVISED_TASKS
from t5jax.data.tasks.mixture import Mixture, leaf_tasks, leave_one_out, shares, stages
from t5jax.data.tasks.rates import Custom, Equal, Proportional, Scheduled
from t5jax.errors import ConfigError

C4 = 364_868_892
SIZES = {UNSUPERVISED: C4, **{n: t.num_examples or 0 for n, t in SUPERVISED_TASKS.items()}}


def test_nested_mixtures_multiply_out():
    inner = Mixture(name="inner", tasks=("a", "b"), rate=Custom(weights={"a": 1, "b": 3}))
    outer = Mixture(
        name="outer", tasks=("c", "inner", "b"), rate=Custom(weights={"c": 2, "inner": 5, "b": 1})
    )
    known = {"inner": inner, "outer": outer}
    sizes = {"a": 10, "b": 30, "c": 7}
    assert leaf_tasks(outer, known) == ("c", "a", "b")
    # c 2/8; a 5/8 * 1/4; b 5/8 * 3/4 + 1/8
    expected = {"c": 2 / 8, "a": 5 / 32, "b": 15 / 32 + 4 / 32}
    assert shares(outer, sizes, mixtures=known) == pytest.approx(expected)
    # By size, a mixture counts with all its tasks: 40, 7 and 30 of 77.
    by_size = Mixture(name="by_size", tasks=outer.tasks, rate=Proportional())
    found = shares(by_size, sizes, mixtures=known)
    assert found["c"] == pytest.approx(7 / 77)
    assert sum(found.values()) == pytest.approx(1.0)


def test_nested_rates_equal_seqios():
    from t5jax.data.tensorflow_import import import_seqio

    seqio = import_seqio()
    names = ["test_mix_a", "test_mix_b", "test_mix_c"]
    try:
        for name in names:
            source = seqio.FunctionDataSource(
                lambda split, shuffle_files, seed=None: None, splits=["train"]
            )
            seqio.TaskRegistry.add(name, source=source, preprocessors=[], output_features={})
        seqio.MixtureRegistry.add("test_mix_in", [(names[0], 2), (names[1], 5)])
        mixture = seqio.MixtureRegistry.add("test_mix_out", [("test_mix_in", 3), (names[2], 4)])
        rates = {task.name: mixture.get_rate(task) for task in mixture.tasks}
    finally:
        for name in names:
            seqio.TaskRegistry.remove(name)
        for name in ("test_mix_in", "test_mix_out"):
            seqio.MixtureRegistry.remove(name)
    known = {
        "in": Mixture(
            name="in", tasks=tuple(names[:2]), rate=Custom(weights={names[0]: 2, names[1]: 5})
        )
    }
    ours = Mixture(name="out", tasks=("in", names[2]), rate=Custom(weights={"in": 3, names[2]: 4}))
    found = shares(ours, dict.fromkeys(names, 1), mixtures=known)
    assert found == pytest.approx({name: rate / 7 for name, rate in rates.items()})


def test_mixture_that_contains_itself():
    known = {
        "x": Mixture(name="x", tasks=("y",), rate=Equal()),
        "y": Mixture(name="y", tasks=("a", "x"), rate=Equal()),
    }
    with pytest.raises(ConfigError, match="contains itself: x > y"):
        shares(known["x"], {"a": 1}, mixtures=known)


def test_sizes_that_are_missing_or_all_zero():
    mixture = Mixture(name="m", tasks=("a", "b"), rate=Proportional())
    with pytest.raises(ConfigError, match="examples of b"):
        shares(mixture, {"a": 3})
    with pytest.raises(ConfigError, match="draws nothing"):
        shares(mixture, {"a": 0, "b": 0})
    with pytest.raises(ConfigError, match="none twice"):
        Mixture(name="m", tasks=("a", "a"), rate=Equal())


def test_stages_of_nested_schedules():
    inner = Mixture(
        name="inner",
        tasks=("a", "b"),
        rate=Scheduled(stages=((0, Equal()), (30, Custom(weights={"a": 0, "b": 1})))),
    )
    outer = Mixture(
        name="outer",
        tasks=("inner", "c"),
        rate=Scheduled(stages=((0, Equal()), (50, Custom(weights={"inner": 3, "c": 1})))),
    )
    made = stages(outer, {"a": 1, "b": 1, "c": 1}, mixtures={"inner": inner})
    assert [stage.from_step for stage in made] == [0, 30, 50]
    assert [stage.shares for stage in made] == [
        {"a": 0.25, "b": 0.25, "c": 0.5},
        {"b": 0.5, "c": 0.5},
        {"b": 0.75, "c": 0.25},
    ]


def test_leave_one_out():
    mixture = Mixture(
        name="m", tasks=("a", "b", "c"), rate=Custom(weights={"a": 1, "b": 2, "c": 4})
    )
    left = leave_one_out(mixture, "b")
    assert (left.name, left.tasks) == ("leave_one_out_b", ("a", "c"))
    assert shares(left, {"a": 9, "c": 9}) == {"a": 0.2, "c": 0.8}
    with pytest.raises(ConfigError, match="no d"):
        leave_one_out(mixture, "d")


def test_names_of_the_papers_mixtures():
    parts = (
        "glue_v002_proportional",
        "super_glue_v102_proportional",
        "cnn_dailymail_v002",
        "squad_v010_allanswers",
        "wmt_t2t_ende_v003",
        "wmt15_enfr_v003",
        "wmt16_enro_v003",
    )
    assert set(MIXTURES) == {
        "glue_v002_proportional",
        "super_glue_v102_proportional",
        "super_glue_v102_proportional_sentinel",
        "glue_mnli_and_dev_v002",
        "en_mix",
        "all_equal",
        "all_proportional",
        *(f"all_proportional_k{exponent}" for exponent in range(16, 22)),
        *(f"all_temperature_{temperature}" for temperature in (2, 4, 8)),
        "all_mix",
        *(f"leave_one_out_{part}" for part in parts),
        "large_supervised_equal",
        "large_supervised_proportional",
        "large_translation_equal",
        "squad_trivia_qa_equal",
        "wsc_dpr_simple_proportional",
    }
    for mixture in MIXTURES.values():
        assert set(mixture.tasks) <= set(SIZES), mixture.name
        found = shares(mixture, SIZES)
        assert sum(found.values()) == pytest.approx(1.0)
        assert list(found) == [task for task in mixture.tasks if task in found]


def test_caps_and_temperatures_of_the_paper():
    """K = 2^16 .. 2^21; T = 2, 4, 8 with K = 2^21 (Raffel et al. 2020, table 11); RTE half."""
    capped = shares(MIXTURES["all_proportional_k17"], SIZES)
    assert capped["glue_mnli_v002"] == capped["glue_qqp_v002"] > capped["glue_qnli_v002"]
    ratio = capped["glue_rte_v002"] / capped["glue_qqp_v002"]
    assert ratio == pytest.approx(2490 / 2 / 2**17)
    warm = shares(MIXTURES["all_temperature_4"], SIZES)
    ratio = warm["glue_rte_v002"] / warm["glue_cola_v002"]
    assert ratio == pytest.approx((2490 / 2 / 8551) ** 0.25)


def test_glue_and_superglue_by_the_published_weights():
    glue = shares(MIXTURES["glue_v002_proportional"], SIZES)
    total = 8551 + 67349 + 3668 + 363849 + 5749 + 392702 + 104743 + 2490
    assert total == 949_101
    assert glue["glue_cola_v002"] == pytest.approx(8551 / total)
    assert glue["glue_mnli_v002"] == pytest.approx(392702 / total)
    assert len(glue) == 8  # the two MNLI validation sets and AX have weight 0
    superglue = shares(MIXTURES["super_glue_v102_proportional"], SIZES)
    total = 1322 + 259 + 9427 + 250 + 400 + 27243 + 138854 + 2490 + 5428
    assert total == 185_673
    assert superglue["super_glue_record_v102"] == pytest.approx(138854 / total)
    assert superglue["super_glue_wsc_v102_simple_train"] == pytest.approx(259 / total)
    assert len(superglue) == 9
    # The weights stay, whatever part of a data set is there.
    fewer = {**SIZES, "glue_mnli_v002": 5}
    assert shares(MIXTURES["glue_v002_proportional"], fewer) == glue
    sentinels = shares(MIXTURES["super_glue_v102_proportional_sentinel"], SIZES)
    assert list(sentinels.values()) == pytest.approx(list(superglue.values()))


def test_rte_counts_half_where_both_benchmarks_are_mixed():
    both = shares(MIXTURES["all_proportional"], SIZES)
    assert both["glue_rte_v002"] / both["glue_cola_v002"] == pytest.approx(1245 / 8551)
    assert both["super_glue_rte_v102"] == pytest.approx(both["glue_rte_v002"])
    assert both[UNSUPERVISED] / both["glue_cola_v002"] == pytest.approx(C4 / 8551)
    one = shares(MIXTURES["leave_one_out_super_glue_v102_proportional"], SIZES)
    assert one["glue_rte_v002"] / one["glue_cola_v002"] == pytest.approx(2490 / 8551)
    assert not any(name.startswith("super_glue") or "dpr" in name for name in one)
    still_both = shares(MIXTURES["leave_one_out_squad_v010_allanswers"], SIZES)
    assert "squad_v010_allanswers" not in still_both
    assert still_both["glue_rte_v002"] / still_both["glue_cola_v002"] == pytest.approx(1245 / 8551)


def test_unsupervised_rates():
    mix = shares(MIXTURES["all_mix"], SIZES)
    assert mix[UNSUPERVISED] / mix["glue_mnli_v002"] == pytest.approx(1e6 / 392702)
    en = shares(MIXTURES["en_mix"], SIZES)
    assert en[UNSUPERVISED] / en["squad_v010_allanswers"] == pytest.approx(1e6 / 87_599)
    assert en["glue_rte_v002"] / en["glue_cola_v002"] == pytest.approx(2490 / 8551)


def test_equal_mixtures():
    everything = shares(MIXTURES["all_equal"], SIZES)
    assert len(everything) == 8 + 9 + 5 + 1
    assert set(everything.values()) == {1 / 23}
    assert shares(MIXTURES["squad_trivia_qa_equal"], SIZES) == {
        "squad_v010_allanswers": 0.5,
        "trivia_qa_v010": 0.5,
    }
    assert shares(MIXTURES["glue_mnli_and_dev_v002"], SIZES) == {"glue_mnli_v002": 1.0}
    wsc = shares(MIXTURES["wsc_dpr_simple_proportional"], SIZES)
    assert wsc["dpr_v001_simple"] == pytest.approx(1322 / 1581)
