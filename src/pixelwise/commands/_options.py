"""The `--options` of a network on a command line."""

from __future__ import annotations

from typing import Any

from ..errors import ConfigError
from ..files import parse_yaml


def parse_options(text: str | None) -> dict[str, Any]:
    """Return the mapping that `--options` holds as YAML, empty if it is left out. Raises ConfigError."""
    options = {} if text is None else parse_yaml(text, "--options")
    if not isinstance(options, dict) or not all(isinstance(name, str) for name in options):
        raise ConfigError("--options", f"expected a YAML mapping, got {text!r}", 'write it like "{output_stride: 8}"')
    return options
