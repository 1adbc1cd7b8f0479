"""First layers of networks that start from RGB weights, and crops of images that are not ordinary ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.channel_data import write_color_depth, write_five_channels
from helpers.tiny_data import TINY_COMPACT, TINY_FCN, tiny_config, write_dataset
from pixelwise.config import AugmentConfig, ModelConfig
from pixelwise.data import open_dataset
from pixelwise.data.transforms import Augment
from pixelwise.errors import ConfigError
from pixelwise.images import RGB
from pixelwise.models import SegmentationModel, create_model
from pixelwise.train.build import build_model, make_loader
from pixelwise.weights.checkpoint import save_checkpoint


def first_conv(model: torch.nn.Module) -> torch.Tensor:
    return next(layer.weight for layer in model.modules() if isinstance(layer, torch.nn.Conv2d))


def start(data: Path, source: SegmentationModel, tmp_path: Path, **settings: Any) -> SegmentationModel:
    """Build the network that a run on `data` would start with from a checkpoint of RGB images."""
    dataset = open_dataset(data)
    save_checkpoint(tmp_path / "rgb", source, dataset.taxonomy)
    config = ModelConfig(init_from=str(tmp_path / "rgb"), **settings)
    return build_model(config, dataset.taxonomy, split=dataset.split("train"))


@pytest.mark.parametrize("preprocessing", ["torchvision", "caffe"])
def test_each_color_keeps_its_weights_and_others_get_their_mean(tmp_path: Path, preprocessing: str) -> None:
    data = write_five_channels(tmp_path / "data")
    source = create_model("compact", 3, preprocessing=preprocessing, **TINY_COMPACT)
    settings = {"name": "compact", "options": TINY_COMPACT}
    model = start(data, source, tmp_path, **settings)
    given, own = first_conv(source), first_conv(model)
    # The images hold blue, green, red, red_edge, nir; Caffe's weights begin with blue, the others with red.
    planes = [0, 1, 2] if preprocessing == "caffe" else [2, 1, 0]
    torch.testing.assert_close(own[:, :3], given[:, planes])
    torch.testing.assert_close(own[:, 3:], given.mean(1, keepdim=True).expand(-1, 2, -1, -1))
    rest = {key: value for key, value in source.state_dict().items() if value.shape != given.shape}
    assert all(torch.equal(model.state_dict()[key], value) for key, value in rest.items())


def test_a_photo_with_depth_keeps_the_published_normalization(tmp_path: Path) -> None:
    data = write_color_depth(tmp_path / "data")
    source = create_model("fcn32s_vgg16", 3, preprocessing="caffe", **TINY_FCN)
    model = start(data, source, tmp_path, name="fcn32s_late_fusion_vgg16", options=TINY_FCN)
    images = torch.randint(0, 256, (1, 3, 32, 48), dtype=torch.uint8)
    depth = torch.randint(1000, 9000, (1, 1, 32, 48)).to(torch.uint16)
    both = torch.from_numpy(np.concatenate([images.numpy().astype(np.uint16), depth.numpy()], 1))
    normalized = model.preprocess(both)
    torch.testing.assert_close(normalized[:, :3], source.preprocess(images))
    # Photos after Caffe's normalization have a standard deviation of 58: so has the depth of the training images.
    files = [np.asarray(Image.open(file)) for file in (data / "depth" / "train").iterdir()]
    assert (np.stack(files) / float(model.preprocess.std[3])).std() == pytest.approx(57.6, rel=1e-4)
    # Both streams start from the one network; that of the depth sees its planes summed, as gray would.
    own = model.state_dict()
    for name, value in source.state_dict().items():
        if own[f"hha.{name}"].shape == value.shape:
            assert torch.equal(own[f"color.{name}"], value)
            assert torch.equal(own[f"hha.{name}"], value)
        else:
            torch.testing.assert_close(own[f"hha.{name}"], value.sum(1, keepdim=True))


def test_rgb_images_change_nothing(tmp_path: Path) -> None:
    dataset = open_dataset(write_dataset(tmp_path / "data"))
    settings = ModelConfig("compact", TINY_COMPACT)
    torch.manual_seed(0)
    with_split = build_model(settings, dataset.taxonomy, split=dataset.split("train"))
    torch.manual_seed(0)
    plain = create_model("compact", 3, **TINY_COMPACT)
    assert dataset.split("train").pixels is RGB
    assert with_split.spec == plain.spec
    assert all(
        torch.equal(a, b) for a, b in zip(with_split.state_dict().values(), plain.state_dict().values(), strict=True)
    )


def test_networks_of_other_channels_are_refused(tmp_path: Path) -> None:
    dataset = open_dataset(write_five_channels(tmp_path / "data"))
    settings = ModelConfig("compact", {**TINY_COMPACT, "in_channels": 4})
    with pytest.raises(ConfigError, match="compact takes 4 channels; the images have 5 channels: blue"):
        build_model(settings, dataset.taxonomy, split=dataset.split("train"))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_crops_of_six_channels_are_those_of_each_channel(dtype: type[Any]) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 250, (20, 30, 6)).astype(dtype)
    mask = rng.integers(0, 3, (20, 30)).astype(np.uint8)
    config = AugmentConfig(crop=[24, 24], rotate=40, elastic=2.0)
    six = Augment(config, 255, tuple(range(6)))(image, mask, np.random.default_rng(1))
    for channel in range(6):
        single = Augment(config, 255, (channel,))(image[..., [channel]], mask, np.random.default_rng(1))
        np.testing.assert_array_equal(six[0][..., channel], single[0][..., 0])
        # Outside of the image it has the number that the network takes for zero.
        assert six[0].dtype == dtype
        assert (six[0][six[1] == 255][:, channel] == channel).mean() > 0.5
        np.testing.assert_array_equal(six[1], single[1])


def test_colors_change_in_red_green_and_blue_alone(tmp_path: Path) -> None:
    split = open_dataset(write_color_depth(tmp_path / "data")).split("train")
    still = tiny_config(tmp_path / "data", augment={"flip": 0.0, "scale": [1.0, 1.0]})
    changed = still.updated({"augment": {"brightness": 0.5, "saturation": 0.5}})
    (batch, *_), (other, *_) = (list(make_loader(config, split, fill=[0.0] * 4)) for config in (still, changed))
    assert torch.equal(batch.images[:, 3].int(), other.images[:, 3].int())
    assert not torch.equal(batch.images[:, :3].int(), other.images[:, :3].int())
