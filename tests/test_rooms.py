"""The house: rooms in one order, each importing only from those before it, light to enter."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import settings
from helpers.data.checks import CHECKS
from helpers.data.torchvision_sets import DATA_SETS
from helpers.evaluation.experiments import CHANGES
from helpers.evaluation_settings import EXPERIMENTS
from helpers.files import ROOT
from helpers.imports import find_file, find_reached, list_imports
from helpers.recipe import describe_settings
from helpers.steps import MAKERS, STEPS, describe_steps

PACKAGE = ROOT / "helpers"
ROOMS = ("data", "network", "features", "training", "evaluation", "pictures", "serving", "dev")
# These stand at the top: they call on the rooms, and nothing but `dev` imports them.
CALLERS = ("batch",)
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> int:
    """Return the room's place in the street: -1 for the door, after all others for callers."""
    if path.parent == PACKAGE:
        return len(ROOMS) - 1.5 if path.stem in CALLERS else -1
    return ROOMS.index(path.relative_to(PACKAGE).parts[0])


def test_every_folder_is_a_room_that_introduces_itself():
    folders = {p.name for p in PACKAGE.iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert folders == set(ROOMS)
    for room in ROOMS:
        lines = (PACKAGE / room / "__init__.py").read_text("utf-8").splitlines()
        tree = ast.parse("\n".join(lines))
        assert ast.get_docstring(tree) and len(tree.body) == 1, "a room re-exports nothing"
        assert 3 <= len(lines) <= 8
        assert room in (PACKAGE / "__init__.py").read_text("utf-8")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_room_imports_only_from_those_before_it(path):
    for module in list_imports(path.read_text("utf-8")):
        imported = find_file(module)
        assert imported is None or room_of(imported) <= room_of(path), (
            f"{path.relative_to(ROOT)} imports {module}, which stands behind it")


def test_no_two_modules_import_each_other():
    imports = {path: {find_file(m) for m in list_imports(path.read_text("utf-8"))} - {None, path}
               for path in FILES}
    reached = {path: set(targets) for path, targets in imports.items()}
    for _ in FILES:
        for path, found in reached.items():
            reached[path] = found.union(*(imports[other] for other in found))
    assert not [path for path, found in reached.items() if path in found]


def test_entering_loads_nothing_heavy():
    rooms = ", ".join(f"helpers.{room}" for room in ROOMS)
    code = (f"import sys, helpers, helpers.run, helpers.batch, {rooms}; "
            "print(sorted({'torch', 'timm', 'sklearn', 'matplotlib', 'pandas', 'numpy', "
            "'papermill', 'jupytext'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_every_check_and_data_set_that_a_recipe_can_name_is_there():
    assert set(CHECKS) == set(settings.CHECKS)
    assert tuple(DATA_SETS) == settings.DATA_SETS
    assert tuple(CHANGES) == EXPERIMENTS


def test_what_a_notebook_reaches_is_found():
    def reached(code):
        return {path.relative_to(PACKAGE).as_posix() for path in find_reached([code])}

    assert reached("from helpers.files import SuiteError") == {"files.py"}
    found = reached("def late():\n    from helpers.pictures import charts")
    assert {"pictures/charts.py", "pictures/suite.mplstyle", "run.py", "steps.py"} <= found
    assert not {"pictures/report.py", "pictures/templates/report.html.j2"} & found
    assert "pictures/templates/report.html.j2" in reached("import helpers.pictures.report")


def test_steps_read_only_what_earlier_ones_make():
    for place, step in enumerate(STEPS):
        assert all(STEPS.index(MAKERS[artefact]) < place for artefact in step.reads)


def test_the_pages_explain_every_setting_and_every_file():
    page = (ROOT / "data/README.md").read_text("utf-8")
    assert describe_settings() in page, "paste what `python -m helpers.recipe` prints"
    assert describe_steps() in page, "paste what `python -m helpers.steps` prints"
    table = (ROOT / "README.md").read_text("utf-8").split("## Three ways")[0]
    made = (ROOT / "outputs/README.md").read_text("utf-8")
    for step in STEPS:
        (row,) = [line for line in table.splitlines() if line.startswith(f"| [{step.name}]")]
        for file in step.list_files("finetune").values():
            assert file.format(backbone="<backbone>") in row, file
            assert file.format(backbone="<backbone>") in made, file


def test_the_readme_stays_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) < 150
