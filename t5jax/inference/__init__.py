"""Inference: predictions and log-likelihoods of texts, in Python and as batch jobs over files.

loaded_run.py      a saved run as a Python object: predict, score, evaluate
text_model.py      texts to ids, decoding or scoring, ids to texts
blanks.py          the blanks `<extra_id_0>` … of a text, filled in
interactive.py     predictions at a prompt
input_rows.py      rows of text, JSON lines and tables, from files or standard input
text_job.py        what `t5jax predict` and `t5jax score` share: options, settings, warnings
batch_job.py       the batch inference job: rows in, records out, window by window; preemption
output_records.py  the keys of an output record
output_file.py     a JSON lines file that an interrupted job resumes
"""

from t5jax.inference.blanks import fill_blanks
from t5jax.inference.text_model import Prediction, TextModel, TextOptions, TextOutput, TextScore

__all__ = ["Prediction", "TextModel", "TextOptions", "TextOutput", "TextScore", "fill_blanks"]
