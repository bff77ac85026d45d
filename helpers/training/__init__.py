"""Training: models that are fitted on some rows of the table and answer for others (04).

In: features (later: images) and the folds. Out: `oof_probabilities.csv`, in which each row is
answered by a model that never saw it, `test_probabilities.csv`, and the folds' saved models.
"""
