"""Tasks that were registered with seqio, as tasks of t5jax.

objects.py          tasks and mixtures by name: registered, or variables of the user's modules
tasks.py            a `seqio.Task` as a `SeqioTask`, a `seqio.Mixture` with its rates
steps.py            its preprocessors: what a store keeps, objective, EOS, why it cannot be cached
datasets.py         the `tf.data` data sets that its source and preprocessors make
documents.py        its documents and examples, to tokenise or stream
examples.py         its examples in an evaluation
evaluation.py       its postprocessor and metrics
vocabularies.py     the same vocabulary for both libraries
span_corruption.py  a preprocessor for seqio: t5jax's span corruption
"""
