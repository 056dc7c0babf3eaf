"""Texts in, texts or log-likelihoods out: with a model at hand, or from file to file.

text_model.py   texts through a model: ids, decoding, texts again
blanks.py       a text with its blanks filled in
records.py      what an output line says
reading.py      rows of text, JSON lines and tables, from files or standard input
output_file.py  JSON lines that an interrupted job goes on with
outputs.py      where records go: a file, a stream, nowhere
job.py          rows in, records out, window by window; preemption
progress.py     rows, rows a second, time left
"""

from t5jax.inference.blanks import fill
from t5jax.inference.text_model import Answer, Prediction, TextModel, TextOptions, TextScore

__all__ = ["Answer", "Prediction", "TextModel", "TextOptions", "TextScore", "fill"]
