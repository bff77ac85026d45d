"""Settings: every one of them, in sections, with its default, its limits and its meaning.

`python -m helpers.recipe` prints them as tables; `data/README.md` holds what it prints.
"""

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticKnownError

from helpers.evaluation_settings import (
    EvaluationSettings,
    ProjectionSettings,
    ServingSettings,
)
from helpers.files import ROOT, resolve_path
from helpers.finetune_settings import FinetuneSettings
from helpers.head_settings import HeadSettings
from helpers.section import Section, setting

CHECKS = ("unreadable", "blank", "conflicting labels", "extension", "exact copy", "near copy",
          "conflicting near copy", "leak", "dark", "light", "blurry", "low information",
          "odd size", "odd aspect", "greyscale", "transparency", "CMYK", "16-bit", "palette",
          "rotated", "animated")
DATA_SETS = ("CIFAR10", "CIFAR100", "Caltech101", "Country211", "DTD", "EuroSAT", "FGVCAircraft",
             "FashionMNIST", "Flowers102", "Food101", "GTSRB", "Imagenette", "KMNIST", "MNIST",
             "OxfordIIITPet", "STL10", "SVHN")  # of torchvision
FETCHED = ROOT / "data" / "torchvision"
WEIGHT_FILES = (".safetensors", ".pth", ".pt")


class DataSettings(Section):
    """What there is, and what is set aside (01)."""

    source: Literal["rakuten", "folders", "cifar", "csv", "alternating",
                    "torchvision"] = setting(
        "Layout: `rakuten` (three CSV files and two image folders), `folders` (a folder per "
        "class, perhaps below train, val and test), `cifar` (Python pickles), `csv` (a table of "
        "paths and labels), `alternating` (two kinds of photo in turn, with a table) or "
        "`torchvision` (a data set by name, which torchvision downloads).")
    path: Path = setting("The folder that holds the data, or an archive of it (.zip, .tar.gz), "
                          "from the suite's root; for `torchvision` one of "
                          f"{', '.join(DATA_SETS)}. `data: FOLDER` says the same.")
    generate: Literal["demo"] | None = setting(
        "`demo` writes the embedded demo into `path` when it is not there yet.", None)
    class_level: int | None = setting(
        "How deep the class folders lie: 1 is `path/<class>`, 2 `path/<split or domain>/<class>` "
        "(domains, as photo and sketch, become the column `domain`); null: as their names say.",
        None, ge=1, le=9)
    exclude: list[str] = setting("Classes that are left out.", [])
    class_names: dict[str, str] = setting(
        "A readable name for each label code; codes without one keep the code.", {})
    labels: Literal["fine", "coarse"] = setting("Which labels of CIFAR-100.", "fine")
    csv: str | None = setting(
        "The table's file name in `path`, for `csv` and `alternating`; null: the only one.", None)
    images: str | None = setting(
        "Where in the table's folder the paths in it start; null: there, or in the folder beside "
        "it that holds them.", None)
    path_column: str = setting("Its column of image paths.", "image")
    label_column: str = setting("Its column of labels.", "label")
    split_column: str | None = setting(
        "Its column of train, val or test; null: all are training images.", None)
    keep: str = setting("Which of two alternating kinds: `even`, `odd`, or `column=value`.",
                         "even", pattern=r"^(even|odd|[^=]+=.*)$")
    missing_images: Literal["refuse", "quarantine", "drop"] = setting(
        "What to do with images that a CSV names and the disk lacks: stop, set them aside (01 "
        "lists them), or leave out their rows, and classes that are empty then.", "refuse")
    quarantine: list[Literal[CHECKS]] = setting(
        "The checks whose images are set aside; all others are only reported.",
        ["unreadable", "blank", "conflicting labels"])
    follow: str | None = setting(
        "Id of a training image that the notebooks follow from 01 to 06; null: the first one.",
        None, result=False)
    keep_images: list[str] = setting(
        "Ids of images that stay in whatever a check says (unreadable ones cannot).", [])
    corrections: Path | None = setting(
        "A CSV of labels corrected by a person (`image_id`, `correction`), made from a run's "
        "label_suspects.csv; the data itself is never changed.", None)
    near_copy: float = setting(
        "Correlation from which two images count as near copies; raise it where all images are "
        "alike by nature; 1 looks for copies of the same bytes alone.", 0.9, ge=0.5, le=1)
    transformed_copies: bool = setting(
        "Whether to look for copies that were turned, shifted, zoomed, cropped or augmented.",
        True)
    transformed_copy: float = setting(
        "Correlation from which two such images, laid over each other, count as copies; raise "
        "it where images of different things share most of what they show.", 0.82, ge=0.5, le=1)
    copy_colours: Literal["same", "any"] = setting(
        "Whether a copy must have the colours of its original (`same`; another exposure, white "
        "balance or a grey copy do no harm), or may have `any`.", "same")

    @property
    def place(self) -> Path:
        """Where the data lies on disk: at `path`, or where a data set by name is fetched to."""
        return FETCHED / self.path if self.source == "torchvision" else resolve_path(self.path)

    @property
    def comes_by_itself(self) -> bool:
        """Whether the suite puts the data there when it is not there yet."""
        return self.generate is not None or self.source == "torchvision"

    @field_validator("path", mode="before")
    @classmethod
    def _require_path(cls, path):
        if path is None or str(path).strip() == "":
            raise ValueError("name the folder that holds the data, or an archive of it")
        return path

    @field_validator("path")
    @classmethod
    def _require_known_name(cls, path: Path, others) -> Path:
        if others.data.get("source") == "torchvision" and str(path) not in DATA_SETS:
            raise PydanticKnownError("literal_error", {"expected": ", ".join(DATA_SETS)})
        return path

    @field_validator("class_names", mode="before")
    @classmethod
    def _read_codes_as_text(cls, names):
        # YAML reads an unquoted code as a number; class codes are text everywhere else.
        if not isinstance(names, dict):
            return names
        if any(code is None or isinstance(code, bool) for code in names):
            raise ValueError("write a code true, false or null in quotes")
        return {str(k): v for k, v in names.items()}

    @field_validator("class_names")
    @classmethod
    def _require_unlike_names(cls, names: dict[str, str]) -> dict[str, str]:
        twice = {name for name in names.values() if list(names.values()).count(name) > 1}
        if twice:
            raise ValueError(f"two codes are both called {sorted(twice)[0]!r}")
        return names


