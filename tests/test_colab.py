"""Colab: the setup cell itself, with a stand-in for google.colab that behaves and misbehaves."""

import os
import shutil
import subprocess
import sys
import time
import types
from pathlib import Path

import nbformat
import numpy as np
import pytest

from helpers import colab
from helpers.files import ROOT
from helpers.resuming import Shards
from helpers.run import open_run
from helpers.steps import STEPS

SETUP = nbformat.read(ROOT / "notebooks/01_eda.ipynb", 4).cells[2].source


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine that looks like Colab; its mount does what `machine.mount` does."""
    place = types.SimpleNamespace(drive=tmp_path / "drive", calls=0)
    place.mount = lambda point: (Path(point) / "MyDrive").mkdir(parents=True)

    def mount(point):
        place.calls += 1
        assert not Path(point).exists(), "nothing may be made under the mount point"
        place.mount(point)

    google = types.ModuleType("google.colab")
    google.drive = types.SimpleNamespace(mount=mount)
    monkeypatch.setitem(sys.modules, "google", types.ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", google)
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab_20260819")
    monkeypatch.delenv(colab.DRIVE_FOLDER, raising=False)
    monkeypatch.setattr(colab, "MOUNT_POINT", place.drive)
    monkeypatch.chdir(ROOT / "notebooks")
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield place
    os.environ.pop(colab.DRIVE_FOLDER, None)


def run_setup(**fields):
    cell = SETUP
    for name, value in fields.items():
        assert f'{name} = ""' in cell
        cell = cell.replace(f'{name} = ""', f"{name} = {value!r}")
    exec(compile(cell, "setup", "exec"), {})


def test_elsewhere_it_does_nothing_but_find_the_suite(machine, monkeypatch, capsys):
    monkeypatch.delenv("COLAB_RELEASE_TAG")
    before = dict(os.environ)
    for _ in range(2):
        run_setup(drive_folder="suite")
    assert Path.cwd() == ROOT
    assert sys.path.count(str(ROOT)) == 1
    assert machine.calls == 0 and capsys.readouterr().out == ""
    assert dict(os.environ) == before


def test_drive_is_mounted_only_when_asked_and_only_once(machine, capsys):
    run_setup()
    assert machine.calls == 0
    for _ in range(2):
        run_setup(drive_folder="suite")
    assert machine.calls == 1
    assert os.environ[colab.DRIVE_FOLDER] == str(machine.drive / "MyDrive/suite")
    assert "My Drive/suite" in capsys.readouterr().out


def test_a_refusal_is_explained_and_work_goes_on(machine, capsys):
    def refuse(point):
        raise ValueError("mount failed")

    machine.mount = refuse
    run_setup(drive_folder="suite")
    said = capsys.readouterr().out
    assert "ValueError: mount failed" in said and "local disk" in said
    assert colab.DRIVE_FOLDER not in os.environ
    assert not machine.drive.exists()


def test_a_mount_that_hangs_is_left_behind(machine, monkeypatch, capsys):
    monkeypatch.setattr(colab, "MOUNT_LIMIT_S", 0.2)
    machine.mount = lambda point: time.sleep(3600)
    run_setup(drive_folder="suite")
    assert "TimeoutError: no answer within 0.2 s" in capsys.readouterr().out
    assert colab.DRIVE_FOLDER not in os.environ


def test_the_suite_is_cloned_when_it_is_not_there(machine, monkeypatch, tmp_path):
    origin, content = tmp_path / "origin", tmp_path / "content"
    content.mkdir()
    shutil.copytree(ROOT / "helpers", origin / "helpers",
                    ignore=shutil.ignore_patterns("__pycache__"))
    git = ["git", "-C", str(origin), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "suite"]):
        subprocess.run([*git, *arguments], check=True)
    monkeypatch.chdir(content)
    with pytest.raises(FileNotFoundError, match="set `repository` above"):
        run_setup()
    with pytest.raises(FileNotFoundError, match="set `repository` above"):
        run_setup(repository=str(tmp_path / "nowhere"))
    run_setup(repository=str(origin))
    assert Path.cwd() == content / "suite"
    monkeypatch.chdir(content)
    run_setup()  # found, not cloned again
    assert Path.cwd() == content / "suite"


def test_only_missing_packages_are_installed(monkeypatch, tmp_path):
    listed = tmp_path / "requirements.txt"
    listed.write_text("# comment\nnumpy>=99\nno-such-package-here>=1\n")
    calls = []

    def install(command, **options):
        calls.append(command)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(colab.subprocess, "run", install)
    assert colab.install_missing(listed) == ["no-such-package-here>=1"]
    assert calls[0][-1] == "no-such-package-here>=1" and "numpy>=99" not in calls[0]
    assert "-U" not in calls[0] and "--upgrade" not in calls[0]


def test_results_are_copied_to_drive_once(machine, folders, write_recipe, capsys):
    run_setup(drive_folder="suite")
    recipe = write_recipe("tiny", folders, source="folders", run="drive")
    run = open_run(recipe)
    for artefact in STEPS[0].makes:
        with run.write(artefact) as path:
            path.write_text("image_id\n")
    (run.folder / ".images.csv.partial").touch()
    run.finish("01_eda")
    target = machine.drive / "MyDrive/suite/drive"
    copied = sorted(["artefacts.json", *STEPS[0].makes.values()])
    assert sorted(p.name for p in target.iterdir()) == copied
    assert colab.copy_results(run.folder) == 0
    with run.write("images") as path:
        path.write_text("image_id\n1\n")
    assert colab.copy_results(run.folder) == 2  # the file, and the note of it

    # A new runtime, the next day: the local disk is empty, Drive is not.
    shutil.rmtree(run.folder)
    again = open_run(recipe)
    assert again.need("images").read_text() == "image_id\n1\n"
    assert again.is_done(STEPS[0])
    assert sorted(p.name for p in again.folder.iterdir()) == copied


def test_each_shard_goes_to_drive_and_a_fresh_runtime_continues(machine, folders, write_recipe):
    run_setup(drive_folder="suite")
    recipe = write_recipe("tiny", folders, source="folders", run="shards")
    target = machine.drive / "MyDrive/suite/shards/a.shards"

    def open_shards():
        run = open_run(recipe)
        shards = Shards(run.folder / "a.shards", run.folder, 5, {"weights": "random"})
        shards.open()
        return run, shards

    run, shards = open_shards()
    for number in range(3):  # then the runtime is taken away
        shards.save(number, features=np.full(2, number))
        assert (target / shards._path(number).name).exists()
    shutil.rmtree(run.folder)
    run, shards = open_shards()
    assert shards.list_missing() == [3, 4]
    assert shards.load(2)["features"].tolist() == [2, 2]
    shards.remove()
    assert not target.exists() and not (run.folder / "a.shards").exists()


def test_a_full_drive_does_not_stop_the_work(machine, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv(colab.DRIVE_FOLDER, str(tmp_path / "file"))
    results = tmp_path / "results"
    results.mkdir()
    (results / "a.csv").touch()
    assert colab.copy_results(results) == 0
    assert "Nothing is lost on the local disk" in capsys.readouterr().out
