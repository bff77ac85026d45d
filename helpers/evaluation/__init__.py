"""Evaluation: what the probabilities are worth, and how sure that is (04 to 10).

In: the tables of probabilities, whichever strategy made them; features for the t-SNE. Out: scores
with intervals, calibration, mistakes, labels in doubt, shortcuts, ensembles, the count of looks
at the hold-out; baselines, backbones, heads, techniques and sizes compared.
"""
