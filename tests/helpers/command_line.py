"""Run commands in this process and check what every command promises; a network small enough for it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from pixelwise.cli import main
from pixelwise.core import Taxonomy
from pixelwise.models import create_model
from pixelwise.weights.checkpoint import save_checkpoint

# File values that differ from the class ids, so that a mask of ids cannot pass for a mask of values.
NAMES, COLORS = ("sky", "road & <b>", "[car]"), ((10, 20, 30), (200, 0, 0), (0, 0, 255))
TAXONOMY = Taxonomy(NAMES, COLORS, values=(7, 11, 250), ignored=(0,))


def save_tiny(folder: Path, taxonomy: Taxonomy = TAXONOMY, in_channels: int = 3) -> Path:
    """Save the compact network in its test size, with weights whose labels vary over an image."""
    torch.manual_seed(1)
    model = create_model("compact", taxonomy.num_classes, in_channels, tiny=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.7)
    return save_checkpoint(folder, model, taxonomy, {})


class Result(NamedTuple):
    """Exit code, standard output and the lines of standard error of a command."""

    code: int
    out: str
    err: list[str]


def call(capsys: pytest.CaptureFixture[str], *argv: object) -> Result:
    """Run a command line and check what every command promises: an exit code, short errors, no traceback."""
    capsys.readouterr()
    code = main([str(word) for word in argv])
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert code in range(5)
    assert "Traceback" not in out + err
    assert "pixelwise itself failed" not in err, err
    assert len(lines) <= 3, err
    return Result(code, out, lines)


def refused(capsys: pytest.CaptureFixture[str], *argv: object, code: int = 2, names: object = "") -> str:
    """Run a command line that must fail with one line `error: <subject>: ...` that has `names`; return the line."""
    result = call(capsys, *argv)
    assert result.code == code, result
    assert re.fullmatch(r"error: .+: .+", result.err[-1]), result.err
    assert str(names) in result.err[-1]
    assert re.search(r"; fix: .", result.err[-1]), result.err[-1]
    return result.err[-1]


def files_below(folder: Path) -> list[str]:
    """Return every file, hidden ones too, as relative paths."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())
