"""Recipe: the settings of a run, read from one YAML file and checked before anything starts.

`python -m helpers.recipe` prints the tables of all settings.
"""

import difflib
import reprlib
from pathlib import Path

from pydantic import ValidationError
from yaml import YAMLError

from helpers.files import ROOT, SuiteError, resolve_path, show_path
from helpers.plain_yaml import read_yaml, write_yaml
from helpers.settings import OWNERS, SECTIONS, Recipe

DATA = ROOT / "data"
SETTINGS = [*OWNERS, "name", "run"]
SHORT = {"data": "path", "head": "classifier"}  # a section's name alone stands for this setting


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
        settings = read_yaml(path.read_text("utf-8"))
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise SuiteError(f"{show_path(path)} is no text in UTF-8, first in line {line}: save it "
                         "as UTF-8.") from error
    except (YAMLError, RecursionError) as error:
        raise SuiteError(f"{show_path(path)} is not valid YAML: {str(error)[:500]}") from error
    if not isinstance(settings, dict):
        raise SuiteError(f"{show_path(path)} holds no settings: write lines of `key: value`.")
    if not isinstance(overrides or {}, dict):
        raise SuiteError(f"overrides must be a dictionary of settings, not {overrides!r}.")
    own = path.parent.name if path.stem == "recipe" else path.stem
    values = {"name": own} | nest_settings(settings, show_path(path))
    changed = nest_settings(overrides or {}, "the overrides")
    for key, value in changed.items():
        values[key] = values.get(key, {}) | value if key in SECTIONS else value
    try:
        checked = Recipe(**values)
    except ValidationError as error:
        raise SuiteError(_explain(error, show_path(path), changed)) from None
    place = checked.data.place
    if not place.exists() and not checked.data.comes_by_itself:
        raise SuiteError(
            f"recipe '{checked.name}': its data {show_path(place)} does not exist. Put the "
            f"images there, or set `data` in {show_path(path)}."
        )
    return checked


def change_recipe(recipe: Recipe, settings: dict) -> Recipe:
    """Return a copy with other values of settings, named without their section.

    Raises:
        SuiteError: a value that cannot be; says which can.
    """
    try:
        return recipe.change(**settings)
    except ValidationError as error:
        raise SuiteError(_explain(error, "the settings", {})) from None


def nest_settings(settings: dict, where: str) -> dict:
    """Put each setting into its section.

    `backbone`, `network.backbone` and `backbone` below `network:` are one setting; `data: FOLDER`
    is short for `data.path`, `head: ridge` for `head.classifier`. An unknown name stays where it
    is, to be refused by name.

    Raises:
        SuiteError: a key is no text, two sections have a setting of this name, or one setting
            is given twice.
    """
    nested, pairs = {}, []
    for key, value in settings.items():
        if not isinstance(key, str):
            raise SuiteError(f"{where}: {key!r} is no setting. Lines that belong to the setting "
                             "above them, such as class_names, start with spaces.")
        if key in SECTIONS and isinstance(value, dict):
            pairs += [(key, name, inner) for name, inner in value.items()]
        elif key in SHORT:
            # A folder may be called 2024.
            pairs.append((key, SHORT[key], str(value) if isinstance(value, int) else value))
        elif key in SECTIONS:
            raise SuiteError(f"{where}: {key} is a section of settings, not {value!r}: write "
                             f"`{key}.SETTING`, or the setting alone.")
        elif key.partition(".")[0] in SECTIONS and "." in key:
            pairs.append((*key.split(".", 1), value))
        elif len(OWNERS.get(key, [])) > 1:
            raise SuiteError(f"{where}: there is a '{key}' in {' and '.join(OWNERS[key])}; write "
                             f"{' or '.join(f'`{s}.{key}`' for s in OWNERS[key])}.")
        elif key in OWNERS:
            pairs.append((OWNERS[key][0], key, value))
        else:
            nested[key] = value
    for section, name, value in pairs:
        if name in nested.setdefault(section, {}):
            raise SuiteError(f"{where}: the setting '{name}' of {section} stands there twice.")
        nested[section][str(name)] = value
    return nested


