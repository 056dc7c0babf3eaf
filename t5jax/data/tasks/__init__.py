"""Named tasks: a source of text and the objective that makes examples of it.

builtin.py          the table of the tasks that t5jax brings (no TensorFlow)
registry.py         the same tasks and the user's own as seqio tasks; what the acts ask of them
seqio_adapters.py   our sources and vocabularies as seqio's
span_corruption.py  T5's span corruption as a seqio preprocessor
"""
