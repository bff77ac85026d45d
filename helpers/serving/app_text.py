"""App text: what the web page says, in English and in French, from `templates/app.yaml`."""

import functools
import re
from pathlib import Path

import yaml

LANGUAGES = {"English": "en", "Français": "fr"}
FILE = Path(__file__).parent / "templates" / "app.yaml"


@functools.cache
def load_texts() -> dict[str, dict[str, str]]:
    """Return key -> language -> text, and `reasons` and `scores`: English -> French."""
    return yaml.safe_load(FILE.read_text("utf-8"))


def say(language: str, key: str, **values) -> str:
    """Return a text of the page in `en` or `fr`."""
    return load_texts()[key][language].format(**values)


def say_reason(language: str, reason: str) -> str:
    """Return why a photo was refused, in the page's language as far as it is known."""
    if language == "fr":
        for english, french in load_texts()["reasons"].items():
            reason = reason.replace(english, french)
    return reason


def say_score(language: str, name: str) -> str:
    """Return what a score, or a set of images, is called."""
    return load_texts()["scores"].get(name, name) if language == "fr" else name


def say_number(language: str, value: float, digits: int) -> str:
    """Return a number with so many digits behind the point, in French the comma."""
    text = f"{value:.{digits}f}"
    return text if language == "en" else text.replace(".", ",")


def say_date(language: str, moment: str) -> str:
    """Return the day of an ISO time: 2026-11-27, in French 27/11/2026."""
    day = moment[:10]
    return day if language == "en" else "/".join(reversed(day.split("-")))


def say_share(language: str, value: float) -> str:
    """Return a share as a percentage: 71.6%, in French 71,6 %."""
    text = say_number(language, 100 * value, 1)
    return f"{text}%" if language == "en" else f"{text}\u00a0%"


def escape(text: str) -> str:
    """Return a text that stays itself in Markdown, whatever a file or a class is called.

    Addresses are made links although they are escaped, unless something unseen breaks them.
    """
    plain = re.sub(r"([\\`*_{}\[\]()<>#+\-.!|~$:&])", r"\\\1", text.replace("\n", " "))
    return re.sub(r"(?i)(www|https?|ftp|mailto|xmpp|@)", "\\1\u2060", plain)
