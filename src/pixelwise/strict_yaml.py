"""Strict YAML: the core schema of YAML 1.2 without anchors, aliases, tags and repeated keys, with decimal numbers only.

Whatever is not null, true, false or a decimal number is text: `no`, `on`, `010`, `0x1F`, `1_000`, `1:30`, `2024-01-31`.
"""

from __future__ import annotations

import math
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from .errors import ConfigError, cut, os_reason, printable, shown
from .files import read_regular

_MAX_BYTES = 16 * 2**20
_WRITE_OUT = "write the value out where it is used"


class _StrictLoader(yaml.SafeLoader):
    """YAML 1.2 core schema without repeated keys and aliases."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012, as in yaml's own class

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        mark: Any = event.start_mark
        # An alias repeats what was read before; nested aliases grow exponentially (the "billion laughs").
        if isinstance(event, yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "aliases are not allowed", mark, _WRITE_OUT)
        if getattr(event, "tag", None):
            problem = f"tags such as {cut(event.tag).replace('tag:yaml.org,2002:', '!!')} are not allowed"
            raise yaml.composer.ComposerError(None, None, problem, mark, "leave the tag out")
        return super().compose_node(parent, index)

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except ValueError:
            # Python reads no integer of more than 4300 digits.
            problem = f"{shown(node.value)} has too many digits"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark, "use a smaller one") from None

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        mapping = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, list | dict):
                problem, fix = "lists and mappings cannot be keys", "write `key: value`, with a word as the key"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark, fix)
            if key in mapping:
                problem, fix = f"repeated key {shown(key)}", "keep one of them"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark, fix)
            mapping[key] = self.construct_object(value_node, deep=deep)
        return mapping


class _StrictDumper(yaml.SafeDumper):
    """Quote every text that one of the two, YAML 1.1 or `_StrictLoader`, would read as something else."""


_FLOAT = (
    r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
):
    for _class in (_StrictLoader, _StrictDumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), _first)


def parse_yaml(text: str, subject: object) -> Any:
    """Return what strict YAML text holds. Raises ConfigError naming `subject` and the line."""
    try:
        return yaml.load(text, _StrictLoader)  # noqa: S506, a subclass of SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line if mark else None
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or error
        fix = getattr(error, "note", None) or "check colons, brackets, quotes and indentation"
        if isinstance(error, RecursionError):
            reason, fix = "nested too deeply", "use fewer brackets"
        elif isinstance(error, yaml.reader.ReaderError):
            reason, fix = f"the character {shown(chr(error.character))} is not allowed", "remove it"
            line = text.count("\n", 0, error.position)
        place = f"{subject}:{line + 1}" if line is not None and "\n" in text else subject
        raise ConfigError(place, f"invalid YAML: {cut(reason)}", fix) from None


def read_yaml(path: str | Path) -> dict[Any, Any]:
    """Return the mapping in a YAML file, empty for an empty file. Raises ConfigError naming the file and the line."""
    try:
        content = parse_yaml(read_regular(path, _MAX_BYTES).decode("utf-8-sig"), path)
    except OSError as error:
        raise ConfigError(path, f"cannot be read: {os_reason(error)}", "name a readable text file") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        what = f"invalid YAML: not UTF-8 text (byte {error.start})"
        raise ConfigError(f"{path}:{line}", what, "save the file as UTF-8") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(path, f"expected a mapping, got {type(content).__name__}", "write `key: value` lines")
    return content


def to_yaml(value: Any) -> str:
    """Return a value as one line of YAML that `parse_yaml` reads back."""
    text = ""
    # Letters stay letters, unless characters are among them that a terminal does not show, or YAML folds into spaces.
    for allow_unicode in (True, False):
        options: dict[str, Any] = {"default_flow_style": True, "width": math.inf, "allow_unicode": allow_unicode}
        text = yaml.dump(value, Dumper=_StrictDumper, sort_keys=False, **options)
        text = text.removesuffix("\n...\n").rstrip("\n")
        with suppress(ConfigError):
            if text == printable(text) and parse_yaml(text, "") == value:
                break
    return text
