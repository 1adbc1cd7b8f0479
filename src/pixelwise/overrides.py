"""The settings on a command line: `--section.option value`."""

from __future__ import annotations

from collections.abc import Sequence
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from .config import Config, setting_names
from .errors import ConfigError
from .setting_value import alternatives, suggest_setting, types_of


def parse_overrides(tokens: Sequence[str]) -> dict[str, Any]:
    """Return `["--train.steps", "100"]` or `["--train.steps=100"]` as `{"train": {"steps": 100}}`.

    Values of text options are taken as typed: a split may be called `0` or `no`. Other values are YAML. An empty value
    of an option that may be null is null. Raises ConfigError.
    """
    from .strict_yaml import parse_yaml

    hints: dict[str, Any] = {}
    for section, kind in types_of(Config).items():
        hints |= {f"{section}.{name}": hint for name, hint in types_of(kind).items()}
    changes: dict[str, Any] = {}
    rest = list(tokens)
    while rest:
        token = rest.pop(0)
        name, equals, text = token.partition("=")
        if not name.startswith("--") or "." not in name:
            known = setting_names()
            if name in known:
                fix = f"write `--{name} {text or 'VALUE'}`"
            elif name.startswith("-") or equals:
                fix = suggest_setting(name, known)
            else:
                fix = "write `--section.option value`; `--print-config` lists them"
            raise ConfigError(token, "is not an option of this command", fix)
        if not equals and not rest:
            raise ConfigError(name, "expected a value", f"write `{name} VALUE`")
        text = text if equals else rest.pop(0)
        path = name[2:].replace("-", "_")
        kinds = alternatives(hints.get(path))
        words = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
        value: Any
        if NoneType in kinds and not text:
            value = None
        elif str in kinds or (words and (len(kinds) == 1 or text in words)):
            value = text
        else:
            value = parse_yaml(text, name)
        *parents, last = path.split(".")
        level = changes
        for key in parents:
            level = level.setdefault(key, {})
            if not isinstance(level, dict):
                raise ConfigError(name, f"`{key}` already has a value", "write each option once")
        level[last] = value
    return changes
