"""The supervised tasks of the T5 paper and their mixtures: GLUE, SuperGLUE, SQuAD, WMT and others.

datasets.py        rows of a data set, from its own files or from TFDS
classification.py  labels as words, inputs of named columns
glue.py, superglue.py, squad.py, trivia_qa.py, summarization.py, translation.py, templates.py,
nsp.py             one file a benchmark: `TASKS`
ascii_punctuation.py
                   SQuAD's and TriviaQA's tasks again, by T5's later rule of punctuation
stsb.py, reading.py, winograd.py, wnli.py, squad_text.py, sentinels.py
                   how single tasks of them make their texts
supervised.py      all of them by name
mixtures.py        the mixtures of the paper
"""
