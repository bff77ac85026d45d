"""Phases: Lightning's trainer for one phase of one fold, with checkpoints that can be trusted."""

import copy
import logging
import os
import warnings
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    EMAWeightAveraging,
    ModelCheckpoint,
    WeightAveraging,
)
from lightning.pytorch.plugins import TorchCheckpointIO
from lightning.pytorch.tuner import Tuner
from torch.optim.swa_utils import get_swa_avg_fn
from tqdm import tqdm

from helpers.colab import copy_part
from helpers.files import SuiteError, show_path, write_whole
from helpers.finetune_settings import FinetuneSettings
from helpers.processes import gather, rank, world
from helpers.training.loaders import ImageData
from helpers.training.module import ClassifierModule, explain_failures

MONITORED = "log_loss"
EVERY_EPOCH = {"save_on_train_epoch_end": True, "enable_version_counter": False}
RATES, TRIALS = (1e-6, 1e-1), 60  # that the finder looks at, and its steps
AVERAGED_FROM = 0.5  # of a phase's epochs, by SWA
PRECISIONS = {"none": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}

# What Lightning says of its own choices would bury what the suite says.
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module=r"lightning\.")


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints are renamed when they are whole, and copied to Drive if one is set."""

    def __init__(self, run_folder: Path):
        super().__init__()
        self.run_folder = run_folder

    def save_checkpoint(self, checkpoint, path, storage_options=None) -> None:
        """Write one checkpoint whole."""
        with write_whole(path) as temporary:
            torch.save(checkpoint, temporary)
        copy_part(Path(path), self.run_folder)


class EpochAveraging(WeightAveraging):
    """Stochastic weight averaging: the mean of the weights after each of the last epochs.

    It takes an epoch in after its last step: at the epoch's end it has been judged already.

    Args:
        first: the first epoch that is averaged.
        steps: of an epoch.
    """

    def __init__(self, first: int, steps: int):
        # Not torch's own choice: on a GPU it cannot average whole numbers, such as BatchNorm's.
        super().__init__(avg_fn=get_swa_avg_fn())
        self.first, self.steps = first, steps

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Return whether the weights of now are to be averaged."""
        if step_idx is None:
            return False
        epoch, step = divmod(step_idx, self.steps)
        return epoch >= self.first and step == self.steps - 1

    def on_validation_epoch_start(self, trainer, pl_module) -> None:
        """Judge the average, once there is one."""
        if self._average_model is not None and self._average_model.n_averaged > 0:
            super().on_validation_epoch_start(trainer, pl_module)
            self._swapped = True

    def on_validation_epoch_end(self, trainer, pl_module) -> None:
        """Go on with the weights of now."""
        if getattr(self, "_swapped", False):
            super().on_validation_epoch_end(trainer, pl_module)
            self._swapped = False

    def on_train_end(self, trainer, pl_module) -> None:
        """Leave the average, unless the phase ended before there was one."""
        if self._average_model.n_averaged > 0:
            super().on_train_end(trainer, pl_module)


class PlainProgress(Callback):
    """One bar for the phase, in plain text: saved notebooks hold no widgets."""

    def __init__(self, title: str, total: int, quiet: bool):
        self.title, self.total, self.quiet, self.bar = title, total, quiet, None

    def on_train_start(self, trainer, pl_module) -> None:
        """Begin at what is done already."""
        self.bar = tqdm(total=self.total, initial=trainer.global_step, desc=self.title,
                        unit="step", mininterval=1, disable=self.quiet or rank() > 0)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        """Count a step."""
        self.bar.update(max(0, trainer.global_step - self.bar.n))

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        """Show the losses."""
        row = pl_module.log_rows[-1] if pl_module.log_rows else {}
        self.bar.set_postfix_str(", ".join(f"{name} {row[name]:.3f}" for name in
                                           ("train_loss", MONITORED) if name in row))

    def teardown(self, trainer, pl_module, stage: str) -> None:
        """End the bar, whatever has ended the phase."""
        if self.bar is not None:
            self.bar.close()


