"""Where each network of the FCN family keeps what foreign files fill: its backbones and its heads."""

from __future__ import annotations

from dataclasses import dataclass

from ...models import MODELS
from ...models.fcn import FCN, FCNEncoder, SkipHead
from ...models.fcn_fusion import LateFusionFCN, TwoHeadFCN

ONE_HEAD = "one stream and one head"
TWO_HEADS = "two heads"
LATE_FUSION = "two streams"

Network = FCN | LateFusionFCN


@dataclass(frozen=True)
class Head:
    """A head at `path` of the network, the maps that it scores, and the suffix of its layers in Caffe's files."""

    path: str
    module: SkipHead
    maps: tuple[str, ...]
    suffix: str


def encoders(model: Network) -> dict[str, FCNEncoder]:
    """Path in the network -> encoder."""
    if isinstance(model, LateFusionFCN):
        return {"color": model.color, "other": model.other}
    return {"encoder": model.encoder}


def heads(model: Network) -> list[Head]:
    """The heads that upsample; the second stream of late fusion has a score layer only."""
    if isinstance(model, LateFusionFCN):
        return [Head("color_head", model.color_head, model.color.names, "")]
    maps = model.encoder.names
    if isinstance(model, TwoHeadFCN):
        return [Head("head", model.head, maps, "_sem"), Head("geometric_head", model.geometric_head, maps, "_geo")]
    return [Head("head", model.head, maps, "")]


def is_fcn(name: str) -> bool:
    """Whether published weights can be read into this registered network. Raises UnknownNameError."""
    return MODELS[name].module in (FCN.__module__, LateFusionFCN.__module__)


def fcn_names() -> list[str]:
    """The registered networks that published weights can be read into."""
    return sorted(filter(is_fcn, MODELS))


def layout_of(name: str) -> str:
    """ONE_HEAD, TWO_HEADS or LATE_FUSION, of a registered network of `fcn_names`."""
    entry = MODELS[name]
    if entry.module == FCN.__module__:
        return ONE_HEAD
    return TWO_HEADS if "num_geometric" in entry.options else LATE_FUSION
