"""Hypercolumns: score maps against a classifier on upsampled features, the grid of classifiers against the authors'
loops.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pixelwise.errors import ConfigError
from pixelwise.models import create_model
from pixelwise.models.hypercolumns import ClassifierGrid, Hypercolumns

NETS = ("hypercolumns_alexnet", "hypercolumns_vgg16")


def tiny(name: str, **options: Any) -> Hypercolumns:
    torch.manual_seed(0)
    model = create_model(name, 5, tiny=True, **options).eval()
    assert isinstance(model, Hypercolumns)
    for parameter in model.scores.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model


def full(name: str) -> Hypercolumns:
    with torch.device("meta"):
        model = create_model(name).eval()
    assert isinstance(model, Hypercolumns)
    return model


def images(height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (2, 3, height, width), generator=torch.Generator().manual_seed(1)).float()


@pytest.mark.parametrize("name", NETS)
def test_summed_score_maps_are_a_classifier_on_the_columns(name: str) -> None:
    """Section 3.2: a k x k score layer is a linear classifier on the k x k neighborhoods of a map."""
    model, x = tiny(name), images(70, 50)
    seen: list[Tensor] = []
    model.grid.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(x)
        columns, weights, bias = [], [], torch.zeros(())
        for features, layer in zip(model.hypercolumn(x), model.scores, strict=True):
            assert isinstance(layer, nn.Conv2d)
            kernel = layer.kernel_size[0]
            around = functional.unfold(features, kernel, padding=kernel // 2)
            around = around.view(2, -1, *features.shape[-2:])
            columns.append(functional.interpolate(around, size=(8, 8), mode="bilinear", align_corners=False))
            weights.append(layer.weight.flatten(1))
            assert layer.bias is not None
            bias = bias + layer.bias
        column, weight = torch.cat(columns, 1), torch.cat(weights, 1)
        expected = torch.einsum("kc,bchw->bkhw", weight, column) + bias[:, None, None]
    torch.testing.assert_close(seen[0], expected.view(2, 5, 4, 8, 8), atol=1e-4, rtol=1e-4)
    if name == NETS[0]:
        assert column.shape[1] == 4736 // 16


def interpolated_by_loops(answers: Tensor, grid_size: int) -> Tensor:
    """The authors' local_layer.cpp for answers (K, grid_size^2, h, w) of one image."""
    size = answers.shape[-1]
    mixed = torch.zeros(answers.shape[0], size, size)

    def around(pixel: int) -> list[tuple[int, float]]:
        position = (pixel + 0.5) * grid_size / size - 0.5
        low = math.floor(position)
        return [(max(low, 0), low + 1 - position), (min(low + 1, grid_size - 1), position - low)]

    for y in range(size):
        for x in range(size):
            for row, row_weight in around(y):
                for column, column_weight in around(x):
                    mixed[:, y, x] += row_weight * column_weight * answers[:, row * grid_size + column, y, x]
    return mixed


@pytest.mark.parametrize("grid_size", [1, 2, 5])
def test_answers_of_the_nearest_classifiers_are_interpolated(grid_size: int) -> None:
    torch.manual_seed(0)
    scores = torch.randn(1, 3, grid_size**2, 7, 7) * 3
    linear, probable = ClassifierGrid(grid_size, 7, "scores"), ClassifierGrid(grid_size, 7, "probabilities")
    torch.testing.assert_close(linear(scores)[0], interpolated_by_loops(scores[0], grid_size))
    torch.testing.assert_close(probable(scores)[0].softmax(0), interpolated_by_loops(scores[0].softmax(0), grid_size))


def test_weights_sum_to_one_at_the_border_too() -> None:
    for grid_size, heatmap_size in ((10, 50), (5, 50), (3, 8)):
        weights = ClassifierGrid(grid_size, heatmap_size, "scores").weights
        torch.testing.assert_close(weights.sum(0), torch.ones(heatmap_size, heatmap_size))
        assert int((weights > 0).sum(0).max()) <= 4
        assert float(weights[0, 0, 0]) == 1, "a corner has one classifier"


