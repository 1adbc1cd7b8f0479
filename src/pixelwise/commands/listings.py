"""`pixelwise models | backbones | datasets | recipes`: what there is, by name."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text


def models() -> None:
    """List the networks that can be trained, with what they cost at 512 x 512 pixels and 21 classes."""
    from ..models import MODELS, list_models
    from ..modeltable import read_table

    table = read_table()
    rows: list[tuple[str, ...]] = []
    for name in list_models():
        entry, facts = MODELS[name], table.get(name)
        cost = ("", "", "", "")
        if facts is not None:
            field = "whole image" if facts.receptive_field is None else f"{facts.receptive_field} px"
            cost = (f"{facts.parameters / 1e6:.1f} M", f"{facts.multiply_adds / 1e9:.1f} G", field, str(facts.stride))
        rows.append((name, _short(entry.paper), str(entry.year or ""), *cost, entry.scores))
    headings = ("name", "paper", "year", "parameters", "multiply-adds", "sees", "stride", "published scores")
    # As wide as it is: on a narrower terminal lines go on below, and nothing is cut.
    _print(headings, rows, whole=True)


def _short(paper: str) -> str:
    """An address as it is cited."""
    return paper.replace("https://arxiv.org/abs/", "arXiv ").removeprefix("https://")


def backbones() -> None:
    """List the trunks that networks stand on."""
    from ..backbones import BACKBONES, list_backbones

    _print(("name", "year", "what it is"), [(n, str(BACKBONES[n].year or ""), BACKBONES[n].summary) for n in list_backbones()])


def datasets() -> None:
    """List the dataset layouts that are recognised."""
    from ..data import DATASETS

    _print(("layout", "what its folder holds"), [(name, DATASETS.create(name).needs) for name in sorted(DATASETS)])


def recipes() -> None:
    """List the recipes that `train` takes by name."""
    from ..recipes import recipe_files, recipe_summary

    _print(("recipe", "what it trains"), [(name, recipe_summary(path)) for name, path in recipe_files().items()])


def _print(headings: tuple[str, ...], rows: list[tuple[str, ...]], whole: bool = False) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, no_wrap=heading != headings[-1])
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console()
    Console(width=max(console.width, Console(width=1000).measure(table).maximum) if whole else None).print(table)
