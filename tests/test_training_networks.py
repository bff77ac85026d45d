"""Networks in training: each technique changes what it should, and nothing else."""

import copy
from dataclasses import replace
from itertools import chain, pairwise

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from safetensors.torch import save_file
from sklearn.metrics import log_loss
from torch.nn import functional

from helpers.data.preparation import prepare_run
from helpers.features.extraction import extract_run
from helpers.files import SuiteError
from helpers.network.layers import find_trunk, group_layers, set_training, unfreeze_top
from helpers.run import open_run
from helpers.training import fold as folds
from helpers.training.budget import measure_step
from helpers.training.fold import begin_network, create_phase, train_fold
from helpers.training.loaders import (
    ImageBatches,
    JudgedBatches,
    TrainingBatches,
    choose_augmentations,
)
from helpers.training.losses import Loss, measure_distillation, spread_targets, weigh_hard
from helpers.training.module import MOMENTUM, ClassifierModule
from helpers.training.networks import fit_start
from helpers.training.phases import find_rate, fit_phase
from helpers.training.plan import create_plan

pytestmark = pytest.mark.usefixtures("one_thread")
QUICK = {"strategy": "finetune", "epochs": 2, "train_batch": 8, "folds": 3, "holdout": 0.2,
         "source": "folders", "augmentation": "none"}


@pytest.fixture(scope="module")
def plan(folders, write_recipe, tmp_path_factory):
    """The plan of a run on 36 photos, with features; 01 to 03 are done."""
    weights = tmp_path_factory.mktemp("weights") / "test_efficientnet.safetensors"
    torch.manual_seed(0)
    save_file(timm.create_model("test_efficientnet").state_dict(), weights)
    run = open_run(write_recipe("networks", folders, weights=str(weights), **QUICK))
    prepare_run(run)
    extract_run(run)
    return create_plan(run)


@pytest.fixture
def train(plan, tmp_path):
    """Return a function that trains one phase of fold 0 and returns its module."""

    def train(own=plan, phase=0, network=None, averaging=None, taught=None, **settings):
        own = own.change(**settings)
        network = network or begin_network(own, 0)
        module, data, trunk = create_phase(own, network, 0, phase, taught)
        module.rate = own.settings.learning_rate
        place = tmp_path / f"phase-{len(list(tmp_path.iterdir()))}"
        with trunk.passed() if trunk else folds.contextlib.nullcontext():
            fit_phase(module, data, place, tmp_path, "fold 0",
                      averaging or own.settings.averaging)
        return module

    return train


def state(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


# ---- layers


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_convnext",
                                  "test_vit"])
