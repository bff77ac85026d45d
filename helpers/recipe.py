"""Recipe: every setting of a run, read from one YAML file and checked before anything starts.

`python -m helpers.recipe` prints the table of all settings.
"""

import difflib
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from helpers.errors import SuiteError
from helpers.files import ROOT, resolve_path, show_path

DATA = ROOT / "data"
CHECKS = ("unreadable", "blank", "conflicting labels", "extension", "exact copy", "near copy",
          "leak", "dark", "light", "blurry", "low information", "odd size", "odd aspect",
          "greyscale", "transparency", "CMYK", "16-bit", "palette", "rotated", "animated")
Check = Literal[CHECKS]
FOLDER_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


def _setting(stage: str | None, description: str, default=..., **limits):
    """Describe one setting; `stage` is the first notebook whose results it changes, if any."""
    return Field(default, description=description, json_schema_extra={"stage": stage}, **limits)


class Recipe(BaseModel):
    """Every setting of a run, grouped by what it is about."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="The recipe's own name: its folder under data/.",
                      pattern=FOLDER_NAME)

    # --- data
    source: Literal["rakuten", "folders", "cifar", "csv", "alternating"] = _setting(
        "01", "Layout: `rakuten` (three CSV files and two image folders), `folders` (a folder "
        "per class, perhaps below train, val and test), `cifar` (Python pickles), `csv` (a table "
        "of paths and labels) or `alternating` (two kinds of photo in turn, with a table).")
    data: Path = _setting("01", "The folder that holds the data, or an archive of it (.zip, "
                          ".tar.gz), from the suite's root.")
    generate: Literal["digits"] | None = _setting(
        "01", "`digits` writes the embedded demo into `data` when it is not there yet.", None)
    class_names: dict[str, str] = _setting(
        "01", "A readable name for each label code; codes without one keep the code.", {})
    labels: Literal["fine", "coarse"] = _setting(
        "01", "Which labels of CIFAR-100.", "fine")
    csv: str | None = _setting("01", "The table's file name in `data`, for `csv` and "
                               "`alternating`.", None)
    path_column: str = _setting("01", "Its column of image paths.", "image")
    label_column: str = _setting("01", "Its column of labels.", "label")
    split_column: str | None = _setting(
        "01", "Its column of train, val or test; null: all are training images.", None)
    keep: str = _setting(
        "01", "Which of two alternating kinds: `even`, `odd`, or `column=value`.", "even",
        pattern=r"^(even|odd|[^=]+=.*)$")
    missing_images: Literal["refuse", "quarantine"] = _setting(
        "01", "What to do with images that a CSV names and the disk lacks.", "refuse")

    # --- inspection
    quarantine: list[Check] = _setting(
        "01", "The checks whose images are set aside; all others are only reported.",
        ["unreadable", "blank", "conflicting labels"])
    keep_images: list[str] = _setting(
        "01", "Ids of images that stay in whatever a check says (unreadable ones cannot).", [])
    near_copy: float = _setting(
        "01", "Correlation from which two images count as near copies; raise it where all images "
        "are alike by nature; 1 switches the search off.", 0.9, ge=0.5, le=1)

    # --- splits
    group_column: str | None = _setting(
        "02", "A column (product, patient, camera) whose images stay on one side.", None)
    leaks: Literal["drop", "keep"] = _setting(
        "02", "Training images that are copies of the data set's own test images.", "drop")
    small_classes: Literal["refuse", "merge", "drop"] = _setting(
        "02", "Classes with too few images for the folds: stop, join them as `other`, or leave "
        "them out.", "refuse")
    holdout: float = _setting(
        "02", "Share of each class set aside and scored once, at the end; 0 for none.",
        0.15, ge=0, le=0.5)
    folds: int = _setting(
        "02", "Folds of the cross-validation: 5 is usual, 10 for small data.", 5, ge=3, le=50)
    seed: int = _setting("02", "Seed of everything random.", 42, ge=0, lt=2**32)

    # --- network
    strategy: Literal["frozen"] = _setting(
        "03", "`frozen`: the backbone only computes features.", "frozen")
    backbone: str = _setting("02", "A timm architecture that ends in pooled features.",
                             "efficientnet_b0")
    weights: str = _setting(
        "02", "`pretrained` (timm's default tag), another tag such as `ra_in1k`, a local "
        ".safetensors or .pth file, or `random`.", "pretrained")
    image_size: int | None = _setting(
        "02", "Side of the network's square input in pixels; null: the backbone's own.",
        None, ge=16, le=2048)
    resize: Literal["center", "squash"] = _setting(
        "02", "`center`: resize and crop as the backbone was trained; `squash`: the whole "
        "image, its aspect lost.", "center")
    normalisation: Literal["backbone", "imagenet", "minmax", "symmetric", "dataset",
                           "zscore"] = _setting(
        "02", "Of pixels: as the backbone was trained, ImageNet's mean and deviation, to [0, 1], "
        "to [-1, 1], by the data set's own measured mean and deviation, or each image by its "
        "own.", "backbone")
    augmentation_sizes: tuple[int, int] = _setting(
        "02", "Classes with more training images than the first are augmented LIGHT, with fewer "
        "than the second HEAVY, others MEDIUM (training of networks only).", (3000, 1500))
    cache: bool = _setting(
        None, "Keep all images resized as arrays of uint8, for whatever reads them often.", False)
    engine: Literal["auto", "torch", "openvino"] = _setting(
        None, "What computes features: `auto` is torch on a GPU and OpenVINO on a CPU; their "
        "float32 features agree within 1e-5.", "auto")
    precision: Literal["float32", "bf16", "fp16"] = _setting(
        "03", "Of the frozen network's sums. `bf16` and `fp16` are faster where the hardware has "
        "them, and move features by about 1e-2.", "float32")
    batch_size: int | None = _setting(
        None, "Images per step of the network; null: what suits the device and the image size.",
        None, ge=1, le=4096)
    workers: int | None = _setting(
        None, "How many decode images, and on a CPU compute features, side by side; null: one "
        "per core, at most 16 beside a GPU.", None, ge=1, le=256)
    compare: list[str] = _setting(
        "07", "Backbones that notebook 07 compares with the recipe's own.",
        ["resnet18", "resnet50", "resnet101", "efficientnet_b0", "efficientnet_b3",
         "efficientnet_b7", "vit_base_patch16_224", "densenet121", "mobilenetv3_large_100",
         "convnext_tiny", "xception41"], min_length=1)
    compare_images: int = _setting(
        "07", "Training images that they are compared on, at most.", 1000, ge=30)

    # --- head, projection, evaluation
    c_grid: list[Annotated[float, Field(gt=0)]] = _setting(
        "04", "Candidates for C, the inverse strength of the L2 penalty.",
        [0.0001, 0.001, 0.01, 0.1, 1.0, 10.0], min_length=1)
    tsne_images: int = _setting("05", "Training images in the t-SNE picture.", 5000, ge=10)
    perplexity: float = _setting("05", "Perplexity of t-SNE.", 30, gt=1)
    bootstrap: int = _setting("06", "Resamples behind each interval.", 2000, ge=100)

    run: str | None = _setting(
        None, "Name of the folder under outputs/; null: the recipe's name.", None,
        pattern=FOLDER_NAME)

    @field_validator("class_names")
    @classmethod
    def _require_unlike_names(cls, names: dict[str, str]) -> dict[str, str]:
        twice = {name for name in names.values() if list(names.values()).count(name) > 1}
        if twice:
            raise ValueError(f"two codes are both called {sorted(twice)[0]!r}")
        return names

    @property
    def run_name(self) -> str:
        """Name of the run's folder under outputs/."""
        return self.run or self.name

    @property
    def data_folder(self) -> Path:
        """The data folder, or archive, as an absolute path."""
        return resolve_path(self.data)

    def settings_until(self, stage: str) -> dict:
        """Return the settings that change results up to notebook `stage`, as plain values."""
        stages = {name: (field.json_schema_extra or {}).get("stage")
                  for name, field in type(self).model_fields.items()}
        return {name: value for name, value in self.model_dump(mode="json").items()
                if stages[name] and stages[name] <= stage}


