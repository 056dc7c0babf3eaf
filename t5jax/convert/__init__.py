"""Checkpoints of other programs, read and written a block at a time: names, layouts, settings."""
