"""From tokenised stores (or texts) to batches, as a function of (seed, step).

opening.py     loaders of a config's data
order.py       which row of a store is the i-th: a keyed permutation, new in every epoch
rows.py        the protocol of a task's rows; text_rows.py, example_rows.py: the two kinds
packing.py     several examples in a row
mixing.py      which task a row of the batch is of
converters.py  seqio's feature converters: features to a batch
loader.py      batches from stores; streaming.py: from texts tokenised while training reads
prefetch.py    batches made ahead by a thread
"""
