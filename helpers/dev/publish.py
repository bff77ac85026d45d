"""Publish: put the demo run's outputs into the notebooks that are committed.

    python -m helpers.dev.publish        after a run with `final=true`; `make notebooks` does both

So the suite can be read on a code host without running it. Only outputs are taken over:
cells, their ids and the pairing stay as they are.
"""

import re
import shutil
import sys
from pathlib import Path

import nbformat
from PIL import Image

from helpers.command import report_errors
from helpers.execution import FOLDER, execute_apart
from helpers.files import ROOT, SuiteError, show_path, write_whole
from helpers.run import Run, open_run
from helpers.steps import NOTEBOOKS

SOLUTIONS = "solutions"
OVERRIDES = {"final": True}  # what is shown includes the look at the hold-out
# Of the README's first picture.
PICTURES = {"heads.png": "08_heads.png", "experiments.png": "09_experiments.png"}
OVERVIEW = ("01_classes.jpg", "05_tsne.png", "06_confusion.png", "06_mistakes.jpg")


def publish(recipe: str = "demo") -> None:
    """Take the outputs of a finished run over into notebooks/, and the README's pictures.

    Raises:
        SuiteError: a notebook has not been run since it was changed, or an output holds a
            path of this machine.
    """
    run = open_run(recipe, OVERRIDES)
    if not execute_apart(run, SOLUTIONS, recipe, OVERRIDES, limit_s=3600):
        raise SuiteError("the solutions could not be run; see above.")
    for name in (*NOTEBOOKS, SOLUTIONS):
        take_outputs(run.folder / "notebooks" / f"{name}.ipynb", FOLDER / f"{name}.ipynb")
    draw_overview(run, FOLDER / "overview.jpg")
    for picture, figure in PICTURES.items():
        with write_whole(FOLDER / picture) as temporary:
            shutil.copy(run.folder / "figures" / figure, temporary)


def take_outputs(executed: Path, committed: Path) -> None:
    """Copy outputs cell by cell from an executed notebook to the one it was made from."""
    done, target = (nbformat.read(path, as_version=4) for path in (executed, committed))
    cells = [cell for cell in done.cells
             if "injected-parameters" not in cell.metadata.get("tags", [])]
    if [cell.source for cell in cells] != [cell.source for cell in target.cells]:
        raise SuiteError(f"{show_path(committed)} has changed since {show_path(executed)} was "
                         "made from it: run it again.")
    pairs = zip(cells, target.cells, strict=True)
    # Counted anew: the cell that papermill injected took a number.
    for count, (source, cell) in enumerate((p for p in pairs if p[1].cell_type == "code"), 1):
        cell.outputs = clean_outputs(source.outputs, count)
        cell.execution_count = count
    text = nbformat.writes(target) + "\n"
    if str(ROOT.parent) + "/" in text:
        raise SuiteError(f"{show_path(executed)} shows a path of this machine: "
                         f"{re.search(re.escape(str(ROOT.parent)) + r'[^ ]*', text)[0]}")
    with write_whole(committed) as temporary:
        temporary.write_text(text, "utf-8")
    print(f"{show_path(committed)}  {len(text) / 1024:.0f} KiB")


def clean_outputs(outputs: list, count: int) -> list:
    """Join a stream's pieces and keep of a progress bar what a terminal would show at last."""
    cleaned = []
    for output in outputs:
        if output.output_type == "execute_result":
            output.execution_count = count
        if (cleaned and output.output_type == cleaned[-1].output_type == "stream"
                and output.name == cleaned[-1].name):
            cleaned[-1].text += output.text
        else:
            cleaned.append(output)
    for output in cleaned:
        if output.output_type == "stream":
            output.text = re.sub(r"[^\n]*\r(?!\n)", "", output.text)
    return cleaned


def draw_overview(run: Run, path: Path, height: int = 420) -> None:
    """Join four of the run's figures in two rows, for the README."""
    pictures = [Image.open(run.folder / "figures" / name) for name in OVERVIEW]
    pictures = [p.resize((round(p.width * height / p.height), height)) for p in pictures]
    rows = [pictures[:2], pictures[2:]]
    widths = [sum(p.width for p in row) for row in rows]
    canvas = Image.new("RGB", (max(widths), height * 2), "white")
    for line, row in enumerate(rows):
        left = (canvas.width - widths[line]) // 2
        for picture in row:
            canvas.paste(picture, (left, line * height))
            left += picture.width
    with write_whole(path) as temporary:
        canvas.save(temporary, quality=85)


if __name__ == "__main__":
    sys.exit(report_errors(publish)())