def test_layers_go_from_the_stem_to_the_classifier(name):
    network = timm.create_model(name, num_classes=4)
    layers = group_layers(network)
    assert sorted(chain.from_iterable(layers)) == sorted(dict(network.named_parameters()))
    assert {name.rpartition(".")[0] for name in layers[-1]} <= {"classifier", "fc", "head",
                                                                "head.fc"}
    assert unfreeze_top(network, 0) == 1
    assert sum(p.requires_grad for p in network.parameters()) == 2
    assert unfreeze_top(network, 1) == len(layers)
    assert all(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_convnext"])
def test_a_trunk_and_what_is_above_it_are_the_network(name):
    network = timm.create_model(name, num_classes=4).eval()
    unfreeze_top(network, 0.4)
    trunk, images = find_trunk(network, (3, 64, 64)), torch.rand(3, 3, 64, 64)
    with torch.no_grad():
        flat = trunk(images)
        with trunk.passed():
            above = network(flat.unflatten(1, trunk.shape))
        assert torch.equal(above, network(images))


def test_a_network_that_is_no_chain_is_not_cut():
    network = timm.create_model("test_vit", num_classes=4)
    unfreeze_top(network, 0.4)
    assert find_trunk(network, (3, 160, 160)) is None
    unfreeze_top(network, 1)
    assert find_trunk(timm.create_model("test_resnet"), (3, 64, 64)) is None


def test_frozen_parts_stay_to_the_bit_with_their_statistics(train, plan):
    for settings in ({}, {"keep_activations": False}, {"weight_decay": 0.5}):
        network = begin_network(plan, 0)
        before = state(network)
        module = train(network=network, unfreeze=[0.4], **settings)
        frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
        moved = {name for name, tensor in state(network).items()
                 if not torch.equal(tensor, before[name])}
        assert frozen and moved and not frozen & moved
        layers = {name.rpartition(".")[0] for name in frozen}
        assert any("running_mean" in name for name in moved)
        assert not [name for name in moved if "running" in name
                    and name.rpartition(".")[0] in layers]
        assert len(module.log_rows) == 2


def test_batch_norm_of_frozen_parts_stays_in_evaluation():
    network = timm.create_model("test_resnet", num_classes=4)
    unfreeze_top(network, 0.4)
    set_training(network)
    modes = {name: module.training for name, module in network.named_modules()
             if isinstance(module, torch.nn.BatchNorm2d)}
    assert not modes["layer1.0.bn1"] and modes["layer4.0.bn1"]


# ---- losses


def test_losses_are_those_of_torch():
    logits, codes = torch.randn(9, 5), torch.randint(0, 5, (9,))
    weights = torch.rand(5) + 0.5

    def mean(loss, targets=codes):
        values, weight = loss.measure(logits, targets), loss.weigh(targets)
        return (values * weight).sum() / weight.sum()

    torch.testing.assert_close(mean(Loss(weights)),
                               functional.cross_entropy(logits, codes, weights))
    torch.testing.assert_close(
        Loss(torch.ones(5), smoothing=0.1).measure(logits, codes),
        functional.cross_entropy(logits, codes, reduction="none", label_smoothing=0.1))
    torch.testing.assert_close(
        mean(Loss(weights)), functional.nll_loss(functional.log_softmax(logits, 1), codes,
                                                 weights))
    torch.testing.assert_close(mean(Loss(weights)),
                               mean(Loss(weights), spread_targets(codes, 5)))
    shares = torch.rand(5).softmax(0)
    torch.testing.assert_close(
        Loss(torch.ones(5), shares.log()).measure(logits, codes),
        -torch.log((shares * logits.exp())[range(9), codes] / (shares * logits.exp()).sum(1)))
    p = logits.softmax(1)[range(9), codes]
    torch.testing.assert_close(Loss(torch.ones(5), focus=2.0).measure(logits, codes),
                               -((1 - p) ** 2) * p.log())


def test_a_loss_goes_where_the_answers_are():
    """Lightning moves modules to a GPU, but no plain tensors; `meta` is such a device."""
    loss = Loss(torch.ones(5), torch.zeros(5), smoothing=0.1)
    logits, codes = torch.empty(3, 5, device="meta"), torch.zeros(3, dtype=int, device="meta")
    shares = torch.empty(3, 5, device="meta")
    for targets in (codes, shares):
        assert loss.measure(logits, targets).device.type == "meta"
        assert loss.weigh(targets).device.type == "meta"


def test_a_trial_of_compiling_compiles_what_it_measures(plan, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda network: compiled.append(network))
    own = plan.change(unfreeze=[1.0])
    module, data, _ = create_phase(own, begin_network(own, 0), 0, 0)
    for wanted in (False, True):
        measure_step(module, data, "none", compiled=wanted)
    assert len(compiled) == 1 and compiled[0] is not module.network


def test_distillation_is_hintons_loss():
    logits, taught = torch.randn(6, 4), torch.randn(6, 4).softmax(1)
    wanted = torch.softmax(taught.log() / 3, 1)
    expected = 9 * functional.kl_div((logits / 3).log_softmax(1), wanted, reduction="none").sum(1)
    torch.testing.assert_close(measure_distillation(logits, taught, 3.0), expected)
    torch.testing.assert_close(measure_distillation(taught.log(), taught, 2.0), torch.zeros(6))


def test_hard_images_weigh_more_up_to_the_cap():
    weights = weigh_hard(np.array([0.1, 0.2, 1.5, 9.0, np.nan]), 3.0)
    assert list(weights[[0, 1, 4]]) == [1, 1, 1] and weights[3] == 3
    assert list(weigh_hard(np.full(3, np.nan), 3.0)) == [1, 1, 1]


def test_mining_raises_the_loss_of_hard_images_only(train, plan):
    module = train(hard_examples=2.0, epochs=1)
    known = ~np.isnan(module.losses)
    assert set(np.flatnonzero(known)) == set(plan.part(0)[0])
    positions = torch.from_numpy(plan.part(0)[0])
    codes = torch.from_numpy(plan.codes[plan.part(0)[0]])
    _, weights, _ = module._aim(codes, positions)
    relative = weights / module.loss.weigh(codes)
    assert relative.max() <= 2 and relative.min() >= 1 and relative.max() > relative.min()
    harder = module.losses[positions] > np.nanmean(module.losses)
    assert (relative[torch.from_numpy(harder)] > 1).all()


def test_a_student_approaches_its_teacher(train, plan):
    rng = np.random.default_rng(0)
    taught = rng.dirichlet(np.ones(3), len(plan.rows)).astype(np.float32)

    def distance(module):
        module.eval()
        images, _, positions = ImageBatches(plan.images, plan.codes)[plan.part(0)[0], 0]
        with torch.no_grad():
            return measure_distillation(module(images), torch.from_numpy(taught)[positions],
                                        1.0).mean().item()

    alone = train(epochs=6, learning_rate=3e-3, keep_activations=False)
    student = train(epochs=6, learning_rate=3e-3, taught=taught, teacher_weight=1.0,
                    teacher_temperature=1.0, keep_activations=False)
    assert distance(student) < 0.8 * distance(alone)


# ---- rates


def rates(train, **settings):
    return [row["learning_rate"] for row in train(**settings).log_rows]


def test_rates_follow_their_schedule(train):
    common = {"learning_rate": 0.01, "layer_decay": 1.0, "unfreeze": [0]}
    assert rates(train, schedule="constant", epochs=3, **common) == [0.01] * 3
    assert rates(train, schedule="step", epochs=3, **common) == pytest.approx([1e-2, 1e-3, 1e-4])
    cosine = rates(train, schedule="cosine", warmup=0.0, epochs=4, **common)
    assert cosine == pytest.approx([0.01 * (1 + np.cos(np.pi * t / 4)) / 2 for t in range(4)])
    warm = rates(train, schedule="cosine", warmup=0.5, epochs=4, **common)
    assert warm[0] < warm[1] < warm[2] == pytest.approx(0.01) and warm[3] < warm[2]


def test_a_plateau_lowers_the_rate_when_the_loss_stays(train):
    found = rates(train, schedule="plateau", epochs=8, learning_rate=1e-6, dropout=0.0,
                  unfreeze=[0], keep_epoch="best")
    assert found[0] == 1e-6 and found[-1] < found[0]
    assert {round(later / earlier, 6) for earlier, later in pairwise(found)} == {1.0, 0.3}


def test_lower_layers_have_lower_rates(plan):
    own = plan.change(layer_decay=0.5, learning_rate=1.0, schedule="constant")
    network = begin_network(own, 0)
    module, _, _ = create_phase(own.change(unfreeze=[1.0], layer_decay=0.5, schedule="constant"),
                                network, 0, 0)
    module.rate = 1.0
    found = {}
    for group in module.configure_optimizers().param_groups:
        for parameter in group["params"]:
            found[id(parameter)] = group["lr"]
    by_name = {name: found[id(p)] for name, p in network.named_parameters()}
    assert by_name["classifier.weight"] == 1.0
    assert by_name["conv_stem.weight"] < by_name["blocks.3.0.conv_pw.weight"] < 1
    assert set(np.round(np.log2(list(by_name.values())), 6) % 1) == {0.0}


def test_the_finder_leaves_the_network_as_it_was(plan, tmp_path):
    own = plan.change(learning_rate=None, schedule="constant", unfreeze=[1.0])
    network = begin_network(own, 0)
    before = state(network)
    module, data, _ = create_phase(own, network, 0, 0)
    assert 1e-6 < find_rate(module, data, tmp_path) < 1e-1
    assert all(torch.equal(tensor, before[name]) for name, tensor in state(network).items())


@pytest.mark.parametrize("precision", ["none", "bf16"])
def test_gradients_are_clipped(train, plan, precision):
    """With fused steps, too, which Lightning's own clipping refuses in bf16."""
    options = {"mixed_precision": precision, "weight_decay": 0.0, "schedule": "constant",
               "unfreeze": [0], "dropout": 0.0}
    start = state(begin_network(plan, 0))["classifier.weight"]
    adam = state(train(**options).network)["classifier.weight"]
    assert torch.isfinite(adam).all() and not torch.equal(adam, start)
    module = train(**options, optimizer="sgd", learning_rate=0.1, clip=1e-4)
    moved = state(module.network)["classifier.weight"] - start
    steps = module.epochs * module.steps
    assert 0 < moved.norm() <= 0.1 * 1e-4 * steps / (1 - MOMENTUM)


# ---- averages, mixing, sampling, augmentation


def test_swa_is_the_mean_of_the_last_epochs(train, plan):
    kept = []

    class Watched(ClassifierModule):
        def on_train_epoch_end(self):
            super().on_train_epoch_end()
            kept.append(state(self.network))

    real, folds.ClassifierModule = folds.ClassifierModule, Watched
    try:
        module = train(averaging="swa", epochs=4, learning_rate=0.01, schedule="constant")
    finally:
        folds.ClassifierModule = real
    for name, tensor in state(module.network).items():
        mean = torch.stack([epoch[name].float() for epoch in kept[2:]]).mean(0)
        torch.testing.assert_close(tensor.float(), mean.to(tensor.dtype).float(), rtol=1e-5,
                                   atol=1e-6)


@pytest.mark.parametrize("averaging", ["none", "swa", "ema"])
def test_the_last_score_in_the_log_is_that_of_the_answers(plan, tmp_path, averaging):
    own = replace(plan.change(averaging=averaging, learning_rate=0.01, accumulate=2, epochs=4),
                  watched=True)
    answers, _, log = train_fold(own, 0, tmp_path)
    _, _, judged = own.part(0)
    truth = own.codes[judged]
    found = log_loss(truth, answers[: len(judged)], labels=range(3))
    assert log[-1]["log_loss"] == pytest.approx(found, rel=1e-4)


def test_ema_lies_between_the_start_and_the_end(train, plan):
    options = {"learning_rate": 0.01, "schedule": "constant", "epochs": 2, "unfreeze": [0]}
    start, plain = begin_network(plan, 0), train(**options).network
    averaged = train(averaging="ema", ema_decay=0.5, **options).network
    names = ["classifier.weight"]
    for name in names:
        a, b, c = (dict(n.named_parameters())[name] for n in (start, averaged, plain))
        assert 0 < (b - c).norm() < (a - c).norm()


@pytest.mark.parametrize("settings", [{"mixup": 0.4}, {"cutmix": 1.0},
                                      {"mixup": 0.2, "cutmix": 1.0}])
def test_mixed_targets_add_up_to_one(plan, settings):
    own = plan.change(**settings, epochs=4, mix_until=0.5)
    module, data, _ = create_phase(own, begin_network(own, 0), 0, 0,
                                   np.full((len(plan.rows), 3), 1 / 3, np.float32))
    inputs, codes, positions = next(iter(data.train_dataloader()))
    module.trainer = type("Trainer", (), {"current_epoch": 0})()
    assert module.mixes
    targets, weights, taught = module._aim(codes, positions)
    images, targets, weights, taught = module._mix(inputs, targets, weights, taught)
    torch.testing.assert_close(targets.sum(1), torch.ones(len(codes)))
    torch.testing.assert_close(taught.sum(1), torch.ones(len(codes)))
    assert images.shape == (8, 3, 32, 32) and not torch.equal(images, module.normalise(inputs))
    module.trainer.current_epoch = 2
    assert not module.mixes


def test_batches_follow_from_seed_and_epoch_alone():
    positions = np.arange(100, 129)
    batches = TrainingBatches(positions, 8, seed=1)

    def draw(epoch):
        batches.set_epoch(epoch)
        return [part for part, _ in batches]

    assert sorted(np.concatenate(draw(0))) == list(positions) and len(batches) == 4
    assert not np.array_equal(np.concatenate(draw(0)), np.concatenate(draw(1)))
    assert all(map(np.array_equal, draw(1), draw(1)))
    codes = np.repeat([0, 1], [25, 4])
    balanced = TrainingBatches(positions, 29, 1, codes)
    drawn = np.concatenate([codes[part[0] - 100] for balanced.epoch in range(40)
                            for part in balanced])
    assert 0.4 < drawn.mean() < 0.6


def test_processes_share_each_batch_and_judge_whole_ones(monkeypatch):
    positions, found, judged = np.arange(101), [], []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        found.append([part for part, _ in TrainingBatches(positions, 32, 5)])
        judged += [part for part, _ in JudgedBatches(positions, 16)]
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    whole = [part for part, _ in TrainingBatches(positions, 32, 5)]
    for part, one, other in zip(whole, *found, strict=True):
        assert set(part) == set(one) | set(other) and abs(len(one) - len(other)) <= 1
    assert sorted(np.concatenate(judged)) == list(positions)
    assert {tuple(part) for part in judged} == {
        tuple(part) for part, _ in JudgedBatches(positions, 16)}
    monkeypatch.setenv("WORLD_SIZE", "40")
    with pytest.raises(SuiteError, match="too few for 40 processes"):
        TrainingBatches(positions, 32, 5)


def test_augmentation_depends_on_the_image_and_the_epoch_not_on_the_order(plan):
    levels = choose_augmentations(plan.rows, "HEAVY", (3000, 1500))
    first = ImageBatches(plan.images, plan.codes, levels, seed=3)
    second = ImageBatches(plan.images, plan.codes, levels, seed=3)
    one, _, _ = first[np.array([4, 9, 2]), 1]
    second[np.array([7, 7, 7]), 0]
    other, _, _ = second[np.array([2, 4]), 1]
    assert torch.equal(one[2], other[0]) and torch.equal(one[0], other[1])
    later, _, _ = first[np.array([4, 9, 2]), 2]
    plain, _, _ = ImageBatches(plan.images, plan.codes)[np.array([4, 9, 2]), 1]
    assert not torch.equal(one, later) and not torch.equal(one, plain)


def test_levels_follow_class_sizes():
    rows = pd.DataFrame({"label": ["a"] * 40 + ["b"] * 20 + ["c"] * 5, "split": "train"})
    levels = pd.Series(choose_augmentations(rows, "by_class_size", (30, 10)))
    assert levels.groupby(rows.label).unique().map(list).to_dict() == {
        "a": ["LIGHT"], "b": ["MEDIUM"], "c": ["HEAVY"]}
    assert set(choose_augmentations(rows, "colour", (30, 10))) == {"colour"}
    assert choose_augmentations(rows, "none", (30, 10)) is None


def test_nothing_but_training_images_is_augmented(plan):
    own = plan.change(augmentation="HEAVY", keep_epoch="best")
    own.__dict__.pop("levels", None)
    _, data, _ = create_phase(own, begin_network(own, 0), 0, 0)
    for loader in (data.val_dataloader(), data.test_dataloader(), data.predict_dataloader()):
        for images, _, positions in loader:
            assert np.array_equal(images, plan.images.read(positions.numpy()))
    images, codes, positions = next(iter(data.train_dataloader()))
    assert not np.array_equal(images, plan.images.read(positions.numpy()))
    assert np.array_equal(codes, plan.codes[positions])
    part, inner, judged = plan.part(0)
    assert not set(data.learnt) & {*inner, *judged} and set(inner) <= set(part)
    assert set(data.asked) == set(range(len(plan.rows), len(plan.codes)))


# ---- where a classifier begins


def test_a_classifier_begins_as_the_logistic_regression(plan):
    network = begin_network(plan, 0).eval()
    part, inner, judged = plan.part(0)
    arrays = fit_start(plan.recipe, plan.features, plan.codes, part, inner, 3)
    images, _, _ = ImageBatches(plan.images, plan.codes)[judged, 0]
    module, _, _ = create_phase(plan, network, 0, 0)
    module.shape = None
    with torch.no_grad():
        found = module(images).softmax(1).numpy()
    logits = plan.features[judged] @ arrays["weights"] + arrays["biases"]
    expected = torch.from_numpy(logits).float().softmax(1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-3)
    best = plan.change(keep_epoch="best")
    without = fit_start(best.recipe, best.features, best.codes, part, inner, 3)
    changed = best.features.copy()
    changed[inner] += 5  # what is left out changes nothing but the choice of C
    again = fit_start(best.recipe.change(c_grid=[1.0]), changed, best.codes, part, inner, 3)
    one = fit_start(best.recipe.change(c_grid=[1.0]), best.features, best.codes, part, inner, 3)
    np.testing.assert_allclose(again["weights"], one["weights"], atol=1e-6)
    assert not np.allclose(without["weights"], arrays["weights"])


def test_a_classifier_on_random_layers_begins_at_random_too(plan):
    assert plan.settings.head_start == "logistic"
    assert plan.change(weights="random").settings.head_start == "new"
    scratch = plan.change(strategy="scratch", unfreeze=[0.5]).settings
    assert (scratch.head_start, scratch.unfreeze) == ("new", [1.0])


def test_dropout_comes_before_the_classifier(plan):
    own = plan.change(dropout=0.5)
    network = begin_network(own, 0)
    images = torch.rand(4, 3, 32, 32)
    unfreeze_top(network, 0)
    set_training(network)
    with torch.no_grad():
        assert not torch.equal(network(images), network(images))
        network.eval()
        assert torch.equal(network(images), network(images))
    for name in ("test_resnet", "test_convnext", "test_vit", "xception41"):
        recipe = own.recipe.change(backbone=name, image_size=None, weights="random")
        other = copy.copy(own)
        object.__setattr__(other, "recipe", recipe.change(head_start="new"))
        network = begin_network(other, 0)
        size = network.pretrained_cfg["input_size"]
        network.train()
        for module in network.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.eval()
        with torch.no_grad():
            images = torch.rand(2, *size)
            assert not torch.equal(network(images), network(images)), name
