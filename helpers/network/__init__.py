"""Network: the backbone, its weights, and what it is given (02, 03).

In: the recipe's network settings and a file's path. Out: a frozen model, its data config (size,
crop, normalisation), and images as the pixels that training, extraction and serving all use.
"""
