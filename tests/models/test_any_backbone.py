"""Every network with a free choice of backbone on every family of backbones, at output strides 8, 16 and 32."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pixelwise.backbones import BACKBONES
from pixelwise.errors import ConfigError
from pixelwise.models import create_model

# The smallest of each family, narrow.
FAMILIES = (
    *("alexnet", "compact", "densenet121", "efficientnet_b0", "efficientnet_lite0", "googlenet_torchvision"),
    *("mobilenetv2", "mobilenetv3_small", "resnet18", "se_resnet50", "unet_bn", "vgg11_bn", "xception41"),
)
NETWORKS: dict[str, dict[str, Any]] = {
    "compact": {"decoder_channels": (8,), "aspp_channels": 4},
    "deeplabv3": {"width_mult": 1 / 32},
    "deeplabv3plus": {"width_mult": 1 / 32},
    "pspnet": {"width_mult": 1 / 32},
    "unet_padded": {"decoder_channels": ()},
}
# Pairs that make no sense, with the reason that the message gives.
NO_SUCH_STRIDE = "ends at stride"
REFUSED = {
    ("compact", "alexnet", 8): "alexnet has maps at strides",
    ("deeplabv3plus", "alexnet", 8): "reads a map of stride 4",
    ("deeplabv3plus", "alexnet", 16): "reads a map of stride 4",
    ("deeplabv3plus", "alexnet", 32): "reads a map of stride 4",
}


def options_of(network: str, backbone: str, output_stride: int) -> dict[str, Any]:
    backbone_options = dict(BACKBONES[backbone].tiny)
    if backbone.startswith("vgg") and output_stride < 32:
        backbone_options["pool_kernel"] = 3  # a 2x2 pooling without its stride has no center
    options = {**NETWORKS[network], "backbone": backbone, "preprocessing": "torchvision"}
    if network != "unet_padded":
        return {**options, "backbone_options": backbone_options, "output_stride": output_stride}
    if "output_stride" in BACKBONES[backbone].options:
        backbone_options["output_stride"] = output_stride
    return {**options, "backbone_options": backbone_options}


@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize("backbone", FAMILIES)
@pytest.mark.parametrize("network", NETWORKS)
def test_every_pair_gives_logits_and_gradients(network: str, backbone: str, output_stride: int) -> None:
    torch.manual_seed(0)
    options = options_of(network, backbone, output_stride)
    reason = REFUSED.get((network, backbone, output_stride))
    if "output_stride" not in BACKBONES[backbone].options and network != "unet_padded" and output_stride != 16:
        reason = NO_SUCH_STRIDE
    if reason is not None:
        with pytest.raises(ConfigError, match=reason):
            create_model(network, 3, **options)
        return
    model = create_model(network, 3, **options).train()
    images = torch.randint(0, 256, (2, 3, 97, 65), generator=torch.Generator().manual_seed(1)).float()
    low_res = model.forward_low_res(images)
    rows = -(-97 // model.logits_stride)
    assert abs(low_res.logits.shape[-2] - rows) <= 2, "poolings that are not padded lose a position"
    output = low_res.upsample_to((97, 65))
    assert output.logits.shape == (2, 3, 97, 65)
    sum(logits.square().mean() for logits in (output.logits, *output.aux)).backward()  # type: ignore[union-attr]
    (part,) = model.backbones()
    learning = [name for name, p in part.named_parameters() if p.grad is not None and p.grad.isfinite().all()]
    assert learning == [name for name, _ in part.named_parameters()]


@pytest.mark.parametrize("backbone", [name for name in FAMILIES if name not in ("compact", "densenet121", "unet_bn")])
@pytest.mark.parametrize("network", ["fcn32s", "fcn16s", "fcn8s"])
def test_the_ladder_on_every_classifier(network: str, backbone: str) -> None:
    """Scores of a constant map are constant: the crops lose no border and add none."""
    torch.manual_seed(0)
    options = {"backbone": backbone, "width_mult": BACKBONES[backbone].tiny["width_mult"]}
    model = create_model(network, 3, **options, preprocessing="torchvision").eval()
    for name in model.score_layer_names:
        layer = model.get_submodule(name)
        assert isinstance(layer, torch.nn.Conv2d)
        assert layer.bias is not None
        torch.nn.init.ones_(layer.bias)
    for size in ((97, 65), (64, 64), (33, 50)):
        with torch.no_grad():
            logits = model(torch.zeros(1, 3, *size)).logits
        assert logits.shape == (1, 3, *size)
        torch.testing.assert_close(logits, torch.full_like(logits, float(len(model.score_layer_names))))


def test_backbones_that_fcn_does_not_take() -> None:
    with pytest.raises(ConfigError, match="resnet18 cannot be padded by 100 pixels; fix: set geometry same"):
        create_model("fcn8s_vgg16", 3, backbone="resnet18")
    with pytest.raises(ConfigError, match="unknown FCN backbone 'compact'"):
        create_model("fcn8s", 3, backbone="compact")
    with pytest.raises(ConfigError, match="poolings of densenet121 round sizes down"):
        create_model("fcn8s", 3, backbone="densenet121")
