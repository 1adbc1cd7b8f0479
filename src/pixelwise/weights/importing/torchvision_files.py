"""torchvision's segmentation files -> its nets here, which carry torchvision's own state names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import CheckpointError
from ...models import MODELS, ModelSpec
from ...models.torchvision_nets import TorchvisionNet
from .assign import Imported, KeyMapping, SourceArray, fill
from .safe_open import regular_file
from .torch_file import TORCH_ENDINGS, read_tensors
from .torch_names import without_missing_counters

# The layers that give the class scores: in FCN and DeepLab v3, in LR-ASPP.
_LAST_LAYERS = ("classifier.4.bias", "classifier.high_classifier.bias")


def is_whole(name: str) -> bool:
    """Whether a registered network is one of torchvision's. Raises UnknownNameError."""
    return MODELS[name].module == TorchvisionNet.__module__


def whole_names() -> list[str]:
    """The registered networks that torchvision's segmentation files can be read into."""
    return sorted(filter(is_whole, MODELS))


def import_whole(
    path: str | Path,
    name: str,
    num_classes: int | None = None,
    *,
    in_channels: int | None = None,
    tiny: bool = False,
    options: Mapping[str, Any] | None = None,
) -> Imported:
    """Build torchvision's net `name` and fill it from its file; classes and the auxiliary head are as the file has them.

    Raises CheckpointError for a file that is damaged or of another network, ConfigError for an option.
    """
    path = regular_file(path)
    if path.suffix not in TORCH_ENDINGS:
        what = f"ends in {path.suffix!r}, a net of torchvision is a file of {', '.join(TORCH_ENDINGS)}"
        raise CheckpointError(path, what, "give the file the ending of its kind")
    arrays = {key: SourceArray.of_tensor(tensor) for key, tensor in read_tensors(path).items()}
    said = next((arrays[key].shape[0] for key in _LAST_LAYERS if key in arrays and arrays[key].shape), None)
    if said is None:
        fix = "an image classifier fits a backbone; import a segmentation file, such as deeplabv3_resnet50_coco-cd0a2569.pth"
        raise CheckpointError(path, "holds no segmentation net of torchvision: no class scores", fix)
    derived: dict[str, Any] = {}
    if "auxiliary" in MODELS[name].options:
        derived["auxiliary"] = any(key.startswith("aux_classifier.") for key in arrays)
    spec = ModelSpec(
        name,
        num_classes or said,
        in_channels or 3,
        options={**(MODELS[name].tiny if tiny else {}), **derived, **(options or {})},
    )
    model = spec.build()
    plan = without_missing_counters(KeyMapping(moves={key: key for key in model.state_dict()}), arrays)
    fix = "choose the model that the file was made for, with the file's number of classes"
    return Imported(model.eval(), spec, fill(model, arrays, plan, path, fix))
