"""Report and model card of a run: one self-contained HTML page, and one page of Markdown."""

import base64
import mimetypes
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, UndefinedError

from helpers.files import load_json, write_whole
from helpers.pictures.facts import gather_facts
from helpers.run import Run

TEMPLATES = Path(__file__).parent / "templates"
# Section -> figure -> what it shows, in the page's order; others go where their number says.
FIGURES = {
    "data": {
        "01_followed": "The photo that the notebooks follow",
        "01_class_counts": "Images per class", "01_classes": "Images of each class",
        "01_sizes": "Sizes of images and files", "01_findings": "What the checks found",
        "02_class_shares": "Share of each class in every fold",
        "02_preprocessing": "What the network sees"},
    "training": {
        "04_baselines": "Scores beside raw pixels and random weights",
        "04_training": "Losses and scores by epoch", "04_choices": "What each fold chose",
        "04_learning_curve": "Score by number of training images"},
    "scores": {"06_scores": "Every score with its 95 % interval"},
    "classes": {
        "06_class_scores": "F1 of each class with its interval",
        "06_confusion": "Confusion matrix, classes that are mixed side by side",
        "06_pairs": "Photos of the most frequent confusions"},
    "mistakes": {
        "06_mistakes": "The most confident mistakes",
        "06_uncertain": "The least certain answers",
        "06_gradcam": "Which part of a photo spoke for a class, by Grad-CAM"},
    "labels": {"06_suspects": "Photos whose label is in doubt"},
    "shortcuts": {
        "06_shortcuts": "What each cue gives away, and the fall in accuracy where it misleads",
        "06_parts": "Accuracy by the values of cues", "06_ends": "Photos at both ends of a cue"},
    "calibration": {
        "06_reliability": "How often the model is right by how sure it is",
        "06_risk": "Share of wrong answers by share of photos answered"},
    "map": {"05_tsne": "Map of the features by t-SNE, coloured by class",
            "05_perplexities": "The map with other perplexities"},
}


def write_report(run: Run) -> Path:
    """Write `report.html` and `MODEL_CARD.md` from what the notebooks left in the run's folder.

    Returns:
        The report's path.

    Raises:
        SuiteError: a notebook before the evaluation has not been run.
    """
    facts = gather_facts(run)
    pages = {"report": ("report.html.j2", True), "card": ("MODEL_CARD.md.j2", False)}
    for artefact, (name, escaped) in pages.items():
        templates = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=escaped,
                                undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        templates.filters["cell"] = write_cell
        figures = embed_figures(run) if escaped else {}
        page = templates.get_template(name).render(**facts, figures=figures)
        with run.write(artefact) as path, write_whole(path) as temporary:
            temporary.write_text(page, "utf-8")
    return run.path("report")


def write_cell(text) -> str:
    """Return a text that stays itself in a line of Markdown, whatever a class is called."""
    for sign, code in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("\n", " ")):
        text = str(text).replace(sign, code)
    return text


def embed_figures(run: Run) -> dict[str, list[tuple[str, str, str]]]:
    """Return section -> figures there are: what each shows, its file name, its data URL.

    A figure older than what it is of belongs to an earlier model and is left out.
    """
    folder, notes = run.folder / "figures", load_json(run.folder / "artefacts.json")
    written = {number: datetime.fromisoformat(notes[run.path(name).name]["written"]).timestamp()
               for number, name in (("04", "train_features"), ("05", "oof_probabilities"),
                                    ("06", "oof_probabilities"))}
    known = {stem: (section, said) for section, figures in FIGURES.items()
             for stem, said in figures.items()}
    found = {section: [] for section in (*FIGURES, "comparisons")}
    order = [*known, *sorted(path.stem for path in folder.glob("[0-9][0-9]_*.*g")
                             if path.stem not in known)]
    files = {path.stem: path for path in folder.glob("[0-9][0-9]_*.*g")
             if path.stat().st_mtime >= written.get(path.stem[:2], 0)}
    for stem in order:
        if stem in files:
            path = files[stem]
            place = {"05": "map", "06": "mistakes", "04": "training"}.get(
                stem[:2], "data" if stem < "04" else "comparisons")
            section, said = known.get(stem, (place, stem[3:].replace("_", " ")))
            content = base64.b64encode(path.read_bytes()).decode()
            found[section].append((said, path.name,
                                   f"data:{mimetypes.guess_type(path)[0]};base64,{content}"))
    return found


def refresh_report(run: Run) -> None:
    """Write the report again if there is one that fits: a picture in it has changed."""
    # Else 06 is to be run anyway; an older version of the suite may have left other facts.
    if run.is_current("report"):
        with suppress(KeyError, UndefinedError):
            write_report(run)
