"""The token store: a split tokenised once, memory-mapped in training.

documents.py  what is tokenised: the protocol of a task's texts
build.py      tokenises a split with any number of processes
writer.py     writes the files of one shard
reader.py     the files of a store, and reading them
verify.py     every byte against its checksum
"""