def create_trainer(place: Path, run_folder: Path, settings: FinetuneSettings, epochs: int,
                   callbacks: list[Callback], precision: str, judge: bool) -> Trainer:
    """Return Lightning's trainer for a phase, on one process or on torchrun's many.

    Args:
        place: the folder of the phase's checkpoints.
        precision: `none`, `bf16` or `fp16`.
        judge: whether there is an inner fold to judge epochs on.
    """
    gpu, many = torch.cuda.is_available(), world() > 1
    here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return Trainer(
        accelerator="gpu" if gpu else "cpu", devices=here, num_nodes=world() // here,
        strategy="ddp" if many else "auto", sync_batchnorm=many and gpu,
        use_distributed_sampler=False, precision=PRECISIONS[precision], max_epochs=epochs,
        accumulate_grad_batches=settings.accumulate, gradient_clip_val=settings.clip or None,
        callbacks=callbacks, plugins=[WholeCheckpoints(run_folder)], default_root_dir=place,
        limit_val_batches=1.0 if judge else 0, num_sanity_val_steps=0, logger=False,
        enable_progress_bar=False, enable_model_summary=False)


def choose_precision(settings: FinetuneSettings) -> str:
    """Return `none`, `bf16` or `fp16`; SuiteError if the machine lacks what is asked for."""
    wanted, gpu = settings.mixed_precision, torch.cuda.is_available()
    hardware = gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    if wanted == "auto":
        return "bf16" if hardware else "none"
    if wanted == "fp16" and not gpu:
        raise SuiteError("`mixed_precision: fp16` needs a GPU: set `none`.")
    if wanted == "bf16" and gpu and not hardware:
        raise SuiteError("this GPU does not compute in bf16: set `mixed_precision` to `fp16`.")
    return wanted


