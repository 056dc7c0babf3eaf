"""Parameters of documentation strings, in the three styles, from invented ones."""

import pytest

from t5jax.data.docstring_corpus.parameters import Parameter, documented_parameters

NUMPY = """Brews tea.

    Parameters
    ----------
    minutes : int, optional
        How long the leaves stay in,
        from the first pour.

        A second paragraph does not count.
    hot, cold : bool
        Whether it is served so.
    cup : str

    Returns
    -------
    tea : (n,) ndarray
        The tea.
    """
GOOGLE = """Brews tea.

    Args:
      minutes (int, optional): How long the leaves
        stay in.
      *cups (Cup): What it is served in.
      sugar: No type, no entry.

    Returns:
      The tea.
    """
SPHINX = """Brews tea.

    :param int minutes: How long the leaves
        stay in.
    :param sugar: No type, no entry.
    :param str cup:
    """


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        (
            NUMPY,
            [
                ("minutes", "int, optional", "How long the leaves stay in, from the first pour."),
                ("hot, cold", "bool", "Whether it is served so."),
                ("tea", "(n,) ndarray", "The tea."),
            ],
        ),
        (
            GOOGLE,
            [
                ("minutes", "int, optional", "How long the leaves stay in."),
                ("*cups", "Cup", "What it is served in."),
            ],
        ),
        (SPHINX, [("minutes", "int", "How long the leaves stay in.")]),
        ("Tea: a drink.\n\nNote : not indented\nbelow.", []),
    ],
)
def test_entries_with_type_and_description(docstring, expected):
    assert list(documented_parameters(docstring)) == [Parameter(*entry) for entry in expected]
