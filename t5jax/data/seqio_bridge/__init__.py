"""Tasks that were registered with seqio, as tasks of t5jax.

tasks.py            a `seqio.Task` as a `SeqioTask`: objective, EOS, whether it can be cached
documents.py        the documents that its source and preprocessors make
evaluation.py       its examples and metrics in an evaluation
vocabularies.py     the same vocabulary for both libraries
span_corruption.py  a preprocessor for seqio: t5jax's span corruption
"""
