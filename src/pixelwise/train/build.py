"""The data, the network, the batches and the class weights that a configuration asks for."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..backbones import Backbone
from ..config import AugmentConfig, Config, DataConfig, LossConfig, ModelConfig
from ..core import LowResLogits, Output, Taxonomy
from ..data import open_dataset
from ..data.counts import count_pixels
from ..data.dataset import Dataset, Split
from ..data.held_out import HeldOut, training_data
from ..data.inspection import Inspected
from ..data.instances import InstanceCrops
from ..data.loader import AugmentedDataset, ResumableBatchSampler, TrainLoader
from ..data.transforms import Augment, Transform
from ..errors import CheckpointError, ConfigError, DatasetError, listed, printable, shown
from ..images import RGB, PixelFormat, same_numbers
from ..models import MODELS, create_model
from ..models.base import SegmentationModel
from ..registry import suggest
from ..weights.checkpoint import find_checkpoint, load_checkpoint
from ..weights.pretrained import start_from_pretrained
from ..weights.pretrained_files import PRETRAINED, PretrainedWeights
from ..weights.spec_shapes import shapes_of
from .input_channels import InputLayer, inflate_weights, input_layer
from .losses import class_weights_from_counts
from .two_heads import forward_both, second_head_options, split_to_draw


class TrainingSplits(NamedTuple):
    """What a run reads: its dataset, the splits to train and to validate on, and what was held out for validation."""

    dataset: Dataset
    train: Split
    val: Split
    held_out: HeldOut | None


def open_training_splits(settings: DataConfig, held_out: HeldOut | None = None) -> TrainingSplits:
    """Open the dataset of a run with its splits, as `training_data` holds images out.

    held_out  what the run holds out already, None to choose it
    Raises the errors of `open_dataset` and `training_data`, and DatasetError for an image without a mask.
    """
    opened = open_dataset(settings.path, settings.format)
    dataset, held_out = training_data(opened, settings, held_out=held_out)
    train = dataset.split(settings.train_split, option="--data.train_split")
    val = dataset.split(settings.val_split, option="--data.val_split")
    for split in (train, val):
        if not split.has_masks:
            without = next(item.image for item in split.items if item.mask is None)
            what = f"has no mask, but split {split.name} is used for training or validation"
            raise DatasetError(without, what, "add the mask, or name another split")
    return TrainingSplits(dataset, train, val, held_out)


def build_model(
    settings: ModelConfig, taxonomy: Taxonomy, resumed: Path | None = None, *, split: Split | None = None
) -> SegmentationModel:
    """Build the network with fresh weights, or with those of `init_from`.

    Layers are frozen as `train_only` and `freeze_stride` say.

    `init_from` is a checkpoint or a name of `PRETRAINED`, whose weights fill the backbone; a folder of that
    name goes first.

    resumed  checkpoint of the resumed run: its options replace those of `init_from`, which may no longer exist
    split    the training split, by whose images the first layer is made; ordinary RGB images if None

    Weights mean nothing without the pixel normalization that they were trained with, so that of `init_from` is taken
    unless the options name one. Images of another format than that of the weights are measured.
    """
    pretrained = _find_pretrained(settings.init_from) if resumed is None else None
    start = (resumed or settings.init_from) if settings.init_from and pretrained is None else None
    pixels = RGB if split is None else split.pixels
    if not pixels.is_rgb:
        # The normalization that was measured stands in the checkpoint.
        start = start or resumed
    checkpoint = load_checkpoint(find_checkpoint(start)) if start else None
    source = checkpoint.model if checkpoint else None
    options = {**settings.options, **second_head_options(settings.name, split)}
    base = None if pretrained is None else pretrained.preprocessing
    fits = checkpoint is not None and same_numbers(checkpoint.pixels, pixels)
    if checkpoint is not None and source is not None and (fits or checkpoint.pixels.is_rgb):
        default = MODELS[source.spec.name].options["preprocessing"].default
        base = source.spec.options.get("preprocessing", default)
    first = InputLayer({})
    _check_channels(settings.name, options.get("in_channels", pixels.num_channels), pixels)
    if split is not None and not pixels.is_rgb and not fits:
        first = input_layer(split, base, measured="preprocessing" not in options)
        options = {**first.options, **options}
    elif not pixels.is_rgb:
        options = {"in_channels": pixels.num_channels, **options}
    if base is not None:
        options = {"preprocessing": base, **options}
    model = create_model(settings.name, taxonomy.num_classes, **options)
    _check_channels(settings.name, model.in_channels, pixels)
    if checkpoint is not None and resumed is None:
        names = {"classes": taxonomy.names, "source_classes": checkpoint.taxonomy.names}
        print(printable(start_from(model, checkpoint.model, settings.init_from, layer=first, **names)))
    if pretrained is not None:
        print(printable(start_from_pretrained(model, pretrained.name, first.planes)))
    if settings.train_only == "score_layers":
        if not model.score_layers():
            raise ConfigError("--model.train_only", f"{settings.name} does not declare its score layers", "use all")
        model.requires_grad_(requires_grad=False)
        for layer in model.score_layers():
            layer.requires_grad_(requires_grad=True)
    # Where neither images nor weights need a gradient, autograd keeps no activations and computes nothing backward.
    for layer in frozen_layers(model, settings.freeze_stride):
        layer.requires_grad_(requires_grad=False)
    return model


def _check_channels(name: str, in_channels: int, pixels: PixelFormat) -> None:
    """Raise ConfigError for a network that takes other images than those of the data."""
    if in_channels != pixels.num_channels:
        what = f"{name} takes {in_channels} channels; the images have {pixels.in_words()}"
        fix = "leave `in_channels` out of --model.options, choose another network, or declare `images` in classes.yaml"
        raise ConfigError("--model.name", what, fix)


def _find_pretrained(name: str | None) -> PretrainedWeights | None:
    """Return the pretrained weights of that name, or None for a checkpoint: a folder that has the name goes first.

    Raises CheckpointError for a name that nearly is one of them.
    """
    if not name:
        return None
    if Path(name).exists():
        if name in PRETRAINED:
            print(f"--model.init_from {name}: the folder of that name is taken, not the pretrained weights")
        return None
    if name not in PRETRAINED and name not in MODELS and difflib.get_close_matches(name, PRETRAINED, n=1):
        what = "neither a checkpoint folder nor the name of pretrained weights"
        raise CheckpointError(name, what, suggest(name, PRETRAINED))
    return PRETRAINED.get(name)


def frozen_layers(model: SegmentationModel, stride: int) -> list[nn.Module]:
    """Return the layers of the backbone that `freeze_stride` freezes: none for 0.

    Raises ConfigError for a network without a backbone, and for one whose finest map is coarser.
    """
    if not stride:
        return []
    layers: list[nn.Module] = []
    for backbone in declared_backbones(model, "--model.freeze_stride"):
        if not isinstance(backbone, Backbone):
            what = f"{model.spec.name} does not say which layers of its backbone lie before a stride"
            raise ConfigError("--model.freeze_stride", what, "leave it at 0")
        within = backbone.modules_within(stride)
        if not within:
            what = f"expected {backbone.strides[0]} or more, the finest stride of the backbone, got {stride}"
            raise ConfigError("--model.freeze_stride", what, "set it to 0, or to one of the strides of the backbone")
        layers += within
    return layers


def declared_backbones(model: SegmentationModel, option: str) -> list[nn.Module]:
    """Return the backbones that the network declares. Raises ConfigError naming `option` if there are none."""
    backbones = model.backbones()
    if not backbones:
        raise ConfigError(option, f"{model.spec.name} declares no backbone", "leave it out, or choose another network")
    return backbones


def start_from(
    model: SegmentationModel,
    source: SegmentationModel,
    name: object,
    *,
    classes: Sequence[str] = (),
    source_classes: Sequence[str] = (),
    layer: InputLayer | None = None,
) -> str:
    """Copy every tensor whose name and shape the two networks share; the others keep their fresh values.

    So FCN-16s starts from FCN-32s with its new score layers at zero. If the two have other classes, or the same ones in
    another order, the numbers of a class are copied to the class of the same name; new classes keep fresh numbers.

    name                     of the source, for messages
    classes, source_classes  their class names, in the order of the ids; left out, both have the same
    layer                    of the images, by which first layers for RGB are inflated
    Returns a line that counts the copied tensors and lists the fresh and the unused ones. Raises CheckpointError if
    nothing fits.
    """
    own, given = model.state_dict(), source.state_dict()
    source_axes = _class_axes(source)
    if model.stream_names and not source.stream_names:
        given = {f"{stream}.{key}": value for stream in model.stream_names for key, value in given.items()}
        source_axes = {f"{stream}.{key}": axes for stream in model.stream_names for key, axes in source_axes.items()}
    inflated = [] if layer is None else inflate_weights(own, given, layer)
    shared = {key: given[key] for key in own if key in given and own[key].shape == given[key].shape}
    matched = ""
    if tuple(classes) != tuple(source_classes):
        place = {word: k for k, word in enumerate(source_classes)}
        ours = torch.tensor([k for k, word in enumerate(classes) if word in place], dtype=torch.int64)
        theirs = torch.tensor([place[word] for word in classes if word in place], dtype=torch.int64)
        for key, axes in _class_axes(model).items():
            shared.pop(key, None)
            if len(ours) and axes and source_axes.get(key) == axes and _same_but_for(axes, own[key], given[key]):
                rows = given[key]
                for axis in axes:
                    rows = rows.index_select(axis, theirs)
                shared[key] = _replace_rows(own[key], rows, axes, ours)
        new = [word for word in classes if word not in place]
        matched = f"; {len(ours)} of {len(classes)} classes matched by name" + (f", new: {listed(new)}" if new else "")
    if not shared:
        raise CheckpointError(name, "shares no tensor with the network", "start from a checkpoint of the same backbone")
    model.load_state_dict({**own, **shared})
    fresh, unused = [key for key in own if key not in shared], [key for key in given if key not in own]
    line = f"started from {name}: {len(shared)} tensors copied, {len(fresh)} fresh"
    line += f": {listed(fresh, 8)}" if fresh else ""
    line += f"; inflated from RGB: {listed(inflated)}" if inflated else ""
    return line + matched + (f"; {len(unused)} of the checkpoint unused: {listed(unused, 8)}" if unused else "")


def _class_axes(model: SegmentationModel) -> dict[str, tuple[int, ...]]:
    """Return the tensors of a network whose shape depends on the number of classes, and the axes that number them.

    The tuple is empty if an axis depends on the number in another way than by being it: its rows cannot be matched.
    """
    own = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    other = shapes_of(replace(model.spec, num_classes=model.num_classes + 1))
    changed = {
        key: tuple(axis for axis, size in enumerate(shape) if size != other[key][axis])
        for key, shape in own.items()
        if shape != other[key]
    }
    return {
        key: axes if all(own[key][axis] == model.num_classes for axis in axes) else () for key, axes in changed.items()
    }


def _same_but_for(axes: Sequence[int], one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors have the same shape along all but the given axes."""
    shapes = ([size for axis, size in enumerate(tensor.shape) if axis not in axes] for tensor in (one, other))
    return one.ndim == other.ndim and next(shapes) == next(shapes)


