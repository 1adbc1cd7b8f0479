"""`pixelwise models [NAME] | backbones | datasets | recipes`: what there is, by name."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from ..registry import Entry


def models(name: str | None = None, /) -> None:
    """List the networks that can be trained, or tell about one.

    Costs are those at 512 x 512 pixels and 21 classes.

    Parameters
    ----------
    name
        Of a network: tell what it follows of its paper and what not, and its options with their defaults.
    """
    from ..models import MODELS, list_models

    if name is not None:
        _describe(MODELS[name])
        return
    headings = ("name", "paper", "year", "parameters", "multiply-adds", "sees", "stride", "published scores")
    rows = [
        (each, _short(MODELS[each].paper), str(MODELS[each].year or ""), *_cost(each), MODELS[each].scores)
        for each in list_models()
    ]
    # As wide as it is: on a narrower terminal lines go on below, and nothing is cut.
    _print(headings, rows, whole=True)


def _cost(name: str) -> tuple[str, str, str, str]:
    """Return parameters, multiply-adds, receptive field and stride; dashes for a network that the table does not have."""
    from ..analysis.model_table import read_table

    cost = read_table().get(name)
    if cost is None:
        return "-", "-", "-", "-"
    field = "whole image" if cost.receptive_field is None else f"{cost.receptive_field} px"
    return f"{cost.parameters / 1e6:.1f} M", f"{cost.multiply_adds / 1e9:.1f} G", field, str(cost.stride)


def _describe(entry: Entry[Any]) -> None:
    """A network's account of itself, which is its module's."""
    print(f"{entry.name}: {entry.summary}")
    parameters, multiply_adds, field, stride = _cost(entry.name)
    if parameters != "-":
        print(
            f"{parameters} parameters, {multiply_adds} multiply-adds (512 x 512 pixels, 21 classes); sees {field}, stride {stride}"
        )
    if entry.scores:
        print(f"published: {entry.scores}")
    print(f"\n{inspect.getdoc(sys.modules[entry.module])}\n")
    given = ("num_classes", "in_channels")  # by the dataset
    options = [
        (option, _written(parameter.default)) for option, parameter in entry.options.items() if option not in given
    ]
    _print(("option", "default"), options)
    option, default = options[0]
    print(f'\nto set one: --model.options "{{{option}: {default}}}", or create_model("{entry.name}", {option}=...)')


def _written(value: Any) -> str:
    """A value as a command line takes it."""
    return value if isinstance(value, str) else json.dumps(value)


def _short(paper: str) -> str:
    """An address as it is cited."""
    return paper.replace("https://arxiv.org/abs/", "arXiv ").removeprefix("https://")


def backbones() -> None:
    """List the backbones that networks stand on."""
    from ..backbones import BACKBONES, list_backbones

    _print(
        ("name", "year", "what it is"),
        [(n, str(BACKBONES[n].year or ""), BACKBONES[n].summary) for n in list_backbones()],
    )


def datasets() -> None:
    """List the dataset formats that are recognised."""
    from ..data import DATASETS

    _print(("format", "what its folder holds"), [(name, DATASETS.create(name).needs) for name in sorted(DATASETS)])


def recipes() -> None:
    """List the recipes that `train` takes by name."""
    from ..recipes import recipe_files, recipe_summary

    _print(("recipe", "what it trains"), [(name, recipe_summary(path)) for name, path in recipe_files().items()])


def _print(headings: tuple[str, ...], rows: Sequence[tuple[str, ...]], whole: bool = False) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, no_wrap=heading != headings[-1])
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console()
    Console(width=max(console.width, Console(width=1000).measure(table).maximum) if whole else None).print(table)
