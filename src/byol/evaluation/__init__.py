"""Frozen evaluation: features once, in eval mode, then kNN, logistic regression and linear probes;
records, tables, reports and pictures of what comes out.

And fine-tuning of a copy of the network. Start with `run.py`. Nothing here reads the labels of the scored
split before all choices are made: the protocols get a `Problem` or a `Supervision`, which have no such
labels.
"""
