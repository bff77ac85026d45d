"""Fusion: a photo's head and its text's, blended as the inner fold finds best."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.sparse import csr_array
from sklearn.metrics import log_loss

from helpers.training.selection import Head
from helpers.training.text import TextHead

SHARES = np.linspace(1, 0, 21)  # of two that are as good, the larger


@dataclass(frozen=True)
class PhotoAndText:
    """What there is of some images: features, and counted terms; indexed by rows."""

    features: np.ndarray
    terms: csr_array

    def __getitem__(self, rows) -> "PhotoAndText":
        return PhotoAndText(self.features[rows], self.terms[rows])


class FusionHead:
    """Late fusion: the probabilities of a photo's head and of its text, blended.

    The photo's share is the one of the smallest log loss on the inner fold, which neither has
    learnt from. An image without text is answered by its photo alone.

    Args:
        photo, text: heads that are not fitted, or only their arrays are still to come.
        arrays: of a fitted fusion.
    """

    def __init__(self, photo: Head, text: TextHead, arrays: dict[str, np.ndarray] | None = None):
        self.photo, self.text, self.share = photo, text, 0.5
        self.choices, self.judged = pd.DataFrame(), np.empty((0, 0))
        if arrays:
            self.share = float(arrays["share"])
            for name, array in arrays.items():
                part, _, key = name.partition("/")
                if key:
                    getattr(self, part).arrays[key] = array

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """All that `predict` needs."""
        parts = {f"{part}/{key}": array for part in ("photo", "text")
                 for key, array in getattr(self, part).arrays.items()}
        return parts | {"share": np.array(self.share)}

    def fit(self, inputs: PhotoAndText, codes: np.ndarray, inner: np.ndarray) -> "FusionHead":
        """Fit both heads on the same rows, then choose the photo's share."""
        self.photo.fit(inputs.features, codes, inner)
        self.text.fit(inputs.terms, codes, inner)
        answers = [self._blend(self.photo.judged, self.text.judged, inputs.terms[inner], share)
                   for share in SHARES]
        losses = [log_loss(codes[inner], answer, labels=range(answer.shape[1]))
                  for answer in answers]
        best = int(np.argmin(losses))
        self.share, self.judged = float(SHARES[best]), answers[best]
        self.choices = pd.DataFrame({"photo's share": SHARES, "log loss": losses,
                                     "chosen": self.share == SHARES})
        return self

    def predict(self, inputs: PhotoAndText) -> np.ndarray:
        """Return probabilities, (rows, classes) float32."""
        return self._blend(self.photo.predict(inputs.features), self.text.predict(inputs.terms),
                           inputs.terms, self.share)

    @staticmethod
    def _blend(photo: np.ndarray, text: np.ndarray, terms: csr_array, share: float) -> np.ndarray:
        mute = np.diff(terms.indptr) == 0
        return np.where(mute[:, None], photo, share * photo + (1 - share) * text).astype(
            np.float32)