def test_a_grid_of_one_is_one_classifier() -> None:
    model, x = tiny(NETS[0], grid_size=1, interpolate="scores"), images(67, 67)
    with torch.no_grad():
        parts = [
            functional.interpolate(layer(c), (8, 8), mode="bilinear")
            for layer, c in zip(model.scores, model.hypercolumn(x), strict=True)
        ]
        torch.testing.assert_close(model.forward_low_res(x).logits, torch.stack(parts).sum(0))


@pytest.mark.parametrize("interpolate", ["scores", "probabilities"])
def test_a_classifier_learns_from_its_cells_only(interpolate: str) -> None:
    """Classifier 0 of 2 x 2 has no weight in the last column of the heat map."""
    model, x = tiny(NETS[1], interpolate=interpolate), images(64, 64)
    torch.autograd.backward(model.forward_low_res(x).logits[..., -1].square().sum())
    for layer in model.scores:
        assert isinstance(layer, nn.Conv2d)
        assert layer.weight.grad is not None
        gradient = layer.weight.grad.view(5, 2, 2, -1)
        assert not gradient[:, :, 0].any()
        assert gradient[:, :, 1].any()
        assert gradient.isfinite().all()


def test_scores_far_apart_lose_no_probability() -> None:
    scores = torch.tensor([400.0, -400.0]).view(1, 2, 1, 1, 1).expand(1, 2, 4, 6, 6).clone().requires_grad_()
    logits = ClassifierGrid(2, 6, "probabilities")(scores)
    assert logits.isfinite().all()
    logits[:, 1].sum().backward()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()
    assert scores.grad.any()


@pytest.mark.parametrize(
    ("name", "sizes", "channels"), [(NETS[0], (13, 13, 1), (256, 384, 4096)), (NETS[1], (28, 14, 1), (256, 512, 4096))]
)
def test_maps_of_the_papers_boxes(name: str, sizes: tuple[int, ...], channels: tuple[int, ...]) -> None:
    model = full(name)
    maps = model.hypercolumn(torch.empty(1, 3, 300, 200, device="meta"))
    assert [(*features.shape,) for features in maps] == [(1, c, s, s) for c, s in zip(channels, sizes, strict=True)]
    assert model.forward_low_res(torch.empty(1, 3, 300, 200, device="meta")).logits.shape == (1, 21, 50, 50)


def test_maps_are_the_papers_layers() -> None:
    alexnet, vgg = full(NETS[0]), full(NETS[1])
    assert [layer.name for layer in alexnet.layers.values()] == ["pool2", "conv4"]
    assert isinstance(alexnet.features[6], nn.MaxPool2d)
    assert isinstance(alexnet.features[7], nn.LocalResponseNorm), "pool2 is taken before it is normalized"
    convs = [i for i, layer in enumerate(alexnet.features) if isinstance(layer, nn.Conv2d)]
    assert isinstance(alexnet.features[convs[3] + 1], nn.ReLU)
    assert list(alexnet.layers) == [6, convs[3] + 1]
    pools = [i for i, layer in enumerate(vgg.features) if isinstance(layer, nn.MaxPool2d)]
    assert [layer.name for layer in vgg.layers.values()] == ["pool3", "pool4"]
    assert list(vgg.layers) == [pools[2], pools[3]]
    scores = [layer for layer in vgg.scores if isinstance(layer, nn.Conv2d)]
    assert [(layer.out_channels, layer.kernel_size[0]) for layer in scores] == [(525, 3), (525, 1), (525, 1)]


def test_an_image_is_one_box() -> None:
    """Resized to the square, answered by a heat map, which is brought to the image's size; normalizing first is the
    same.
    """
    model, x = tiny(NETS[1]), images(50, 90)
    square = functional.interpolate(x, size=(64, 64), mode="bilinear", align_corners=False)
    with torch.no_grad():
        scores = model.forward_low_res(square).logits
        torch.testing.assert_close(model.forward_low_res(x).logits, scores, atol=1e-4, rtol=1e-4)
        back = functional.interpolate(scores, size=(50, 90), mode="bilinear", align_corners=False)
        torch.testing.assert_close(model(x).logits, back, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"grid_size": 0}, "grid_size"),
        ({"heatmap_size": 0}, "heatmap_size"),
        ({"input_size": 10}, "input_size"),
        ({"interpolate": "labels"}, "probabilities, scores"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        create_model(NETS[1], tiny=True, **options)
