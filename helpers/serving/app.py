"""App: the web page of a saved model.

    streamlit run helpers/serving/app.py -- --run outputs/vehicles

Visitors share one model in memory. What they send is decoded in memory, belongs to their session
alone, and goes with it; names of files are only shown.
"""

import argparse
import logging
import os
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:] = [str(ROOT), *(path for path in sys.path if path != str(ROOT))]

import altair as alt  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import streamlit as st  # noqa: E402
from PIL import Image, ImageOps  # noqa: E402

from helpers.files import SuiteError  # noqa: E402
from helpers.pictures.galleries import light_up  # noqa: E402
from helpers.serving.app_text import (  # noqa: E402
    LANGUAGES,
    escape,
    say,
    say_reason,
    say_share,
)
from helpers.serving.model_folder import find_model  # noqa: E402
from helpers.serving.photos import Limits  # noqa: E402
from helpers.serving.predictor import Predictor, load_predictor  # noqa: E402

FILES, MEGABYTES, PIXELS = 20, 20, 50_000_000  # of an upload; .streamlit/config.toml says 20, too
BEST, NEAREST, WEAKEST = 5, 5, 3
BLUE, GREY = "#1f5fa8", "#9aa5b1"
# Streamlit's captions are too pale, and its uploader speaks English alone, and tells what it has
# refused only to whoever points at it.
STYLE = """
[data-testid="stMainBlockContainer"] { padding-top: 3rem; }
[data-testid="stCaptionContainer"], [data-testid="stImageCaption"] { color: #47525e; opacity: 1; }
[data-testid="stFileUploaderDropzone"] button p,
[data-testid="stFileUploaderDropzoneInstructions"] span { font-size: 0; }
[data-testid="stFileUploaderDropzone"] button p::after { content: "%(choose)s"; font-size: 1rem; }
[data-testid="stFileUploaderDropzoneInstructions"] span::after { content: "%(drop)s";
  font-size: 0.875rem; color: #47525e; }
[data-testid="stFileUploader"]:has([aria-invalid="true"])::after { content: "%(too_large)s";
  color: #8a1f11; }
"""
KINDS = ["jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff"]


@st.cache_resource(max_entries=1, show_spinner=False)
def _load(place: str, saved: float) -> Predictor:
    """Load the model once for all visitors; again when it is saved anew."""
    import torch

    torch.set_num_threads(1)  # visitors share the cores
    return load_predictor(place, batch_size=1, limits=Limits(MEGABYTES, PIXELS))


@st.cache_resource(show_spinner=False)
def _gate() -> threading.BoundedSemaphore:
    """Let as many photos be decoded at once as there are cores: a large one takes memory."""
    return threading.BoundedSemaphore(os.cpu_count() or 1)


