"""Options that several commands share: `--options` of a network, `--out`, `--overwrite`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, Token

from ..errors import ConfigError, InputError, shown
from ..strict_yaml import parse_yaml


def _read_path(_: type, tokens: Sequence[Token]) -> Path:
    """Return the path of an option. An empty one, such as an unset variable of a shell, would be the current folder."""
    if not tokens[0].value:
        raise InputError("--out", "is empty", "name a file or a folder, or . for the current folder")
    return Path(tokens[0].value)


OutPath = Annotated[Path, Parameter(converter=_read_path)]
"""The value of `--out`."""
Switch = Annotated[bool, Parameter(negative="", show_default=False)]
"""An option without a value, such as `--overwrite`."""


def parse_options(text: str | None) -> dict[str, Any]:
    """Return the mapping that `--options` holds as YAML, empty if it is left out. Raises ConfigError."""
    options = {} if text is None else parse_yaml(text, "--options")
    if not isinstance(options, dict) or not all(isinstance(name, str) for name in options):
        raise ConfigError(
            "--options", f"expected a YAML mapping, got {shown(text)}", 'write it like "{output_stride: 8}"'
        )
    return options


Scales = Annotated[tuple[float, ...], Parameter(negative="", consume_multiple=True)]
"""The value of `--scales`: one or more numbers."""