def _find_recipe(recipe: str) -> Path:
    if recipe.endswith((".yaml", ".yml")):
        path = resolve_path(recipe)
        if path.is_file():
            return path
        raise SuiteError(f"there is no recipe file {show_path(path)}.")
    path = DATA / recipe / "recipe.yaml"
    if Path(recipe).name != recipe or not path.is_file():
        raise SuiteError(
            f"there is no recipe '{recipe}'{suggest(recipe, list_recipes())}. A recipe is a "
            f"file data/<name>/recipe.yaml; here are: {', '.join(list_recipes())}."
        )
    return path


def suggest(word: str, words: list[str], cutoff: float = 0.5) -> str:
    """Return ` (did you mean ...?)` with the word that is most alike, "" if none is."""
    folded = {name.casefold(): name for name in words}
    match = difflib.get_close_matches(str(word).casefold(), folded, n=1, cutoff=cutoff)
    return f" (did you mean '{folded[match[0]]}'?)" if match else ""


def _explain(error: ValidationError, file: str, overrides: dict) -> str:
    """Turn pydantic's report into one sentence for each wrong setting."""
    sentences = []
    for problem in error.errors():
        place, value = [str(part) for part in problem["loc"]], problem["input"]
        section, shown = place[0] if place[0] in SECTIONS else None, reprlib.repr(value)
        key = place[1] if section and len(place) > 1 else place[0]
        given = overrides.get(section, {}) if section else overrides
        where = "the overrides" if isinstance(given, dict) and key in given else file
        key = next((n for n, inner in SHORT.items() if inner == key), key)  # as usually written
        if problem["type"] == "extra_forbidden":
            near = list(SECTIONS[section].model_fields) if section else [*SETTINGS, *SECTIONS]
            hint = suggest(key, near) or " (`python -m helpers.recipe` lists them all)"
            of = f" in {section}" if section else ""
            sentences.append(f"{where}: there is no setting '{key}'{of}{hint}.")
        elif problem["type"] == "missing":
            sentences.append(f"{where}: the setting '{key}' is missing.")
        elif problem["type"] == "literal_error":
            valid = problem["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
            sentences.append(f"{where}: {key} cannot be {shown}{suggest(value, valid)}; "
                             f"it is one of {', '.join(valid)}.")
        else:
            wrong = problem["msg"].replace("Input should", "it should").removeprefix(
                "Value error, ")
            sentences.append(f"{where}: {key} cannot be {shown}: {wrong}.")
    return " ".join(dict.fromkeys(sentences))


def parse_settings(pairs: list[str]) -> dict:
    """Turn `key=value` texts of a command line into a dictionary; values are read as YAML.

    Text is taken as it is, without comments: a folder may be called `photos #1`.
    """
    settings = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise SuiteError(f"--set takes key=value, not '{pair}'.")
        try:
            read = read_yaml(value)
            quoted = value.lstrip().startswith(('"', "'", "|", ">", "!"))
            as_written = isinstance(read, str) and not quoted
            settings[key.strip()] = value.strip() if as_written else read
        except (YAMLError, RecursionError):
            raise SuiteError(f"--set {key}: '{value:.200}' is not a YAML value.") from None
    return settings


def format_settings(settings: dict) -> list[str]:
    """Return `key=value` texts that `parse_settings` reads back as they were."""
    plain = {key: list(v) if isinstance(v, tuple) else v for key, v in settings.items()}
    return [f"{key}={write_yaml(value)}" for key, value in plain.items()]


def describe_settings() -> str:
    """Return a Markdown table a section: every setting, its default and its meaning."""
    lines = []
    for section, model in SECTIONS.items():
        lines += [f"### {section}", "", model.__doc__, "", "| setting | default | meaning |",
                  "|---|---|---|"]
        for name, field in model.model_fields.items():
            default = "required" if field.is_required() else "`{}`".format(
                *format_settings({name: field.default})).replace(f"{name}=", "")
            lines.append(f"| `{name}` | {default} | {field.description} |")
        lines.append("")
    lines += ["Outside the sections there is `run`. " + Recipe.model_fields["run"].description]
    return "\n".join(lines)


if __name__ == "__main__":
    print(describe_settings())