def main() -> None:
    """Show the page for one visitor."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", default="outputs/demo")
    place = parser.parse_known_args()[0].run
    language = _choose_language()
    st.html("<style>{}</style>".format(STYLE % {
        key: say(language, key, megabytes=MEGABYTES) for key in ("choose", "drop", "too_large")}))
    st.set_page_config(page_title=say(language, "title"), page_icon="🔎", layout="centered")
    st.title(say(language, "title"), anchor=False)
    try:
        folder = find_model(place)
        predictor = _load(str(folder), (folder / "model.json").stat().st_mtime)
    except SuiteError as error:
        _show_beginning(language, error)
        return
    names = ", ".join(map(escape, predictor.classes))
    st.write(say(language, "classes", count=len(predictor.classes), names=names))
    _show_headline(predictor.note, language)
    given = _ask_for_photos(predictor, language)
    text = st.text_area(say(language, "text"), max_chars=5000) if (
        predictor.note["inputs"] == "both") else ""
    for key, name, content, label in given:
        _show_answer(predictor, language, f"{key} {text}", name, content, text, label)
    _show_list(predictor, language)
    _show_model(predictor.note, language)


def _choose_language() -> str:
    if "language" not in st.session_state:
        french = str(st.context.locale or "").lower().startswith("fr")
        st.session_state.language = list(LANGUAGES)[int(french)]
    chosen = st.segmented_control("Language · Langue", list(LANGUAGES), key="language",
                                  required=True, label_visibility="collapsed")
    return LANGUAGES[chosen]


def _show_beginning(language: str, error: SuiteError) -> None:
    st.info(say(language, "no_model"))
    st.write(say(language, "how"))
    st.code("make run\nmake app", language="bash")
    st.caption(say(language, "reason", reason=escape(str(error))))


def _show_headline(note: dict, language: str) -> None:
    score = note["scores"]["out-of-fold"]["accuracy"]
    value, low, high = (say_share(language, score[key]) for key in ("value", "low", "high"))
    st.caption(say(language, "headline", accuracy=value, low=low, high=high,
                   images=note["trained_on"]["images"], date=note["trained"][:10]))


def _ask_for_photos(predictor: Predictor, language: str) -> list[tuple]:
    """Return the photos that are asked about: key, name, content, and label if it is known."""
    samples = predictor.note["samples"]
    ways = ["upload", "camera", *(["samples"] if samples else [])]
    way = st.segmented_control(say(language, "source"), ways, key="way", default="upload",
                               required=True, format_func=lambda way: say(language, way))
    if way == "samples":
        return _offer_samples(predictor, samples, language)
    if way == "camera":
        photo = st.camera_input(say(language, "shoot"), key="camera")
        photos = [photo] if photo else []
    else:
        photos = st.file_uploader(
            say(language, "uploader", files=FILES, megabytes=MEGABYTES), KINDS, key="upload",
            accept_multiple_files=True, max_upload_size=MEGABYTES)
    st.caption(say(language, "kept"))
    if len(photos) > FILES:
        st.warning(say(language, "too_many", files=FILES))
    return [(photo.file_id, photo.name, photo.getvalue(), None) for photo in photos[:FILES]]


def _offer_samples(predictor: Predictor, samples: list[dict], language: str) -> list[tuple]:
    st.caption(say(language, "samples_said"))
    with st.container(horizontal=True):
        for number, sample in enumerate(samples):
            said = say(language, "sample", number=number + 1)
            with st.container(width=130), Image.open(predictor.folder / sample["file"]) as image:
                st.image(ImageOps.fit(image, (260, 200)), width="stretch", alt=said)
                if st.button(said, key=f"sample {number}", width="stretch"):
                    st.session_state.sample = number
    number = st.session_state.get("sample")
    if number is None or number >= len(samples):
        return []
    sample = samples[number]
    content = (predictor.folder / sample["file"]).read_bytes()
    return [(sample["file"], say(language, "sample", number=number + 1), content,
             sample["label"])]


def _show_answer(predictor: Predictor, language: str, key: str, name: str, content: bytes,
                 text: str, label: str | None) -> None:
    """Show what the model says of one photo, at once, and why, if that is asked for."""
    answers = st.session_state.setdefault("answers", {})
    if key not in answers:
        try:
            with _gate():
                answers[key] = predictor.predict([content], [text]).iloc[0].to_dict() | {
                    "photo": name}
        except Exception:  # one visitor's photo must not take the page down
            logging.getLogger(__name__).exception("a photo could not be answered for")
            st.error(say(language, "failed"))
            return
    found = answers[key]
    if found["refused"]:
        st.error(say(language, "refused", name=escape(name),
                     reason=escape(say_reason(language, found["refused"]))))
        return
    with st.container(border=True):
        left, right = st.columns([2, 3])
        left.image(content, caption=escape(name), width="stretch", alt=name)
        with right:
            st.subheader(escape(found["prediction"]), anchor=False)
            share = say_share(language, found["confidence"])
            st.write(say(language, "confidence", share=share))
            _show_certainty(predictor.note, found, language)
            _show_best(predictor, found, language)
            if label:
                st.caption(say(language, "label_said", label=escape(label)))
        if st.toggle(say(language, "full"), key=f"full {key}"):
            _show_reasons(predictor, found, content, language, key)


def _show_certainty(note: dict, found: dict, language: str) -> None:
    known = note["abstention"]
    if known["threshold"] is None or known["accuracy"] is None:
        st.warning(say(language, "never_sure", wished=say_share(language, known["wished"])))
    elif found["sure"]:
        values = {key: say_share(language, known[key])
                  for key in ("threshold", "accuracy", "low", "high")}
        st.caption(say(language, "sure", **values))
    else:
        st.warning(say(language, "unsure", threshold=say_share(language, known["threshold"])))


def _rank(predictor: Predictor, found: dict) -> pd.Series:
    return pd.Series({name: found[f"p_{name}"] for name in predictor.classes}).sort_values(
        ascending=False, kind="stable")


def _show_best(predictor: Predictor, found: dict, language: str) -> None:
    best = _rank(predictor, found).head(BEST)
    said = [say_share(language, value) for value in best]
    table = pd.DataFrame({"kind": best.index, "value": best.to_numpy(), "said": said,
                          "first": np.arange(len(best)) == 0})
    bars = alt.Chart(table).encode(
        y=alt.Y("kind:N", sort=None, title=None, axis=alt.Axis(
            labelFontSize=14, labelLimit=150, labelColor="#1c2733", ticks=False, domain=False)),
        x=alt.X("value:Q", scale=alt.Scale(domain=[0, 1.25]), axis=None))
    colour = alt.condition("datum.first", alt.value(BLUE), alt.value(GREY))
    drawn = bars.mark_bar(height=18, cornerRadiusEnd=3).encode(color=colour)
    text = bars.mark_text(align="left", dx=6, fontSize=14, color="#1c2733").encode(text="said:N")
    pairs = ", ".join(f"{name} {share}" for name, share in zip(best.index, said, strict=True))
    st.altair_chart((drawn + text).properties(height=32 * len(best)), width="stretch",
                    alt=say(language, "best", count=len(best), said=pairs))


def _show_reasons(predictor: Predictor, found: dict, content: bytes, language: str,
                  key: str) -> None:
    reasons = st.session_state.setdefault("reasons", {})
    if key not in reasons:
        with _gate():
            try:
                pixels, heat = predictor.explain(content, found["prediction"])
                lit = light_up(pixels / 255, heat)
            except SuiteError:
                lit = None
            nearest = predictor.find_nearest(content, NEAREST) if predictor.references else None
            reasons[key] = lit, nearest
    lit, nearest = reasons[key]
    if lit is None:
        st.caption(say(language, "no_gradcam"))
    else:
        said = say(language, "spoke", name=found["prediction"])
        st.image(lit, caption=escape(said), width=300, alt=said)
    if nearest is not None:
        st.write(say(language, "nearest"))
        said = [say(language, "similar", label=row.label, value=f"{row.similarity:.2f}")
                for row in nearest.itertuples()]
        st.image(nearest.photo.tolist(), caption=[*map(escape, said)], width=120, alt=said)
    every = _rank(predictor, found)
    st.write(say(language, "every"))
    _show_table({say(language, "kind"): every.index, say(language, "probability"): [
        say_share(language, value) for value in every]})


def _show_table(columns: dict) -> None:
    """Show a table as HTML, which a screen reader can read, as it cannot read a drawn one."""
    rows = pd.DataFrame(columns).astype(str).map(escape)
    st.table(rows.set_index(rows.columns[0]))


def _show_list(predictor: Predictor, language: str) -> None:
    """Show every answer of this visit as a table, to be downloaded."""
    answers = list(st.session_state.get("answers", {}).values())
    if not answers:
        return
    st.subheader(say(language, "list"), anchor=False)
    table = pd.DataFrame(answers)
    answered = table.refused == ""
    _show_table({
        say(language, "photo"): table.photo,
        say(language, "answer"): table.prediction.where(answered, [
            say_reason(language, reason) for reason in table.refused]),
        say(language, "probability"): [say_share(language, value) if good else "–"
                                       for value, good in zip(table.confidence, answered,
                                                              strict=True)],
        say(language, "is_sure"): [say(language, "said_yes" if sure else "said_no")
                                   for sure in table.sure]})
    # A spreadsheet would take a name that begins so for a formula.
    table["photo"] = [f"'{name}" if name.startswith(("=", "+", "-", "@")) else name
                      for name in table.photo]
    left, right = st.columns(2)
    left.download_button(say(language, "download"), table.to_csv(index=False), "predictions.csv",
                         "text/csv", on_click="ignore", width="stretch")
    if right.button(say(language, "clear"), width="stretch"):
        for key in ("answers", "reasons", "sample", "upload", "camera"):
            st.session_state.pop(key, None)
        st.rerun()


def _show_model(note: dict, language: str) -> None:
    """Say which model this is, trained when and on what, how good it is, and where it fails."""
    with st.expander(say(language, "about")):
        form = say(language, note["serve"], count=len(note["temperatures"]))
        st.write(say(language, "method", name=escape(note["name"]), method=escape(note["method"]),
                     form=form))
        st.write(say(language, "data", notes=escape(note["notes"]["data"] or say(
            language, "no_notes"))))
        for part, scores in note["scores"].items():
            _show_table({
                part: list(scores),
                say(language, "value"): [f"{score['value']:.3f}" for score in scores.values()],
                say(language, "interval"): [f"{score['low']:.3f} – {score['high']:.3f}"
                                            for score in scores.values()]})
        st.caption(say(language, "judged"))
        weak = sorted((row for row in note["by_class"] if row["images"]),
                      key=lambda row: row["F1"])[:WEAKEST]
        weakest = ", ".join(say(language, "weak", name=escape(row["class"]),
                                value=f"{row['F1']:.2f}", images=row["images"]) for row in weak)
        confused = ", ".join(say(language, "taken", label=escape(row["label"]), prediction=escape(
            row["prediction"]), images=row["images"]) for row in note["confusions"][:WEAKEST])
        st.write(say(language, "fails", weakest=weakest,
                     confused=confused or say(language, "nothing")))
        st.caption(say(language, "fingerprint", fingerprint=note["fingerprint"]))


main()
