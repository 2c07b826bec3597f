"""Frozen evaluation: features once, in eval mode, then kNN, logistic regression and linear probes;
records, tables, reports and pictures of what comes out.

And fine-tuning of a copy of the network. Start with `run.py`. No choice depends on the labels of the scored
split: the protocols that go by labels get a `Problem` or a `Supervision`, which have no such labels; those
that go by masks have the scored ones in `DenseTask.scored`, and compare with them in the end.
"""