def _replace_rows(tensor: Tensor, rows: Tensor, axes: Sequence[int], ids: Tensor) -> Tensor:
    """Return the tensor with `rows` at the indices `ids` of each of the axes, such as both of a kernel (K, K, 4, 4)."""
    if not axes:
        return rows
    inner = _replace_rows(tensor.index_select(axes[0], ids), rows, axes[1:], ids)
    return tensor.index_copy(axes[0], ids, inner)


def choose_memory_format(model: nn.Module, device: str) -> torch.memory_format:
    """Return channels_last, in which convolutions are faster, or contiguous_format for networks that it would crash.

    In torch 2.13 on CPUs without AVX-512, oneDNN's kernel for the weight gradient of a 1x1 convolution with stride 2
    (jit_1x1:avx2) writes past its buffer in channels_last, if the number of channels is not a multiple of 8 and the map
    has an even size. The heap is corrupt, and the process aborts. Published networks have no such layer, narrowed ones
    may.
    """
    if device == "cpu" and "AVX512" not in torch.backends.cpu.get_cpu_capability():
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and max(layer.stride) > 1:
                channels = layer.in_channels // layer.groups, layer.out_channels // layer.groups
                if any(count % 8 for count in channels):
                    return torch.contiguous_format
    return torch.channels_last


