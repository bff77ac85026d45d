"""Serving: a saved model that answers outside the notebooks (11_serving).

In: a finished run, and photos from anywhere. Out: `model/`, one folder with weights, class names,
preprocessing and scores; a predictor, a command for many photos, ONNX, and the web page `app`.
"""
