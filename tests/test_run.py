"""Runs: missing artefacts name their notebook, a refusing disk leaves nothing behind."""

import os
import shlex
import shutil
import subprocess
import sys

import pandas as pd
import pytest

from helpers.files import (
    ROOT,
    SuiteError,
    hash_files,
    save_json,
    write_folder,
    write_whole,
)
from helpers.recipe import parse_settings
from helpers.run import Run, open_run
from helpers.steps import MAKERS, NOTEBOOKS, STEPS


@pytest.fixture
def run(folders, write_recipe):
    opened = open_run(write_recipe("tiny", folders, source="folders", run="test-run"))
    yield opened
    shutil.rmtree(opened.folder)


def write_all(run, until="03"):
    """Write something for every artefact of the steps before notebook `until`."""
    for step in STEPS:
        for artefact in step.list_files("frozen") if step.name < until else ():
            with run.write(artefact) as path:
                if artefact == "folds":
                    path.mkdir(exist_ok=True)
                    path = path / "fold_00_train.csv"
                path.write_text(f"{artefact}\n")


def test_a_missing_artefact_names_its_notebook(run):
    for artefact, step in MAKERS.items():
        assert step.name in NOTEBOOKS
        said = (f"run {step.name} first" if artefact in step.list_files("frozen") else
                f"`strategy: frozen` makes no {artefact}")
        with pytest.raises(SuiteError, match=said):
            run.need(artefact)


def test_an_artefact_of_other_settings_is_refused(folders, write_recipe):
    path = write_recipe("tiny", folders, source="folders", run="test-settings")
    run = open_run(path)
    write_all(run)
    run.finish("01_eda")
    run.finish("02_preprocessing")
    assert open_run(path, {"batch_size": 1, "perplexity": 9}).need("table").exists()
    other = open_run(path, {"folds": 7})
    refused = r"folds 3 \(now 7\): run 02_preprocessing again"
    other.path("table")  # asking where it goes changes nothing
    with pytest.raises(SuiteError, match=refused):
        other.need("table")
    with pytest.raises(SuiteError, match=refused):
        other.finish("02_preprocessing")
    assert other.need("images").exists()
    other.save("table", pd.DataFrame({"image_id": ["1"]}))
    assert other.need("table").exists()


def test_a_table_left_by_an_unfinished_notebook_is_refused(folders, write_recipe):
    """Written under seven folds, then the notebook was interrupted; the recipe says three."""
    path = write_recipe("tiny", folders, source="folders", run="test-unfinished")
    write_all(open_run(path))
    seven = open_run(path, {"folds": 7})
    seven.save("table", pd.DataFrame({"image_id": ["1"]}))
    with pytest.raises(SuiteError, match=r"folds 7 \(now 3\): run 02_preprocessing again"):
        open_run(path).need("table")
    with pytest.raises(KeyboardInterrupt), seven.write("table"):
        raise KeyboardInterrupt
    with pytest.raises(SuiteError, match=r"nothing says with which settings .*table\.csv"):
        seven.need("table")


def test_what_was_made_from_something_else_is_refused_through_all_steps(run):
    write_all(run, until="05")
    assert run.need("oof_probabilities").exists()
    run.save("images", pd.DataFrame({"image_id": ["another"]}))
    assert run.need("images").exists()
    with pytest.raises(SuiteError, match=r"table\.csv was made from another images\.csv than is "
                                         "there now: run 02_preprocessing again"):
        run.need("oof_probabilities")
    assert [run.is_done(step) for step in STEPS[:4]] == [True, False, False, False]


def test_an_equal_file_is_the_same_whatever_its_time(run):
    """As when a run has been brought back from Drive."""
    write_all(run, until="05")
    for path in run.folder.rglob("*.*"):
        os.utime(path, (1, 1))
    assert run.is_done(STEPS[3])
    run.path("table").write_text("edited\n")
    assert not run.is_done(STEPS[3])
    with pytest.raises(SuiteError, match=r"table\.csv has changed since it was written: run 02"):
        run.need("oof_probabilities")


def test_what_was_read_counts_not_what_another_process_has_put_there_since(run):
    write_all(run, until="04")
    run.need("table")  # 07 reads it and compares; then 02 is run again elsewhere
    elsewhere = Run(run.recipe, run.folder)
    elsewhere.save("table", pd.DataFrame({"image_id": ["another"]}))
    run.save("backbones", pd.DataFrame({"backbone": ["resnet18"]}))
    with pytest.raises(SuiteError, match=r"backbones\.csv was made from another table\.csv"):
        Run(run.recipe, run.folder).need("backbones")


def test_files_are_read_again_only_where_size_or_time_changed(tmp_path, monkeypatch):
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(name)
    first, known = hash_files(tmp_path)
    read = []
    monkeypatch.setattr("helpers.files.hash_file", lambda path: read.append(path) or "new")
    assert hash_files(tmp_path, known) == (first, known) and not read
    (tmp_path / "b.txt").write_text("longer")
    changed, _ = hash_files(tmp_path, known)
    assert [path[-5:] for path in read] == ["b.txt"] and changed != first


def test_the_error_reaches_a_notebook_as_one_sentence():
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    with capture_output() as captured:
        InteractiveShell().run_cell(
            "from helpers.files import SuiteError\nraise SuiteError('run 03 first')")
    assert captured.stdout.strip() == "SuiteError: run 03 first"


def test_overrides_may_come_as_text(folders, write_recipe):
    path = write_recipe("tiny", folders, source="folders", run="test-run")
    assert open_run(path, '{"folds": 7}').recipe.splits.folds == 7
    with pytest.raises(SuiteError, match="not a dictionary"):
        open_run(path, "folds: 7")


def test_the_command_that_makes_a_run_again_means_the_same(folders, write_recipe):
    path = write_recipe("tiny", folders, source="folders", run="test-run")
    settings = {"image_size": None, "c_grid": [0.1, 1], "compare": ["a b", "c"]}
    run = open_run(path, settings)
    words = shlex.split(run.command)
    assert "image_size=null" in words
    assert parse_settings(words[words.index("--set") + 1:]) == settings


def test_ids_and_labels_stay_text(run):
    table = pd.DataFrame({"image_id": ["007", "NA"], "label": ["1", None], "fold": [0, -1]})
    run.save("table", table)
    read = run.load_table()
    assert list(read.image_id) == ["007", "NA"]
    assert read.label[0] == "1" and pd.isna(read.label[1])
    run.save("classes", pd.DataFrame({"class": ["007", "NA"], "images": [1, 2]}))
    assert list(run.load_table("classes")["class"]) == ["007", "NA"]


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


def test_a_full_disk_keeps_the_shards_that_are_done(tmp_path):
    said = on_a_full_disk(
        "from pathlib import Path\nimport numpy as np\nfrom helpers.resuming import Shards\n"
        f"place = Path({str(tmp_path)!r})\nshards = Shards(place / 'a.shards', place, 2, {{}})\n"
        "shards.open()\nshards.save(0, features=np.zeros(10))\n"
        "shards.save(1, features=np.zeros(10_000))")
    assert "00001-" in said and "Free some space" in said
    assert sorted(p.name[:6] for p in tmp_path.rglob("*.*")) == ["00000-", "a.shar", "origin"]


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
