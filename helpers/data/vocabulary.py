"""Vocabulary: an image's keypoints as one vector, so that all images can be compared at once.

VLAD (Jégou et al. 2010), each word of length 1 (Arandjelović and Zisserman 2013), reduced by a
principal component analysis. Words and components are learnt from the data themselves.
"""

from collections.abc import Iterable

import numpy as np

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
            raw = np.stack([self._add_up(sample) for sample in samples])
            whole = PCA(WIDTH, svd_solver="randomized", random_state=0).fit(raw)
            scale = np.maximum(whole.explained_variance_, 1e-9) ** WHITENING
            self.whole, self.whole_mean = whole.components_.T / scale, whole.mean_

    def describe(self, images: Iterable[Keypoints]) -> np.ndarray:
        """Return (images, components) float32 of length 1; zeros for images without keypoints."""
        vectors = raw = np.stack([self._add_up(image) for image in images])
        if self.whole is not None:
            vectors = (raw - self.whole_mean) @ self.whole
            vectors[~raw.any(axis=1)] = 0
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        return (vectors / np.maximum(length, 1e-9)).astype(np.float32)

    def _reduce(self, descriptors: np.ndarray) -> np.ndarray:
        return (descriptors - self.detail_mean) @ self.detail

    def _add_up(self, image: Keypoints) -> np.ndarray:
        """Return how far the descriptors stand from their words, (words x detail,) float32."""
        sums = np.zeros(self.words.shape, np.float32)
        if len(image.descriptors):
            reduced = self._reduce(image.descriptors)
            near = (reduced @ self.words.T - (self.words**2).sum(axis=1) / 2).argmax(axis=1)
            np.add.at(sums, near, reduced - self.words[near])
            sums /= np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-6)
            sums /= max(np.linalg.norm(sums), 1e-6)
        return sums.ravel()
