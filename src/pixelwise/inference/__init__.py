"""From an image to its label map.

The way of one image through `pixelwise predict photo.jpg`, eight files from the command to the mask on disk:

1. `commands/predict.py`          parse the options, load the model
2. `inference/predict_files.py`   for each image: read, predict, write, in one loop
3. `images/read.py`               file (by `images/decode.py`) -> (H, W, 3) uint8 RGB
4. `inference/segmenter.py`       the model, its taxonomy, perhaps a CRF
5. `models/compact.py`            normalizes (`nn/preprocessing.py`); (1, 3, H, W) -> low-resolution logits (1, K, h, w)
6. `inference/label_map.py`       upsampling and argmax in one pass -> class ids (H, W)
7. `images/write.py`              class ids in file values -> PNG
8. `files.py`                     the file appears whole or not at all
"""

from __future__ import annotations

from .._lazy import lazy_modules

__all__ = [
    "crf_settings",
    "device",
    "jobs",
    "label_map",
    "predict_files",
    "proposals",
    "segmenter",
    "tiles",
]

__getattr__ = lazy_modules(__name__, __all__)
