"""A run outside t5jax: its decoding and scoring as StableHLO, or as a TensorFlow SavedModel.

functions.py     what is exported: predict and score, of ids, for any number of rows
stablehlo.py     written with jax.export, parameters beside them
saved_model.py   written with jax2tf, parameters in the SavedModel
exported_run.py  either, read back: texts in, texts and scores out
checking.py      what was written against the run that it was made of
"""
