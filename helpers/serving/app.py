"""App: the web page of a saved model.

    streamlit run helpers/serving/app.py -- --run outputs/vehicles

Visitors share one model in memory. What they send belongs to their session alone and goes with
it; names of files are only shown.
"""

import argparse
import contextlib
import ctypes
import gc
import logging
import sys
import threading
from functools import partial
from pathlib import Path

# Each run of this script is a thread, and glibc would keep memory apart for each: before
# anything large is loaded, all are told to share.
with contextlib.suppress(OSError, AttributeError):
    ctypes.CDLL("libc.so.6").mallopt(-8, 1)  # M_ARENA_MAX
ROOT = Path(__file__).resolve().parents[2]
sys.path[:] = [str(ROOT), *(path for path in sys.path if path != str(ROOT))]

import pandas as pd  # noqa: E402
import streamlit as st  # noqa: E402
from PIL import Image, ImageOps  # noqa: E402
from streamlit.runtime.scriptrunner import get_script_run_ctx  # noqa: E402

from helpers.data.images import shrink_image  # noqa: E402
from helpers.files import SuiteError  # noqa: E402
from helpers.pictures.galleries import light_up  # noqa: E402
from helpers.processes import count_cores  # noqa: E402
from helpers.serving.app_text import (  # noqa: E402
    LANGUAGES,
    escape,
    say,
    say_number,
    say_reason,
    say_share,
)
from helpers.serving.app_views import (  # noqa: E402
    rank_classes,
    show_beginning,
    show_best,
    show_certainty,
    show_headline,
    show_model,
    show_table,
)
from helpers.serving.model_folder import find_model  # noqa: E402
from helpers.serving.photos import Limits  # noqa: E402
from helpers.serving.predictor import Predictor, load_predictor  # noqa: E402

FILES, MEGABYTES, PIXELS = 20, 20, 50_000_000  # of an upload; .streamlit/config.toml says 20, too
NEAREST = 5
SIDE, QUALITY = 800, 85  # of the photo as it is shown
LISTED = 500  # answers that are kept of a visit, as text
STYLE = (Path(__file__).parent / "templates" / "app.css").read_text("utf-8")
KEPT = ("answers", "pictures", "reasons")  # of a visit, in its session
FORMULA = ("=", "+", "-", "@", "\t", "\r")
KINDS = ["jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff"]


@st.cache_resource(max_entries=1, show_spinner=False)
def _load(place: str, saved: float) -> Predictor:
    """Load the model once for all visitors; again when it is saved anew."""
    import torch

    torch.set_num_threads(1)  # visitors share the cores
    predictor = load_predictor(place, batch_size=1, limits=Limits(MEGABYTES, PIXELS))
    # Streamlit collects garbage after every run of this script. What is loaded by now will stay:
    # to go through all of it each time would take most of the time of a busy page.
    gc.collect()
    gc.freeze()
    return predictor


@st.cache_resource(show_spinner=False)
def _gate() -> threading.BoundedSemaphore:
    """Let as many photos be decoded at once as there are cores: a large one takes memory."""
    return threading.BoundedSemaphore(count_cores())


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
    except (SuiteError, OSError) as error:  # OSError: it is being saved anew
        show_beginning(language, error)
        return
    if st.session_state.get("model") != predictor.note["saved"]:  # what another model has said
        for kept in KEPT:
            st.session_state.pop(kept, None)
        st.session_state.model = predictor.note["saved"]
    names = ", ".join(map(escape, predictor.classes))
    st.write(say(language, "classes", count=len(predictor.classes), names=names))
    show_headline(predictor.note, language)
    given = _ask_for_photos(predictor, language)
    text = st.text_area(say(language, "text"), max_chars=5000) if (
        predictor.note["inputs"] == "both") else ""
    for key, name, content, label in given:
        _show_answer(predictor, language, key, name, content, text, label)
    _show_list(predictor, language)
    show_model(predictor.note, language)


def _choose_language() -> str:
    if "language" not in st.session_state:
        french = str(st.context.locale or "").lower().startswith("fr")
        st.session_state.language = list(LANGUAGES)[int(french)]
    chosen = st.segmented_control("Language · Langue", list(LANGUAGES), key="language",
                                  required=True, label_visibility="collapsed")
    return LANGUAGES[chosen]


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
        _forget(photos[FILES:])
    return [(photo.file_id, photo.name, photo.getvalue(), None) for photo in photos[:FILES]]


