"""Evaluation: what the probabilities are worth, and how sure that is (04 to 07).

In: the tables of probabilities, whichever strategy made them; features for the t-SNE. Out: scores
with intervals, baselines and learning curve, classes, mistakes, the count of looks at the
hold-out, backbones compared.
"""
