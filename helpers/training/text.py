"""Text: TF-IDF of an image's words and characters, and a linear model on them."""

import html
import re
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from scipy.sparse import csr_array, hstack
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
from sklearn.linear_model import SGDClassifier

from helpers.data.splits import select_rows
from helpers.files import SuiteError, show_path
from helpers.run import Run
from helpers.training.imbalance import Remedy
from helpers.training.selection import Head, pack_linear, spread, widen_margins

# Of words, and as many of characters. Hashing needs no vocabulary, so nothing of other texts is
# in what is counted, and a model is saved as plain arrays.
COLUMNS = 2**17
BLOCKS = slice(0, COLUMNS), slice(COLUMNS, None)
PENALTIES = [1e-4, 1e-5, 1e-6]
TAGS = re.compile(r"</?[A-Za-z][^<>]*>")
TAKEN_BY_TEXT = ("class_weights", "logit_adjustment")  # remedies


def check_texts(rows: pd.DataFrame, columns: Sequence[str], where: str) -> None:
    """Refuse columns that hold no text.

    Raises:
        SuiteError: a column is not there, is empty throughout, or holds numbers.
    """
    missing = [column for column in columns if column not in rows]
    if missing:
        raise SuiteError(f"{where} has no column '{missing[0]}' of text; it has: "
                         f"{', '.join(rows.columns)}. Correct `text_columns`.")
    for column in columns:
        texts = rows[column].fillna("").astype(str).str.strip()
        said = texts[texts != ""]
        if said.empty:
            raise SuiteError(f"{where}: the column '{column}' is empty. Take it out of "
                             "`text_columns`.")
        if pd.to_numeric(said, errors="coerce").notna().all():
            raise SuiteError(f"{where}: the column '{column}' holds numbers, not text, e.g. "
                             f"{said.iloc[0]}. Take it out of `text_columns`.")


def join_texts(rows: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    """Return one text an image, without HTML; empty where all columns are."""
    joined = rows[list(columns)].fillna("").astype(str).agg(" ".join, axis=1)
    return joined.map(lambda text: html.unescape(TAGS.sub(" ", text)).strip())


def count_terms(texts: Sequence[str]) -> csr_array:
    """Count words and pairs of words, then 3 to 5 characters within words, accents folded.

    Returns:
        (texts, 2 x COLUMNS) float32; a row without text is empty.
    """
    options = {"strip_accents": "unicode", "alternate_sign": False, "norm": None,
               "n_features": COLUMNS, "dtype": np.float32}
    words = HashingVectorizer(ngram_range=(1, 2), **options)
    characters = HashingVectorizer(analyzer="char_wb", ngram_range=(3, 5), **options)
    return csr_array(hstack([words.transform(texts), characters.transform(texts)], format="csr"))


def load_texts(run: Run, part: str) -> pd.Series:
    """Return the texts of the `train` or `test` images, in the table's order."""
    table = run.load_table()
    columns = run.recipe.head.text_columns
    check_texts(table, columns, show_path(run.path("table")))
    return join_texts(select_rows(table, part), columns)


class TextHead(Head):
    """TF-IDF and logistic regression by stochastic gradient descent, one class against the rest.

    Candidates are penalties. Of the remedies it takes class weights and logit adjustment.
    """

    margins = True

    def __init__(self, count: int = 0, remedy: Remedy | None = None, c_grid: Sequence[float] = (),
                 arrays: dict[str, np.ndarray] | None = None):
        if remedy and remedy.name not in TAKEN_BY_TEXT:
            remedy = Remedy("none", remedy.seed)
        super().__init__(count, remedy, c_grid, arrays)

    def try_candidates(self, inputs: csr_array, codes: np.ndarray,
                       judged: csr_array) -> Iterator[tuple[dict, np.ndarray]]:
        """Yield each penalty and its logits of `judged`."""
        rarity = measure_rarity(inputs)
        learnt, asked = scale_terms(inputs, rarity), scale_terms(judged, rarity)
        for alpha in PENALTIES:
            model = self._create(alpha).fit(learnt, codes)
            logits = widen_margins(model.decision_function(asked))
            yield {"alpha": alpha}, spread(logits, model.classes_, self.count)

    def learn(self, settings: dict, inputs: csr_array, codes: np.ndarray) -> dict:
        """Return how rare each term is, and the weights and biases for one penalty."""
        rarity = measure_rarity(inputs)
        model = self._create(settings["alpha"]).fit(scale_terms(inputs, rarity), codes)
        weights, biases = model.coef_.T, model.intercept_
        if len(biases) == 1:  # two classes share one column
            weights, (biases,) = widen_margins(weights[:, 0]), widen_margins(biases)
        return {"rarity": rarity} | pack_linear(weights, biases, model.classes_, self.count)

    def answer(self, inputs: csr_array) -> np.ndarray:
        """Return the logits, (rows, classes)."""
        return scale_terms(inputs, self.arrays["rarity"]) @ self.arrays["weights"] + (
            self.arrays["biases"])

    def _create(self, alpha: float) -> SGDClassifier:
        return SGDClassifier(
            loss="log_loss", alpha=alpha, average=True, class_weight=self.remedy.class_weight,
            random_state=self.remedy.seed, n_jobs=-1)


def measure_rarity(terms: csr_array) -> np.ndarray:
    """Return each term's inverse document frequency, (terms,) float32."""
    return TfidfTransformer().fit(terms).idf_.astype(np.float32)


def scale_terms(terms: csr_array, rarity: np.ndarray) -> csr_array:
    """Return TF-IDF, words and characters each of length 1: (texts, terms) float32."""
    parts = []
    for block in BLOCKS:
        scaler = TfidfTransformer(sublinear_tf=True)
        scaler.idf_ = rarity[block]
        parts.append(scaler.transform(terms[:, block]))
    return csr_array(hstack(parts, format="csr", dtype=np.float32))
