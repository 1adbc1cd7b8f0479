"""Options that several commands share: `--options` of a network, `--out`, `--overwrite`."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, Token

from ..errors import ConfigError, InputError, shown


def _read_path(_: type, tokens: Sequence[Token]) -> Path:
    """Return a path. An empty one, such as an unset variable of a shell, would be the current folder."""
    name, path = tokens[0].keyword or "path", tokens[0].value
    if not path:
        raise InputError(name, "is empty", "name a file or a folder, or . for the current folder")
    if re.match(r"~|.*\$\{?[A-Za-z_]", path) and not os.path.lexists(path):
        what = f"expected a path, got {shown(path)}, in which the shell has replaced nothing"
        fix = "write `--out ~/x` with a blank, variables without single quotes, or the whole path"
        raise InputError(name, what, fix)
    return Path(path)


OutPath = Annotated[Path, Parameter(converter=_read_path)]
"""The value of `--out`."""
InPath = Annotated[Path, Parameter(converter=_read_path)]
"""A file or folder to read."""
Switch = Annotated[bool, Parameter(negative="", show_default=False)]
"""An option without a value, such as `--overwrite`."""


def parse_options(text: str | None) -> dict[str, Any]:
    """Return the mapping that `--options` holds as YAML, empty if it is left out. Raises ConfigError."""
    if text is None:
        return {}
    from ..strict_yaml import parse_yaml

    options = parse_yaml(text, "--options")
    if not isinstance(options, dict) or not all(isinstance(name, str) for name in options):
        raise ConfigError(
            "--options", f"expected a YAML mapping, got {shown(text)}", 'write it like "{output_stride: 8}"'
        )
    return options


Scales = Annotated[tuple[float, ...], Parameter(negative="", consume_multiple=True)]
"""The value of `--scales`: one or more numbers."""
