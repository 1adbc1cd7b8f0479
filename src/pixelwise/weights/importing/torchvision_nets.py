"""torchvision's segmentation files into our copies of its nets, which carry torchvision's own state names."""

from __future__ import annotations

from ...errors import CheckpointError
from ...models import MODELS, ModelSpec
from .classifiers import without_missing_counters
from .load import Imported, KeyMapping, Request, WeightFile, load_mapped

# The layers that give the class scores: in FCN and DeepLab v3, in LR-ASPP.
LAST_LAYERS = ("classifier.4.bias", "classifier.high_classifier.bias")


def import_torchvision_net(file: WeightFile, request: Request) -> Imported:
    """Build torchvision's net and load its file; the number of classes and the auxiliary head are the file's.

    Raises CheckpointError for a file of another network, ConfigError for an option.
    """
    biases = [file.arrays[name].shape for name in LAST_LAYERS if name in file.arrays]
    sizes = [shape[0] for shape in biases if shape]
    if not sizes:
        what = "expected a segmentation net of torchvision, got a file without class scores"
        fix = "import a file such as deeplabv3_resnet50_coco-cd0a2569.pth; an image classifier fits a backbone"
        raise CheckpointError(file.path, what, fix)
    options = dict(request.options)
    if "auxiliary" in MODELS[request.name].options:
        options = {"auxiliary": any(name.startswith("aux_classifier.") for name in file.arrays), **options}
    num_classes = request.num_classes or sizes[0]
    model = ModelSpec(request.name, num_classes, request.in_channels or 3, options).build()
    mapping = without_missing_counters(KeyMapping(moves={key: key for key in model.state_dict()}), file)
    fix = "choose the model that the file was made for, with the file's number of classes"
    return Imported(model.eval(), model.spec, load_mapped(model, file, mapping, fix))
