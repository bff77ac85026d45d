"""Settings of what is drawn, reported, compared and served (05 to 11)."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from helpers.head_settings import HEADS, REMEDIES, TAKEN_BY
from helpers.section import Section, setting

# What notebook 08 can compare: a head alone, or with a remedy.
CANDIDATES = (*HEADS, *(f"{head}+{remedy}" for head in HEADS for remedy in REMEDIES[1:]
                        if head in TAKEN_BY.get(remedy, HEADS)))
# What notebook 09 can compare with its baseline; `helpers.evaluation.experiments` says how.
EXPERIMENTS = (
    "frozen head", "classifier only", "more layers", "head first, then more", "new head",
    "dropout", "layer decay", "SGD", "cosine", "step", "plateau", "label smoothing",
    "focal loss", "balanced softmax", "no class weights", "balanced sampler", "hard examples",
    "LIGHT", "MEDIUM", "HEAVY", "Mixup", "CutMix", "SWA", "EMA", "distillation")


class ProjectionSettings(Section):
    """The picture of the features (05)."""

    tsne_images: int | None = setting("Training images on the map; null: all.", 5000, ge=10)
    perplexity: float = setting("Perplexity of t-SNE.", 30, gt=1)
    other_perplexities: list[Annotated[float, Field(gt=1)]] = setting(
        "Perplexities to compare it with, on small maps of at most 2,000 images.", [5, 100])
    map_megabytes: float = setting(
        "Target size of map.html in MB: to fit, photos get smaller, then fewer.",
        16, ge=6, le=500)


class EvaluationSettings(Section):
    """What is reported (06), and what is compared (07, 08)."""

    final: bool = setting(
        "Score the hold-out and the data set's own test images, and keep count. Leave it off "
        "until all choices are made.", False)
    bootstrap: int = setting("Resamples behind each interval.", 2000, ge=100)
    wished_accuracy: float = setting(
        "Accuracy wanted on the photos that are answered; on the others the model abstains.",
        0.95, gt=0, lt=1)
    leak_price: bool = setting(
        "Show beside the score what it would be with copies on both sides of the folds (the "
        "recipe's head is trained once more, or twice where a network is trained).",
        False)
    compare: list[str] = setting(
        "Backbones that notebook 07 compares with the recipe's own.",
        ["resnet18", "resnet50", "resnet101", "efficientnet_b0", "efficientnet_b3",
         "efficientnet_b7", "vit_base_patch16_224", "densenet121", "mobilenetv3_large_100",
         "convnext_tiny", "xception41"], min_length=1)
    compare_images: int = setting("Training images that they are compared on, at most.",
                                   1000, ge=30)
    compare_heads: list[Literal[CANDIDATES]] = setting(
        "Heads, alone or as `head+remedy`, that notebook 08 compares; the first is the baseline "
        "of all others. With `text_columns` the text alone, and with the photo, are added.",
        [*HEADS, *(f"{TAKEN_BY.get(remedy, HEADS)[0]}+{remedy}" for remedy in REMEDIES[1:])],
        min_length=2)
    compare_heads_images: int = setting(
        "Training images that they are compared on, at most.", 5_000, ge=30)

    experiments: list[Literal[EXPERIMENTS]] = setting(
        "What notebook 09 compares with its baseline, one change each.", list(EXPERIMENTS))
    experiment_seeds: int = setting("Seeds that each is trained with, to see the luck in it.",
                                    2, ge=1, le=10)
    experiment_epochs: int = setting("Epochs of each.", 3, ge=2)
    experiment_images: int = setting("Training images that they are compared on, at most.",
                                     500, ge=30)
    experiment_size: int | None = setting(
        "Side of their input in pixels; null: the recipe's.", 96, ge=16, le=2048)
    experiment_layers: float = setting(
        "Share of the backbone's layers that the baseline trains.", 0.1, ge=0, le=1)
    experiment_teacher: str | None = setting(
        "A larger backbone whose classifier teaches in `distillation`; null: the recipe's own.",
        None)
    sizes: list[Annotated[int, Field(ge=16, le=2048)]] = setting(
        "Sides in pixels that notebook 10 enlarges images to.", [32, 64, 96, 128, 160, 224],
        min_length=1)
    sizes_finetuned: list[int] = setting(
        "Those of them at which networks are trained as well.", [64, 128])
    sizes_images: int = setting("Training images that sizes are compared on, at most.",
                                3_000, ge=30)

    @field_validator("sizes_finetuned")
    @classmethod
    def _require_sizes(cls, sizes: list[int], others) -> list[int]:
        strange = set(sizes) - set(others.data.get("sizes", sizes))
        if strange:
            raise ValueError(f"{min(strange)} is none of `sizes`")
        return sizes

    @field_validator("compare_heads")
    @classmethod
    def _require_unlike_heads(cls, names: list[str]) -> list[str]:
        if len(set(names)) < len(names):
            raise ValueError("it should name each head once")
        return names


class ServingSettings(Section):
    """The model that leaves the run (11)."""

    serve: Literal["ensemble", "refit"] = setting(
        "`ensemble`: the models of all folds, whose calibrated answers are averaged; `refit`: "
        "one model, trained once more on all training images. It is smaller, and trained "
        "networks answer faster; the scores are still those of the folds' models.", "ensemble")
    reference_photos: int = setting(
        "Training photos kept with it as thumbnails, to show the nearest ones to an answer; with "
        "0 no photo leaves the run, samples for the page included.", 2000, ge=0)
    notes: str | None = setting(
        "Where the images come from and what they may be used for; it is shown with the model.",
        None)