def training_forward(model: SegmentationModel, config: Config) -> Callable[[Tensor], Output | LowResLogits]:
    """Return the function from images to logits that a training step calls, as `augment` and `loss` ask for.

    Raises ConfigError for context that the network does not take.
    """
    context = config.augment.context_px
    if model.num_heads > 1 and not context:
        return forward_both(model, config)
    if not context:
        return model.forward_low_res if config.loss.resolution == "logits" else model.forward
    if model.context_px != context:
        what = f"{config.model.name} expects {model.context_px}, got {context}"
        raise ConfigError("--augment.context_px", what, f"set --augment.context_px {model.context_px}")

    def forward_with_context(images: Tensor) -> Output:
        height, width = images.shape[-2:]
        return model.forward_with_context(images).upsample_to((height - 2 * context, width - 2 * context))

    return forward_with_context


def training_transform(
    settings: AugmentConfig, ignore_id: int, pixels: PixelFormat = RGB, fill: Sequence[float] | None = None
) -> Transform:
    """Build the augmentation that the configuration asks for.

    pixels  of the images; changes of color are for the ordinary image among their channels alone
    fill    the number of each channel beyond the borders of the image; None is the mean color of photos
    Raises ConfigError for changes of color that no channel takes.
    """
    names = ("brightness", "contrast", "saturation", "hue", "gamma")
    asked = [name for name in names if getattr(settings, name)]
    if asked and not pixels.has_rgb:
        what = f"changes colors; the images have {pixels.in_words()}"
        raise ConfigError(f"--augment.{asked[0]}", what, "leave it at 0: it is for 8-bit RGB")
    augment = Augment(settings, ignore_id, fill=None if pixels.is_rgb or fill is None else tuple(fill))
    return augment if settings.instance_crops == "none" else InstanceCrops(augment, settings.instance_crops, ignore_id)


