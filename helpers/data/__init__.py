"""Data: from whatever lies on disk to one table of checked images, each in its place (01, 02).

In: the recipe's folder or archive. Out: `images.csv` and `inspection.csv` (what every image is
and what is odd about it), `table.csv` (split, group and fold of each), the tables of the folds.
"""
