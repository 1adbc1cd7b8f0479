"""The same weights give the same logits: our networks against those of torchvision 0.28 (`helpers/recorded.py`)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from helpers.recorded import CLASSIFIERS, NUM_CLASSES, SEGMENTERS, fill, make_image, recorded, sample
from pixelwise.backbones import create_backbone
from pixelwise.backbones.classifier import ClassifierBackbone
from pixelwise.models import create_model
from pixelwise.models.torchvision_nets import TorchvisionNet

OURS = {
    "mobilenet_v2": "mobilenetv2",
    "mobilenet_v3_large": "mobilenetv3_large",
    "mobilenet_v3_small": "mobilenetv3_small",
    "googlenet": "googlenet_torchvision",
}
UNCHANGED = {"order": "rgb", "mean": [0.0] * 3, "std": [1.0] * 3}


def agree(ours: Tensor, name: str) -> None:
    expected = torch.tensor(recorded()[name], dtype=torch.float64)
    scale = float(expected.abs().max())
    torch.testing.assert_close(torch.tensor(sample(ours), dtype=torch.float64), expected, atol=1e-4 * scale, rtol=1e-4)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers(name: str) -> None:
    net = create_backbone(OURS.get(name, name), num_classes=NUM_CLASSES).eval()
    assert isinstance(net, ClassifierBackbone)
    fill(net)
    with torch.no_grad():
        agree(net.classify(make_image()), name)


@pytest.mark.parametrize("name", SEGMENTERS)
def test_segmentation_nets(name: str) -> None:
    model = create_model(f"torchvision_{name}", NUM_CLASSES, preprocessing=UNCHANGED).eval()
    fill(model)
    with torch.no_grad():
        agree(model(make_image()).logits, f"{name} out")
        if isinstance(model, TorchvisionNet):
            assert model.aux_classifier is not None
            scores = model.aux_classifier(model.features(make_image())[0])
            agree(functional.interpolate(scores, size=make_image().shape[-2:], mode="bilinear"), f"{name} aux")