class SplitSettings(Section):
    """How images are split (02)."""

    group_column: str | None = setting(
        "A column (product, patient, camera) whose images stay on one side.", None)
    leaks: Literal["drop", "keep"] = setting(
        "Training images that are copies of the data set's own test images.", "drop")
    small_classes: Literal["refuse", "merge", "drop"] = setting(
        "Classes with too few images for the folds: stop, join them as `other`, or leave them "
        "out.", "refuse")
    holdout: float = setting(
        "Share of each class that is set aside and scored only with `final: true`; 0 for none.",
        0.15, ge=0, le=0.5)
    folds: int = setting("Folds of the cross-validation: 5 is usual, 10 for small data.",
                          5, ge=3, le=50)
    seed: int = setting("Seed of everything random.", 42, ge=0, lt=2**32)


class NetworkSettings(Section):
    """Which network, and what it is given (02, 03)."""

    strategy: Literal["frozen", "finetune", "scratch"] = setting(
        "`frozen`: the backbone only computes features, and a classifier learns from them; "
        "`finetune`: the backbone is trained as well; `scratch`: it is trained from random "
        "weights, all layers from the start. 03 computes the features of `weights` all the same, "
        "to measure what training adds.", "frozen")
    backbone: str = setting("A timm architecture that ends in pooled features.",
                             "efficientnet_b0")
    weights: str = setting(
        "`pretrained` (timm's default tag), another tag such as `ra_in1k`, a local .safetensors "
        "or .pth file, `packaged` (by pip, for tf_efficientnet_lite0 and tf_efficientnet_lite1), "
        "or `random`.", "pretrained")
    image_size: int | None = setting(
        "Side of the network's square input in pixels; null: the backbone's own.",
        None, ge=16, le=2048)
    resize: Literal["center", "squash"] = setting(
        "`center`: resize and crop as the backbone was trained; `squash`: the whole image, its "
        "aspect lost.", "center")
    normalisation: Literal["backbone", "imagenet", "minmax", "symmetric", "dataset",
                           "zscore"] = setting(
        "How pixels are scaled: as in the backbone's training, by ImageNet's mean and std, to "
        "[0, 1], to [-1, 1], by the data set's own mean and std, or by each image's own.",
        "backbone")
    augmentation_sizes: tuple[int, int] = setting(
        "Classes with more training images than the first are augmented LIGHT, with fewer than "
        "the second HEAVY, others MEDIUM (training of networks only).", (3000, 1500))


