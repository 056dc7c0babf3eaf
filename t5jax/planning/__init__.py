"""Ahead-of-time plans: a run's real steps compiled for a machine that is not there, and what their
compiled text says of memory, time and cost.

    config, topology -> abstract_run -> compilation -> hlo, flops, traffic, collectives -> cost
"""
