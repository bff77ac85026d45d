"""Serving: a saved model that answers outside the notebooks (11_serving, to come).

In: `outputs/<run>/model/`, one folder that holds weights, class names, preprocessing and scores.
Out: a predictor, a command for many files, an exported network, and the web page, `app.py`.
Nothing stands here yet; heads are saved and loaded by `helpers.training.crossvalidation`.
"""
