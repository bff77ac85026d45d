"""Removal: whole runs go after a yes, and nothing else ever does."""

import os
import shutil
import sys

import pytest
from filelock import FileLock

from helpers import removal
from helpers.colab import DRIVE_FOLDER


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    """A folder of two runs and of things that are none; `outside` lies beside it."""
    place = tmp_path / "outputs"
    for name in ("waste", "waste-small"):
        (place / name / "models").mkdir(parents=True)
        (place / name / "artefacts.json").write_text("{}")
        (place / name / "models" / "weights").write_bytes(bytes(2**20))
    (place / "notes").mkdir()
    outside = tmp_path / "outside"
    shutil.copytree(place / "waste", outside)
    (place / "linked").symlink_to(outside)
    (place / "waste" / "link").symlink_to(outside)
    (place / "waste" / "file-link").symlink_to(outside / "artefacts.json")
    monkeypatch.setattr(removal, "OUTPUTS", place)
    monkeypatch.delenv(DRIVE_FOLDER, raising=False)
    return place


@pytest.fixture
def answer(monkeypatch):
    """Return a function that puts someone at the terminal who answers so."""

    def sit(text):
        monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
        monkeypatch.setattr("builtins.input", lambda question: text)

    return sit


def snapshot(place):
    return sorted(path for path in place.parent.rglob("*") if path.name != ".lock")


def test_a_run_goes_whole_and_what_its_links_lead_to_stays(outputs, capsys):
    (outputs / "waste" / ".lock").touch()  # as a batch leaves it
    assert removal.main(["waste", "waste", "--yes"]) == 0
    assert sorted(p.name for p in outputs.iterdir()) == ["linked", "notes", "waste-small"]
    assert (outputs / "linked" / "models" / "weights").stat().st_size == 2**20
    said = capsys.readouterr().out
    assert "waste: 4 files, 1.0 MiB" in said and "Drive" not in said


@pytest.mark.parametrize(("text", "status"), [("y", 0), ("Yes", 0), ("", 1), ("n", 1)])
def test_only_a_yes_removes(outputs, answer, text, status):
    answer(text)
    assert removal.main(["waste", "waste-small"]) == status
    assert (outputs / "waste").exists() == (outputs / "waste-small").exists() == bool(status)


def test_nobody_to_ask_is_no_yes(outputs, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    before = snapshot(outputs)
    assert removal.main(["waste"]) == 2 and snapshot(outputs) == before
    assert "--yes" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "sentence"), [
    ("waste/models", "no run's name"), ("../outside", "no run's name"), ("..", "no run's name"),
    (".", "no run's name"), ("", "no run's name"), (".waste", "no run's name"),
    ("waste\n", "no run's name"), ("linked", "is a link"), ("notes", "no artefacts.json"),
    ("wast", "Did you mean waste?"), ("pets", "There are: waste, waste-small")])
def test_whatever_is_no_run_is_refused_with_all_others(outputs, capsys, name, sentence):
    before = snapshot(outputs)
    assert removal.main(["waste", name, "--yes"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and sentence in said and snapshot(outputs) == before


def test_a_run_at_work_is_left_alone(outputs, capsys):
    before = snapshot(outputs)
    with FileLock(outputs / "waste-small" / ".lock"):
        assert removal.main(["waste", "waste-small", "--yes"]) == 2
    assert "a batch is at work" in capsys.readouterr().err and snapshot(outputs) == before
    assert removal.main(["waste-small", "--yes"]) == 0


def test_a_lock_that_is_a_link_empties_nothing(outputs, tmp_path):
    (tmp_path / "precious").write_text("kept")
    (outputs / "waste" / ".lock").symlink_to(tmp_path / "precious")
    assert removal.main(["waste", "--yes"]) == 2
    assert (tmp_path / "precious").read_text() == "kept"


def test_a_kill_leaves_no_half_run(outputs, monkeypatch):
    def die(path, *_, **__):
        (path / "artefacts.json").unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", die)
    assert removal.main(["waste", "--yes"]) == 130
    assert not (outputs / "waste").exists() and removal.list_runs() == ["waste-small"]


def test_a_disk_that_refuses_is_a_sentence(outputs, monkeypatch, capsys):
    def refuse(path, *_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(shutil, "rmtree", refuse)
    assert removal.main(["waste", "--yes"]) == 2
    said = capsys.readouterr().err
    assert "Permission denied" in said and os.fspath(outputs / ".waste.") in said


def test_copies_on_drive_stay_and_that_is_said(outputs, tmp_path, monkeypatch, capsys):
    shutil.copytree(outputs / "waste-small", tmp_path / "drive" / "waste-small")
    monkeypatch.setenv(DRIVE_FOLDER, str(tmp_path / "drive"))
    assert removal.main(["waste-small", "--yes"]) == 0
    assert (tmp_path / "drive" / "waste-small" / "artefacts.json").exists()
    assert f"Copies in {tmp_path / 'drive'} stay" in capsys.readouterr().out
