"""Fine-tuning: whole runs, killed and continued, shared by processes, and what they refuse."""

import json
import multiprocessing
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.command import run_command
from helpers.data.preparation import prepare_run
from helpers.data.splits import select_rows
from helpers.features.extraction import extract_run
from helpers.files import SuiteError, load_json
from helpers.processes import join_processes, rank
from helpers.recipe import load_recipe, parse_settings
from helpers.resuming import Shards
from helpers.run import OUTPUTS, open_run
from helpers.steps import STEPS
from helpers.training import finetuning
from helpers.training import fold as folds
from helpers.training.crossvalidation import load_models, save_models, train_heads
from helpers.training.finetuning import cross_validate_networks, load_fold
from helpers.training.fold import begin_network, create_phase, train_fold
from helpers.training.loaders import ImageData
from helpers.training.losses import Loss
from helpers.training.module import ClassifierModule
from helpers.training.networks import (
    answer_images,
    create_classifier,
    describe_classifier,
    load_network,
    save_network,
)
from helpers.training.phases import create_trainer, fit_phase, read_checkpoint
from helpers.training.plan import create_plan
from helpers.training.strategies import train_run

pytestmark = pytest.mark.usefixtures("one_thread")
QUICK = {"strategy": "finetune", "epochs": 2, "train_batch": 8, "holdout": 0.2,
         "source": "folders", "augmentation": "none"}
# Children are forked from a server that has imported everything already.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["helpers.training.finetuning", "helpers.features.extraction"])


@pytest.fixture(scope="module")
def recipe(folders, write_recipe):
    return write_recipe("finetuned", folders, **QUICK)


@pytest.fixture(scope="module")
def prepared(recipe):
    """A run whose 01 to 03 are done; read only."""
    run = open_run(recipe, {"run": "finetuned-prepared"})
    prepare_run(run)
    extract_run(run)
    return run


@pytest.fixture
def begin(prepared, recipe, request):
    """Return a function that gives a new run of other settings, whose 01 to 03 are done."""
    numbers = count()

    def begin(**settings):
        name = f"{request.node.name.split('[')[0]}-{next(numbers)}"
        shutil.rmtree(OUTPUTS / name, ignore_errors=True)
        shutil.copytree(prepared.folder, OUTPUTS / name)
        return open_run(recipe, {"run": name} | settings)

    return begin


@pytest.fixture(scope="module")
def trained(prepared, recipe):
    """A run that is trained; read only."""
    shutil.copytree(prepared.folder, OUTPUTS / "finetuned-trained")
    run = open_run(recipe, {"run": "finetuned-trained", "epochs": 1})
    train_run(run)
    return run


def chances(run, name="oof_probabilities"):
    return run.load_table(name).filter(like="p_").to_numpy(np.float32)


def times(run):
    return {path: path.stat().st_mtime_ns for path in run.path("networks").iterdir()
            if path.suffix != ".json"}


def answer(network, plan, positions):
    """Answer images directly: no trainer, no loader, no shares."""
    module = ClassifierModule(network, plan.data_config, None, plan.settings, 0, 0, 0).eval()
    with torch.inference_mode():
        inputs = torch.from_numpy(plan.images.read(positions))
        return module(inputs).softmax(1).numpy()


