"""Runs: missing artefacts name their notebook, a refusing disk leaves nothing behind."""

import subprocess
import sys

import pandas as pd
import pytest

from helpers.errors import SuiteError
from helpers.files import ROOT, save_csv, save_json, write_folder, write_whole
from helpers.run import ARTEFACTS, NOTEBOOKS, open_run


@pytest.fixture
def run(folders, write_recipe):
    return open_run(write_recipe("tiny", folders, source="folders", run="test-run"))


def test_a_missing_artefact_names_its_notebook(run):
    for artefact, (_, notebook) in ARTEFACTS.items():
        assert notebook in NOTEBOOKS
        with pytest.raises(SuiteError, match=f"run {notebook} first"):
            run.need(artefact)


def test_an_artefact_of_other_settings_is_refused(folders, write_recipe):
    path = write_recipe("tiny", folders, source="folders", run="test-settings")
    run = open_run(path)
    for artefact, (_, notebook) in ARTEFACTS.items():
        if notebook < "03":
            run.path(artefact).touch()
    run.finish("01_eda")
    run.finish("02_preprocessing")
    assert open_run(path, {"batch_size": 1, "perplexity": 9}).need("table").exists()
    other = open_run(path, {"folds": 7})
    with pytest.raises(SuiteError, match=r"folds=3 \(now 7\): run 02_preprocessing again"):
        other.need("table")
    assert other.need("images").exists()
    other.path("table").touch()
    assert other.need("table").exists()


def test_the_error_reaches_a_notebook_as_one_sentence():
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    with capture_output() as captured:
        InteractiveShell().run_cell(
            "from helpers.errors import SuiteError\nraise SuiteError('run 03 first')")
    assert captured.stdout.strip() == "SuiteError: run 03 first"


def test_overrides_may_come_as_text(folders, write_recipe):
    path = write_recipe("tiny", folders, source="folders", run="test-run")
    assert open_run(path, '{"folds": 7}').recipe.folds == 7
    with pytest.raises(SuiteError, match="not a dictionary"):
        open_run(path, "folds: 7")


def test_ids_and_labels_stay_text(run):
    table = pd.DataFrame({"image_id": ["007", "NA"], "label": ["1", None], "fold": [0, -1]})
    save_csv(table, run.path("table"))
    read = run.load_table()
    assert list(read.image_id) == ["007", "NA"]
    assert read.label[0] == "1" and pd.isna(read.label[1])
    run.path("table").unlink()


def on_a_full_disk(code: str) -> str:
    """Run code in a process that can write no file over 4 KiB; return what it prints."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
    done = subprocess.run([sys.executable, "-c", limit + code], capture_output=True, text=True,
                          cwd=ROOT, check=False)
    assert done.returncode == 1, done
    return done.stderr.strip().splitlines()[-1]


def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = tmp_path / "facts.json"
    save_json({"old": 1}, path)
    said = on_a_full_disk("from helpers.files import save_json\n"
                          f"save_json({{'new': 'x' * 10_000}}, {str(path)!r})")
    assert "cannot write" in said and "facts.json" in said and "Free some space" in said
    assert path.read_text() == '{\n  "old": 1\n}\n'
    assert [p.name for p in tmp_path.iterdir()] == ["facts.json"]


def test_a_full_disk_stops_an_extraction_before_it_starts(tmp_path):
    said = on_a_full_disk(
        "from pathlib import Path\nfrom helpers.files import reserve_array\n"
        f"reserve_array(Path({str(tmp_path)!r}, 'features.npy'), (1000, 64), 'float32')")
    assert "features.npy" in said and "Free some space" in said
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_folder(tmp_path):
    with write_folder(tmp_path / "folds") as place:
        (place / "old.csv").touch()
    said = on_a_full_disk(
        "from helpers.files import write_folder\n"
        f"with write_folder({str(tmp_path / 'folds')!r}) as place:\n"
        "    (place / 'new.csv').write_text('x' * 10_000)")
    assert "cannot write" in said and "folds" in said
    assert [p.name for p in tmp_path.rglob("*")] == ["folds", "old.csv"]


def test_an_interrupt_leaves_nothing_behind(tmp_path):
    with pytest.raises(KeyboardInterrupt), write_whole(tmp_path / "a.csv") as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SuiteError, match="cannot create the folder"):
        save_json({}, tmp_path / "file" / "facts.json")


def test_importing_the_package_loads_nothing_heavy():
    code = ("import sys, helpers, helpers.run, helpers.colab; "
            "print(sorted({'torch', 'timm', 'sklearn', 'matplotlib', 'pandas'} "
            "& set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          check=True)
    assert done.stdout.strip() == "[]"
