"""The tokenised store (offline cache): a split tokenised once, read by position in training.

documents.py    the protocol of what is tokenised: documents of a task
directories.py  where a store lies, on a disk or in a bucket
units.py        the unit of work: one shard
build.py        tokenises a split with any number of processes
parts.py        tokenises a part of a split, for array jobs
ray_cluster.py  units as tasks of a Ray cluster
lock.py         one builder of a store, or any number of parts
existing.py     comparing an existing store with the task that asks for it
version_2.py    what can be compared of a store of t5jax 0.1
writer.py       writes the files of one shard
reader.py       the files of a store, and reading them
mapped_tokens.py  tokens of a store on a disk
bucket_tokens.py  tokens of a store in a bucket
local_copy.py   a bounded local copy of what is read from buckets
ranges.py       ranges of bytes of objects, many at a time
spelling.py     how much of its texts a vocabulary cannot spell
verify.py       verification of checksums
"""