def test_all_images_are_answered(run_of, capsys):
    run = run_of
    train_run(run)
    table, classes = run.load_table(), list(load_json(run.need("label_mapping")))
    for name, part in (("oof_probabilities", "train"), ("test_probabilities", "test")):
        rows, found = select_rows(table, part), run.load_table(name)
        assert list(found.image_id) == list(rows.image_id)
        np.testing.assert_allclose(chances(run, name).sum(axis=1), 1, atol=1e-5)
        assert list(found.prediction) == [classes[code] for code in chances(run, name).argmax(1)]
    place = run.need("networks")
    assert {path.name.split("-")[0] for path in place.iterdir()} == {
        "budget.json", "origin.json", *(f"fold_0{n}.safetensors" for n in range(3)),
        *(f"0000{n}" for n in range(3))}
    log = run.load_table("training_log")
    assert list(zip(log.fold, log.epoch, strict=True)) == [(f, e) for f in range(3)
                                                          for e in range(2)]
    assert run.is_done(STEPS[3])
    plan, unseen = create_plan(run), []
    for fold in range(3):
        network = load_fold(run, fold)
        np.testing.assert_allclose(answer(network, plan, plan.part(fold)[2]),
                                   chances(run)[plan.folds == fold], atol=1e-5)
        unseen.append(answer(network, plan, np.arange(len(plan.rows), len(plan.codes))))
    np.testing.assert_allclose(np.mean(unseen, axis=0), chances(run, "test_probabilities"),
                               atol=1e-5)
    before, found = times(run), chances(run)
    capsys.readouterr()
    train_run(run)
    assert times(run) == before and np.array_equal(chances(run), found)
    assert "images/s" not in capsys.readouterr().out


@pytest.fixture(params=["finetune", "scratch"])
def run_of(request, begin):
    run = begin(strategy=request.param)
    prepare_run(run)
    extract_run(run)
    return run


def test_another_setting_trains_anew_and_a_harmless_one_does_not(begin, recipe, capsys):
    run = begin(epochs=1)
    train_run(run)
    before = times(run)
    other = {"run": run.folder.name, "epochs": 1}
    train_run(open_run(recipe, other | {"keep_activations": False}))
    assert times(run) == before
    train_run(open_run(recipe, other | {"train_batch": 9}))
    assert "models is computed anew: finetune.train_batch 8 (now 9)" in capsys.readouterr().out
    assert not set(before) & set(times(run)) - {run.path("networks") / f"fold_0{n}.safetensors"
                                                for n in range(3)}


def test_kept_activations_change_nothing(begin):
    found = []
    for keep in (True, False):
        run = begin(keep_activations=keep, learning_rate=1e-6, dropout=0.0, unfreeze=[0.3])
        train_run(run)
        assert (run.folder / ".activations").is_dir() == keep
        found.append(chances(run))
    np.testing.assert_allclose(*found, atol=1e-4)


def test_the_finder_is_no_epoch_of_the_log(begin):
    run = begin(learning_rate=None, unfreeze=[0.0, 1.0], augmentation="LIGHT")
    train_run(run)
    log = run.load_table("training_log")
    assert list(log.phase) == [0, 1] * 3 and list(log.epoch) == [0] * 6


# ---- killed, and run again


