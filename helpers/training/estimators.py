"""Estimators: scikit-learn's classifiers as heads, standardising and PCA among their settings."""

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import skops.io
from sklearn.base import ClassifierMixin
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.model_selection import ParameterGrid
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from skops.io.exceptions import UntrustedTypesFoundException

from helpers.files import SuiteError
from helpers.training.selection import NEVER, Head, spread

TREES, LEAVES = 200, 2_000  # more leaves a tree would make a model of gigabytes
# What skops does not know by itself; neither runs anything when it is loaded.
TRUSTED = ["sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
           "sklearn.tree._tree.Tree"]


class EstimatorHead(Head):
    """One of scikit-learn's classifiers, on features prepared as its settings say."""

    preparation: ClassVar[dict] = {"standardised": [True, False], "components": [0, 64]}
    settings: ClassVar[dict] = {}

    def create(self, codes: np.ndarray, **settings) -> ClassifierMixin:
        """Make the classifier that is to learn the class `codes`."""
        raise NotImplementedError

    def decide(self, model: ClassifierMixin, features: np.ndarray) -> np.ndarray:
        """Return the logits of a fitted classifier for the classes that it knows."""
        with np.errstate(divide="ignore"):
            return np.maximum(np.log(model.predict_proba(features)), NEVER)

    def try_candidates(self, inputs: np.ndarray, codes: np.ndarray,
                       judged: np.ndarray) -> Iterator[tuple[dict, np.ndarray]]:
        """Yield each candidate's settings and its logits of `judged`."""
        for preparation in ParameterGrid(self.preparation):
            prepare = self._prepare(inputs.shape, **preparation)
            learnt, asked = prepare.fit_transform(inputs), prepare.transform(judged)
            for settings in ParameterGrid(self.settings):
                model = self.create(codes, **settings).fit(learnt, codes)
                yield preparation | settings, spread(self.decide(model, asked), model.classes_,
                                                     self.count)

    def learn(self, settings: dict, inputs: np.ndarray, codes: np.ndarray) -> dict:
        """Return the fitted pipeline in the format of skops, which runs no code on loading."""
        pipeline = self.fit_pipeline(settings, inputs, codes)
        return {"estimator": np.frombuffer(skops.io.dumps(pipeline), np.uint8)}

    def fit_pipeline(self, settings: dict, inputs: np.ndarray, codes: np.ndarray) -> Pipeline:
        """Return preparation and classifier as one, fitted."""
        preparation = {name: settings[name] for name in self.preparation}
        own = {name: settings[name] for name in self.settings}
        steps = [*self._prepare(inputs.shape, **preparation).steps,
                 ("classify", self.create(codes, **own))]
        return Pipeline(steps).fit(inputs, codes)

    def answer(self, inputs: np.ndarray) -> np.ndarray:
        """Return the fitted pipeline's logits, (rows, classes)."""
        try:
            pipeline = skops.io.loads(self.arrays["estimator"].tobytes(), trusted=TRUSTED)
        except UntrustedTypesFoundException as error:
            raise SuiteError("the saved model holds more than a classifier of this suite and is "
                             f"not opened ({error}). Run 04_training again.") from error
        return spread(self.decide(pipeline[-1], pipeline[:-1].transform(inputs)),
                      pipeline.classes_, len(self.arrays["shift"]))

    def _prepare(self, shape: tuple[int, int], standardised: bool, components: int) -> Pipeline:
        """Return steps that standardise, and shorten to some principal components (0: none)."""
        reduce = PCA(min(components, shape[0] - 1, shape[1]), random_state=self.remedy.seed)
        return Pipeline([("standardise", StandardScaler() if standardised else "passthrough"),
                         ("reduce", reduce if components else "passthrough")])


class ForestHead(EstimatorHead):
    """Random forest: it needs neither standardising nor PCA."""

    preparation: ClassVar[dict] = {"standardised": [False], "components": [0, 64]}
    settings: ClassVar[dict] = {"min_samples_leaf": [1, 4]}

    def create(self, codes: np.ndarray, **settings) -> RandomForestClassifier:
        """Make a forest of `TREES` trees."""
        return RandomForestClassifier(
            TREES, **settings, max_leaf_nodes=LEAVES, class_weight=self.remedy.class_weight,
            random_state=self.remedy.seed, n_jobs=-1)


class BoostingHead(EstimatorHead):
    """Gradient boosting on principal components, without which it would take hours."""

    preparation: ClassVar[dict] = {"standardised": [True], "components": [32, 64]}

    def create(self, codes: np.ndarray) -> HistGradientBoostingClassifier:
        """Make 50 rounds of a tree a class, or fewer and faster ones for many classes.

        Unregularised, the steps for 100 classes of few images overshoot until nothing is right.
        """
        rounds = max(10, min(50, 2_000 // len(np.unique(codes))))
        return HistGradientBoostingClassifier(
            learning_rate=5 / rounds, max_iter=rounds, max_leaf_nodes=15, l2_regularization=1.0,
            early_stopping=False, class_weight=self.remedy.class_weight,
            random_state=self.remedy.seed)


class NeighboursHead(EstimatorHead):
    """k nearest neighbours by cosine; class weights mean nothing to it.

    Shares of votes are often 0, which is no probability: they are taken as logits.
    """

    margins = True
    settings: ClassVar[dict] = {"n_neighbors": [1, 5, 15, 50]}

    def create(self, codes: np.ndarray, n_neighbors: int) -> KNeighborsClassifier:
        """Make a search through all images; of few images, all are neighbours."""
        return KNeighborsClassifier(min(n_neighbors, len(codes)), metric="cosine",
                                    algorithm="brute", weights="distance", n_jobs=-1)

    def decide(self, model: KNeighborsClassifier, features: np.ndarray) -> np.ndarray:
        """Return the shares of votes."""
        return model.predict_proba(features)
