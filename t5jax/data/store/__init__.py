"""The tokenised store: a split tokenised once, memory-mapped in training.

documents.py  what is tokenised: the protocol of a task's texts
build.py      tokenises a split with any number of processes
existing.py   a store that is already there: the same, another one, or one of t5jax 0.1
version_2.py  what can be compared of a store of t5jax 0.1
writer.py     writes the files of one shard
reader.py     the files of a store, and reading them
verify.py     every byte against its checksum
"""