def start(target, *given, processes=1):
    """Start a function in as many processes as torchrun would, on the CPU; return them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    job = [SERVER.Process(target=_enter, args=(number, processes, port, target, given))
           for number in range(processes)]
    for process in job:
        process.start()
    return job


def finish(job):
    """Wait for the processes of a job and return their exit statuses."""
    for process in job:
        process.join(60)
        if process.is_alive():
            process.kill()
            process.join()
    return [process.exitcode for process in job]


def _enter(number, processes, port, target, given):
    os.environ |= {"CUDA_VISIBLE_DEVICES": ""}
    if processes > 1:
        os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "MASTER_PORT": str(port),
                       "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes),
                       "MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_RUN_ID": "tests"}
    torch.set_num_threads(1)
    target(*given)


def train_here(options, death=None, of=0, said=None):
    """Do what the command line does, in this process; it may die of SIGKILL on the way.

    Args:
        death: `(where, ...)`: ("step", file, epoch), in the second step of the epoch in which
            the file is there; ("shard",), when a fold is saved; ("phase", n), when n are
            trained, before their weights are saved.
        of: the rank of the process that dies.
        said: what the processes say on standard error goes there.
    """
    if said:
        stream = open(f"{said}.{rank()}", "w")  # noqa: SIM115, PTH123
        os.dup2(stream.fileno(), 2)
    if death and rank() == of:
        _plan_death(*death)
    sys.argv = ["finetuning", *options]
    sys.exit(run_command("helpers.training.finetuning", "", finetuning._train_and_finish))


def _plan_death(where, *when):
    die, done = (lambda: os.kill(os.getpid(), signal.SIGKILL)), []
    step, save, fit = ClassifierModule.training_step, Shards.save, folds.fit_phase

    def step_and_die(module, batch, number):
        there = module.current_epoch == when[1] and when[0].exists()
        if there and number == min(1, module.steps - 1):
            die()
        return step(module, batch, number)

    def save_and_die(shards, *given, **arrays):
        save(shards, *given, **arrays)
        if shards.place.name == "models":
            die()

    def fit_and_die(*given, **options):
        fit(*given, **options)
        done.append(1)
        if len(done) == when[0]:
            die()

    if where == "step":
        ClassifierModule.training_step = step_and_die
    elif where == "shard":
        Shards.save = save_and_die
    else:
        folds.fit_phase = fit_and_die


RICH = {"augmentation": "by_class_size", "mixup": 0.2, "unfreeze": [0.0, 1.0], "epochs": 6}
JUDGED = {"augmentation": "none", "keep_epoch": "best", "patience": 1, "schedule": "plateau",
          "learning_rate": 0.003, "epochs": 6, "unfreeze": [1.0]}


@pytest.mark.parametrize(("settings", "deaths"), [
    (RICH | {"averaging": "ema"}, [("step", "fold_00/phase_0/last.ckpt", 1),
                                   ("step", "fold_00/phase_1/last.ckpt", 1), ("shard",)]),
    (RICH | {"averaging": "swa", "hard_examples": 2.0, "mixup": 0.0},
     [("step", "fold_00/phase_1/last.ckpt", 2), ("phase", 1), ("phase", 2)]),
    (JUDGED | {"patience": 3}, [("step", "fold_00/phase_0/last.ckpt", 1), ("phase", 1),
                                ("shard",)]),
    (JUDGED | {"averaging": "swa", "unfreeze": [0.0, 1.0], "learning_rate": 0.03},
     [("phase", 1), ("phase", 1)]),
], ids=["ema", "swa", "plateau", "best-then-swa"])
def test_killed_and_run_again_all_is_the_same_to_the_bit(begin, settings, deaths):
    whole, killed = begin(**settings), begin(**settings)
    assert finish(start(train_here, whole.options)) == [0]
    for death in deaths:
        if death[0] == "step":
            death = ("step", killed.path("networks") / death[1], death[2])
        assert finish(start(train_here, killed.options, death)) == [-signal.SIGKILL], death
        assert not killed.is_done(STEPS[3])
    assert finish(start(train_here, killed.options)) == [0]
    for name in ("oof_probabilities", "test_probabilities"):
        assert np.array_equal(chances(whole, name), chances(killed, name))
    logs = [run.load_table("training_log").drop(columns=["seconds", "images_per_second"])
            for run in (whole, killed)]
    assert logs[0].equals(logs[1])
    places = [run.path("networks") for run in (whole, killed)]
    assert [{path.name for path in place.iterdir()} for place in places][1] == {
        path.name for path in places[0].iterdir()}
    for path in places[0].glob("*.safetensors"):
        assert path.read_bytes() == (places[1] / path.name).read_bytes()


# ---- several processes


def judge(options, times, where):
    """Let the processes validate and answer with a network that is given."""
    with join_processes():
        plan = create_plan(_open(options))
        plan.images.numbers = np.resize(plan.images.numbers[: len(plan.rows)], times)
        codes = np.resize(plan.codes[: len(plan.rows)], times)
        every = np.arange(times)
        data = ImageData(plan.images, codes, every, every, every, every[:0])
        network = begin_network(plan, 0)
        module = ClassifierModule(network, plan.data_config, None, plan.settings, 0, 1, 1)
        trainer = create_trainer(where, where, plan.settings, 1, [], "none", True)
        trainer.validate(module, datamodule=data, verbose=False)
        found = answer_images(network.eval(), module.prepare, data.predict_dataloader(), times)
        if rank() == 0:
            (where / "metrics.json").write_text(json.dumps(
                {name: repr(float(value)) for name, value in module._judged.items()}))
            np.save(where / "answers.npy", found)


def _open(options):
    return open_run(options[1], parse_settings(options[3:]))


@pytest.mark.parametrize("times", [1, 101, 150])
def test_processes_judge_as_one_to_the_last_digit(begin, tmp_path, times):
    """Of 1 image a process has none, of 101 both a batch, of 150 one of them two."""
    run = begin()
    for processes in (1, 2):
        (tmp_path / str(processes)).mkdir()
        job = start(judge, run.options, times, tmp_path / str(processes), processes=processes)
        assert finish(job) == [0] * processes
    one, two = (load_json(tmp_path / n / "metrics.json") for n in "12")
    assert one == two and set(one) == {"log_loss", "macro_F1", "accuracy"}
    one, two = (np.load(tmp_path / n / "answers.npy") for n in "12")
    assert np.array_equal(one, two) and len(one) == times


class Noted(ClassifierModule):
    """Keeps the gradients of the last step."""

    def on_before_optimizer_step(self, optimizer):
        self.gradients = {name: parameter.grad.clone()
                          for name, parameter in self.network.named_parameters()}


def step_once(options, backbone, where):
    """Take one step on a batch of 13 images, and write gradients and network."""
    with join_processes():
        run = _open(options)
        plan = create_plan(run)
        recipe = plan.recipe.change(backbone=backbone, head_start="new")
        object.__setattr__(plan, "recipe", recipe)
        folds.ClassifierModule = Noted
        network = create_classifier(recipe, 3)
        taught = np.random.default_rng(0).dirichlet(np.ones(3), len(plan.rows))
        module, data, _ = create_phase(plan, network, 0, 0, taught.astype(np.float32))
        data.learnt, module.steps = data.learnt[:13], 1
        fit_phase(module, data, where / "phase", where, "", "none", quiet=True)
        torch.save({"gradients": module.gradients, "state": network.state_dict()},
                   where / f"{rank()}.pt")


@pytest.mark.parametrize("backbone", ["test_vit", "test_efficientnet"])
def test_a_step_of_two_processes_is_that_of_one(begin, tmp_path, backbone):
    """The classes are of unequal weight in each share, and so are the shares: 7 and 6."""
    run = begin(train_batch=13, epochs=1, unfreeze=[1.0], dropout=0.0, clip=0.0)
    table = run.load_table()
    found = {}
    assert table.label.nunique() == 3
    for processes in (1, 2):
        (tmp_path / str(processes)).mkdir()
        job = start(step_once, run.options, backbone, tmp_path / str(processes),
                    processes=processes)
        assert finish(job) == [0] * processes
        found[processes] = [torch.load(tmp_path / str(processes) / f"{number}.pt")
                            for number in range(processes)]
    one, (first, second) = found[1][0], found[2]
    for name, gradient in first["gradients"].items():
        assert torch.equal(gradient, second["gradients"][name])
        if backbone == "test_vit":  # BatchNorm looks at the images of its own process
            torch.testing.assert_close(gradient, one["gradients"][name], rtol=0, atol=1e-6)
    for name, tensor in first["state"].items():  # what both go on with is what is saved
        assert torch.equal(tensor, second["state"][name]), name


@pytest.mark.parametrize("of", [1, 0])
def test_without_one_of_them_processes_end_and_say_so(begin, tmp_path, of):
    run = begin(**JUDGED | {"epochs": 3})
    death = "step", run.path("networks") / "fold_00/phase_0/last.ckpt", 1
    job = start(train_here, run.options, death, of, tmp_path / "said", processes=2)
    statuses = finish(job)
    assert statuses.pop(of) == -signal.SIGKILL and statuses == [2]
    assert "error: another process of this job has" in (
        tmp_path / f"said.{1 - of}").read_text()
    assert (run.path("networks") / "fold_00/phase_0/last.ckpt").exists()
    if of == 1:
        return
    again = [sys.executable, "-m", "torch.distributed.run", "--standalone",
             "--nproc-per-node=2", "-m", "helpers.training.finetuning", *run.options]
    done = subprocess.run(again, capture_output=True, text=True, env=os.environ | {
        "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert run.is_done(STEPS[3])
    rows = select_rows(run.load_table(), "train")
    assert list(run.load_table("oof_probabilities").image_id) == list(rows.image_id)
    plan, log = create_plan(run), run.load_table("training_log")
    for fold in range(3):
        np.testing.assert_allclose(answer(load_fold(run, fold), plan, plan.part(fold)[2]),
                                   chances(run)[plan.folds == fold], atol=1e-5)
    assert (log.groupby("fold").epoch.apply(list).map(lambda found: found == list(
        range(len(found))))).all() and log.log_loss.notna().all()


# ---- what is refused


@pytest.fixture
def plan(prepared):
    return create_plan(prepared)


def test_a_class_that_a_fold_lacks_is_named_and_one_class_is_refused(begin, capsys):
    run = begin(epochs=1)
    table = run.load_table()
    learnt = table.split == "train"
    table.loc[learnt & (table.label == "paper"), "fold"] = 0
    run.save("table", table)
    extract_run(run)
    for settings in ({}, {"keep_epoch": "best"}):
        again = open_run(run.options[1], {"run": run.folder.name, "epochs": 1} | settings)
        train_run(again)
        assert "no image of paper is left without fold 0" in capsys.readouterr().out
        assert np.isfinite(chances(again)).all()
    table.loc[learnt, "fold"] = np.where(table.label[learnt] == "glass", 1, 0)
    run.save("table", table)
    extract_run(run)
    with pytest.raises(SuiteError, match="images of one class only"):
        train_run(run)


class Hostile:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


def test_checkpoints_that_do_not_fit_are_refused(plan, tmp_path):
    place, own = tmp_path / "fold_00", plan.change(epochs=2, unfreeze=[0.0])
    module, data, _ = create_phase(own.change(keep_activations=False, unfreeze=[0.0]),
                                   begin_network(own, 0), 0, 0)
    module.rate = 1e-4
    fit_phase(module, data, place / "phase_0", tmp_path, "", "none", quiet=True)
    last = place / "phase_0" / "last.ckpt"
    whole, touched = last.read_bytes(), tmp_path / "touched"
    good = read_checkpoint(last, module)

    def refuse(match):
        with pytest.raises(SuiteError, match=match):
            train_fold(own, 0, place)

    for content in (whole[: len(whole) // 2], b"", b"no checkpoint",
                    pickle.dumps(Hostile(touched), protocol=2)):
        last.write_bytes(content)
        refuse(r"last\.ckpt is damaged, or no checkpoint .* Remove it: its phase begins anew")
    for content in ({"state_dict": {"a": Hostile(touched)}}, good | {"hostile": Hostile(touched)},
                    [1, 2], {"state_dict": {"a": 1}}, {"state_dict": good["state_dict"]}):
        torch.save(content, last)
        refuse(r"last\.ckpt is damaged, or no checkpoint")
    assert not touched.exists()
    for recipe, classes in ((plan.recipe.change(backbone="test_resnet"), 3), (plan.recipe, 5)):
        state = create_classifier(recipe, classes).state_dict()
        torch.save(good | {"state_dict": {f"network.{name}": tensor
                                          for name, tensor in state.items()}}, last)
        refuse(r"last\.ckpt is of another architecture or of other classes")
    last.write_bytes(whole)
    answers, *_ = train_fold(own, 0, place)
    assert np.isfinite(answers).all()
    for content in (b"", whole[:-100]):  # as for the weights of a finished phase
        (place / "phase_0.pt").write_bytes(content)
        refuse(r"phase_0\.pt is damaged")


def test_networks_that_do_not_fit_are_refused(plan, trained, tmp_path):
    path = tmp_path / "fold_00.safetensors"
    description = describe_classifier(plan.recipe, plan.measured, plan.classes)
    save_network(load_fold(trained, 0), description, path)
    whole = path.read_bytes()
    load_network(path, plan.recipe, description)
    for content in (whole[:-10], whole[:5], b""):
        path.write_bytes(content)
        with pytest.raises(SuiteError, match=r"fold_00\.safetensors is damaged"):
            load_network(path, plan.recipe, description)
    path.write_bytes(whole)
    for wanted, match in (({"classes": ["a", "b", "c"]}, r"classes .*glass.* \(now "),
                          ({"backbone": "test_resnet"}, "backbone test_efficientnet")):
        with pytest.raises(SuiteError, match=f"is another one than is wanted: {match}"):
            load_network(path, plan.recipe, description | wanted)
    with pytest.raises(SuiteError, match="does not fit test_resnet"):
        load_network(path, plan.recipe.change(backbone="test_resnet"), description)


def test_a_loss_that_is_no_number_ends_the_phase_and_keeps_the_epoch(plan, tmp_path, monkeypatch):
    huge = plan.change(learning_rate=1e6, clip=0.0, unfreeze=[1.0], optimizer="sgd",
                       schedule="constant", epochs=5)
    with pytest.raises(SuiteError, match=r"no number any more, at step \d+ \(epoch \d\).*Lower "
                                         "`learning_rate`"):
        train_fold(huge, 0, tmp_path / "huge")
    measure, own, steps = Loss.measure, plan.change(epochs=3), count()
    part = len(create_phase(own, begin_network(own, 0), 0, 0)[1].train_dataloader())
    for step in (part + 1, 2 * part - 1):  # the last one of an epoch, too
        steps, place = count(), tmp_path / str(step)
        monkeypatch.setattr(Loss, "measure", lambda self, logits, targets, step=step,
                            steps=steps: measure(self, logits, targets) * (
                                float("nan") if next(steps) >= step else 1))
        with pytest.raises(SuiteError, match=r"at step \d \(epoch 2\).*last finished epoch is"):
            train_fold(own, 0, place)
        monkeypatch.setattr(Loss, "measure", measure)
        kept = torch.load(place / "phase_0" / "last.ckpt", weights_only=True)
        assert kept["epoch"] == 0
        assert all(tensor.isfinite().all() for tensor in kept["state_dict"].values())
        found, _, log = train_fold(own, 0, place)
        whole, _, _ = train_fold(own, 0, tmp_path / f"whole-{step}")
        assert np.array_equal(found, whole) and len(log) == 3


@pytest.mark.parametrize(("settings", "match"), [
    ({"schedule": "cosin"}, r"schedule cannot be 'cosin' \(did you mean 'cosine'\?\)"),
    ({"optimizer": "adam"}, r"optimizer cannot be 'adam' \(did you mean 'adamw'\?\)"),
    ({"loss": "crossentropy"}, r"loss cannot be 'crossentropy' \(did you mean 'cross_entropy'"),
    ({"patience": 2}, "patience cannot be 2: it needs `keep_epoch: best`"),
    ({"epochs": 1, "unfreeze": [0, 1]}, "1 epochs are too few for 2 phases"),
    ({"hard_examples": 2, "mixup": 0.2}, "cannot go with `mixup`"),
])
def test_settings_that_mean_nothing_are_refused(recipe, settings, match):
    with pytest.raises(SuiteError, match=match):
        load_recipe(recipe, settings)


def test_texts_are_refused_before_anything_is_trained(begin):
    run = begin(inputs="text", text_columns=["sha256"])
    with pytest.raises(SuiteError, match=r"`inputs: text` is for heads .* set `inputs: photo`"):
        train_run(run)
    assert not run.path("head").exists()


def test_batches_that_are_too_small_are_refused(plan, monkeypatch, tmp_path):
    own = plan.change(train_batch=1, unfreeze=[1.0])
    with pytest.raises(SuiteError, match=r"`train_batch: 1` .* BatchNorm cannot be trained"):
        create_phase(own, begin_network(own, 0), 0, 0)
    alone = plan.change(train_batch=1, unfreeze=[0.0], epochs=1)
    assert len(train_fold(alone, 0, tmp_path)[2]) == 1
    monkeypatch.setenv("WORLD_SIZE", "40")
    with pytest.raises(SuiteError, match="too few for 40 processes: start fewer"):
        create_phase(alone, begin_network(alone, 0), 0, 0)


@pytest.mark.parametrize("call", [1, 9])
def test_memory_that_runs_out_is_explained(plan, monkeypatch, tmp_path, call):
    """While the steps are tried, and later."""
    calls, measure = count(1), Loss.measure

    def measure_or_fail(*given):
        if next(calls) >= call:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return measure(*given)

    monkeypatch.setattr(Loss, "measure", measure_or_fail)
    with pytest.raises(SuiteError, match=r"memory ran out .* Lower `train_batch` \(now 8\)"):
        cross_validate_networks(plan, tmp_path / "models", forecast=True)


def test_a_budget_cuts_the_epochs(begin, capsys):
    run = begin(minutes=1e-6, epochs=50, unfreeze=[0.0, 0.3])
    train_run(run)
    assert "`minutes: 1e-06`: 2 epochs in place of 50" in capsys.readouterr().out
    assert list(run.load_table("training_log").epoch) == [0] * 6
    before = times(run)
    train_run(run)
    assert times(run) == before


# ---- teachers


def test_a_student_learns_from_models_that_never_saw_its_images(begin, trained):
    teacher = begin(strategy="frozen", backbone="test_resnet")
    prepare_run(teacher)
    extract_run(teacher)
    train_run(teacher)
    open_run(teacher.options[1], {"run": teacher.folder.name})
    found = [chances(trained)]
    for name in (teacher.folder.name, trained.folder.name):
        student = begin(teacher=name, epochs=1)
        train_run(student)
        found.append(chances(student))
    assert not np.allclose(found[0], found[1]) and not np.allclose(found[0], found[2])
    assert not np.allclose(found[1], found[2])
    # The teacher of a fold is the network that answered for this fold.
    own = finetuning.load_teacher(finetuning.open_teacher(trained.folder.name),
                                  select_rows(trained.load_table(), "train"),
                                  list(load_json(trained.need("label_mapping"))),
                                  finetuning.answer_training_images)
    rows = select_rows(trained.load_table(), "train").fold.to_numpy()
    for fold in range(3):
        np.testing.assert_allclose(own(fold)[rows == fold], chances(trained)[rows == fold],
                                   atol=1e-5)


def test_teachers_that_do_not_fit_are_refused(begin, folders, write_recipe, tmp_path):
    def refuse(name, match):
        with pytest.raises(SuiteError, match=match):
            train_run(begin(teacher=name))

    refuse("nobody", r"the teacher .*nobody is no finished run")
    moved = begin(seed=7)
    prepare_run(moved)
    extract_run(moved)
    refuse(moved.folder.name, r"\d+ of 27 images are in another fold of the teacher")
    shutil.copytree(folders, tmp_path / "other")
    (tmp_path / "other" / "paper").rename(tmp_path / "other" / "plastic")
    other = open_run(write_recipe("other-teacher", tmp_path / "other", **QUICK),
                     {"run": "other-teacher"})
    prepare_run(other)
    extract_run(other)
    refuse("other-teacher", "knows other classes: paper, plastic. Train it on the same data")
    untrained = begin()
    refuse(untrained.folder.name, r"is missing: run 04_training first")
    frozen = begin(strategy="frozen")
    prepare_run(frozen)
    extract_run(frozen)
    train_heads(frozen)
    refuse_head = frozen.folder.name
    models, classes = load_models(frozen.need("head"), _describe(frozen))
    with frozen.write("head") as path:
        save_models(models, "logistic", classes, _describe(frozen) | {"backbone": "resnet18"},
                    path)
    refuse(refuse_head, "were fitted on other inputs: backbone resnet18")
    itself = begin(epochs=1)
    train_run(itself)
    before = times(itself)
    with pytest.raises(SuiteError, match="its own teacher"):
        train_run(open_run(itself.options[1], {"run": itself.folder.name, "epochs": 1,
                                               "teacher": itself.folder.name}))
    assert times(itself) == before


def _describe(run):
    from helpers.training.crossvalidation import describe_inputs

    return describe_inputs(run)
