"""`pixelwise models [NAME]`, `backbones`, `datasets` and `recipes`: list what is registered."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from ..strict_yaml import to_yaml
from ._console import text

if TYPE_CHECKING:
    from ..registry import Entry


def models(name: str | None = None, /) -> None:
    """List the networks, or describe one.

    Costs are for one image of 512 x 512 pixels and 21 classes.

    Parameters
    ----------
    name
        A network: show what is implemented as in its paper, what deviates, and the options with their defaults.
    """
    from ..models import MODELS, list_models

    if name is not None:
        _describe(MODELS[name])
        return
    headings = ("name", "paper", "year", "parameters", "multiply-adds", "receptive field", "stride", "published scores")
    rows = []
    for entry in map(MODELS.__getitem__, list_models()):
        cited = entry.paper.replace("https://arxiv.org/abs/", "arXiv ").removeprefix("https://")
        rows.append((entry.name, cited, str(entry.year or ""), *_cost(entry.name), entry.scores))
    # As wide as the content: a narrow terminal wraps the lines, and nothing is cut.
    _print(headings, rows, whole=True)


def _cost(name: str) -> tuple[str, str, str, str]:
    """Return parameters, multiply-adds, receptive field and stride; dashes for a network that is not in the table."""
    from ..analysis.model_table import read_table

    cost = read_table().get(name)
    if cost is None:
        return "-", "-", "-", "-"
    field = "whole image" if cost.receptive_field is None else f"{cost.receptive_field} px"
    return f"{cost.parameters / 1e6:.1f} M", f"{cost.multiply_adds / 1e9:.1f} G", field, str(cost.stride)


def _describe(entry: Entry[Any]) -> None:
    """Print what a network is: its costs, the docstring of its module, its options."""
    print(f"{entry.name}: {entry.summary}")
    parameters, multiply_adds, field, stride = _cost(entry.name)
    if parameters != "-":
        print(f"{parameters} parameters, {multiply_adds} multiply-adds (512 x 512 pixels, 21 classes)")
        print(f"receptive field of a label: {field}{_feature_fields(entry.name)}; output stride {stride}")
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


def _feature_fields(name: str) -> str:
    """Return the receptive fields of single positions, which the papers give, and the stride of the logits."""
    import torch

    from ..models import create_model

    with torch.device("meta"):  # shapes alone: no weights are drawn
        model = create_model(name, 21)
    fields = ", ".join(f"{layer} {field.size} px" for layer, field in model.receptive_fields().items())
    per_px = f"; one logit per {model.logits_stride} px" if model.logits_stride > 1 else ""
    # A label is interpolated between neighboring positions, so it sees more than one position of any map.
    return (f" (one position of {fields})" if fields else "") + per_px


def _written(value: Any) -> str:
    """Return a value as it is typed on a command line."""
    # Defaults of mappings are read-only views.
    return value if isinstance(value, str) else to_yaml(dict(value) if isinstance(value, Mapping) else value)


def backbones() -> None:
    """List the backbones, and the pretrained weights that `train --model.init_from NAME` starts one from."""
    from ..backbones import BACKBONES, list_backbones
    from ..weights.pretrained import PRETRAINED

    _print(
        ("name", "year", "what it is"),
        [(n, str(BACKBONES[n].year or ""), BACKBONES[n].summary) for n in list_backbones()],
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
