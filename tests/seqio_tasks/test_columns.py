"""What an example holds beside inputs and targets, through one string and back."""

import math

import numpy as np
import pytest

from t5jax.data.records import Row
from t5jax.errors import DataError
from t5jax.seqio_tasks.columns import columns_from_text, columns_to_text


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -3,
        0.1,
        "zwölf \ud800 \n",
        [1, "a", None, [2.5]],
        (1, ("a", [2])),
        {"a": {"b": (1,)}, "c": []},
        {1: "one", (2, 3): "two"},
        {"__tuple__": [1]},
        {"__own": 1, "other": 2},
        {"x", "y"},
        {(1, 2), (3, 4)},
        b"\x00\xff",
        {},
    ],
)
def test_values_come_back_as_they_were(value):
    found = columns_from_text(columns_to_text({"column": value, "next": 7}))
    assert found == {"column": value, "next": 7}
    assert type(found["column"]) is type(value)


def test_numpy_values_rows_and_nan():
    columns = {
        "number": np.int64(4),
        "array": np.array([[1.5, 2.5]], np.float32),
        "row": Row({"a": 1}, "file, line 1"),
        "nan": math.nan,
    }
    found = columns_from_text(columns_to_text(columns))
    assert found["number"] == 4
    assert found["row"] == {"a": 1}
    assert math.isnan(found["nan"])
    np.testing.assert_array_equal(found["array"], columns["array"])
    assert found["array"].dtype == np.float32


def test_a_value_of_another_type_is_refused_by_column():
    with pytest.raises(DataError, match="column 'when' of an example is object, which cannot be"):
        columns_to_text({"text": "a", "when": [object()]})
