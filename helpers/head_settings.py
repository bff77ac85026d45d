"""Settings of the classifier on frozen features, and which remedy goes with which of them."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from helpers.section import Section, setting

HEADS = ("logistic", "ridge", "svm", "knn", "forest", "boosting", "class_mean", "linear", "mlp")
REMEDIES = ("none", "class_weights", "oversampling", "undersampling", "smote",
            "balanced_batches", "focal", "balanced_softmax", "logit_adjustment")
# Remedies that not every head can take.
TAKEN_BY = {"balanced_batches": ("linear", "mlp"), "focal": ("logistic", "linear", "mlp"),
            "balanced_softmax": ("logistic", "linear", "mlp")}
# As they are called where people read.
TITLES = {
    "logistic": "logistic regression", "ridge": "ridge regression", "svm": "linear SVM",
    "knn": "nearest neighbours", "forest": "random forest", "boosting": "gradient boosting",
    "class_mean": "nearest class mean", "linear": "linear layer", "mlp": "perceptron (MLP)",
    "class_weights": "class weights", "oversampling": "random oversampling",
    "undersampling": "random undersampling", "smote": "SMOTE",
    "balanced_batches": "balanced batches", "focal": "focal loss",
    "balanced_softmax": "balanced softmax", "logit_adjustment": "logit adjustment",
    "text": "text alone", "both": "photo and text"}


class HeadSettings(Section):
    """How the classifier is trained (04)."""

    classifier: Literal[HEADS] = setting(
        "The classifier on the features: logistic regression, ridge regression, linear support "
        "vector machine (`svm`), nearest neighbours (`knn`), random forest, gradient boosting, "
        "the nearest class mean, a linear layer trained in batches with dropout, or a perceptron "
        "with one hidden layer (`mlp`). `head: ridge` says the same.", "logistic")
    imbalance: Literal[REMEDIES] = setting(
        "What is done about classes of unequal size. `balanced_batches` is for `linear` and "
        "`mlp`, `focal` and `balanced_softmax` are for these and `logistic`; `knn` and "
        "`class_mean` know no class weights.", "class_weights")
    inputs: Literal["photo", "text", "both"] = setting(
        "What the classifier is given: the photo's features, the text of `text_columns`, or "
        "both, each with a classifier of its own.", "photo")
    text_columns: list[str] = setting(
        "Columns of the table that hold text about an image. Of the remedies a text takes class "
        "weights and logit adjustment.", [], validate_default=True)
    c_grid: list[Annotated[float, Field(gt=0)]] = setting(
        "Candidates for C of the logistic regression, the inverse strength of the L2 penalty.",
        [0.0001, 0.001, 0.01, 0.1, 1.0, 10.0], min_length=1)
    learning_curve: list[Annotated[float, Field(gt=0, lt=1)]] = setting(
        "Shares of the training images that the learning curve is measured at, beside all of "
        "them; [] for none.", [0.1, 0.2, 0.5], result=False)

    @field_validator("imbalance")
    @classmethod
    def _require_head_that_takes_it(cls, remedy: str, others) -> str:
        heads, own = TAKEN_BY.get(remedy, HEADS), others.data.get("classifier")
        if own and own not in heads:
            raise ValueError(f"it is for {' and '.join(heads)}, and the head is {own}")
        return remedy

    @field_validator("text_columns")
    @classmethod
    def _require_columns(cls, columns: list[str], others) -> list[str]:
        if not columns and others.data.get("inputs", "photo") != "photo":
            raise ValueError(f"`inputs: {others.data['inputs']}` needs the names of columns")
        own = {"image_id", "path", "label", "split"}
        if len(set(columns)) < len(columns) or own & set(columns):
            raise ValueError("it should name each column once, and only text about the image")
        return columns
