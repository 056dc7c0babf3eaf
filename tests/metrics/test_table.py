"""Results as text, CSV and JSON."""

import csv
import io
import json
import math

import pytest

from t5jax.errors import DataError
from t5jax.metrics.confidence import Estimate
from t5jax.metrics.table import (
    COLUMNS,
    Result,
    as_csv,
    as_json,
    as_text,
    from_json,
    metric_results,
)

LINES = [
    *metric_results(
        "glue_cola_v002", {"matthews_corrcoef": Estimate(51.234567890123, 46.1, 56.789)}, 1043
    ),
    *metric_results("squad", {"em": 86.206, "f1": Estimate(92.196, math.nan, math.nan)}, 10570),
    *metric_results('odd, "name"', {"pearson_corrcoef": math.nan}, 3),
]


def test_text_is_aligned():
    assert as_text(LINES) == (
        "task            metric             value        interval  examples\n"
        "glue_cola_v002  matthews_corrcoef  51.23  [46.10, 56.79]      1043\n"
        "squad           em                 86.21               -     10570\n"
        "squad           f1                 92.20               -     10570\n"
        'odd, "name"     pearson_corrcoef     nan               -         3\n'
    )


def test_the_majority_class_stands_beside_the_value():
    lines = [*metric_results("sst2", {"accuracy": 88.5}, 872, {"accuracy": 50.917}), LINES[1]]
    assert as_text(lines) == (
        "task   metric    value  interval  majority  examples\n"
        "sst2   accuracy  88.50         -     50.92       872\n"
        "squad  em        86.21         -         -     10570\n"
    )
    assert from_json(as_json(lines))[0].majority == 50.917


def test_a_metric_that_failed_is_one_line():
    failed = Result(
        task="own", metric="broken", value=math.nan, examples=13, error="KeyError: 'label'"
    )
    lines = [LINES[1], failed]
    assert as_text(lines) == (
        "task   metric  value  interval  examples\n"
        "squad  em      86.21         -     10570\n"
        "task own: its metric broken failed: KeyError: 'label'\n"
    )
    assert as_text([failed]) == "task own: its metric broken failed: KeyError: 'label'\n"
    rows = list(csv.DictReader(io.StringIO(as_csv(lines))))
    assert tuple(rows[1]) == (*COLUMNS, "error")
    assert [row["error"] for row in rows] == ["", "KeyError: 'label'"]
    records = json.loads(as_json(lines))
    assert "error" not in records[0]
    assert (records[1]["value"], records[1]["error"]) == (None, "KeyError: 'label'")
    assert from_json(as_json(lines))[1].error == "KeyError: 'label'"


def test_tables_of_before_are_read():
    old = [{k: v for k, v in row.items() if k != "majority"} for row in json.loads(as_json(LINES))]
    assert as_text(from_json(json.dumps(old))) == as_text(LINES)
    with pytest.raises(DataError, match="not a results table"):
        from_json('[{"task": "squad"}]')


def test_csv_reads_back():
    rows = list(csv.DictReader(io.StringIO(as_csv(LINES))))
    assert tuple(rows[0]) == COLUMNS
    assert float(rows[0]["value"]) == 51.234567890123
    assert list(rows[1].values()) == ["squad", "em", "86.206", "", "", "10570", ""]
    assert (rows[3]["task"], rows[3]["value"]) == ('odd, "name"', "")


def test_json_reads_back():
    rows = json.loads(as_json(LINES))
    assert rows[0] == {
        "task": "glue_cola_v002",
        "metric": "matthews_corrcoef",
        "value": 51.234567890123,
        "low": 46.1,
        "high": 56.789,
        "examples": 1043,
        "majority": None,
    }
    assert (rows[2]["value"], rows[2]["low"]) == (92.196, None)
    assert rows[3]["value"] is None
