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
    source: Literal["rakuten", "folders"] = _setting(
        "01", "Layout: `rakuten` (three CSV files and two image folders) or `folders` "
        "(a folder of images per class).")
    data: Path = _setting("01", "The folder that holds the data, from the suite's root.")
    generate: Literal["digits"] | None = _setting(
        "01", "`digits` writes the embedded demo into `data` when it is not there yet.", None)
    class_names: dict[str, str] = _setting(
        "01", "A readable name for each label code; codes without one keep the code.", {})
    missing_images: Literal["refuse", "quarantine"] = _setting(
        "01", "What to do with images that a CSV names and the disk lacks.", "refuse")

    # --- splits
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
    batch_size: int = _setting(None, "Images per step of the network.", 32, ge=1, le=4096)
    workers: int | None = _setting(
        None, "Processes that decode images; null: one per core, at most 8.", None, ge=0, le=64)

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
        """The data folder as an absolute path."""
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
    if not checked.data_folder.is_dir() and checked.generate is None:
        raise SuiteError(
            f"recipe '{checked.name}': its data folder {show_path(checked.data_folder)} does "
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
