"""Module: one phase of a network's training as Lightning sees it: steps, rates, and a log.

Everything random follows from the seed and the epoch, so that a phase continued after its last
finished epoch ends as if nothing had happened.
"""

import contextlib
import time

import numpy as np
import torch
from lightning.pytorch import LightningModule
from sklearn.metrics import accuracy_score, f1_score, log_loss
from timm.optim import param_groups_layer_decay
from torch.optim import lr_scheduler
from torchvision.transforms import v2

from helpers.files import SuiteError
from helpers.finetune_settings import FinetuneSettings
from helpers.network.layers import set_training
from helpers.network.preprocessing import create_normalisation
from helpers.processes import gather, rank, world
from helpers.training.loaders import create_seed
from helpers.training.losses import Loss, measure_distillation, spread_targets, weigh_hard

MOMENTUM = 0.9  # SGD's
FALLS = 3  # a step schedule's, in a phase
PLATEAU_FACTOR, PLATEAU_PATIENCE = 0.3, 1
SMALLEST = 1e-7  # of a probability whose logarithm is taken


class ClassifierModule(LightningModule):
    """A network and how it learns in one phase.

    Args:
        network: gives logits; what is frozen has no gradients.
        data_config: of its images, which come as (batch, H, W, 3) uint8.
        loss: of its answers.
        settings: the recipe's `finetune`.
        rate: the highest learning rate of this phase.
        epochs, steps: of the phase, and of an epoch.
        seed: of this fold and phase.
        taught: (images, classes) probabilities of a teacher.
        images: how many there are, for the losses of hard ones.
        trunk: has computed what frozen layers make of an image; batches are activations then.
    """

    def __init__(self, network, data_config: dict, loss: Loss, settings: FinetuneSettings,
                 rate: float, epochs: int, steps: int, seed: int = 0,
                 taught: np.ndarray | None = None, images: int = 0, trunk=None):
        super().__init__()
        self.network, self.loss, self.settings = network, loss, settings
        self.rate, self.epochs, self.steps, self.seed = rate, epochs, steps, seed
        self.normalise, self.shape = create_normalisation(data_config), trunk and trunk.shape
        self.taught = None if taught is None else torch.from_numpy(taught)
        self.losses = np.full(images, np.nan)  # of each image, when it was last learnt from
        self.log_rows, self.plateau = [], None
        self._answers, self._judged, self._last = [], {}, None

    def forward(self, inputs):
        """Return the logits of pixels, (batch, H, W, 3) uint8, or of activations."""
        return self.network(self.prepare(inputs)).float()

    def prepare(self, inputs):
        """Return what the network takes of a batch, in the order of bytes that it likes."""
        if self.shape:
            images = inputs.unflatten(1, self.shape) if inputs.ndim == 2 else inputs
        else:
            images = self.normalise(inputs) if inputs.dtype == torch.uint8 else inputs
        if images.ndim != 4:
            return images
        return images.contiguous(memory_format=torch.channels_last)

    def train(self, mode: bool = True):
        """Change the mode; frozen parts stay in that of evaluation."""
        super().train(mode)
        if mode:
            set_training(self.network)
        return self

    # ---- a step

    def training_step(self, batch, number: int):
        """Return the batch's loss: a mean over the images of all processes."""
        self._require_number(self._last)
        inputs, codes, positions = batch
        targets, weights, taught = self._aim(codes, positions)
        if self.mixes:
            inputs, targets, weights, taught = self._mix(inputs, targets, weights, taught)
        logits = self(inputs)
        losses = self.loss.measure(logits, targets)
        self._answers.append((positions.cpu().numpy(), losses.detach()))
        if taught is not None:
            share = self.settings.teacher_weight
            losses = (1 - share) * losses + share * measure_distillation(
                logits, taught, self.settings.teacher_temperature)
        total = weights.sum()
        if world() > 1 and torch.distributed.is_initialized():
            total = total.clone()
            torch.distributed.all_reduce(total)
            total = total / world()  # gradients are averaged over processes
        loss = (weights * losses).sum() / total
        self._last = loss.detach()
        return loss

    def _aim(self, codes, positions):
        """Return targets, the weight of each image, and the teacher's answers if there are."""
        weights = self.loss.weigh(codes)
        if self.settings.hard_examples > 1:
            hard = weigh_hard(self.losses, self.settings.hard_examples)
            weights = weights * torch.from_numpy(hard[positions.cpu().numpy()]).to(weights)
        taught = None if self.taught is None else self.taught[positions.cpu()].to(weights)
        return codes, weights, taught

    @property
    def mixes(self) -> bool:
        """Whether images are mixed in this epoch."""
        wanted = self.settings.mixup or self.settings.cutmix
        return bool(wanted) and self.current_epoch < self.settings.mix_until * self.epochs

    def _mix(self, inputs, codes, weights, taught):
        """Mix images, and all that belongs to them in the same shares (torchvision)."""
        classes = len(self.loss.weights)
        ways = [way(alpha=alpha) for way, alpha in ((v2.MixUp, self.settings.mixup),
                                                    (v2.CutMix, self.settings.cutmix)) if alpha]
        belongs = [spread_targets(codes, classes), weights[:, None]]
        belongs += [] if taught is None else [taught]
        inputs, mixed = v2.RandomChoice(ways)(self.normalise(inputs), torch.cat(belongs, dim=1))
        return (inputs, mixed[:, :classes], mixed[:, classes],
                None if taught is None else mixed[:, classes + 1 :])

    def _require_number(self, loss) -> None:
        if loss is not None and not torch.isfinite(loss):
            raise SuiteError(f"the loss is no number any more, at step {self.global_step} (epoch "
                             f"{self.current_epoch + 1}). The last finished epoch is kept. Lower "
                             "`learning_rate`, set `mixed_precision: none`, or look at `clip`; "
                             "then run again.")

    # ---- an epoch

    def on_train_epoch_start(self):
        """Begin everything random anew, from the seed and the epoch."""
        torch.manual_seed(create_seed(self.seed, self.current_epoch, rank()))
        self._answers, self._judged, self._last = [], {}, None
        self._started, self._rate = time.perf_counter(), self.optimizers().param_groups[-1]["lr"]

    def on_train_epoch_end(self):
        """Note the epoch in the log, and let the rate fall if it waits for the losses."""
        self._require_number(self._last)
        rows, losses = join_answers(self._answers)
        self.losses[rows] = losses
        seconds = time.perf_counter() - self._started
        self.log_rows.append({
            "epoch": self.current_epoch, "learning_rate": self._rate,
            "train_loss": float(losses.mean()), **self._judged,
            "seconds": round(seconds, 3), "images_per_second": round(len(losses) / seconds, 1)})
        if self.plateau:
            chosen = self._judged if self.settings.keep_epoch == "best" else {}
            self.plateau.step(chosen.get("log_loss", float(losses.mean())))

    def validation_step(self, batch, number: int):
        """Answer a batch of the inner fold, or of the fold that was left out."""
        inputs, codes, positions = batch
        chances = torch.softmax(self(inputs), dim=1)
        self._judged.setdefault("answers", []).append(
            (positions.cpu().numpy(), torch.cat([chances, codes[:, None].to(chances)], dim=1)))

    def on_validation_epoch_end(self):
        """Score the answers of all processes, each image once."""
        _, found = join_answers(self._judged.pop("answers"))
        chances, codes = found[:, :-1], found[:, -1].astype(int)
        answers = chances.argmax(axis=1)
        self._judged = {
            "log_loss": log_loss(codes, chances.clip(SMALLEST, 1),
                                 labels=range(chances.shape[1])) if np.isfinite(
                                     chances).all() else float("inf"),
            "macro_F1": f1_score(codes, answers, average="macro", zero_division=0),
            "accuracy": accuracy_score(codes, answers)}
        self.log_dict(self._judged)

    test_step, on_test_epoch_end = validation_step, on_validation_epoch_end

    # ---- the rate

    def configure_optimizers(self):
        """Make the optimiser, a rate for each layer, and what lets the rates fall."""
        keep = getattr(self.network, "no_weight_decay", set)()
        groups = param_groups_layer_decay(self.network, self.settings.weight_decay, keep,
                                          layer_decay=self.settings.layer_decay)
        for group in groups:
            group["lr"] = self.rate * group.pop("lr_scale")
        if self.settings.optimizer == "sgd":
            optimizer = torch.optim.SGD(groups, self.rate, MOMENTUM, nesterov=True)
        else:
            # Fused steps unscale the gradients of fp16 themselves, too late to be clipped.
            fused = self.settings.mixed_precision != "fp16"
            optimizer = torch.optim.AdamW(groups, self.rate, fused=fused or None)
        schedule = self._create_schedule(optimizer)
        return optimizer if schedule is None else {
            "optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None,
                                    gradient_clip_algorithm=None):
        """Clip the norm; Lightning would refuse fused steps in bf16, where nothing is scaled."""
        if gradient_clip_val:
            every = [weights for group in optimizer.param_groups for weights in group["params"]]
            torch.nn.utils.clip_grad_norm_(every, gradient_clip_val)

    def _create_schedule(self, optimizer):
        steps = self.epochs * self.steps
        if self.settings.schedule == "plateau":
            self.plateau = lr_scheduler.ReduceLROnPlateau(
                optimizer, factor=PLATEAU_FACTOR, patience=PLATEAU_PATIENCE)
        if self.settings.schedule == "step":
            return lr_scheduler.StepLR(optimizer, max(1, -(-steps // FALLS)))
        if self.settings.schedule == "cosine":
            rising = round(self.settings.warmup * steps)
            falling = lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps - rising))
            if not rising:
                return falling
            warmup = lr_scheduler.LinearLR(optimizer, 1 / (rising + 1), total_iters=rising)
            return lr_scheduler.SequentialLR(optimizer, [warmup, falling], [rising])
        return None

    # ---- checkpoints: Lightning's own, and what it does not know of

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Add the log, the images' losses and the plateau's memory."""
        checkpoint["suite"] = {"log": self.log_rows, "losses": torch.from_numpy(self.losses),
                               "plateau": self.plateau and self.plateau.state_dict()}

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Take them back."""
        kept = checkpoint["suite"]
        self.log_rows, self.losses = list(kept["log"]), kept["losses"].numpy()
        if self.plateau:  # made before checkpoints are read
            self.plateau.load_state_dict(kept["plateau"])


def join_answers(parts: list[tuple]) -> tuple[np.ndarray, np.ndarray]:
    """Gather what all processes have found of images, in the order of positions, each once.

    Args:
        parts: pairs of positions and values, this process's.

    Returns:
        The positions and their values.
    """
    positions = [np.concatenate([part for part, _ in parts])] if parts else []
    values = [torch.cat([value for _, value in parts]).float().cpu().numpy()] if parts else []
    found = [part for part in gather((positions, values)) if part[0]]
    rows = np.concatenate([part[0][0] for part in found])
    every = np.concatenate([part[1][0] for part in found])
    places, first = np.unique(rows, return_index=True)
    return places, every[first]


@contextlib.contextmanager
def explain_failures(settings: FinetuneSettings):
    """Turn what a training can die of into sentences on what to do.

    Raises:
        SuiteError: the memory ran out, or another process has gone.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in text:
            raise SuiteError(
                "memory ran out while training. Lower `train_batch` (now "
                f"{settings.train_batch}) and raise `accumulate` (now {settings.accumulate}) by "
                "the same factor, set `checkpointing: true`, or lower `image_size`; then run "
                "again: what is finished is kept.") from error
        if world() > 1 and any(word in text for word in ("Connection", "connection", "NCCL",
                                                         "gloo", "Gloo", "peer", "Broken pipe")):
            raise SuiteError("another process of this job has gone; its message says why. The "
                             "same command continues.") from error
        raise
