"""The embedded corpus: English prose of the installed packages' docstrings, without a download.

source.py          Docstrings: a source of documents
prose.py           which paragraphs of a docstring are English prose
python_strings.py  the string literals of a Python file
parameters.py      what docstrings say of parameters, and their types
rows.py            the quickstart's text as JSON lines
"""

from t5jax.data.docstring_corpus.source import Docstrings

__all__ = ["Docstrings"]
