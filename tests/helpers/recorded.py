"""Weights that two libraries can set alike, and the logits of torchvision 0.28 with them.

No test needs torchvision. `python tests/helpers/recorded.py` rewrites the recording where torchvision is installed.
"""

from __future__ import annotations

import importlib
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

FILE = Path(__file__).parents[1] / "samples" / "torchvision_logits.json"
SIZE = (75, 91)
NUM_CLASSES = 21
CLASSIFIERS = (
    "resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small", "densenet121",
    "efficientnet_b0", "googlenet",
)  # fmt: skip
SEGMENTERS = ("fcn_resnet50", "deeplabv3_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large")


def fill(net: nn.Module) -> None:
    """Set every entry of a state to values that depend only on its name and shape."""
    for name, value in net.state_dict().items():
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        if value.ndim >= 2:
            numbers = rng.normal(0, np.sqrt(2 / np.prod(value.shape[1:])), value.shape)
        elif name.endswith(("running_var", "weight")):
            numbers = rng.uniform(0.6, 1.4, value.shape)
        elif value.is_floating_point():
            numbers = rng.uniform(-0.2, 0.2, value.shape)
        else:
            continue
        value.copy_(torch.from_numpy(numbers))


def make_image() -> Tensor:
    """Return a normalized image (1, 3, H, W) float32 of SIZE."""
    return torch.from_numpy(np.random.default_rng(7).normal(0, 1, (1, 3, *SIZE)).astype(np.float32))


def sample(logits: Tensor) -> list[float]:
    """Return 48 of the logits, evenly spread."""
    flat = logits.detach().double().flatten()
    return [float(value) for value in flat[torch.linspace(0, len(flat) - 1, 48).long()]]


def recorded() -> dict[str, list[float]]:
    """Return network -> logits of torchvision, chosen by `sample`."""
    found: dict[str, list[float]] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def record() -> None:
    """Build each network of torchvision, fill it, and write its logits of the image in eval mode."""
    torchvision: Any = importlib.import_module("torchvision")
    answers: dict[str, Any] = {}
    for name in CLASSIFIERS:
        options = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
        net = getattr(torchvision.models, name)(weights=None, num_classes=NUM_CLASSES, **options).eval()
        fill(net)
        with torch.no_grad():
            answers[name] = sample(net(make_image()))
    for name in SEGMENTERS:
        options = {} if name.startswith("lraspp") else {"aux_loss": True}
        build = getattr(torchvision.models.segmentation, name)
        net = build(weights=None, weights_backbone=None, num_classes=NUM_CLASSES, **options).eval()
        fill(net)
        with torch.no_grad():
            answers |= {f"{name} {key}": sample(value) for key, value in net(make_image()).items()}
    lines = [f'  "{name}": {json.dumps([round(value, 7) for value in values])}' for name, values in answers.items()]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    record()