def _forget(photos: list) -> None:
    """Let go of uploads that nobody will read: each may take megabytes."""
    context = get_script_run_ctx()
    for photo in photos:
        context.uploaded_file_mgr.remove_file(context.session_id, photo.file_id)


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
    answers, pictures = _recall("answers"), _recall("pictures")
    if answers.get(key, {}).get("text") != text or key not in pictures:
        try:
            with _gate():
                found = predictor.predict([content], [text]).iloc[0].to_dict()
                picture = None if found["refused"] else shrink_image(
                    "", SIDE, QUALITY, content)
        except Exception:  # one visitor's photo must not take the page down
            _report(language)
            return
        _recall("reasons").pop(key, None)
        _keep(answers, key, found | {"photo": name, "text": text}, LISTED)
        _keep(pictures, key, picture, FILES)
    found = answers[key]
    if found["refused"]:
        st.error(say(language, "refused", name=escape(name),
                     reason=escape(say_reason(language, found["refused"]))))
        return
    with st.container(border=True):
        left, right = st.columns([2, 3])
        left.image(pictures[key], caption=escape(name), width="stretch", alt=name)
        with right:
            st.subheader(escape(found["prediction"]), anchor=False)
            share = say_share(language, found["confidence"])
            st.write(say(language, "confidence", share=share))
            show_certainty(predictor.note, found, language)
            show_best(predictor.classes, found, language)
            if label:
                st.caption(say(language, "label_said", label=escape(label)))
        if st.toggle(say(language, "full"), key=f"full {key}"):
            try:
                _show_reasons(predictor, found, content, language, key)
            except Exception:
                _report(language)


def _report(language: str) -> None:
    """Tell the terminal what happened, and the visitor that something did."""
    logging.getLogger(__name__).exception("a photo could not be classified")
    st.error(say(language, "failed"))


def _recall(name: str) -> dict:
    """Return what is kept of this visit under a name."""
    return st.session_state.setdefault(name, {})


def _keep(kept: dict, key: str, value, most: int) -> None:
    """Add to what is kept of a visit, and let go of the oldest."""
    kept[key] = value
    while len(kept) > most:
        kept.pop(next(iter(kept)))


def _show_reasons(predictor: Predictor, found: dict, content: bytes, language: str,
                  key: str) -> None:
    reasons = _recall("reasons")
    if key not in reasons:
        try:  # one at a time: others are answered meanwhile
            pixels, heat = predictor.explain(content, found["prediction"])
            lit = light_up(pixels / 255, heat)
        except SuiteError:
            lit = None
        with _gate():
            nearest = predictor.find_nearest(content, NEAREST) if predictor.references else None
        _keep(reasons, key, (lit, nearest), FILES)
    lit, nearest = reasons[key]
    if lit is None:
        st.caption(say(language, "no_gradcam"))
    else:
        said = say(language, "spoke", name=found["prediction"])
        st.image(lit, caption=escape(said), width=300, alt=said)
    if nearest is not None:
        st.write(say(language, "nearest"))
        said = [say(language, "similar", label=row.label,
                    value=say_number(language, row.similarity, 2))
                for row in nearest.itertuples()]
        st.image(nearest.photo.tolist(), caption=[*map(escape, said)], width=120, alt=said)
    every = rank_classes(predictor.classes, found)
    st.write(say(language, "every"))
    show_table({say(language, "kind"): list(every), say(language, "probability"): [
        say_share(language, value) for value in every.values()]})


def _write_csv(predictor: Predictor, answers: list[dict]) -> str:
    """Return answers as CSV; a spreadsheet would take some texts for formulas."""
    table = pd.DataFrame(answers)
    if predictor.note["inputs"] != "both":
        table = table.drop(columns="text")
    for column in {"photo", "text"} & set(table):
        table[column] = [f"'{text}" if text.startswith(FORMULA) else text
                         for text in table[column]]
    return table.to_csv(index=False)


def _show_list(predictor: Predictor, language: str) -> None:
    """Show every answer of this visit as a table, to be downloaded."""
    answers = list(_recall("answers").values())
    if not answers:
        return
    st.subheader(say(language, "list"), anchor=False)
    show_table({
        say(language, "photo"): [found["photo"] for found in answers],
        say(language, "answer"): [found["prediction"] or say_reason(language, found["refused"])
                                  for found in answers],
        say(language, "share"): [say_share(language, found["confidence"]) if found["prediction"]
                                 else "–" for found in answers],
        say(language, "is_sure"): [say(language, "said_yes" if found["sure"] else "said_no")
                                   for found in answers]})
    left, right = st.columns(2)
    left.download_button(say(language, "download"), partial(_write_csv, predictor, answers),
                         "predictions.csv", "text/csv", on_click="ignore", width="stretch")
    if right.button(say(language, "clear"), width="stretch"):
        for key in (*KEPT, "sample", "upload", "camera"):
            st.session_state.pop(key, None)
        st.rerun()


main()
