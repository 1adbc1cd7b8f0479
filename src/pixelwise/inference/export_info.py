"""The description in an exported file: classes, pixel format, upsampling, comparison with its source."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from ..core import Taxonomy
from ..errors import CheckpointError, InputError, shown
from ..images import PixelFormat
from ..nn.interpolation import make_table

KEY = "pixelwise"
"""The key of the JSON in the metadata of an exported file."""
ExportedOutput = Literal["scores", "logits", "labels"]
Weights = Literal["float32", "float16"]
"""How a file stores the weights; float32 is what they are computed in."""
_INPUTS = ("uint8", "uint16", "float32")
_MAX_TEXT = 2**24


@dataclass(frozen=True)
class ExportInfo:
    """The JSON in an exported file.

    name         of the network, such as "fcn8s_vgg16"
    source       name of the run or checkpoint that was exported, without its folder
    version      of pixelwise
    output       what the graph computes: `scores`, low-resolution logits (B, K, h, w) float32, which are upsampled
                 outside of it; `logits` (B, K, H, W) at the size of the image; `labels`, class ids (B, H, W), or masks
                 (B, K, H, W) uint8 of several labels per pixel
    in_channels  of the images (B, C, H, W) that it takes
    input        type of the images, `uint8`, `uint16` or `float32`; they are normalized inside
    taxonomy     names, colors and file values of the classes
    pixels       channels, bits and ranges of the images
    upsample     name and numbers of the upsampling from scores to logits
    thresholds   of several labels per pixel
    temperature  of the probabilities
    parity       how far the exported network was from its source, see `export/proof.py`
    checkpoint   sha256 of the weights in the checkpoint that was exported, "" where that is not known
    """

    name: str
    source: str
    version: str
    output: ExportedOutput
    in_channels: int
    input: str
    taxonomy: Taxonomy
    pixels: PixelFormat
    upsample: tuple[str, Mapping[str, Any]]
    thresholds: tuple[float, ...] = ()
    temperature: float = 1.0
    parity: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: str = ""

    def to_json(self) -> str:
        """Return the JSON form."""
        name, numbers = self.upsample
        data = {
            "name": self.name,
            "source": self.source,
            "version": self.version,
            "output": self.output,
            "in_channels": self.in_channels,
            "input": self.input,
            "taxonomy": self.taxonomy.to_dict(),
            "pixels": self.pixels.to_dict(),
            "upsample": {"name": name, **numbers},
            "thresholds": list(self.thresholds),
            "temperature": self.temperature,
            "parity": dict(self.parity),
            "checkpoint": self.checkpoint,
        }
        return json.dumps(data)

    @classmethod
    def from_json(cls, text: str | None, source: object) -> ExportInfo:
        """Read the JSON form. Raises CheckpointError naming `source` for a file that pixelwise did not export."""
        fix = "export the model with `pixelwise export`"
        if not text or len(text) > _MAX_TEXT:
            raise CheckpointError(source, "holds no description of classes and images by pixelwise", fix)
        try:
            data = json.loads(text)
            upsample = dict(data["upsample"])
            info = cls(
                name=str(data["name"]),
                source=str(data["source"]),
                version=str(data["version"]),
                output=data["output"],
                in_channels=int(data["in_channels"]),
                input=data["input"],
                taxonomy=Taxonomy.from_dict(data["taxonomy"], source),
                pixels=PixelFormat.from_dict(data["pixels"], source),
                upsample=(upsample.pop("name"), upsample),
                thresholds=tuple(float(number) for number in data["thresholds"]),
                temperature=float(data["temperature"]),
                parity=dict(data["parity"]),
                checkpoint=str(data.get("checkpoint", "")),
            )
            wrong = {"output": info.output not in get_args(ExportedOutput), "input": info.input not in _INPUTS}
            make_table(*info.upsample, 1, 1)
        except (ValueError, KeyError, TypeError, AttributeError, InputError, RecursionError) as error:
            what = f"its description by pixelwise cannot be read: {shown(str(error))}"
            raise CheckpointError(source, what, fix) from None
        for key, is_wrong in wrong.items():
            if is_wrong:
                raise CheckpointError(source, f"{key}: unknown {shown(getattr(info, key))}", "update pixelwise")
        return info
