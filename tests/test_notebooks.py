"""Committed notebooks: paired, alike where they must be, readable, nothing of a machine."""

import json
import re

import jupytext
import nbformat
import pytest

from helpers.files import ROOT
from helpers.steps import NOTEBOOKS

FOLDER = ROOT / "notebooks"
ALL = [path.stem for path in sorted(FOLDER.glob("*.ipynb"))]
BYTES = 1_000_000


def read(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def cells_of(name, kind):
    return [cell for cell in read(name).cells if cell.cell_type == kind]


def test_the_suite_is_complete():
    assert [*NOTEBOOKS, "solutions"] == ALL
    assert [path.stem for path in sorted(FOLDER.glob("*.py"))] == ALL


@pytest.mark.parametrize("name", ALL)
def test_the_pair_is_in_sync(name):
    config = jupytext.config.load_jupytext_config(str(ROOT))
    text = jupytext.writes(read(name), fmt="py:percent", config=config)
    assert text == (FOLDER / f"{name}.py").read_text("utf-8"), "run `make notebooks`"


@pytest.mark.parametrize("name", ALL)
def test_setup_and_parameters_are_the_same_everywhere(name):
    setup, parameters, opening = cells_of(name, "code")[:3]
    first = cells_of(ALL[0], "code")
    assert setup.source == first[0].source
    assert setup.metadata == {"cellView": "form"}
    assert parameters.source == 'recipe = "demo"\noverrides = {}'
    assert parameters.metadata == {"tags": ["parameters"]}
    assert "run = open_run(recipe, overrides)" in opening.source


@pytest.mark.parametrize("name", ALL)
def test_the_budget_is_kept(name):
    cells = read(name).cells
    code, prose = cells_of(name, "code"), cells_of(name, "markdown")
    lines = sorted(len(cell.source.splitlines()) for cell in code)
    assert len(cells) <= 60
    assert len(prose) >= len(code)
    assert lines[len(lines) // 2] <= 6
    assert lines[int(0.9 * (len(lines) - 1))] <= 15 and lines[-1] <= 25
    assert max(len(line) for c in code for line in c.source.splitlines()) <= 88
    kinds = "".join(cell.cell_type[0] for cell in cells)
    assert "ccc" not in kinds
    assert not [c for c in code if re.search(r"^\s*(def|class|async def) ", c.source, re.M)]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_has_its_shape(name):
    prose = "\n".join(cell.source for cell in cells_of(name, "markdown"))
    number = NOTEBOOKS.index(name)
    for part in (f"# {name[:2]} · ", "**You will be able to**", "**You need**", "**You get**",
                 "**It takes**", "| step |", "## Setup",
                 "## Parameters", "## What we saw", "## Try it", "(solutions.ipynb)",
                 f"({NOTEBOOKS[(number + 1) % len(NOTEBOOKS)]}.ipynb)"):
        assert part in prose, part
    code = [cell.source for cell in cells_of(name, "code")]
    end = next(place for place, source in enumerate(code) if f'run.finish("{name}")' in source)
    assert all("___" in source for source in code[end + 1 :])  # the exercises


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_blank_of_an_exercise_is_filled_in_the_solutions(name):
    code = [cell.source.splitlines() for cell in cells_of(name, "code")]
    solved = [line for cell in cells_of("solutions", "code") for line in cell.source.splitlines()]
    exercises = [line for lines in code if "___" in "".join(lines) for line in lines]
    assert exercises and all(line.startswith("#") for line in exercises)
    for line in exercises:
        wanted = ".+".join(map(re.escape, line.removeprefix("#").strip().split("___")))
        if "___" in line:
            assert any(re.search(wanted, other) for other in solved), line


@pytest.mark.parametrize("name", ALL)
def test_outputs_are_there_and_hold_nothing_of_a_machine(name):
    path = FOLDER / f"{name}.ipynb"
    assert path.stat().st_size <= BYTES
    notebook = read(name)
    assert "widgets" not in notebook.metadata and "papermill" not in notebook.metadata
    code = cells_of(name, "code")
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert outputs
    text = re.sub(r'"image/(png|jpeg)": "[^"]*"', "", json.dumps(outputs))
    assert "widget" not in text and '"error"' not in text
    assert not re.search(r"[\"' (](/home|/root|/Users|/tmp|/work|/content|[A-Z]:\\)", text)


def test_requirements_for_colab_are_a_part_of_the_whole():
    def lines(name):
        rows = (ROOT / name).read_text("utf-8").splitlines()
        return {row.strip() for row in rows if row.strip() and not row.startswith("#")}

    every, colab = lines("requirements.txt"), lines("requirements-colab.txt")
    # An upper bound there keeps what Colab holds.
    assert {row.partition(",")[0] for row in colab} <= every
    assert not {re.split("[<>=]", row)[0] for row in colab} & {"torch", "torchvision", "numpy"}
    assert all(">=" in row and "<" not in row and "==" not in row for row in every)
    pinned = {row.split("==")[0].lower() for row in lines("constraints.txt")}
    assert {row.split(">=")[0].lower() for row in every} <= pinned
