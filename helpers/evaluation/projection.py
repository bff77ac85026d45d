"""Projection: features laid out on a plane by t-SNE, and how far the plane can be trusted."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from helpers.data.splits import select_rows
from helpers.evaluation.calibration import calibrate_answers
from helpers.evaluation.label_errors import find_label_errors
from helpers.features.store import load_features
from helpers.files import load_json
from helpers.processes import count_cores
from helpers.run import Run

COMPONENTS = 50  # PCA first: less noise and far less time (van der Maaten and Hinton 2008)
NEIGHBOURS = 10  # that trust and agreement are measured on
MEASURED = 5_000  # images that they are measured on, at most


@dataclass(frozen=True)
class Projection:
    """A finished map, which can place further images."""

    reduction: Pipeline
    embedding: object  # openTSNE's
    places: np.ndarray  # (images, 2) float32

    def place(self, features: np.ndarray) -> np.ndarray:
        """Return where further images belong, (rows, 2) float32; the map itself stays."""
        if not len(features):
            return np.empty((0, 2), np.float32)
        reduced = self.reduction.transform(features)
        return np.asarray(self.embedding.transform(reduced), np.float32)

    @property
    def variance(self) -> float:
        """The share of the standardised features' variance that the PCA keeps."""
        return float(self.reduction[-1].explained_variance_ratio_.sum())


def project_features(features: np.ndarray, perplexity: float, seed: int) -> Projection:
    """Standardise, reduce by PCA, and place each image on a plane by t-SNE.

    By openTSNE (Poličar et al. 2024), whose time grows about as the number of images does.

    Args:
        features: (images, features).
        perplexity: roughly how many neighbours count; lowered to a third of the images when
            there are too few for it.
    """
    from openTSNE import TSNE

    limit = max(1.0, (len(features) - 1) / 3)
    if perplexity > limit:
        print(f"perplexity lowered from {perplexity:g} to {limit:g}: only {len(features)} images")
    components = min(COMPONENTS, *features.shape)
    reduction = make_pipeline(StandardScaler(), PCA(components, random_state=seed))
    reduced = reduction.fit_transform(np.asarray(features, np.float32))
    embedding = TSNE(perplexity=min(perplexity, limit), random_state=seed,
                     n_jobs=count_cores()).fit(reduced)
    return Projection(reduction, embedding, np.asarray(embedding, np.float32))


def match_neighbours(places: np.ndarray, labels: np.ndarray, groups: np.ndarray,
                     neighbours: int = NEIGHBOURS) -> np.ndarray:
    """Return the share of each image's nearest neighbours that have its label.

    Args:
        places: (images, dimensions), a map or the features.
        groups: (images,) numbers; images of one group are copies, and no neighbours, of each
            other.

    Returns:
        (images,) from 0 to 1; NaN where there is nothing but copies.
    """
    largest = int(np.unique(groups, return_counts=True)[1].max())
    count = min(len(places) - 1, neighbours + largest - 1)
    found = NearestNeighbors(n_neighbors=count).fit(places).kneighbors(return_distance=False)
    others = groups[found] != groups[:, None]
    counted = others & (others.cumsum(axis=1) <= neighbours)
    same = (labels[found] == labels[:, None]) & counted
    total = counted.sum(axis=1)
    return np.where(total > 0, same.sum(axis=1) / np.maximum(total, 1), np.nan)


def measure_trust(features: np.ndarray, places: np.ndarray, seed: int) -> float:
    """Return the map's trustworthiness, from 0 to 1: few neighbours on it are strangers in truth.

    By scikit-learn (Venna and Kaski 2001), on a sample of 5,000 images at most.
    """
    chosen = draw_sample(len(features), seed)
    count = max(1, min(NEIGHBOURS, (len(chosen) - 1) // 2))
    scaled = StandardScaler().fit_transform(features)[chosen]
    return float(trustworthiness(scaled, places[chosen], n_neighbors=count))


def draw_sample(count: int, seed: int) -> np.ndarray:
    """Return at most 5,000 of `count` positions, in order."""
    rng = np.random.default_rng(seed)
    return np.sort(rng.permutation(count)[:MEASURED])


def tabulate_points(run: Run, rows: pd.DataFrame, projection: Projection) -> pd.DataFrame:
    """Return the points of the map: the training images that made it, then the test images.

    The hold-out is left out: looking at it could influence choices.

    Args:
        rows: of the run's table, in the order of the map.

    Returns:
        `image_id`, `path`, `label`, `split`, `group`, `fold`, `x`, `y`, `prediction`
        (out-of-fold) and `suspect`, whether the label is in doubt. Test images have neither fold
        nor prediction.
    """
    oof, classes = run.load_table("oof_probabilities"), list(load_json(run.need("label_mapping")))
    columns = ["image_id", "path", "label", "split", "group"]
    x, y = projection.places.T
    points = rows[[*columns, "fold"]].assign(x=x, y=y).merge(
        oof[["image_id", "prediction"]], "left", on="image_id")
    corrected, _ = calibrate_answers(oof, classes, run.recipe.splits.seed)
    points["suspect"] = points.image_id.isin(find_label_errors(corrected, classes).image_id)
    others = select_rows(run.load_table(), "test")
    tested = (others.split == "test").to_numpy()
    x, y = projection.place(np.asarray(load_features(run, "test"))[tested]).T
    unseen = others.loc[tested, columns].assign(x=x, y=y, suspect=False)
    points = pd.concat([points, unseen], ignore_index=True) if tested.any() else points
    return points.astype({"fold": "Int64"})