def fit_phase(module: ClassifierModule, data: ImageData, place: Path, run_folder: Path,
              title: str, averaging: str, watched: bool = False, quiet: bool = False) -> None:
    """Train one phase, from its last checkpoint if there is one, and leave the module as kept.

    Args:
        place: the folder of its checkpoints; `last.ckpt` there is what it goes on from.
        averaging: `none`, `swa` or `ema`, in this phase.
        watched: as in `Plan`.
        quiet: show no bar.

    Raises:
        SuiteError: a checkpoint that does not fit or is damaged, a loss that is no number, no
            memory left, another process gone.
    """
    settings, judge = module.settings, module.settings.keep_epoch == "best"
    steps = -(-module.steps // settings.accumulate)
    callbacks = [PlainProgress(title, steps * module.epochs, quiet)]
    if judge:
        callbacks.append(ModelCheckpoint(place, "best", monitor=MONITORED, **EVERY_EPOCH))
    # After the best one, whose memory is to be in it; `save_last` would not write every epoch.
    callbacks.append(ModelCheckpoint(place, "last", **EVERY_EPOCH))
    if averaging == "swa":
        callbacks.append(EpochAveraging(int(AVERAGED_FROM * module.epochs), steps))
    if averaging == "ema":
        callbacks.append(EMAWeightAveraging(decay=settings.ema_decay))
    if settings.patience:
        callbacks.append(EarlyStopping(MONITORED, patience=settings.patience,
                                       check_finite=False, check_on_train_epoch_end=True))
    last, best = place / "last.ckpt", place / "best.ckpt"
    if last.exists():
        read_checkpoint(last, module)
    trainer = create_trainer(place, run_folder, settings, module.epochs, callbacks,
                             choose_precision(settings), judge or watched)
    module.train()  # the modes that Lightning finds are those that it trains in
    with explain_failures(settings):
        trainer.fit(module, datamodule=data, ckpt_path=last if last.exists() else None,
                    weights_only=True)
    if judge and averaging != "swa":  # the average of many epochs is better than one of them
        module.load_state_dict(read_checkpoint(best, module)["state_dict"])
    share_statistics(module.network)


def share_statistics(network) -> None:
    """Let all processes have the first one's buffers, as checkpoints do.

    BatchNorm's statistics are of the images that each process itself has seen in the last step.
    """
    own = dict(network.named_buffers())
    first = gather({name: values.cpu() for name, values in own.items()} if rank() == 0 else None)
    with torch.no_grad():
        for name, values in own.items():
            values.copy_(first[0][name])


def load_finished(module: ClassifierModule, place: Path, averaging: str) -> bool:
    """Load what a phase has left that has ended, if it has; it is not trained on.

    It has ended with all its epochs, or early. Without an epoch left Lightning would not call
    what takes an average over, and after an early end it would train one more.
    """
    last, best = place / "last.ckpt", place / "best.ckpt"
    if not last.exists():
        return False
    found = read_checkpoint(last, module)
    waited = max((state.get("wait_count", 0) for state in found["callbacks"].values()), default=0)
    stopped = module.settings.patience and waited >= module.settings.patience
    if found["epoch"] + 1 < module.epochs and not stopped:
        return False
    if module.settings.keep_epoch == "best" and averaging != "swa":
        found["state_dict"] = read_checkpoint(best, module)["state_dict"]
    module.load_state_dict(found["state_dict"])
    module.log_rows = list(found["suite"]["log"])
    return True


def find_rate(module: ClassifierModule, data: ImageData, place: Path) -> float:
    """Return the rate that Lightning's finder suggests (Smith 2015), where losses fall fastest.

    Raises:
        SuiteError: it finds none.
    """
    before = copy.deepcopy(module.network.state_dict())
    trainer = create_trainer(place, place, module.settings, -1, [],
                             choose_precision(module.settings), False)
    module.rate = RATES[0]
    module.train()
    with explain_failures(module.settings):
        finder = Tuner(trainer).lr_find(module, datamodule=data, min_lr=RATES[0],
                                        max_lr=RATES[1], num_training=TRIALS, attr_name="rate")
    module.network.load_state_dict(before)
    rate = gather(finder and finder.suggestion(skip_begin=5, skip_end=5))[0]
    if not rate:
        raise SuiteError("no learning rate could be found: there are too few steps, or the loss "
                         "never falls. Set `learning_rate` to a number, such as 3e-4.")
    print(f"learning rate found: {rate:.2g}")
    return float(rate)


def read_checkpoint(path: Path, module: ClassifierModule) -> dict:
    """Read a checkpoint without running anything that it holds.

    Raises:
        SuiteError: it is damaged, holds more than tensors and plain values, or is of another
            architecture or of other classes.
    """
    found = read_tensors(path, "state_dict", "epoch", "callbacks", "suite")
    stored, own = ({name: tuple(getattr(tensor, "shape", "")) for name, tensor in state.items()}
                   for state in (found["state_dict"], module.state_dict()))
    if stored != own:
        other = next(name for name in {**own, **stored} if own.get(name) != stored.get(name))
        raise SuiteError(
            f"{show_path(path)} is of another architecture or of other classes: {other} has the "
            f"shape {stored.get(other)}, here {own.get(other)}. Remove it, or give the run "
            "another name.")
    return found


def read_tensors(path: Path, *parts: str) -> dict:
    """Read a file of tensors and plain values, of which it must hold some `parts`.

    Raises:
        SuiteError: it is damaged, lacks a part, or holds anything that would have to be run.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        return {part: found[part] for part in parts}
    except Exception as error:  # unpickling stumbles over whatever a damaged file holds
        reason = (str(error).splitlines() or [type(error).__name__])[0][:150]
        raise SuiteError(f"{show_path(path)} is damaged, or no checkpoint of this suite "
                         f"({reason}). Files are read without running code from them. Remove it: "
                         "its phase begins anew.") from error
