"""Mirror and scales at test time: against the definition, written with torch's own functions on whole images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import pixelwise
from helpers.command_line import call, refused, save_tiny
from pixelwise.core import Taxonomy
from pixelwise.crf import PRESETS, refine
from pixelwise.errors import ConfigError
from pixelwise.images import read_mask, write_image
from pixelwise.inference.augmented import Augmentation, argmax_of_views, compute_views, probabilities_of_views
from pixelwise.inference.label_map import argmax_upsampled, low_res_logits, probabilities
from pixelwise.inference.segmenter import Segmenter
from pixelwise.models import SegmentationModel, create_model
from pixelwise.weights.checkpoint import Checkpoint

CPU = torch.device("cpu")
# Networks with the five kinds of upsampling: bilinear, by a factor, on aligned corners, transposed, none.
NETWORKS = ("compact", "deeplabv2_vgg16", "pspnet_resnet50", "fcn8s_vgg16", "unet")


def network(name: str) -> SegmentationModel:
    torch.manual_seed(0)
    model = create_model(name, 3, 3, tiny=True).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def segmenter_of(model: SegmentationModel) -> Segmenter:
    return Segmenter(Checkpoint(model, Taxonomy(("a", "b", "c")), {}), "net", device="cpu")


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), np.uint8)
    return np.ascontiguousarray(coarse.repeat(4, 0).repeat(4, 1)[:height, :width])


@torch.inference_mode()
def by_definition(
    model: SegmentationModel, image: NDArray[np.uint8], *, flip: bool, scales: Sequence[float]
) -> NDArray[Any]:
    height, width = image.shape[:2]
    total = torch.zeros(())
    views = [(scale, mirrored) for scale in scales for mirrored in ((False, True) if flip else (False,))]
    for scale, mirrored in views:
        resized = cv2.resize(image, (round(scale * width), round(scale * height)), interpolation=cv2.INTER_LINEAR)
        pixels = torch.from_numpy(resized.copy()).permute(2, 0, 1)[None]
        logits = model(pixels.flip(3) if mirrored else pixels).logits
        logits = logits.flip(3) if mirrored else logits
        total = total + F.interpolate(logits, size=(height, width), mode="bilinear", align_corners=False).softmax(1)
    return np.asarray(total[0] / len(views))


@pytest.mark.parametrize("name", NETWORKS)
def test_probabilities_are_the_mean_of_the_views(name: str) -> None:
    model, image = network(name), noise(70, 300)
    augmented = segmenter_of(model).with_augmentation(flip=True, scales=(0.75, 1, 1.25))
    found = augmented.predict(image, probs=True)
    expected = by_definition(model, image, flip=True, scales=(0.75, 1, 1.25))
    assert found.probs is not None
    assert np.abs(found.probs - expected).max() < 2e-5
    chosen = np.take_along_axis(expected, found.mask[None].astype(np.int64), 0)[0]
    assert (expected.max(0) - chosen).max() < 1e-4
    assert np.abs(found.probs.sum(0) - 1).max() < 1e-5


def test_each_view_counts() -> None:
    """Mirror alone, scales alone and both are three different things, and none of them is the plain image."""
    model, image = network("compact"), noise(64, 96)
    results = [
        by_definition(model, image, flip=flip, scales=scales) for flip in (False, True) for scales in ((1,), (0.5, 2.0))
    ]
    for k, (flip, scales) in enumerate([(False, (1.0,)), (False, (0.5, 2.0)), (True, (1.0,)), (True, (0.5, 2.0))]):
        found = segmenter_of(model).with_augmentation(flip=flip, scales=scales).predict(image, probs=True).probs
        assert found is not None
        distances = [float(np.abs(found - other).max()) for other in results]
        assert distances[k] < 2e-5
        assert sorted(distances)[1] > 1e-3


@pytest.mark.parametrize("name", NETWORKS)
def test_scale_1_alone_is_the_plain_image(name: str) -> None:
    model, image = network(name), noise(70, 300)
    plain = segmenter_of(model).predict(image, probs=True)
    same = segmenter_of(model).with_augmentation(scales=(1,)).predict(image, probs=True)
    assert plain.probs is not None
    assert same.probs is not None
    assert (same.mask == plain.mask).all()
    assert (same.probs == plain.probs).all()
    # The way of the views, which is not taken for one view, says the same.
    with torch.inference_mode():
        views = compute_views(model, image, CPU, Augmentation())
        low_res = low_res_logits(model, image, CPU)
        assert np.abs(probabilities_of_views(views) - probabilities(low_res, (70, 300))).max() < 1e-4
        assert (argmax_of_views(views) == argmax_upsampled(low_res, (70, 300))).mean() > 0.9999


@settings(deadline=None, max_examples=12)
@given(height=st.integers(1, 4), half_width=st.integers(1, 4), seed=st.integers(0, 9))
def test_the_mirror_of_a_mirror_symmetric_network_changes_nothing(height: int, half_width: int, seed: int) -> None:
    """Kernels that equal their mirror image, poolings that fit the width: labels commute with the mirror."""
    model = network("unet_padded")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 4:
                parameter.copy_((parameter + parameter.flip(3)) / 2)
    image = noise(16 * height, 32 * half_width, seed)
    segmenter = segmenter_of(model)
    plain, mirrored = (
        segmenter.predict(image, probs=True),
        segmenter.with_augmentation(flip=True).predict(image, probs=True),
    )
    assert plain.probs is not None
    assert mirrored.probs is not None
    assert np.abs(plain.probs - mirrored.probs).max() < 1e-5


def test_labels_of_a_mirror_image_are_the_mirror_image_of_the_labels() -> None:
    segmenter, image = segmenter_of(network("compact")).with_augmentation(flip=True), noise(61, 83)
    one, other = (segmenter.predict(i, probs=True).probs for i in (image, np.ascontiguousarray(image[:, ::-1])))
    assert one is not None
    assert other is not None
    assert np.abs(one - other[:, :, ::-1]).max() < 1e-5


def test_tiles_give_the_same_views() -> None:
    segmenter, image = segmenter_of(network("unet")).with_augmentation(flip=True, scales=(1, 1.5)), noise(60, 90)
    whole, tiled = segmenter.predict(image, probs=True).probs, segmenter.predict(image, probs=True, tile=36).probs
    assert whole is not None
    assert tiled is not None
    assert np.abs(whole - tiled).max() < 1e-4


def test_the_crf_refines_the_mean() -> None:
    segmenter, image = segmenter_of(network("compact")), noise(40, 60)
    found = segmenter.with_augmentation(flip=True).with_crf("deeplabv2").predict(image, probs=True).probs
    mean = segmenter.with_augmentation(flip=True).predict(image, probs=True).probs
    assert mean is not None
    assert found is not None
    assert np.abs(found - refine(image, mean, PRESETS["deeplabv2"])).max() < 1e-5


def test_one_pixel_and_one_row() -> None:
    segmenter = segmenter_of(network("compact")).with_augmentation(flip=True, scales=(0.1, 2))
    assert segmenter(noise(1, 1)).mask.shape == (1, 1)
    assert segmenter(noise(1, 300)).mask.shape == (1, 300)


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        ((), "expected scales of 0.1 to 4, got none"),
        ((0.0, 1.0), "expected scales of 0.1 to 4, got 0 1"),
        ((float("nan"),), "got nan"),
        ((1.0, 5.0), "got 1 5"),
        ((1.0, 1), "names one scale twice"),
    ],
)
def test_scales_that_are_refused(scales: tuple[float, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Augmentation(scales=scales)


def test_an_augmentation_is_named() -> None:
    assert str(Augmentation(flip=True)) == "mirror"
    assert str(Augmentation(scales=(0.75, 1))) == "scales 0.75, 1"
    assert str(Augmentation(flip=True, scales=(0.5,))) == "mirror and scales 0.5"


def test_predict_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "model")
    write_image(tmp_path / "photo.png", noise(48, 64))
    call(capsys, "predict", tmp_path / "photo.png", "--out", tmp_path / "a", "--model", model, "--device", "cpu")
    options = ("--flip", "--scales", "0.75", "1", "1.5", "--model", model, "--device", "cpu")
    assert call(capsys, "predict", tmp_path / "photo.png", "--out", tmp_path / "b", *options).code == 0
    expected = pixelwise.load(model, device="cpu").with_augmentation(flip=True, scales=(0.75, 1, 1.5))
    plain, augmented = (read_mask(tmp_path / name / "photo.png") for name in "ab")
    assert (augmented == expected.taxonomy.decode(expected(noise(48, 64)).mask)).all()
    assert (augmented != plain).any()
    refused(capsys, "predict", tmp_path / "photo.png", "--out", tmp_path / "c", "--scales", "9", names="got 9")
