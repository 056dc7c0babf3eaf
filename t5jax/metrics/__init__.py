"""Scores of predictions: T5's metrics by its names, confidence intervals, averages, tables.

A metric is called as seqio's are: `metric(targets, predictions) -> {name: value}`, lists of one
entry per example. Values are percentages (0 to 100, correlations -100 to 100), as T5 reports them.
Empty lists and lists of different lengths raise DataError.
"""
