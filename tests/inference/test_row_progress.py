"""What a person sees of a job."""

import io

from t5jax.inference.progress import RowProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def said(stream, num_rows, steps) -> str:
    now = [0.0]
    progress = RowProgress(stream, num_rows, clock=lambda: now[0])
    for seconds, done in steps:
        now[0] += seconds
        if done < 0:
            progress.begin(-done)
        else:
            progress.rows(done)
    return stream.getvalue()


def test_lines_at_a_bounded_rate_and_the_last():
    lines = said(io.StringIO(), 100, [(20, 10), (1, 20), (1, 30), (10, 50), (1, 100)]).splitlines()
    assert lines[0] == "10/100 rows  eta ?"
    assert [line.split()[0] for line in lines] == ["10/100", "50/100", "100/100"]
    assert lines[1] == "50/100 rows  3.33 rows/s  eta 0:00:15"


def test_an_input_without_an_end_has_a_rate():
    assert said(io.StringIO(), None, [(1, 8), (20, 48)]).splitlines()[1] == "48 rows  2 rows/s"


def test_what_was_there_is_said_and_is_no_speed():
    lines = said(io.StringIO(), 1000, [(0, -500), (30, 600), (10, 700)]).splitlines()
    assert lines[0] == "going on after 500 rows that are there"
    assert "10 rows/s" in lines[2]


def test_a_terminal_has_one_line():
    text = said(Terminal(), 20, [(1, 10), (1, 20)])
    assert text.count("\n") == 1
    assert text.count("\r") == 2
