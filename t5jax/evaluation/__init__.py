"""Evaluation: exact losses and task metrics over whole splits, the same on any number of hosts."""