class FeatureSettings(Section):
    """How features are computed (03)."""

    precision: Literal["float32", "bf16", "fp16"] = setting(
        "Of the frozen network's sums. `bf16` and `fp16` are faster where the hardware has them. "
        "`fp16` moves features by about 1e-2, `bf16` by up to ten times as much.", "float32")
    engine: Literal["auto", "torch", "openvino"] = setting(
        "What computes: `auto` is torch on a GPU and OpenVINO on a CPU; their float32 features "
        "agree within 1e-5.", "auto", result=False)
    batch_size: int | None = setting(
        "Images per step of the network; null: what suits the device and the image size.",
        None, result=False, ge=1, le=4096)
    workers: int | None = setting(
        "How many decode images, and on a CPU compute features, side by side; null: one per "
        "core, at most 16 beside a GPU.", None, result=False, ge=1, le=256)


class Recipe(Section):
    """Every setting of a run: its name, the name of its run, and the sections."""

    name: str = Field(description="The recipe's own name: its folder under data/.")
    run: str | None = setting(
        "Name of the folder under outputs/; null: the recipe's name, for `own` that of its data.",
        None, result=False)
    data: DataSettings
    splits: SplitSettings = SplitSettings()
    network: NetworkSettings = NetworkSettings()
    features: FeatureSettings = FeatureSettings()
    head: HeadSettings = HeadSettings()
    finetune: FinetuneSettings = FinetuneSettings()
    projection: ProjectionSettings = ProjectionSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    serving: ServingSettings = ServingSettings()

    @field_validator("name", "run")
    @classmethod
    def _require_plain_name(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
            raise ValueError("it becomes the name of a folder: up to 100 letters (a to z), "
                             "digits, dots, dashes and underscores, a letter or digit first")
        return name

    @model_validator(mode="before")
    @classmethod
    def _require_data(cls, values):
        # Without the section, each setting that it lacks is to be named.
        return {"data": {}} | values if isinstance(values, dict) else values

    @property
    def run_name(self) -> str:
        """Name of the run's folder under outputs/; recipe `own` takes that of its data."""
        place = re.sub(r"\W+", "-", self.data.path.name.partition(".")[0]).strip("-_")
        return self.run or (place if self.name == "own" and place else self.name)

    def change(self, **settings) -> "Recipe":
        """Return a checked copy with other values of settings, named without their section."""
        values = self.model_dump()
        for name, value in settings.items():
            (section,) = OWNERS[name]
            values[section][name] = value
        return Recipe(**values)

    def select(self, *parts: str) -> dict:
        """Return the settings that change results, as plain values.

        Args:
            parts: sections (`data`) and single settings (`splits.seed`).
        """
        chosen = {}
        values = self.model_dump(mode="json")
        for part in parts:
            section, _, name = part.partition(".")
            if section == "finetune" and self.network.strategy == "frozen":
                continue  # no network is trained
            fields = type(getattr(self, section)).model_fields
            chosen |= {f"{section}.{key}": values[section][key] for key in fields
                       if (not name or key == name) and fields[key].json_schema_extra["result"]}
        return chosen


SECTIONS = {name: field.annotation for name, field in Recipe.model_fields.items()
            if isinstance(field.annotation, type) and issubclass(field.annotation, Section)}
# Setting -> the sections that have one of this name.
OWNERS = {}
for _section, _model in SECTIONS.items():
    for _name in _model.model_fields:
        OWNERS.setdefault(_name, []).append(_section)
