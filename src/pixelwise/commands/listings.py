"""`pixelwise models [NAME]`, `backbones`, `datasets` and `recipes`: list what is registered."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from ._console import text

if TYPE_CHECKING:
    from ..analysis.model_table import ModelCost
    from ..registry import Row


def models(name: str | None = None, /) -> None:
    """List the networks, or describe one.

    Costs are for one image of 512 x 512 pixels and 21 classes.

    Parameters
    ----------
    name
        A network: show what is implemented as in its paper, what deviates, and the options with their defaults.
    """
    from ..analysis.model_table import read_table
    from ..models import MODELS

    if name is not None:
        _describe(MODELS.row(name))
        return
    headings = ("name", "paper", "year", "parameters", "multiply-adds", "receptive field", "stride", "published scores")
    rows = []
    costs = read_table()
    for row in MODELS.rows():
        cited = row.paper.replace("https://arxiv.org/abs/", "arXiv ").removeprefix("https://")
        rows.append((row.name, cited, str(row.year or ""), *_in_words(costs.get(row.name)), row.scores))
    # As wide as the content: a narrow terminal wraps the lines, and nothing is cut.
    _print(headings, rows, whole=True)


def _in_words(cost: ModelCost | None) -> tuple[str, str, str, str]:
    """Return parameters, multiply-adds, receptive field and stride; dashes for a network without a row in the table."""
    if cost is None:
        return "-", "-", "-", "-"
    field = "whole image" if cost.receptive_field is None else f"{cost.receptive_field} px"
    return f"{cost.parameters / 1e6:.1f} M", f"{cost.multiply_adds / 1e9:.1f} G", field, str(cost.stride)


def _describe(row: Row) -> None:
    """Print what a network is: its costs, the docstring of its module, its options."""
    from .. import models as networks
    from ..analysis.model_table import read_table

    print(f"{row.name}: {row.summary}")
    cost = read_table().get(row.name)
    if cost is not None:
        parameters, multiply_adds, field, stride = _in_words(cost)
        print(f"{parameters} parameters, {multiply_adds} multiply-adds (512 x 512 pixels, 21 classes)")
        print(f"receptive field of a label: {field}{_feature_fields(cost)}; output stride {stride}")
    if row.scores:
        print(f"published: {row.scores}")
    # Read, not imported, which would import torch.
    module = Path(networks.__path__[0]) / f"{row.module}.py"
    print(f"\n{ast.get_docstring(ast.parse(module.read_text(encoding='utf-8')))}\n")
    given = ("num_classes", "in_channels")  # by the dataset
    options = [(option, _written(default)) for option, default in row.options.items() if option not in given]
    _print(("option", "default"), options)
    option, default = options[0]
    print(f'\nto set one: --model.options "{{{option}: {default}}}", or create_model("{row.name}", {option}=...)')


def _feature_fields(cost: ModelCost) -> str:
    """Return the receptive fields of single positions, which the papers give, and the stride of the logits."""
    fields = ", ".join(f"{layer} {size} px" for layer, size in cost.feature_fields.items())
    per_px = f"; one logit per {cost.logits_stride} px" if cost.logits_stride > 1 else ""
    # A label is interpolated between neighboring positions, so it sees more than one position of any map.
    return (f" (one position of {fields})" if fields else "") + per_px


def _written(value: Any) -> str:
    """Return a value as it is typed on a command line."""
    from ..strict_yaml import to_yaml

    return value if isinstance(value, str) else to_yaml(value)


def backbones() -> None:
    """List the backbones, and the pretrained weights that `train --model.init_from NAME` starts one from."""
    from ..backbones import BACKBONES
    from ..weights.pretrained_files import PRETRAINED

    _print(
        ("name", "year", "what it is"),
        [(row.name, str(row.year or ""), row.summary) for row in BACKBONES.rows()],
    )
    print("\npretrained weights, for `pixelwise train --model.init_from NAME`:\n")
    _print(
        ("name", "backbone", "license", "what it is"),
        [(weights.name, weights.backbone, weights.license, weights.score) for weights in PRETRAINED.values()],
    )


def datasets() -> None:
    """List the dataset formats."""
    from ..data import DATASETS

    _print(("format", "what the folder contains"), [(name, DATASETS.create(name).needs) for name in sorted(DATASETS)])


def recipes() -> None:
    """List the recipes that `train` takes by name."""
    from ..recipes import recipe_files, recipe_summary

    _print(("recipe", "what it trains"), [(name, recipe_summary(path)) for name, path in recipe_files().items()])


def _print(headings: tuple[str, ...], rows: Sequence[tuple[str, ...]], *, whole: bool = False) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, no_wrap=heading != headings[-1])
    for row in rows:
        table.add_row(*map(text, row))
    console = Console()
    Console(width=max(console.width, Console(width=1000).measure(table).maximum) if whole else None).print(table)