def list_recipes() -> list[str]:
    """Return the names of the recipes under data/."""
    return sorted(path.parent.name for path in DATA.glob("*/recipe.yaml"))


def load_recipe(recipe: str, overrides: dict | None = None) -> Recipe:
    """Read and check a recipe.

    Args:
        recipe: the name of a folder under data/, or the path of a YAML file.
        overrides: settings that replace the file's.

    Raises:
        SuiteError: no such recipe, not YAML, an unknown setting or value (with the nearest
            valid one), a wrong type, or a data folder that is not there.
    """
    path = _find_recipe(str(recipe))
    try:
        settings = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SuiteError(f"{show_path(path)} is not valid YAML: {error}") from error
    if not isinstance(settings, dict):
        raise SuiteError(f"{show_path(path)} holds no settings: write lines of `key: value`.")
    if not isinstance(overrides or {}, dict):
        raise SuiteError(f"overrides must be a dictionary of settings, not {overrides!r}.")
    settings |= overrides or {}
    strange = [key for key in settings if not isinstance(key, str)]
    if strange:
        raise SuiteError(f"{show_path(path)}: {strange[0]!r} is no setting. Lines that belong to "
                         "the setting above them, such as class_names, start with spaces.")
    # YAML reads an unquoted code as a number; class codes are text everywhere else.
    if isinstance(settings.get("class_names"), dict):
        settings["class_names"] = {str(k): v for k, v in settings["class_names"].items()}
    try:
        own = path.parent.name if path.stem == "recipe" else path.stem
        checked = Recipe(**{"name": own} | settings)
    except ValidationError as error:
        raise SuiteError(_explain(error, path, overrides or {})) from None
    if not checked.data_folder.exists() and checked.generate is None:
        raise SuiteError(
            f"recipe '{checked.name}': its data {show_path(checked.data_folder)} does "
            f"not exist. Put the images there, or set `data` in {show_path(path)}."
        )
    return checked


