"""Fonts: those for names in any script, where this computer has them, and a word where not."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from matplotlib.font_manager import fontManager

logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # about their weights
# After matplotlib's own, which has Latin, Greek, Cyrillic, Arabic and Hebrew.
OTHERS = ("Noto Sans CJK JP", "Noto Sans CJK SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei",
          "Droid Sans Fallback", "Hiragino Sans", "PingFang SC", "Apple SD Gothic Neo",
          "Yu Gothic", "Microsoft YaHei", "Malgun Gothic", "Noto Sans Devanagari",
          "Noto Sans Thai", "Nirmala UI", "Arial Unicode MS")


def list_families() -> list[str]:
    """Return the families that are installed here, in the order in which they are asked."""
    there = {font.name for font in fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in OTHERS if name in there)]


@contextmanager
def tell_missing_signs(name: str) -> Iterator[None]:
    """Print one line instead of a warning for each sign that a figure's fonts do not have."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    missing = {str(one.message) for one in caught if "missing from font" in str(one.message)}
    for one in caught:
        if str(one.message) not in missing:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    if missing:
        print(f"{name} shows {len(missing)} signs of names as boxes, because no font here has "
              "them: install one (Debian, Ubuntu, Colab: `apt-get install -y fonts-noto-cjk`) "
              "and run this notebook again.")
