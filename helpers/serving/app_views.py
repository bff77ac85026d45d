"""App views: what the web page shows of a model and of an answer; nothing here is asked."""

import streamlit as st

from helpers.serving.app_text import (
    escape,
    say,
    say_date,
    say_number,
    say_score,
    say_share,
)

BEST, WEAKEST = 5, 3
BLUE, GREY, INK = "#1f5fa8", "#9aa5b1", "#1c2733"


def show_beginning(language: str, error: Exception) -> None:
    """Say that there is no model, and how to make one."""
    st.info(say(language, "no_model"))
    st.write(say(language, "how"))
    st.code("make run\nmake app", language="bash")
    st.caption(say(language, "reason", reason=escape(str(error))))


def show_headline(note: dict, language: str) -> None:
    """Say how good the model is, trained when and on how much."""
    score = note["scores"]["out-of-fold"]["accuracy"]
    value, low, high = (say_share(language, score[key]) for key in ("value", "low", "high"))
    st.caption(say(language, "headline", accuracy=value, low=low, high=high,
                   images=note["trained_on"]["images"],
                   date=say_date(language, note["trained"])))


def show_certainty(note: dict, found: dict, language: str) -> None:
    """Say whether the answer `found` counts as sure, and what that was measured on."""
    known = note["abstention"]
    if known["threshold"] is None or known["accuracy"] is None:
        st.warning(say(language, "never_sure", wished=say_share(language, known["wished"])))
    elif found["sure"]:
        values = {key: say_share(language, known[key])
                  for key in ("threshold", "accuracy", "low", "high")}
        st.caption(say(language, "sure", **values))
    else:
        st.warning(say(language, "unsure", threshold=say_share(language, known["threshold"])))


def rank_classes(classes: list[str], found: dict) -> dict[str, float]:
    """Return the probability of each class, the likeliest first."""
    return dict(sorted(((name, found[f"p_{name}"]) for name in classes),
                       key=lambda pair: -pair[1]))


def show_best(classes: list[str], found: dict, language: str) -> None:
    """Draw the likeliest classes as bars; for a screen reader, say them."""
    best = list(rank_classes(classes, found).items())[:BEST]
    values = [{"class": name, "value": value, "said": say_share(language, value),
               "first": place == 0} for place, (name, value) in enumerate(best)]
    text = {"fontSize": 14, "color": INK}
    spec = {
        "data": {"values": values}, "height": 32 * len(best),
        "encoding": {
            "y": {"field": "class", "type": "nominal", "sort": None, "title": None,
                  "axis": {"labelFontSize": 14, "labelLimit": 150, "labelColor": INK,
                           "ticks": False, "domain": False}},
            "x": {"field": "value", "type": "quantitative", "scale": {"domain": [0, 1.25]},
                  "axis": None}},
        "layer": [
            {"mark": {"type": "bar", "height": 18, "cornerRadiusEnd": 3}, "encoding": {
                "color": {"condition": {"test": "datum.first", "value": BLUE}, "value": GREY}}},
            {"mark": {"type": "text", "align": "left", "dx": 6, **text},
             "encoding": {"text": {"field": "said", "type": "nominal"}}}]}
    pairs = ", ".join(f"{row['class']} {row['said']}" for row in values)
    st.vega_lite_chart(spec, width="stretch",
                       alt=say(language, "best", count=len(best), said=pairs))


def show_table(columns: dict[str, list[str]]) -> None:
    """Show a table of texts as HTML, which a screen reader can read, as it cannot a drawn one."""
    rows = [list(columns), ["---"] * len(columns), *zip(*columns.values(), strict=True)]
    cells = [[text if text == "---" else escape(text) for text in row] for row in rows]
    st.markdown("\n".join(f"| {' | '.join(row)} |" for row in cells))


def show_model(note: dict, language: str) -> None:
    """Say which model this is, trained when and on what, how good it is, and where it fails."""
    with st.expander(say(language, "about")):
        form = say(language, note["serve"], count=len(note["temperatures"]))
        st.write(say(language, "method", name=escape(note["name"]), method=escape(note["method"]),
                     form=form))
        origin, weights = note["notes"]["data"], note["notes"]["weights"]
        st.write(say(language, "data", notes=escape(origin or say(language, "no_notes"))))
        st.write(say(language, "licence", name=escape(weights["name"]), licence=escape(
            weights["licence"] or say(language, "unknown"))))
        for part, scores in note["scores"].items():
            _show_scores(part, scores, language)
        st.caption(say(language, "judged"))
        weak = sorted((row for row in note["by_class"] if row["images"]),
                      key=lambda row: row["F1"])[:WEAKEST]
        weakest = ", ".join(say(
            language, "weak", name=escape(row["class"]), images=row["images"],
            value=say_number(language, row["F1"], 2)) for row in weak)
        confused = ", ".join(say(language, "taken", label=escape(row["label"]), prediction=escape(
            row["prediction"]), images=row["images"]) for row in note["confusions"][:WEAKEST])
        st.write(say(language, "fails", weakest=weakest,
                     confused=confused or say(language, "nothing")))
        st.caption(say(language, "fingerprint", fingerprint=note["fingerprint"]))


def _show_scores(part: str, scores: dict, language: str) -> None:
    value, low, high = ([say_number(language, score[key], 3) for score in scores.values()]
                        for key in ("value", "low", "high"))
    show_table({say_score(language, part): [say_score(language, name) for name in scores],
                say(language, "value"): value,
                say(language, "interval"): [f"{least} – {most}" for least, most in zip(
                    low, high, strict=True)]})
