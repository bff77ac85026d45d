"""Features: every image once through the frozen backbone (03).

In: `table.csv` and a backbone. Out: `train_features_<backbone>.npy`, the same for `test`, and
`metadata.json`; memory maps that are refused when what they were made from has changed.
"""