def make_class_weights(
    settings: LossConfig, split: Split, *, skip_bad: bool = False, found: Sequence[Inspected] | None = None
) -> Tensor | None:
    """Return the class weights (K,) float32 of the loss, or None; `skip_bad` and `found` as in `count_pixels`.

    Raises ConfigError if no class that occurs has a weight: nothing would be learned.
    """
    scheme, count = settings.class_weights, split.taxonomy.num_classes
    if scheme == "none":
        return None
    if isinstance(scheme, list):
        if len(scheme) != count:
            what = f"expected {count} numbers, one per class, got {scheme}"
            raise ConfigError("--loss.class_weights", what, "give one number of 0 or more per class")
        counts = None if found is None else count_pixels(split, skip_bad=skip_bad, found=found)
        if not any(weight > 0 and (counts is None or counts[k]) for k, weight in enumerate(scheme)):
            what = f"expected a weight above 0 for a class that occurs in split {split.name}, got {shown(scheme)}"
            raise ConfigError("--loss.class_weights", what, "nothing would be learned: give one number per class")
        return torch.tensor(scheme, dtype=torch.float32)
    counts = count_pixels(split, skip_bad=skip_bad, found=found)
    return class_weights_from_counts(torch.from_numpy(counts), scheme)


def make_loader(
    config: Config,
    split: Split,
    *,
    step: int = 0,
    rank: int = 0,
    world_size: int = 1,
    inspected: Sequence[Inspected] | None = None,
    fill: Sequence[float] | None = None,
) -> TrainLoader:
    """Return the augmented batches of a rank that are left after `step` steps; worker processes make them.

    fill       the number of each channel beyond the borders of the image, `Preprocess.fill` of the network
    inspected  what `check_dataset` found of the split, to read no mask for its size alone
    """
    data, augment, settings = config.data, config.augment, config.train
    split = split_to_draw(config, split)
    samples = AugmentedDataset(
        split,
        training_transform(augment, split.ignore_id, split.pixels, fill),
        seed=settings.seed,
        sampling=data.sampling,
        on_read_error=settings.on_read_error,
        cache_bytes=data.cache_mib * 2**20 // max(data.workers, 1),
        classmix_prob=augment.classmix_prob,
        tile_size=(augment.crop[0], augment.crop[1]) if augment.tiled_crops else None,
        mask_sizes=None if inspected is None else [found.size for found in inspected],
        border_weight=config.loss.border_weight,
        border_sigma=config.loss.border_sigma,
    )
    accumulate = config.optimizer.grad_accum_steps
    start, stop = step * accumulate, settings.steps * accumulate
    batches = ResumableBatchSampler(start, stop, batch_size=data.batch_size, rank=rank, world_size=world_size)
    return TrainLoader(samples, batches, data.workers, grad_accum_steps=accumulate)
