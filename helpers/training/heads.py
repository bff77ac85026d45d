"""Heads: the classifiers on frozen features, and on text, that a recipe can ask for.

A new one is a class with the methods of `selection.Head`, and its name here and in
`helpers.settings`.
"""

from helpers.head_settings import HeadSettings
from helpers.training.estimators import BoostingHead, ForestHead, NeighboursHead
from helpers.training.fusion import FusionHead
from helpers.training.imbalance import Remedy
from helpers.training.linear import ClassMeanHead, LogisticHead, RidgeHead, SvmHead
from helpers.training.perceptron import LinearLayerHead, PerceptronHead
from helpers.training.selection import Head
from helpers.training.text import TextHead

HEADS = {"logistic": LogisticHead, "ridge": RidgeHead, "svm": SvmHead, "knn": NeighboursHead,
         "forest": ForestHead, "boosting": BoostingHead, "class_mean": ClassMeanHead,
         "linear": LinearLayerHead, "mlp": PerceptronHead}


def create_head(settings: HeadSettings, count: int, seed: int) -> Head:
    """Make the photo's head that a recipe asks for, for `count` classes, not fitted yet."""
    return HEADS[settings.classifier](count, Remedy(settings.imbalance, seed), settings.c_grid)


def create_model(settings: HeadSettings, count: int, seed: int) -> Head | FusionHead:
    """Make the model for the recipe's `inputs`, not fitted yet."""
    photo = create_head(settings, count, seed)
    text = TextHead(photo.count, photo.remedy)
    return {"photo": photo, "text": text, "both": FusionHead(photo, text)}[settings.inputs]


def name_kind(settings: HeadSettings) -> str:
    """Return what `restore_model` has to know of a model: `ridge`, `text` or `ridge+text`."""
    return {"photo": settings.classifier, "text": "text",
            "both": f"{settings.classifier}+text"}[settings.inputs]


def restore_model(kind: str, arrays: dict) -> Head | FusionHead:
    """Return a fitted model from its arrays; KeyError if there is no such kind."""
    if kind == "text":
        return TextHead(arrays=arrays)
    photo, _, text = kind.partition("+")
    head = HEADS[photo]
    return FusionHead(head(), TextHead(), arrays) if text else head(arrays=arrays)
