"""Versions: of Python and the packages that decide the numbers, and what differs between two."""

import contextlib
from importlib.metadata import PackageNotFoundError, version
from platform import python_version

PACKAGES = ("torch", "torchvision", "timm", "openvino", "numpy", "pandas", "scikit-learn",
            "pillow")


def describe_versions() -> dict[str, str]:
    """Return the version of Python and of each package that is installed."""
    versions = {"python": python_version()}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):  # a GPU needs no OpenVINO
            versions[name] = version(name)
    return versions


def describe_changes(then: dict, now: dict) -> str:
    """Say what differs between two descriptions: "weights random 42 (now random 43)"."""
    then, now = _flatten(then), _flatten(now)
    return ", ".join(f"{key} {then.get(key, 'not noted')} (now {now.get(key, 'not known')})"
                     for key in dict.fromkeys([*now, *then]) if then.get(key) != now.get(key))


def _flatten(facts: dict) -> dict:
    flat = {}
    for key, value in facts.items():
        flat |= _flatten(value) if isinstance(value, dict) else {key: value}
    return flat
