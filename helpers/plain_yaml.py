"""Plain YAML: values read strictly, and written so that they are read back as they were."""

import re
from typing import ClassVar

import yaml


class _StrictLoader(yaml.SafeLoader):
    """A safe loader without some things that YAML 1.1 allows: a key given twice, and aliases.

    Of two keys the last would win in silence, and a few aliases unfold to gigabytes. Only what
    YAML 1.2 calls a number or a truth value is one: `no`, `010`, `12:30` and dates are text.
    """

    yaml_implicit_resolvers: ClassVar = {}

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"it uses the alias *{self.peek_event().anchor}: write the "
                                 "value out instead")
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        known = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else []:
            line, name = key.start_mark.line + 1, (key.tag, str(key.value))
            if name in known:
                raise yaml.YAMLError(f"'{key.value}' stands there twice, in lines {known[name]} "
                                     f"and {line}")
            known[name] = line
        return super().construct_mapping(node, deep)


class _PlainDumper(yaml.SafeDumper):
    """Puts into quotes what _StrictLoader would not take for text."""

    yaml_implicit_resolvers: ClassVar = {}


for _kind, _pattern, _first in (
        ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
        ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
        ("int", r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
        ("float", r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
                  r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.0123456789"))):
    for _side in (_StrictLoader, _PlainDumper):
        _side.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}",
                                    re.compile(f"^(?:{_pattern})$"), _first)


def read_yaml(text: str):
    """Return the plain values of a YAML text; yaml.YAMLError for what is no such text."""
    return yaml.load(text, _StrictLoader)


def write_yaml(value) -> str:
    """Return a plain value in one line, which `read_yaml` reads back as it was."""
    text = yaml.dump(value, Dumper=_PlainDumper, default_flow_style=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")
