"""Options of a network on a command line."""

from __future__ import annotations

from typing import Any

import yaml

from ..errors import ConfigError


def parse_options(text: str | None) -> dict[str, Any]:
    """What `--options` holds: named values in YAML. Raises ConfigError for anything else."""
    fix = 'write named values, like "{output_stride: 8}"'
    try:
        options = {} if text is None else yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError("--options", f"{text!r} is no YAML: {str(error).splitlines()[0]}", fix) from None
    if not isinstance(options, dict) or not all(isinstance(name, str) for name in options):
        raise ConfigError("--options", f"{text!r} holds no named values", fix)
    return options
