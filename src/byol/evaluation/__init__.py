"""Frozen evaluation: features once, in eval mode, then kNN, logistic regression and linear probes;
records, tables, reports and pictures of what comes out.

Start with `run.py`. Nothing here reads the labels of the scored split before all choices are made:
the protocols get a `Problem`, which has no such labels.
"""
