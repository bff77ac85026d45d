"""Mistakes: images answered wrongly, images hard to answer, and classes that are mixed up."""

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import squareform


def find_mistakes(table: pd.DataFrame) -> pd.DataFrame:
    """Return the misclassified rows, the most confident first, with `confidence`.

    Args:
        table: rows of `tabulate_probabilities`.
    """
    wrong = table[table.prediction != table.label]
    confidence = wrong.filter(regex="^p_").max(axis=1)
    return wrong[["image_id", "path", "label", "prediction"]].assign(
        confidence=confidence).sort_values("confidence", ascending=False, ignore_index=True)


def find_uncertain(table: pd.DataFrame) -> pd.DataFrame:
    """Return all rows, the least certain first: whose two best classes are nearly as probable.

    Returns:
        `image_id`, `path`, `label`, `prediction`, `confidence`, `runner_up` (the second class),
        and `margin` (how far it is behind).
    """
    values = table.filter(regex="^p_").to_numpy()
    second, first = np.argsort(values, axis=1)[:, -2:].T
    rows, names = np.arange(len(table)), table.filter(regex="^p_").columns.str[2:].to_numpy()
    margin = values[rows, first] - values[rows, second]
    return table[["image_id", "path", "label", "prediction"]].assign(
        confidence=values[rows, first], runner_up=names[second], margin=margin).sort_values(
            "margin", kind="stable", ignore_index=True)


def list_confusions(table: pd.DataFrame, count: int = 5) -> pd.DataFrame:
    """Return the commonest confusions: `label`, `prediction`, `images`, `share` of the class."""
    wrong = table[table.prediction != table.label]
    pairs = wrong.groupby(["label", "prediction"]).size().rename("images").reset_index()
    counts = table.label.value_counts()
    pairs["share"] = pairs.images / counts.reindex(pairs.label).to_numpy()
    return pairs.sort_values(["images", "share"], ascending=False, ignore_index=True).head(count)


def order_classes(confusion: np.ndarray) -> np.ndarray:
    """Return the positions of classes in an order in which those that are mixed lie together.

    Average linkage over the share of images that two classes exchange, leaves ordered as by
    Bar-Joseph et al. (2001). Where nothing is mixed the order stays.

    Args:
        confusion: (classes, classes) counts.
    """
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    distances = 1 - np.minimum(shares + shares.T, 1)
    np.fill_diagonal(distances, 0)
    distances = squareform(distances, checks=False)
    if len(confusion) < 3 or np.ptp(distances) == 0:
        return np.arange(len(confusion))
    tree = linkage(distances, "average")
    return leaves_list(optimal_leaf_ordering(tree, distances))
