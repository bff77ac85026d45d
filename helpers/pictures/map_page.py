"""Map page: the t-SNE map as one self-contained HTML page; each point shows its photo."""

import base64
import html
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from tqdm import tqdm

from helpers.data.images import UnreadableImageError, shrink_image
from helpers.data.table import name_path
from helpers.files import write_whole
from helpers.pictures.charts import pick_colour, shorten, styled
from helpers.processes import count_cores
from helpers.run import Run

TEMPLATES = Path(__file__).parent / "templates"
SIDES = (96, 64, 48, 32)  # pixels of the photos: the largest of which all fit
PLOTLY, POINT = 5_000_000, 400  # bytes of the library, and of a point without its photo
TRIED = 40  # photos whose size is measured first
SCHEMES = ("label", "prediction", "fold", "finding")
PLAIN = "nothing found"
SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "star")


def list_findings(points: pd.DataFrame) -> pd.Series:
    """Return the most telling thing known of each point: a suspect label, a mistake, a copy.

    Args:
        points: `label`, `group`, `split`, and perhaps `prediction` and `suspect`.
    """
    found = pd.Series(PLAIN, points.index)
    found[points.group.duplicated(keep=False) & points.group.notna()] = "copy or same group"
    if "prediction" in points:
        wrong = points.prediction.notna() & points.label.notna() & (
            points.prediction != points.label)
        found[wrong] = "mistake"
    if "suspect" in points:
        found[points.suspect.astype(bool)] = "label in doubt"
    return found


def write_map(run: Run, points: pd.DataFrame) -> Path:
    """Write `map.html`, no larger than the recipe's `map_megabytes`.

    Args:
        points: `image_id`, `path`, `label`, `split`, `group`, `x`, `y`, and what else is to be
            shown: `prediction`, `fold`, `suspect`. Test images have `split` test, and perhaps no
            label.

    Returns:
        Its path.
    """
    points = points.reset_index(drop=True).assign(finding=list_findings(points))
    limit, total = int(run.recipe.projection.map_megabytes * 1e6), len(points)
    points = thin_points(points, limit)
    texts = [{"path": name_path(run.recipe, row.path)} | {
        key: f"{value:.0f}" if key == "fold" else str(value) for key in SCHEMES
        if not pd.isna(value := getattr(row, key, None))} for row in points.itertuples()]
    figure = draw_map(points)
    templates = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True,
                            undefined=StrictUndefined, trim_blocks=True)
    given = {"name": run.recipe.run_name, "count": len(points), "total": total,
             "texts": embed_json(texts), "perplexity": run.recipe.projection.perplexity}
    template = templates.get_template("map.html.j2")
    bare = template.render(**given, figure=figure, photos=embed_json([None] * len(points)),
                           shown=0, side=0)
    budget = limit - len(bare.encode()) - 1000
    # What is worth a look comes first, should there be no room for all.
    order = np.argsort((points.finding == PLAIN).to_numpy(), kind="stable")
    photos, side = encode_photos(points.path.to_numpy()[order], budget)
    places = [None] * len(points)
    for place, photo in zip(order, photos, strict=False):
        places[place] = photo
    page = template.render(**given, figure=figure, photos=embed_json(places), side=side,
                           shown=sum(photo is not None for photo in places))
    with run.write("map") as path, write_whole(path) as temporary:
        temporary.write_text(page, "utf-8")
    shown = sum(photo is not None for photo in places)
    print(f"{len(points):,} of {total:,} points, {shown:,} with a photo of {side} pixels: "
          f"{run.path('map').stat().st_size / 1e6:.1f} MB")
    return run.path("map")


def thin_points(points: pd.DataFrame, limit: int) -> pd.DataFrame:
    """Return as many points as a page of `limit` bytes has room for; what was found stays."""
    room = max(100, int((limit - PLOTLY) / POINT))
    if len(points) <= room:
        return points
    order = np.random.default_rng(0).permutation(len(points))
    order = order[np.argsort((points.finding == PLAIN).to_numpy()[order], kind="stable")]
    return points.iloc[np.sort(order[:room])].reset_index(drop=True)


