"""Settings of networks that are trained: every technique is one of them, with its default."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from helpers.section import Section, setting

AUGMENTATIONS = ("none", "by_class_size", "LIGHT", "MEDIUM", "HEAVY",
                 "geometric", "colour", "quality", "advanced")
Share = Annotated[float, Field(ge=0, le=1)]


class FinetuneSettings(Section):
    """How a network is trained (04, with `strategy: finetune` or `scratch`; 09, 10)."""

    epochs: int = setting("Passes over the images that are learnt from, in all phases together.",
                          10, ge=1)
    minutes: float | None = setting(
        "Budget for all folds on this machine: epochs are cut until they fit; null: no limit.",
        None, gt=0)
    unfreeze: list[Share] = setting(
        "A phase for each number: the share of the backbone's layers, from the top, that is "
        "trained; 0 trains the classifier alone, 1 everything. BatchNorm below stays as it is.",
        [0.3], min_length=1)
    phase_decay: float = setting(
        "The learning rate falls by this factor from phase to phase: lower layers know more that "
        "is worth keeping.", 0.3, gt=0, le=1)
    head_start: Literal["logistic", "new"] = setting(
        "The classifier begins as a logistic regression fitted on the frozen features, or at "
        "random. At random its first gradients disturb what the layers below it know.",
        "logistic")
    dropout: float = setting("Share of features that the classifier loses at each step.",
                             0.2, ge=0, lt=1)
    optimizer: Literal["adamw", "sgd"] = setting(
        "AdamW, or SGD with Nesterov momentum, which needs a rate some 30 times as large.",
        "adamw")
    learning_rate: float | None = setting(
        "Of the top layers, at its highest; null: Lightning's finder looks for it in each fold.",
        3e-4, gt=0)
    layer_decay: float = setting(
        "Each layer's learning rate is that of the layer above it times this number; 1: all "
        "the same.", 0.8, gt=0, le=1)
    weight_decay: float = setting("Of the weights; biases and norms have none.", 0.01, ge=0)
    schedule: Literal["constant", "cosine", "step", "plateau"] = setting(
        "How the rate falls within a phase: along a cosine after a warm-up; to a tenth after "
        "each third (`step`, StepLR); to a third when the log loss stops falling (`plateau`, "
        "ReduceLROnPlateau); or not.",
        "cosine")
    warmup: float = setting("Share of a phase's steps in which a cosine's rate rises.",
                            0.1, ge=0, lt=1)
    loss: Literal["cross_entropy", "nll", "focal", "balanced_softmax"] = setting(
        "`nll`, the negative log-likelihood of the log-softmax, is cross-entropy under its other "
        "name; `focal` and `balanced_softmax` are for classes of unequal size.", "cross_entropy")
    weighted_loss: bool = setting("Weigh images by class, as `class_weights` of 04 does.", True)
    sampler: Literal["shuffle", "balanced"] = setting(
        "`shuffle`: every image once an epoch; `balanced`: each class drawn equally often.",
        "shuffle")
    label_smoothing: float = setting("Share of each label that goes to all classes alike.",
                                     0.0, ge=0, lt=1)
    augmentation: Literal[AUGMENTATIONS] = setting(
        "Of training images, never of others: `by_class_size` (see `augmentation_sizes`), a "
        "level, or one group of changes. It pays with many epochs and many trained layers; "
        "without it, frozen layers compute each image only once.", "none")
    mixup: float = setting("Alpha of Mixup: two images blended; 0 for none.", 0.0, ge=0)
    cutmix: float = setting("Alpha of CutMix: a part of one image in another; 0 for none.",
                            0.0, ge=0)
    mix_until: float = setting("Share of the epochs in which images are mixed: the last ones "
                               "are to learn from real ones.", 0.8, gt=0, le=1)
    averaging: Literal["none", "swa", "ema"] = setting(
        "Weights averaged over the epochs of the last phase's second half (SWA), or over its "
        "steps, recent ones more (EMA).", "none")
    ema_decay: float = setting("What an exponential average keeps of itself at each step.",
                               0.98, gt=0, lt=1)
    teacher: str | None = setting(
        "Name of a saved run on the same images and folds; its models' probabilities are "
        "learnt beside the labels (knowledge distillation).", None)
    teacher_weight: float = setting("Share of the loss that the teacher has.", 0.5, gt=0, le=1)
    teacher_temperature: float = setting("How much its probabilities are softened.", 2.0, ge=1)
    hard_examples: float = setting(
        "Hard example mining: an image's loss in the last epoch, over their mean, is its weight, "
        "at least 1 and at most this. 1: none. Keep it low: wrong labels are hard, too.",
        1.0, ge=1)
    keep_epoch: Literal["last", "best"] = setting(
        "`last`: all of the training part is learnt from, and the last epoch's network is kept. "
        "`best`: its inner fold is left out, and the epoch of the lowest log loss there is kept.",
        "last")
    patience: int | None = setting(
        "Early stopping: a phase ends after so many epochs without a lower log loss on the "
        "inner fold (needs `keep_epoch: best`); null: never.", None, ge=1)
    train_batch: int = setting("Images a step, of all processes together.", 32, ge=1)
    accumulate: int = setting("Batches whose gradients make one step, where memory is short.",
                              1, ge=1)
    clip: float = setting("Largest norm of the gradient; 0: no limit.", 1.0, ge=0)
    mixed_precision: Literal["auto", "none", "bf16", "fp16"] = setting(
        "`auto`: bf16 on a GPU that has it in hardware, else float32; a processor's own bf16 is "
        "slower for many networks, so it is used only when named.", "auto")
    checkpointing: bool = setting(
        "Compute activations twice in place of storing them: less memory, a third slower.",
        False, result=False)
    keep_activations: bool = setting(
        "Compute what frozen layers make of an image once, by the engine of extraction, where "
        "nothing is augmented; needs disk space.", True, result=False)
    compile: Literal["auto", "on", "off"] = setting(
        "`torch.compile`; `auto`: on a GPU, where a trial says that it pays within the run.",
        "auto", result=False)
    processes: int | None = setting(
        "Processes on this machine that notebook 04 trains with; null: one for each GPU.",
        None, result=False, ge=1)

    @field_validator("unfreeze")
    @classmethod
    def _require_rising(cls, shares: list[float], others) -> list[float]:
        if shares != sorted(set(shares)):
            raise ValueError("each phase should train more layers than the one before it")
        if others.data.get("epochs", len(shares)) < len(shares):
            raise ValueError(f"{others.data['epochs']} epochs are too few for {len(shares)} "
                             "phases")
        return shares

    @field_validator("hard_examples")
    @classmethod
    def _require_whole_images(cls, most: float, others) -> float:
        if most > 1 and (others.data.get("mixup") or others.data.get("cutmix")):
            raise ValueError("it cannot go with `mixup` or `cutmix`, since the loss of a mixed "
                             "image is that of two")
        return most

    @field_validator("patience")
    @classmethod
    def _require_judge(cls, patience: int | None, others) -> int | None:
        if patience and others.data.get("keep_epoch") == "last":
            raise ValueError("it needs `keep_epoch: best`, which leaves an inner fold to judge")
        return patience
