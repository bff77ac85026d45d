"""Vocabulary: an image's keypoints as one vector, so that all images can be compared at once.

VLAD (Jégou et al. 2010), each word of length 1 (Arandjelović and Zisserman 2013), reduced by a
principal component analysis. Words and components are learnt from the data themselves.
"""

import numpy as np
from scipy.sparse import csc_array

from helpers.data.keypoints import Keypoints

LEARNT_FROM = 2_000  # images
DESCRIPTORS = 100_000  # of them, at most
WORDS = 512  # at most: where all images show print, few words would not tell them apart
FEW_WORDS = 128  # of many images, or a minute would go into long sums
MANY = 10_000  # images
PER_WORD = 100  # descriptors that a word is learnt from, at least
DETAIL = 64  # components of a descriptor
WIDTH = 256  # components of an image
WHITENING = 0.25  # power of the components' variance; 0.5 would let noise speak as loud
AT_ONCE = 256  # images


class Vocabulary:
    """Words that the data's keypoints cluster in, and what tells its images apart.

    Args:
        samples: keypoints of some images, at least one of which has some.
        images: how many are to be described.
    """

    def __init__(self, samples: list[Keypoints], images: int):
        from sklearn.cluster import KMeans
        from sklearn.decomposition import PCA

        each = max(2, DESCRIPTORS // (2 * len(samples)))
        # Those of mirror images too, so that no direction is special.
        descriptors = np.concatenate([points.descriptors[:each] for sample in samples
                                      for points in (sample, sample.mirror())])
        width = min(DETAIL, *descriptors.shape)
        detail = PCA(width, svd_solver="covariance_eigh").fit(descriptors)
        self.detail, self.detail_mean = detail.components_.T, detail.mean_
        most = WORDS if images < MANY else FEW_WORDS
        count = max(1, min(most, len(descriptors) // PER_WORD))
        clusters = KMeans(count, n_init=1, max_iter=10, random_state=0)
        self.words = clusters.fit(self._reduce(descriptors)).cluster_centers_
        self.whole = None  # few images are compared as they are
        if len(samples) > WIDTH and self.words.size > WIDTH:
            raw = self._add_up(samples)
            whole = PCA(WIDTH, svd_solver="randomized", random_state=0).fit(raw)
            scale = np.maximum(whole.explained_variance_, 1e-9) ** WHITENING
            self.whole, self.whole_mean = whole.components_.T / scale, whole.mean_

    @property
    def width(self) -> int:
        """How many components an image has."""
        return self.words.size if self.whole is None else self.whole.shape[1]

    def describe(self, images: list[Keypoints]) -> np.ndarray:
        """Return (images, components) float32 of length 1; zeros for images without keypoints."""
        vectors = raw = self._add_up(images)
        if self.whole is not None:
            vectors = (raw - self.whole_mean) @ self.whole
            vectors[~raw.any(axis=1)] = 0
        return _scale_rows(vectors.astype(np.float32, copy=False))

    def _reduce(self, descriptors: np.ndarray) -> np.ndarray:
        return (descriptors - self.detail_mean) @ self.detail

    def _add_up(self, images: list[Keypoints]) -> np.ndarray:
        """Return how far the descriptors stand from their words.

        Returns:
            (images, words x detail) float32, each word's part as long as the others.
        """
        reduced = self._reduce(np.concatenate([image.descriptors for image in images]))
        near = (reduced @ self.words.T - (self.words**2).sum(axis=1) / 2).argmax(axis=1)
        count, detail = self.words.shape
        owners = np.repeat(np.arange(len(images)), [len(image.descriptors) for image in images])
        # A sparse matrix of ones that adds up the descriptors of each image and word.
        adding = csc_array((np.ones(len(near), np.float32), owners * count + near,
                            np.arange(len(near) + 1)), (len(images) * count, len(near)))
        sums = (adding @ (reduced - self.words[near])).astype(np.float32, copy=False)
        return _scale_rows(_scale_rows(sums).reshape(len(images), count * detail))


def _scale_rows(vectors: np.ndarray) -> np.ndarray:
    """Give each row the length 1, in place: together they are large."""
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
    return vectors
