"""The settings of a run with their sentences, for `train --help` and `train --print-config`."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
from itertools import pairwise
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .. import config as config_module
from ..config import Config


def sentences() -> dict[str, str]:
    """`ClassName.field` -> the string that stands below the field in the source of `config.py`."""
    found = {}
    for node in ast.parse(inspect.getsource(config_module)).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for statement, below in pairwise(node.body):
            match statement, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(sentence))):
                    found[f"{node.name}.{name}"] = " ".join(sentence.split())
    return found


def settings(config: Config) -> list[tuple[str, str, Any, str]]:
    """Section, field, value and sentence of every setting, in order."""
    said = sentences()
    return [
        (section.name, field.name, getattr(tree, field.name), said.get(f"{type(tree).__name__}.{field.name}", ""))
        for section in dataclasses.fields(config)
        for tree in [getattr(config, section.name)]
        for field in dataclasses.fields(tree)
    ]


def commented_yaml(config: Config) -> str:
    """The whole tree as YAML, each setting below its sentence; `Config.from_yaml` reads it back."""
    lines: list[str] = []
    for section, name, value, sentence in settings(config):
        if f"{section}:" not in lines:
            lines.append(f"{section}:")
        written = yaml.safe_dump(value, allow_unicode=True, default_flow_style=True, width=math.inf).splitlines()[0]
        lines += [f"  # {sentence}", f"  {name}: {written}"]
    return "\n".join(lines) + "\n"


def print_settings() -> None:
    """A table of every setting: option, default, sentence."""
    table = Table("setting", "default", "meaning", box=None, pad_edge=False)
    table.columns[0].no_wrap = True
    for section, name, value, sentence in settings(Config()):
        shown = "" if value in ("", None, [], {}) else str(value)
        table.add_row(Text(f"--{section}.{name}"), Text(shown), Text(sentence))
    Console().print(table)
