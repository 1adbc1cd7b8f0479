"""Backbones of timm, with a stand-in of its documented interface: the tests do not need timm."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pixelwise.backbones import create_backbone
from pixelwise.errors import ConfigError, ResourceError, UnknownNameError
from pixelwise.models import create_model


class Info:
    def channels(self) -> list[int]:
        return [4, 6]

    def reduction(self) -> list[int]:
        return [2, 4]


class Features(nn.Module):
    """Stands for `timm.create_model(features_only=True)`: a module that returns maps, with `feature_info`."""

    def __init__(self, in_chans: int) -> None:
        super().__init__()
        self.fine, self.deep = nn.Conv2d(in_chans, 4, 3, 2, 1), nn.Conv2d(4, 6, 3, 2, 1)
        self.feature_info = Info()

    def forward(self, x: Tensor) -> list[Tensor]:
        fine = self.fine(x)
        return [fine, self.deep(fine)]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Install a module `timm` with one network, and return the arguments of its calls."""
    seen: list[dict[str, Any]] = []
    timm = ModuleType("timm")

    def create_model(name: str, in_chans: int, **options: Any) -> Features:
        seen.append({"name": name, "in_chans": in_chans, **options})
        if options.get("output_stride") == 8:
            raise NotImplementedError
        return Features(in_chans)

    monkeypatch.setattr(timm, "create_model", create_model, raising=False)
    monkeypatch.setattr(timm, "list_models", lambda: ["smallnet"], raising=False)
    monkeypatch.setitem(sys.modules, "timm", timm)
    return seen


def test_a_backbone_of_timm_is_a_backbone(calls: list[dict[str, Any]]) -> None:
    backbone = create_backbone("timm:smallnet", in_channels=4, output_stride=16)
    assert calls == [
        {"name": "smallnet", "in_chans": 4, "features_only": True, "pretrained": False, "output_stride": 16}
    ]
    assert (backbone.channels, backbone.strides) == ((4, 6), (2, 4))
    assert backbone.map_names == ("map0", "map1")
    assert [tuple(features.shape) for features in backbone(torch.zeros(1, 4, 32, 48))] == [
        (1, 4, 16, 24),
        (1, 6, 8, 12),
    ]


def test_a_model_uses_it(calls: list[dict[str, Any]]) -> None:
    model = create_model("unet_padded", 5, backbone="timm:smallnet")
    assert model(torch.zeros(1, 3, 31, 50)).logits.shape == (1, 5, 31, 50)
    again = model.spec.build()
    again.load_state_dict(model.state_dict())


def test_errors_of_timm_are_one_line(calls: list[dict[str, Any]]) -> None:
    with pytest.raises(UnknownNameError, match="smallnet"):
        create_backbone("timm:smalnet")
    with pytest.raises(ConfigError, match="output stride 8"):
        create_backbone("timm:smallnet", output_stride=8)
    with pytest.raises(ConfigError, match="has no option 'width'"):
        create_backbone("timm:smallnet", width=2)


def test_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ResourceError, match="pip install"):
        create_backbone("timm:resnet50")
