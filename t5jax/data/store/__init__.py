"""The tokenised store (offline cache): a split tokenised once, memory-mapped in training.

documents.py    the protocol of what is tokenised: documents of a task
directories.py  where a store lies
units.py        the unit of work: one shard
build.py        tokenises a split with any number of processes
parts.py        tokenises a part of a split, for array jobs
ray_cluster.py  units as tasks of a Ray cluster
lock.py         one builder of a store, or any number of parts
existing.py     comparing an existing store with the task that asks for it
version_2.py    what can be compared of a store of t5jax 0.1
writer.py       writes the files of one shard
reader.py       the files of a store, and reading them
spelling.py     how much of its texts a vocabulary cannot spell
verify.py       verification of checksums
"""
