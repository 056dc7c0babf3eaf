"""Records of sources."""

import math

import pytest

from t5jax.data.records import BadColumn, Row

NAMES = ("bad", "good", "fair")


@pytest.mark.parametrize(
    ("value", "name"),
    [(0, "bad"), (2, "fair"), ("1", "good"), ("good", "good"), (1.0, "good"), (True, "good")],
)
def test_the_name_of_a_class(value, name):
    assert Row({"label": value}, "a.tsv, line 2").class_name("label", NAMES) == name


@pytest.mark.parametrize(
    "value", [-1, "-1", 3, "3", 1.5, math.nan, math.inf, None, "", "ugly", [1], "1.0"]
)
def test_a_label_that_is_no_class_is_refused(value):
    with pytest.raises(BadColumn, match=r"column 'label' is .*bad, good, fair.* from 0 to 2"):
        Row({"label": value}, "a.tsv, line 2").class_name("label", NAMES)


def test_a_label_that_is_not_there():
    with pytest.raises(BadColumn, match="no column 'label'"):
        Row({"text": "a"}, "a.tsv, line 2").class_name("label", NAMES)
