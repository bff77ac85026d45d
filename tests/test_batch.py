"""Headless: all notebooks for real, resumed, interrupted, and failing with a reason."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import nbformat
import numpy as np
import psutil
import pytest
from filelock import FileLock

from helpers import batch, execution
from helpers.data.preparation import prepare_run
from helpers.data.splits import sample_rows
from helpers.evaluation import backbone_costs
from helpers.evaluation.holdout import list_looks
from helpers.evaluation.scores import OF_PREDICTIONS
from helpers.evaluation.summary import evaluate_run
from helpers.features.extraction import extract_run
from helpers.files import ROOT, load_json
from helpers.recipe import parse_settings
from helpers.run import open_run
from helpers.steps import MAKERS, NETWORKS, NOTEBOOKS, STEPS
from helpers.training.strategies import train_run


@pytest.fixture(scope="module")
def recipe(rakuten, write_recipe):
    names = {1000: "carton", 1003: "papier"}
    return write_recipe("tiny", rakuten, class_names=names, run="batch", inputs="both",
                        text_columns=["designation", "description"])


@pytest.fixture(scope="module")
def finished(recipe):
    """The folder of a run of which `main` has executed all notebooks."""
    assert batch.main(["--recipe", recipe, "--until", "11"]) == 0
    return open_run(recipe)


def test_all_artefacts_are_there(finished):
    assert all(finished.is_done(step) for step in STEPS)
    assert all(finished.need(name) for name in MAKERS if name not in NETWORKS)
    for name in NOTEBOOKS:
        cells = nbformat.read(finished.folder / "notebooks" / f"{name}.ipynb", 4).cells
        assert all(cell.execution_count for cell in cells if cell.cell_type == "code")
    hidden = [p.name for p in finished.folder.rglob("*")
              if p.name.startswith(".") and p.name not in (".lock", ".activations")]
    assert not hidden


def test_backbones_are_compared_by_cost_and_score(finished):
    table = finished.load_table("backbones").set_index("backbone")
    assert set(table.index) == {"test_efficientnet", "test_resnet"}
    assert (table[["images_per_second", "peak_memory_mb", "file_mb"]] > 0).all(axis=None)
    assert (table.low <= table["macro F1"]).all() and (table["macro F1"] <= table.high).all()
    assert set(table.weights) == {"random"} and not table.note.any()
    assert table.behind.iloc[0] == 0 and (table.behind_low <= table.behind).all()


def test_experiments_and_sizes_are_compared(finished):
    table = finished.load_table("experiments")
    assert list(table.candidate.unique()) == ["baseline", "frozen head", "dropout",
                                              "distillation"]
    base = table[table.candidate == "baseline"]
    assert (base[["difference", "low", "high", "seed 0", "seed 1"]] == 0).all(axis=None)
    mean = table[["seed 0", "seed 1"]].mean(axis=1)
    np.testing.assert_allclose(table.difference, mean, atol=1e-12)
    log = finished.load_table("experiment_log")
    assert set(log.candidate) == {"baseline", "dropout", "distillation"}
    assert log.groupby(["candidate", "seed", "fold"]).size().eq(2).all()
    sizes = finished.load_table("sizes")
    assert sizes[["strategy", "size"]].to_numpy().tolist() == [
        ["frozen", 16], ["frozen", 32], ["finetune", 32]]
    assert set(sizes.images) == {"out-of-fold"}, "test images wait for `final`"


def test_networks_are_trained_headless(recipe):
    settings = ["strategy=finetune", "inputs=photo", "run=networks", "augmentation=none"]
    assert batch.main(["--recipe", recipe, "--set", *settings]) == 0
    run = open_run(recipe, parse_settings(settings))
    assert (run.folder / "figures" / "04_training.png").exists()
    log, table = run.load_table("training_log"), run.load_table()
    assert log.groupby("fold").size().eq(2).all() and log.fold.nunique() == 3
    assert len(run.load_table("oof_probabilities")) == (table.split == "train").sum()
    page = run.path("report").read_text("utf-8")
    assert "30% of its layers fine-tuned for 2 epochs" in page
    assert batch.main(["--recipe", recipe, "--set", *settings]) == 0


def test_the_tables_agree_about_the_images(finished):
    table = finished.load_table()
    train = table[table.split == "train"]
    oof = finished.load_table("oof_probabilities")
    assert list(oof.image_id) == list(train.image_id)
    assert list(oof.fold) == list(train.fold)
    assert oof.filter(regex="^p_").sum(axis=1).round(4).eq(1).all()
    predictions = finished.load_table("predictions")
    assert list(predictions.image_id) == list(table.image_id[table.split == "test"])
    quarantined = set(finished.load_table("quarantine").image_id)
    assert not quarantined & set(table.image_id)
    assert set(predictions.code) <= {str(code) for code in range(1000, 1006)}
    metadata = load_json(finished.path("metadata"))
    assert metadata["train_samples"] == len(train)
    mistakes = finished.load_table("mistakes")
    assert mistakes.confidence.is_monotonic_decreasing
    accuracy = load_json(finished.path("metrics"))["out-of-fold"]["accuracy"]["value"]
    assert accuracy == pytest.approx(1 - len(mistakes) / len(oof))


def test_the_report_stands_alone(finished):
    page = finished.path("report").read_text("utf-8")
    pictures = list((finished.folder / "figures").glob("0[1-6]*"))
    assert page.count("data:image/") == len(pictures) >= 16
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    macro = load_json(finished.path("metrics"))["out-of-fold"]["macro F1"]["value"]
    assert f"{macro:.3f}" in page
    assert "empty file" in page
    counts = re.findall(r'<td class="number">(\d+)</td></tr>', page.split('<h2 id="scores"')[0])
    assert sum(map(int, counts[:5])) == len(finished.load_table("images"))


def test_a_second_run_does_nothing(finished, recipe, capsys):
    before = (finished.folder / "progress.json").read_bytes()
    assert batch.main(["--recipe", recipe]) == 0
    assert capsys.readouterr().out.count("nothing to do") == 6
    assert (finished.folder / "progress.json").read_bytes() == before


@pytest.fixture
def run_again(finished, recipe, monkeypatch):
    """Return a function that says which notebooks a batch would run; nothing is changed."""
    monkeypatch.setattr(batch, "execute_apart",
                        lambda run, name, *rest: executed.append(name) or True)
    monkeypatch.setattr(batch, "_call_apart", lambda function, *rest: function(*rest))
    executed, state = [], (finished.folder / "progress.json").read_bytes()

    def run_again(*arguments):
        executed.clear()
        (finished.folder / "progress.json").write_bytes(state)
        assert batch.main(["--recipe", recipe, *arguments]) == 0
        return [name[:2] for name in executed]

    yield run_again
    (finished.folder / "progress.json").write_bytes(state)


def test_only_what_a_setting_changes_is_run_again(finished, run_again):
    assert run_again("--set", "perplexity=12") == ["05"]
    assert run_again("--set", "bootstrap=300") == ["06"]
    assert run_again("--set", "final=true") == ["06"]
    assert run_again("--set", "c_grid=[1]") == ["04", "05", "06"]
    assert run_again("--set", "folds=4", "--until", "03") == ["02", "03"]
    assert run_again("--from", "05") == ["05", "06"]
    assert run_again("--from", "07") == ["07"]
    assert run_again("--set", "compare_images=50", "--until", "07") == ["07"]
    assert run_again("--set", "batch_size=7", "workers=1") == []
    report = finished.path("report").read_bytes()
    finished.path("report").unlink()
    assert run_again() == ["06"]
    finished.path("report").write_bytes(report)
    assert run_again() == []


def test_only_notebooks_that_reach_a_changed_helper_are_run_again(run_again, monkeypatch):
    real = Path.read_bytes

    def change(file):
        monkeypatch.setattr(Path, "read_bytes", lambda path: real(path) + (
            b"# changed" if path == ROOT / "helpers" / file else b""))

    change("training/heads.py")
    assert run_again("--until", "07") == ["04", "06", "07"]
    change("evaluation/holdout.py")
    assert run_again("--until", "07") == ["05", "06"]  # 05 brings the report up to date
    change("pictures/templates/report.html.j2")
    assert run_again("--until", "07") == ["05", "06"]
    change("dev/bench.py")
    assert run_again("--until", "07") == []


@pytest.fixture
def executed(monkeypatch):
    """Pretend to execute 01; the list of what was."""
    executed = []

    def pretend(run, name, *rest):
        executed.append(name[:2])
        for artefact in STEPS[0].makes:
            with run.write(artefact) as path:
                path.touch()
        return True

    monkeypatch.setattr(batch, "execute_apart", pretend)
    monkeypatch.setattr(batch, "_call_apart", lambda function, *rest: function(*rest))
    return executed


def test_changed_data_is_noticed_and_touched_data_is_not(folders, write_recipe, tmp_path,
                                                         executed):
    archive = Path(shutil.make_archive(str(tmp_path / "photos"), "zip", folders))
    recipe = write_recipe("tiny", archive, source="folders", run="archive")

    def run_first():
        executed.clear()
        assert batch.main(["--recipe", recipe, "--until", "01"]) == 0
        return list(executed)

    assert run_first() == ["01"] and run_first() == []
    os.utime(archive, (1, 1))  # as after a download: another time, the same content
    assert run_first() == []
    with zipfile.ZipFile(archive, "a") as opened:
        opened.write(next(folders.rglob("*.jpg")), "glass/another.jpg")
    assert run_first() == ["01"]


def test_the_runner_holds_next_to_nothing(finished, recipe):
    """It waits beside notebooks that need the memory: no library is loaded, no table kept."""
    code = ("import sys; from helpers import batch; "
            f"batch.execute_apart = lambda *_: True; batch.main(['--recipe', {recipe!r}, "
            "'--from', '06']); print(sorted({'torch', 'timm', 'pandas', 'numpy', 'jupytext', "
            "'papermill'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                          check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(("arguments", "words"), [
    (["--set", "fold=3"], "did you mean 'folds'?"),
    (["--set", "folds"], "key=value, not 'folds'"),
    (["--set", "backbone=resnet5"], "no backbone 'resnet5'"),
    (["--set", "weights=pretrained"], "the weights of test_efficientnet could not be downloaded"),
    (["--from", "19"], "no notebook '19'"),
    (["--from", "04", "--until", "02"], "no notebook lies from 04 until 02"),
])
def test_wrong_settings_stop_before_anything_starts(recipe, arguments, words, capsys,
                                                    monkeypatch, tmp_path):
    monkeypatch.setattr(batch, "execute_apart", None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))  # where nothing is cached
    assert batch.main(["--recipe", recipe, "--set", "run=wrong", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_a_failure_names_cell_error_and_notebook(recipe, capfd):
    assert batch.main(["--recipe", recipe, "--set", "run=early", "--from", "04"]) == 1
    error = capfd.readouterr().err
    for words in ("04_training failed in cell [", "rows = select_rows",
                  "run 02_preprocessing first", "early/notebooks/04_training.ipynb",
                  "The same command continues here"):
        assert words in error, words
    assert "Traceback" not in error


def test_another_weight_file_of_the_same_name_is_noticed(recipe, tmp_path, monkeypatch):
    from safetensors.torch import save_file
    from timm import create_model

    executed, path = [], tmp_path / "weights.safetensors"

    def pretend(run, name, *rest):
        executed.append(name[:2])
        for artefact in next(step for step in STEPS if step.name == name).list_files("frozen"):
            with run.write(artefact) as file:
                file.touch()
        return True

    monkeypatch.setattr(batch, "execute_apart", pretend)
    monkeypatch.setattr(batch, "_call_apart", lambda function, *rest: function(*rest))
    for expected in (["01", "02", "03"], [], ["03"]):
        executed.clear()
        if expected:
            save_file(create_model("test_efficientnet").state_dict(), path)
        assert batch.main(["--recipe", recipe, "--until", "03", "--set", "run=weights",
                           f"weights={path}"]) == 0
        assert executed == expected


def test_a_notebook_that_differs_from_its_script_is_refused(recipe, tmp_path, monkeypatch,
                                                            capsys):
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    monkeypatch.setattr(batch, "FOLDER", tmp_path / "notebooks")
    script = tmp_path / "notebooks/02_preprocessing.py"
    script.write_text(script.read_text("utf-8").replace("mapping = ", "codes = "), "utf-8")
    assert batch.main(["--recipe", recipe]) == 2
    assert "02_preprocessing.ipynb and its .py differ" in capsys.readouterr().err


def test_two_batches_never_share_a_run(finished, recipe, capsys):
    with FileLock(finished.folder / ".lock"):
        assert batch.main(["--recipe", recipe]) == 2
    assert "another batch is at work" in capsys.readouterr().err


def test_results_of_other_data_are_not_replaced(folders, write_recipe, tmp_path, capsys,
                                                executed):
    """Two folders of one name would share a run; a moved one is still the same."""
    for name in ("one", "other", "moved"):
        shutil.copytree(folders, tmp_path / name / "photos")
    next((tmp_path / "other/photos").rglob("*.jpg")).unlink()
    recipe = write_recipe("tiny", tmp_path / "one/photos", source="folders", run="twins")
    arguments = ["--recipe", recipe, "--until", "01", "--set"]
    assert batch.main([*arguments, f"data={tmp_path}/one/photos"]) == 0
    assert batch.main([*arguments, f"data={tmp_path}/other/photos"]) == 2
    assert f"holds results of {tmp_path}/one/photos: set `run`" in capsys.readouterr().err
    assert batch.main([*arguments, f"data={tmp_path}/moved/photos"]) == 0


def find_kernels(process: psutil.Process) -> list[psutil.Process]:
    found = []
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.Error):  # gone by now
            found += [child] if "ipykernel" in " ".join(child.cmdline()) else []
    return found


@pytest.mark.parametrize(("end", "status"), [("terminate", 130), ("kill", -9)])
def test_a_batch_that_is_ended_takes_its_kernel_along(recipe, end, status):
    command = [sys.executable, "-m", "helpers.batch", "--recipe", recipe, "--set", "run=term"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        while process.poll() is None and not find_kernels(psutil.Process(process.pid)):
            time.sleep(0.05)
        children = psutil.Process(process.pid).children(recursive=True)
        getattr(process, end)()
        assert process.wait(60) == status
        assert not psutil.wait_procs(children, timeout=30)[1]
        assert end == "kill" or "leaked" not in process.stderr.read()
    finally:
        process.kill()


def test_an_interrupt_from_the_terminal_shows_no_frames(recipe):
    """Ctrl-C reaches all processes of a terminal, here one that is still importing."""
    command = [sys.executable, "-m", "helpers.batch", "--recipe", recipe, "--set", "run=ctrl"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # `nohup` ignores them
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True,
                               start_new_session=True)
    signal.signal(signal.SIGINT, before)
    try:
        while process.poll() is None and not any(
                "spawn_main" in " ".join(child.cmdline())
                for child in psutil.Process(process.pid).children()):
            time.sleep(0.02)
        time.sleep(0.05)  # its first lines of Python
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr.read() == "interrupted; the same command continues\n"
    finally:
        process.kill()


def test_a_kernel_that_dies_while_it_starts_is_started_once_more(recipe, monkeypatch, tmp_path):
    import papermill

    calls = []

    def execute(*_, **__):
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("Kernel died before replying to kernel_info")

    monkeypatch.setattr(papermill, "execute_notebook", execute)
    execution._execute("01_eda", tmp_path / "01.ipynb", recipe, {})
    assert len(calls) == 2


def test_a_notebook_over_its_limit_is_stopped_with_its_kernel(recipe, capfd):
    arguments = ["--recipe", recipe, "--set", "run=limit", "--until", "01"]
    assert batch.main([*arguments, "--time-limit", "0.02"]) == 1
    assert "stopped after 0.02 minutes" in capfd.readouterr().err
    time.sleep(0.2)
    assert not find_kernels(psutil.Process())


def test_plain_papermill_runs_a_notebook(finished, recipe, tmp_path):
    target = tmp_path / "out.ipynb"
    done = subprocess.run(
        [sys.executable, "-m", "papermill", "notebooks/05_tsne.ipynb", str(target),
         "-p", "recipe", recipe, "-y", "overrides: {perplexity: 12}"],
        cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "perplexity 12" in target.read_text("utf-8")


def test_the_twins_run_as_scripts(finished, recipe, tmp_path):
    """The committed `.py` with their parameters set, as a person would; one Python is quicker."""
    for name in NOTEBOOKS:
        text = (ROOT / "notebooks" / f"{name}.py").read_text("utf-8")
        assert 'recipe = "demo"\n' in text
        text = text.replace('recipe = "demo"\n', f"recipe = {recipe!r}\n")
        (tmp_path / f"{name}.py").write_text(text, "utf-8")
    run_all = ("import runpy, sys\nfor path in sys.argv[1:]:\n"
               "    runpy.run_path(path, run_name='__main__')\n    print('-- end', path)\n")
    done = subprocess.run([sys.executable, "-c", run_all, *sorted(map(str, tmp_path.iterdir()))],
                          cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    printed = done.stdout.split("-- end")[:-1]
    assert len(printed) == len(NOTEBOOKS)
    assert all("KiB" in text for text in printed)  # run.finish has found its artefacts


def test_scores_do_not_depend_on_how_it_was_run(finished, recipe):
    """Batch, papermill and scripts have filled one folder; calls alone fill another."""
    other = open_run(recipe, {"run": "by-calls", "batch_size": 3, "workers": 1})
    prepare_run(other)
    extract_run(other)
    train_run(other)
    evaluate_run(other)
    for artefact in ("images", "inspection", "quarantine", "near_copies", "normalisation",
                     "label_mapping", "class_weights", "table", "train_labels", "confusion",
                     "classes"):
        assert other.need(artefact).read_bytes() == finished.need(artefact).read_bytes(), artefact
    scores, others = (load_json(run.need("metrics"))["out-of-fold"] for run in (finished, other))
    for name, row in scores.items():  # probabilities may differ in the last digits
        close = 0 if name in OF_PREDICTIONS else 1e-3
        assert row == pytest.approx(others[name], rel=0, abs=close), name
    oof, again = (run.load_table("oof_probabilities") for run in (finished, other))
    columns = list(oof.filter(regex="^p_"))
    assert abs(oof[columns] - again[columns]).max(axis=None) < 1e-3
    assert oof.drop(columns=columns).equals(again.drop(columns=columns))


def test_the_held_out_images_are_scored_on_purpose_and_each_look_is_counted(finished, recipe):
    assert list(load_json(finished.need("metrics"))) == ["out-of-fold"]
    assert not list_looks(finished)
    assert "have not been scored" in finished.need("report").read_text("utf-8")
    final = open_run(recipe, {"final": True})
    for count in (1, 2):
        evaluate_run(final)
        assert len(list_looks(final)) == count
    looks, metrics = list_looks(final), load_json(final.need("metrics"))
    assert list(metrics) == ["out-of-fold", "hold-out"] and looks[0]["sets"] == ["hold-out"]
    assert looks[0]["date"] <= looks[1]["date"]
    assert "holdout" in set(final.load_table("predictions").split)
    usual = open_run(recipe)
    evaluate_run(usual)  # looks at nothing, and forgets no look
    assert len(list_looks(usual)) == 2
    assert "holdout" not in set(usual.load_table("predictions").split)


def test_after_a_failed_download_only_what_is_not_cached_is_random(finished, recipe,
                                                                   monkeypatch):
    """One backbone cannot be downloaded, a later one lies in the hub client's cache."""
    tried = []

    def measure(run, backbone, weights, rows, offline):
        tried.append((backbone, weights, offline))
        missing = weights == "pretrained" and backbone == "test_resnet"
        facts = {"macro F1": 1, "oof": finished.load_table("oof_probabilities")}
        return ({}, "no way", backbone_costs.NO_WEIGHTS) if missing else (facts, "", 0)

    monkeypatch.setattr(backbone_costs, "_measure", measure)
    path = ROOT / "data/nowhere.safetensors"
    run = finished.__class__(finished.recipe.change(
        weights=str(path), compare=["test_resnet", "test_vit"]), finished.folder)
    monkeypatch.setattr(type(run), "need", type(run).path)
    table = backbone_costs.compare_backbones(run)
    assert tried[1:] == [("test_resnet", "pretrained", False), ("test_resnet", "random", True),
                         ("test_vit", "pretrained", True)]
    assert table.weights.to_dict()["test_vit"] == "pretrained"


def test_the_comparisons_sample_follows_the_seed(finished):
    rows = finished.load_table().query("split == 'train'")
    samples = [set(sample_rows(rows, 120, seed)) for seed in (1, 1, 2)]
    assert samples[0] == samples[1] != samples[2]
