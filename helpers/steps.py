"""Steps: the notebooks as a graph. What each reads, which settings it heeds, what it leaves.

Declared here once; staleness (`helpers.run`), the headless runner (`helpers.batch`) and the
README's table read it. A setting matters to a step and to all that reads what the step makes.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Step:
    """One notebook."""

    name: str
    reads: tuple[str, ...]  # artefacts of other steps
    settings: tuple[str, ...]  # sections, or section.setting
    makes: dict[str, str]  # artefact -> file or folder in the run's folder
    by_strategy: dict[str, dict[str, str]] = field(default_factory=dict)  # and, beside those

    def list_files(self, strategy: str) -> dict[str, str]:
        """Return artefact -> file of all that it makes under a strategy."""
        return self.makes | self.by_strategy.get(strategy, {})


NETWORKS = {"networks": "models", "training_log": "training_log.csv"}  # of training them

STEPS = (
    Step("01_eda", reads=(), settings=("data",), makes={
        "images": "images.csv", "inspection": "inspection.csv",
        "near_copies": "near_copies.csv", "quarantine": "quarantine.csv",
        "normalisation": "normalisation.json"}),
    Step("02_preprocessing", reads=("images", "quarantine", "normalisation"),
         settings=("splits", "network"), makes={
             "label_mapping": "label_mapping.json", "class_weights": "class_weights.json",
             "table": "table.csv", "folds": "folds", "checklist": "checklist.json"}),
    Step("03_extraction", reads=("table", "label_mapping", "class_weights"),
         settings=("network", "features"), makes={
             "train_features": "train_features_{backbone}.npy",
             "test_features": "test_features_{backbone}.npy",
             "train_labels": "train_labels.npy", "metadata": "metadata.json"}),
    Step("04_training", reads=("table", "label_mapping", "train_features", "test_features"),
         settings=("network", "head", "finetune", "splits.seed"), makes={
             "head": "head_{backbone}.npz", "oof_probabilities": "oof_probabilities.csv",
             "test_probabilities": "test_probabilities.csv"},
         by_strategy={"finetune": NETWORKS, "scratch": NETWORKS}),
    Step("05_tsne", reads=("table", "train_features", "test_features", "oof_probabilities"),
         settings=("projection", "splits.seed"),
         makes={"tsne": "tsne.csv", "map": "map.html"}),
    Step("06_evaluation", reads=("quarantine", "table", "label_mapping", "metadata",
                                 "oof_probabilities", "test_probabilities"),
         settings=("splits.seed", "evaluation.bootstrap", "evaluation.final",
                   "evaluation.wished_accuracy", "evaluation.leak_price"), makes={
             "metrics": "metrics.json", "fold_scores": "fold_scores.csv",
             "confusion": "confusion_matrix.csv", "classes": "per_class.csv",
             "mistakes": "mistakes.csv", "label_suspects": "label_suspects.csv",
             "shortcuts": "shortcuts.csv", "parts": "accuracy_by_part.csv",
             "calibration": "calibration.json", "predictions": "predictions.csv",
             "report": "report.html", "card": "MODEL_CARD.md"}),
    Step("07_backbones", reads=("table", "label_mapping", "class_weights"),
         settings=("network", "features", "head", "splits.seed", "evaluation.bootstrap",
                   "evaluation.compare", "evaluation.compare_images"),
         makes={"backbones": "backbones.csv"}),
    Step("08_heads", reads=("table", "label_mapping", "train_features"),
         settings=("network", "head", "splits.seed", "evaluation.bootstrap",
                   "evaluation.compare_heads", "evaluation.compare_heads_images"),
         makes={"heads": "heads.csv", "heads_by_class": "heads_by_class.csv"}),
    Step("09_fine_tuning_lab", reads=("table", "label_mapping"),
         settings=("network", "features.precision", "head", "splits.seed",
                   "evaluation.bootstrap", "evaluation.experiments",
                   *(f"evaluation.experiment_{name}" for name in (
                       "seeds", "epochs", "images", "size", "layers", "teacher"))),
         makes={"experiments": "experiments.csv", "experiment_log": "experiment_log.csv"}),
    Step("10_resize_curve", reads=("table", "label_mapping"),
         settings=("network", "features.precision", "head", "finetune", "splits.seed",
                   "evaluation.bootstrap", "evaluation.final", "evaluation.sizes",
                   "evaluation.sizes_finetuned", "evaluation.sizes_images"),
         makes={"sizes": "sizes.csv"}),
    Step("11_serving", reads=("table", "label_mapping", "metadata", "train_features", "head",
                              "networks", "oof_probabilities", "test_probabilities", "metrics",
                              "classes", "calibration", "card"),
         settings=("serving",), makes={"model": "model"}),
)
NOTEBOOKS = tuple(step.name for step in STEPS)
MAIN_LINE = NOTEBOOKS[:6]  # what `make run` runs; the others are asked for by number

# Artefact -> the step that makes it.
MAKERS = {artefact: step for step in STEPS
          for files in (step.makes, *step.by_strategy.values()) for artefact in files}


def describe_steps() -> str:
    """Return a Markdown table of what each notebook reads, heeds and makes."""
    lines = ["| notebook | reads | settings | makes |", "|---|---|---|---|"]
    for step in STEPS:
        files = dict.fromkeys(name for files in (step.makes, *step.by_strategy.values())
                              for name in files.values())
        settings = ", ".join(f"`{part}`" for part in step.settings)
        reads = ", ".join(f"{name}" for name in step.reads)
        lines.append(f"| {step.name} | {reads or 'the data'} | {settings} | "
                     f"{', '.join(f'`{name}`' for name in files)} |")
    return "\n".join(lines).replace("{backbone}", "<backbone>")


if __name__ == "__main__":
    print(describe_steps())