@styled
def draw_map(points: pd.DataFrame) -> str:
    """Return a plotly figure as HTML, plotly included: a trace a class, a menu of colourings."""
    import plotly.graph_objects as go

    traces, owners = [], []
    tested = points.split == "test"
    for scheme in SCHEMES:
        if scheme not in points or points[scheme].isna().all():
            continue
        values = points[scheme].astype(object).where(points[scheme].notna())
        if scheme == "fold":
            values = values.map(lambda fold: f"fold {int(fold)}", na_action="ignore")
        names = values[~tested].value_counts().index if scheme != "finding" else [
            PLAIN, "copy or same group", "mistake", "label in doubt"]
        for position, name in enumerate(names):
            colour = pick_colour(position) if name != PLAIN else "#cccccc"
            traces.append(_draw_trace(go, points[(values == name) & ~tested], str(name), colour,
                                      SYMBOLS[position // 10 % len(SYMBOLS)]))
            owners.append(scheme)
        if tested.any():
            traces.append(_draw_trace(go, points[tested], "test images", "#555555",
                                      "circle-open"))
            owners.append(scheme)
    buttons = [{"label": f"coloured by {scheme}", "method": "update",
                "args": [{"visible": [owner == scheme for owner in owners]}]}
               for scheme in dict.fromkeys(owners)]
    for trace, owner in zip(traces, owners, strict=True):
        trace.visible = owner == owners[0]
    figure = go.Figure(traces, {
        "template": "plotly_white", "hovermode": "closest", "dragmode": "pan",
        "margin": {"l": 8, "r": 8, "t": 48, "b": 8}, "legend": {"itemsizing": "constant"},
        "xaxis": {"visible": False}, "yaxis": {"visible": False, "scaleanchor": "x"},
        "updatemenus": [{"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.02,
                         "yanchor": "bottom"}]})
    return figure.to_html(full_html=False, include_plotlyjs=True, div_id="map",
                          config={"responsive": True, "displaylogo": False,
                                  "scrollZoom": True}, default_height="100%")


def _draw_trace(go, rows: pd.DataFrame, name: str, colour: str, symbol: str):
    return go.Scattergl(
        x=rows.x.round(2).tolist(), y=rows.y.round(2).tolist(), customdata=rows.index.tolist(),
        mode="markers", name=f"{html.escape(shorten(name))} ({len(rows)})", hoverinfo="none",
        marker={"color": colour, "symbol": symbol, "opacity": 0.75,
                "size": 7 if len(rows) < 2000 else 4})


def encode_photos(paths, budget: int) -> tuple[list[str | None], int]:
    """Return photos as base64 JPEG in order, None for what cannot be read, and their side.

    They take at most `budget` bytes; where even the smallest do not all fit, the list ends early.
    """
    tried = [paths[n] for n in np.linspace(0, len(paths) - 1, min(TRIED, len(paths))).astype(int)]
    for side in SIDES:
        found = [encode_photo(path, side) for path in tried]
        sizes = [len(photo) + 4 for photo in found if photo]
        if np.mean(sizes or [0]) * len(paths) * 1.05 <= budget:
            break
    photos, taken = [], 0
    with ThreadPoolExecutor(count_cores()) as pool:
        step = 256
        bar = tqdm(range(0, len(paths), step), "photos of the map", mininterval=2)
        for start in bar:
            for photo in pool.map(lambda path: encode_photo(path, side),
                                  paths[start : start + step]):
                taken += len(photo or "null") + 4
                if taken > budget:
                    return photos, side
                photos.append(photo)
    return photos, side


def encode_photo(path: str, side: int) -> str | None:
    """Return a photo that fits into `side` pixels, as base64 JPEG; None if it is unreadable."""
    try:
        return base64.b64encode(shrink_image(path, side, quality=70)).decode()
    except UnreadableImageError:
        return None


def embed_json(values) -> str:
    """Return JSON that may stand inside a script element, whatever a file is called."""
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    for sign, code in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"),
                       ("\u2028", "\\u2028"), ("\u2029", "\\u2029")):
        text = text.replace(sign, code)
    return text
