"""Projection: features laid out on a plane by t-SNE, to look at neighbourhoods."""

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

COMPONENTS = 50  # PCA first: less noise and far less time (van der Maaten and Hinton 2008)


def project_features(features: np.ndarray, perplexity: float, seed: int) -> np.ndarray:
    """Standardise, reduce by PCA, and place each image on a plane by t-SNE.

    Args:
        features: (images, features).
        perplexity: roughly how many neighbours count; lowered to a third of the images when
            there are too few for it.

    Returns:
        (images, 2) float32.
    """
    limit = max(1.0, (len(features) - 1) / 3)
    if perplexity > limit:
        print(f"perplexity lowered from {perplexity:g} to {limit:g}: only {len(features)} images")
    placing = TSNE(perplexity=min(perplexity, limit), random_state=seed)
    reduced = _create_reduction(features, seed).fit_transform(features)
    return placing.fit_transform(reduced).astype(np.float32)


def measure_variance(features: np.ndarray, seed: int) -> float:
    """Return the share of the standardised features' variance that the PCA keeps."""
    pca = _create_reduction(features, seed).fit(features)[-1]
    return float(pca.explained_variance_ratio_.sum())


def _create_reduction(features: np.ndarray, seed: int) -> Pipeline:
    components = min(COMPONENTS, *features.shape)
    return make_pipeline(StandardScaler(), PCA(components, random_state=seed))


def match_neighbours(places: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return whether each image's nearest neighbour has its label, as float; copies do not count.

    Args:
        places: (images, dimensions), a map or the features.
        groups: (images,) numbers; images of one group are copies of each other.

    Returns:
        (images,) 1 or 0; NaN where there is nothing but copies.
    """
    count = min(len(places) - 1, int(np.unique(groups, return_counts=True)[1].max()))
    found = NearestNeighbors(n_neighbors=count).fit(places).kneighbors(return_distance=False)
    others = groups[found] != groups[:, None]
    nearest = found[np.arange(len(found)), others.argmax(axis=1)]
    return np.where(others.any(axis=1), labels[nearest] == labels, np.nan)
