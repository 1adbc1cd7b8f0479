"""The keys under which other programs look for classes and preprocessing in an exported file.

Sources: Deepness (QGIS), docs/source/creators/creators_add_metadata_to_model.rst; OpenVINO Model API and DL Streamer,
"Model Info Section" (dlstreamer.github.io/dev_guide/model_info_xml.html).
"""

from __future__ import annotations

import json

from ..inference.export_info import ExportInfo

TILE = 512
"""Side of the tiles that Deepness cuts from a map by default."""


def deepness_keys(info: ExportInfo) -> dict[str, str]:
    """Return the metadata of an ONNX file for the QGIS plugin Deepness, each value as JSON.

    Deepness scales pixels to 0..1, takes the mean off and divides by the standard deviation; the graph expects 0..255,
    so the standard deviation is 1/255.
    """
    channels = info.in_channels
    values = {
        "model_type": "Segmentor",
        "class_names": dict(enumerate(info.taxonomy.names)),
        "tiles_size": TILE,
        "tiles_overlap": 15,
        "standardization_mean": [0.0] * channels,
        "standardization_std": [1 / 255] * channels,
    }
    return {key: json.dumps(value) for key, value in values.items()}


def model_api_keys(info: ExportInfo) -> dict[str, str]:
    """Return the `model_info` of an OpenVINO file for the Model API and DL Streamer; labels are separated by blanks."""
    return {
        "model_type": "Segmentation",
        "labels": " ".join(name.replace(" ", "_") for name in info.taxonomy.names),
        "resize_type": "standard",
        "scale_values": "1.0",
        "mean_values": "0.0",
        # The Model API reads images as BGR; the graph expects RGB.
        "reverse_input_channels": str(info.pixels.is_rgb),
        "pad_value": "0",
        "return_soft_prediction": "False" if info.output == "labels" else "True",
    }
