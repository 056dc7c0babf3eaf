"""Export of a run's decoding and scoring as StableHLO, or as a TensorFlow SavedModel.

functions.py     the exported functions: predict and score, of ids, for any number of rows
stablehlo.py     written with jax.export, parameters beside them
saved_model.py   written with jax2tf, parameters in the SavedModel
exported_run.py  either format, loaded: texts in, texts and scores out
verification.py  outputs of the export compared with those of the run
"""