def _find_recipe(recipe: str) -> Path:
    if recipe.endswith((".yaml", ".yml")):
        path = resolve_path(recipe)
        if path.is_file():
            return path
        raise SuiteError(f"there is no recipe file {show_path(path)}.")
    path = DATA / recipe / "recipe.yaml"
    if Path(recipe).name != recipe or not path.is_file():
        raise SuiteError(
            f"there is no recipe '{recipe}'{_nearest(recipe, list_recipes())}. A recipe is a "
            f"file data/<name>/recipe.yaml; here are: {', '.join(list_recipes())}."
        )
    return path


def _nearest(word: str, words: list[str]) -> str:
    match = difflib.get_close_matches(str(word), words, n=1, cutoff=0.5)
    return f" (did you mean '{match[0]}'?)" if match else ""


def _explain(error: ValidationError, path: Path, overrides: dict) -> str:
    """Turn pydantic's report into one sentence for each wrong setting."""
    sentences = []
    for problem in error.errors():
        key, value = str(problem["loc"][0]), problem["input"]
        where = "the overrides" if key in overrides else show_path(path)
        if problem["type"] == "extra_forbidden":
            hint = _nearest(key, list(Recipe.model_fields)) or (
                " (`python -m helpers.recipe` lists them all)")
            sentences.append(f"{where}: there is no setting '{key}'{hint}.")
        elif problem["type"] == "missing":
            sentences.append(f"{where}: the setting '{key}' is missing.")
        elif problem["type"] == "literal_error":
            valid = problem["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
            sentences.append(f"{where}: {key} cannot be {value!r}{_nearest(value, valid)}; "
                             f"it is one of {', '.join(valid)}.")
        else:
            wrong = problem["msg"].replace("Input should", "it should").removeprefix(
                "Value error, ")
            sentences.append(f"{where}: {key} cannot be {value!r}: {wrong}.")
    return " ".join(dict.fromkeys(sentences))


def parse_settings(pairs: list[str]) -> dict:
    """Turn `key=value` texts of a command line into a dictionary; values are read as YAML."""
    settings = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise SuiteError(f"--set takes key=value, not '{pair}'.")
        try:
            settings[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise SuiteError(f"--set {key}: '{value}' is not a YAML value.") from None
    return settings


def describe_settings() -> str:
    """Return a Markdown table of every setting, its default and its meaning."""
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    for name, field in Recipe.model_fields.items():
        if name != "name":
            default = "required" if field.is_required() else (
                "null" if field.default is None else f"`{field.default}`")
            rows.append(f"| `{name}` | {default} | {field.description} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(describe_settings())
