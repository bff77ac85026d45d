"""Publishing: outputs move from an executed notebook to the committed one, and nothing else."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from helpers.dev.publish import OVERVIEW, clean_outputs, draw_overview, take_outputs
from helpers.files import ROOT, SuiteError


@pytest.fixture
def pair(tmp_path):
    """Write an executed notebook and the committed one; return a function that publishes."""
    cells = [new_markdown_cell("# Title"), new_code_cell("recipe = 'demo'"), new_code_cell("x")]
    committed = tmp_path / "committed.ipynb"
    nbformat.write(new_notebook(cells=cells), committed)

    def publish(text, change=lambda cells: None):
        done = nbformat.read(committed, 4).cells
        injected = new_code_cell("recipe = 'tiny'", metadata={"tags": ["injected-parameters"]})
        done.insert(2, injected)
        done[-1].outputs = [new_output("stream", name="stdout", text=text)]
        change(done)
        nbformat.write(new_notebook(cells=done), tmp_path / "executed.ipynb")
        take_outputs(tmp_path / "executed.ipynb", committed)
        return nbformat.read(committed, 4)

    publish.committed = committed
    return publish


def test_outputs_are_taken_over_and_cells_are_counted_anew(pair):
    before = nbformat.read(pair.committed, 4)
    after = pair("done\n")
    assert [cell.source for cell in after.cells] == [cell.source for cell in before.cells]
    assert [cell.id for cell in after.cells] == [cell.id for cell in before.cells]
    assert [cell.execution_count for cell in after.cells[1:]] == [1, 2]
    assert after.cells[2].outputs[0].text == "done\n"


def test_a_notebook_that_changed_meanwhile_is_refused(pair):
    before = pair.committed.read_bytes()
    with pytest.raises(SuiteError, match="has changed since"):
        pair("done\n", lambda cells: cells[-1].update(source="y"))
    assert pair.committed.read_bytes() == before


def test_a_path_of_this_machine_is_refused(pair):
    before = pair.committed.read_bytes()
    with pytest.raises(SuiteError, match="shows a path of this machine"):
        pair(f"wrote {ROOT}/outputs/demo\n")
    assert pair.committed.read_bytes() == before


def test_a_progress_bar_leaves_what_a_terminal_would_show_at_last():
    outputs = [new_output("stream", name="stderr", text=text) for text in (
        "\r 0%|   |", "\r50%|   |", "\r100%|###|\nnext\n")]
    (cleaned,) = clean_outputs(outputs, 1)
    assert cleaned.text == "100%|###|\nnext\n"


def test_the_overview_joins_four_figures(tmp_path):
    from PIL import Image

    from helpers.recipe import load_recipe
    from helpers.run import Run

    (tmp_path / "figures").mkdir()
    for name in OVERVIEW:
        Image.new("RGB", (300, 200), "red").save(tmp_path / f"figures/{name}")
    draw_overview(Run(load_recipe("demo", {"data": "data"}), tmp_path), tmp_path / "all.jpg", 100)
    assert Image.open(tmp_path / "all.jpg").size == (300, 200)
