"""Heat maps, skips, activations and receptive fields, each against a computation of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from pixelwise.analysis.model_table import read_table
from pixelwise.analysis.mult_adds import on_meta
from pixelwise.analysis.profile import profile_spec
from pixelwise.analysis.receptive_field import receptive_field_extent, receptive_field_size, receptive_field_window
from pixelwise.backbones import create_backbone
from pixelwise.commands.explain import class_number
from pixelwise.commands.explain import explain as command
from pixelwise.core import Taxonomy, Window
from pixelwise.errors import CheckpointError, ConfigError, InputError, UnknownNameError
from pixelwise.images import legend, write_image
from pixelwise.inference.segmenter import Segmenter
from pixelwise.models import create_model
from pixelwise.nn.geometry import layers_of
from pixelwise.nn.geometry import receptive_field as arithmetic
from pixelwise.nn.upsampling import bilinear_kernel
from pixelwise.taxonomy import safe_name
from pixelwise.visualization import panels
from pixelwise.visualization.explain import (
    class_probability,
    classifier_probability,
    core_window,
    cumulative_labels,
    draw_activations,
    draw_heat_map,
    draw_receptive_field,
    draw_skips,
    feature_maps,
    input_gradient,
)
from pixelwise.weights.checkpoint import Checkpoint, save_checkpoint

TAXONOMY = Taxonomy(("road", "car", "sky"), ((255, 0, 0), (0, 255, 0), (0, 0, 255)))
IMAGE = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)


@pytest.fixture(scope="module")
def fcn() -> Segmenter:
    torch.manual_seed(0)
    model = create_model("fcn8s_vgg16", 3, tiny=True)
    for score in model.score_layers():
        nn.init.normal_(score.get_parameter("weight"), std=0.1)
    return Segmenter(Checkpoint(model.eval(), TAXONOMY), "fcn", device="cpu")


@pytest.fixture(scope="module")
def compact() -> Segmenter:
    torch.manual_seed(0)
    return Segmenter(Checkpoint(create_model("compact", 3, tiny=True).eval(), TAXONOMY), "compact", device="cpu")


def tensor(image: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(image.transpose(2, 0, 1).copy())[None]


def red_classifier() -> Any:
    """VGG11 whose class 1 answers to red: all weights by hand, the red channel passed on through every layer."""
    net: Any = create_backbone("vgg11", num_classes=2, width_mult=1 / 16)
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.weight.zero_()
                nn.init.zeros_(layer.get_parameter("bias"))
            if isinstance(layer, nn.Conv2d):
                layer.weight[0, 0, 1, 1] = 1
        # The first layer: red above the mean of green and blue.
        net.features[0].weight[0, :, 1, 1] = torch.tensor([1.0, -0.5, -0.5])
        first, second, last = (layer for layer in net.classifier if isinstance(layer, nn.Linear))
        # fc6 averages the middle of the 7 x 7 map of channel 0.
        first.weight[0].view(-1, 7, 7)[0, 2:5, 2:5] = 1 / 9
        second.weight[0, 0] = 1
        last.weight[1, 0] = 2
        last.bias[1] = -4
    return net


def test_the_heat_map_of_a_classifier_peaks_where_the_red_patch_is() -> None:
    net = red_classifier()
    places = ((170, 180), (280, 380))
    for (row, column), elsewhere in zip(places, places[::-1], strict=True):
        image = np.full((448, 544, 3), 128, np.uint8)
        image[row - 40 : row + 40, column - 40 : column + 40] = (255, 0, 0)
        probability = classifier_probability(net, image, class_index=1)
        assert probability.shape == (448, 544)
        peak = np.argwhere(probability == probability.max()).mean(0)
        # One cell of the map is 32 pixels wide.
        assert np.abs(peak - (row, column)).max() <= 32
        assert probability.max() > 0.9
        assert probability[row, column] > 0.9
        assert probability[elsewhere] < 0.1
        assert np.allclose(classifier_probability(net, image, class_index=0), 1 - probability, atol=1e-6)


def test_at_its_own_size_the_classifier_gives_its_own_probability() -> None:
    torch.manual_seed(0)
    net: Any = create_backbone("vgg11", num_classes=4, width_mult=1 / 16).eval()
    image = np.random.default_rng(1).integers(0, 256, (224, 224, 3), np.uint8)
    mean, std = ([[[v]] for v in values] for values in ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)))
    with torch.no_grad():
        whole = net.classify((tensor(image).float() - torch.tensor(mean)) / torch.tensor(std)).softmax(1)[0]
    for k in range(4):
        assert np.allclose(classifier_probability(net, image, class_index=k), float(whole[k]), atol=1e-5)


def test_a_classifier_refuses_small_images_and_unknown_classes() -> None:
    net = red_classifier()
    with pytest.raises(InputError, match="expected at least 224x224 pixels, the classifier's window, got 70x90"):
        classifier_probability(net, IMAGE, class_index=0)
    with pytest.raises(InputError, match="class: must be 0 to 1, got 2"):
        classifier_probability(net, np.zeros((224, 224, 3), np.uint8), class_index=2)
    backbone: Any = create_backbone("vgg11", width_mult=1 / 16)
    with pytest.raises(ConfigError, match="has no classifier"):
        classifier_probability(backbone, np.zeros((224, 224, 3), np.uint8), class_index=0)


def test_probability_is_the_softmax() -> None:
    scores = torch.tensor([[[0.0, 5.0]], [[1.0, 0.0]], [[-2.0, 0.0]]])
    by_hand = np.exp([1.0, 0.0]) / [np.exp(0) + np.exp(1) + np.exp(-2), np.exp(5) + 2]
    assert np.allclose(class_probability(scores, 1), by_hand[None])


def test_the_heat_map_is_bright_where_the_probability_is() -> None:
    probability = np.zeros((40, 40), np.float32)
    probability[:, 20:] = 1
    drawn = np.asarray(draw_heat_map(np.full((40, 40, 3), 9, np.uint8), probability, name="car")).astype(int).sum(2)
    # Two panels of 400, margin 20, gap 14: the second one's left half is black, its right half nearly white.
    assert drawn[100, 20 + 400 + 14 + 100] < 20
    assert drawn[100, 20 + 400 + 14 + 300] > 600


def by_hand(model: Any, images: torch.Tensor) -> list[torch.Tensor]:
    """FCN-8s at its published geometry with the paper's crops 5, 9, 31: logits from fr, + pool4, + pool3."""
    x, maps = model.preprocess(images), {}
    for n, layer in enumerate(model.backbone.features):
        x = layer(x)
        maps[n] = x
    pools = [maps[n] for n, layer in enumerate(model.backbone.features) if isinstance(layer, nn.MaxPool2d)]
    fr = model.score_fr(model.fc7(model.fc6(x)))
    pool4, pool3 = model.score_pool4(pools[3]), model.score_pool3(pools[2])

    def up(scores: torch.Tensor, kernel: int) -> torch.Tensor:
        return F.conv_transpose2d(scores, bilinear_kernel(kernel, 3), stride=kernel // 2, groups=3)

    results = []
    for use4, use3 in ((0, 0), (1, 0), (1, 1)):
        two = up(fr, 4)
        two = two + use4 * pool4[..., 5 : 5 + two.shape[2], 5 : 5 + two.shape[3]]
        four = up(two, 4)
        four = four + use3 * pool3[..., 9 : 9 + four.shape[2], 9 : 9 + four.shape[3]]
        results.append(up(four, 16)[..., 31 : 31 + images.shape[2], 31 : 31 + images.shape[3]])
    return results


@torch.no_grad()
def test_what_the_maps_add_sums_up_to_the_models_output(fcn: Segmenter) -> None:
    images = tensor(IMAGE)
    added = fcn.model.contributions(images)
    expected = by_hand(fcn.model, images)
    assert list(added) == ["fc7", "pool4", "pool3"]
    total = torch.zeros_like(expected[0])
    for logits, stage in zip(added.values(), expected, strict=True):
        total = total + logits
        assert torch.allclose(total, stage, atol=1e-4 * float(stage.abs().max()))
    assert torch.allclose(total, fcn.model(images).logits, atol=1e-4 * float(total.abs().max()))
    labels = cumulative_labels(added)
    for mask, stage in zip(labels, expected, strict=True):
        assert (mask == stage.argmax(1)[0].numpy()).mean() > 0.999
    assert any((labels[0] != later).any() for later in labels[1:])


@torch.no_grad()
def test_the_figure_of_skips_shows_each_stage_and_what_it_changed(fcn: Segmenter) -> None:
    drawn = np.asarray(draw_skips(fcn, IMAGE))
    labels = cumulative_labels(fcn.model.contributions(tensor(IMAGE)))

    # Panels of 90 x 70 grow four times; captions are 4 + 22 + 18 high.
    def panel(row: int, column: int) -> NDArray[np.uint8]:
        return drawn[20 + row * (280 + 44 + 14) :, 20 + column * 374 :][:280:4, :360:4]

    for column, mask in enumerate(labels):
        assert (panel(0, column) == TAXONOMY.palette()[mask]).all()
    assert (panel(1, 0) == IMAGE).all()
    for column in (1, 2):
        changed = labels[column] != labels[column - 1]
        assert (panel(1, column)[changed] == TAXONOMY.palette()[labels[column]][changed]).all()
        unchanged = panel(1, column)[~changed]
        assert (unchanged == unchanged[:, :1]).all(), "gray where nothing changed"


def test_networks_that_are_no_sum_of_maps_have_no_image_of_skips(compact: Segmenter) -> None:
    assert draw_skips(compact, IMAGE) is None
    model = create_model("fcn32s_vgg16", 3, tiny=True).eval()
    assert draw_skips(Segmenter(Checkpoint(model, TAXONOMY), "one map", device="cpu"), IMAGE) is None


def test_shallow_and_deep_layers_are_chosen(fcn: Segmenter, compact: Segmenter) -> None:
    model: Any = fcn.model
    maps = feature_maps(model, tensor(IMAGE))
    assert list(maps) == ["pool1", "pool5"]
    with torch.no_grad():
        backbone = model.backbone(model.preprocess(tensor(IMAGE)))
    assert torch.equal(maps["pool1"], backbone[0][0])
    assert torch.equal(maps["pool5"], backbone[-1][0])
    assert list(feature_maps(compact.model, tensor(IMAGE))) == ["stem", "stride16"]


def test_a_named_convolution_is_seen_before_the_in_place_relu_after_it(fcn: Segmenter) -> None:
    model: Any = fcn.model
    with torch.no_grad():
        expected = model.backbone.features[0](model.preprocess(tensor(IMAGE)))[0]
    seen = feature_maps(fcn.model, tensor(IMAGE), ["backbone.features.0", "pool4"])
    assert list(seen) == ["backbone.features.0", "pool4"]
    assert (expected < 0).any()
    assert torch.equal(seen["backbone.features.0"], expected)


def test_unknown_layers_are_refused(fcn: Segmenter, compact: Segmenter) -> None:
    with pytest.raises(ConfigError, match="layer pool6: is not a layer of this network; fix: did you mean pool"):
        draw_activations(fcn, IMAGE, layers=["pool6"])
    with pytest.raises(ConfigError, match="layer stem4: is not a layer"):
        draw_activations(compact, IMAGE, layers=["stem4"])


def test_activations_draw_a_row_a_layer(compact: Segmenter) -> None:
    drawn = draw_activations(compact, IMAGE, layers=["stem", "project"])
    # Six tiles of 160 x 124 with 44 of caption, twice; the color scale below.
    assert drawn.width == 6 * 160 + 5 * 14 + 40
    assert drawn.height == 40 + 2 * (124 + 44) + 14 + 14 + 32


def test_the_measured_field_is_the_one_of_the_arithmetic(fcn: Segmenter) -> None:
    # A pixel of FCN-8s sees two cells of stride 8, which see two of stride 16, which see three of stride 32.
    model: Any = fcn.model
    field = arithmetic(layers_of([*model.backbone.modules_to(), model.fc6, model.fc7]))
    assert (field.size, field.stride) == (404, 32)
    single = create_model("fcn32s_vgg16", 3, tiny=True).eval()
    length, position = 1200, 600
    # Cell c lies on pixel 32 c + start + (404 - 1) / 2: the pixel mixes the cells on both sides of it.
    cell = int((position - field.start - (field.size - 1) / 2) // field.stride)
    first, end = field.span(cell)[0], field.span(cell + 1)[1]
    assert receptive_field_extent(single, length, [position]) == [(first, end)]
    window = receptive_field_window(single, (70, 90), (0, 0))
    assert window == Window(0, 0, 70, 90)


def test_the_gradient_stays_inside_the_field_and_the_core_holds_its_share(compact: Segmenter) -> None:
    strength = input_gradient(compact.model, tensor(IMAGE), (20, 30))
    window = receptive_field_window(compact.model, (70, 90), (20, 30))
    outside = np.ones((70, 90), bool)
    outside[window.top : window.bottom, window.left : window.right] = False
    assert strength[~outside].sum() > 0
    assert strength[outside].sum() == 0


def test_the_core_is_the_smallest_square_around_the_pixel() -> None:
    strength = np.zeros((20, 30), np.float32)
    strength[10, 12] = 94
    strength[10, 15] = 2
    strength[0, 0] = 4
    assert core_window(strength, (10, 12)) == Window(7, 9, 14, 16)
    assert core_window(strength, (10, 12), share=0.5) == Window(10, 12, 11, 13)
    assert core_window(strength, (10, 12), share=1.0) == Window(0, 0, 20, 25)


def test_the_drawn_box_is_the_field(monkeypatch: pytest.MonkeyPatch, compact: Segmenter) -> None:
    monkeypatch.setattr("pixelwise.visualization.explain.receptive_field_window", lambda *args: Window(10, 20, 50, 80))
    drawn = np.asarray(draw_receptive_field(compact, IMAGE, pixel=(30, 40)))
    framed = (drawn[:, : 20 + 360] == (0, 215, 255)).all(2)
    # The image grows four times; the heading takes 30 pixels above the margin.
    rows, columns = (np.flatnonzero(framed.sum(axis) > 150) for axis in (1, 0))
    assert (rows.min() - 50, rows.max() + 1 - 50) == (40, 200)
    assert (columns.min() - 20, columns.max() + 1 - 20) == (80, 320)


def test_pixels_outside_the_image_are_refused(compact: Segmenter) -> None:
    for pixel in ((70, 0), (0, 90), (-1, 5)):
        with pytest.raises(InputError, match=rf"pixel: got row {pixel[0]}, column {pixel[1]}, the image is 70x90"):
            draw_receptive_field(compact, IMAGE, pixel=pixel)


def test_classes_go_by_name_or_number() -> None:
    assert class_number("car", TAXONOMY.names) == 1
    assert class_number("2", TAXONOMY.names) == 2
    with pytest.raises(InputError, match=r"class cat: .* did you mean car"):
        class_number("cat", TAXONOMY.names)
    with pytest.raises(InputError, match="class 3"):
        class_number("3", TAXONOMY.names)
    assert safe_name("traffic light/../x") == "traffic_light_.._x"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, fcn: Segmenter, compact: Segmenter) -> Path:
    folder = tmp_path_factory.mktemp("explain")
    save_checkpoint(folder / "fcn", fcn.model, TAXONOMY)
    save_checkpoint(folder / "compact", compact.model, TAXONOMY)
    write_image(folder / "photo.png", IMAGE)
    return folder


def test_command_writes_the_images_and_lists_them(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command(
        files / "photo.png",
        out=tmp_path / "a",
        model=str(files / "fcn"),
        class_=["car", "0"],
        pixel=(5, 6),
        layer=["pool3"],
    )
    names = ["heatmap_car.png", "heatmap_road.png", "skips.png", "activations.png", "receptive_field.png"]
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "a" / name) for name in names]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(names)
    for name in names:
        with Image.open(tmp_path / "a" / name) as image:
            image.load()
    command(files / "photo.png", out=tmp_path / "b", model=str(files / "compact"))
    assert capsys.readouterr().out.startswith("skips.png is left out")
    assert len(list((tmp_path / "b").iterdir())) == 3


def test_command_slides_a_classifier_of_torchvisions_over_an_image(tmp_path: Path) -> None:
    net = create_backbone("googlenet_torchvision", num_classes=1000)
    torch.save(net.state_dict(), tmp_path / "googlenet.pth")
    Image.fromarray(np.full((240, 260, 3), 90, np.uint8)).save(tmp_path / "photo.png")
    weights = tmp_path / "googlenet.pth"
    command(
        tmp_path / "photo.png",
        out=tmp_path / "why",
        classifier="googlenet_torchvision",
        weights=weights,
        class_=["3", "281"],
    )
    assert sorted(p.name for p in (tmp_path / "why").iterdir()) == ["heatmap_class_281.png", "heatmap_class_3.png"]


def test_command_refuses_in_one_line_and_leaves_nothing(files: Path, tmp_path: Path) -> None:
    out, model, photo = tmp_path / "out", str(files / "compact"), files / "photo.png"
    with pytest.raises(InputError, match="class cat"):
        command(photo, out=out, model=model, class_=["cat"])
    with pytest.raises(ConfigError, match="layer nothing"):
        command(photo, out=out, model=model, layer=["nothing"])
    with pytest.raises(InputError, match="pixel: got row 99"):
        command(photo, out=out, model=model, pixel=(99, 0))
    with pytest.raises(CheckpointError, match="no such folder"):
        command(photo, out=out, model="nowhere")
    with pytest.raises(ConfigError, match="must be given together"):
        command(photo, out=out, classifier="vgg11")
    with pytest.raises(InputError, match="--class: expected class numbers of the classifier, got none"):
        command(photo, out=out, classifier="vgg11", weights=tmp_path / "w.pth")
    with pytest.raises(UnknownNameError, match="vgg12: no such backbone"):
        command(photo, out=out, classifier="vgg12", weights=tmp_path / "w.pth", class_=["3"])
    assert list(tmp_path.iterdir()) == []


def test_the_figure_tells_the_receptive_field_that_models_tells(
    monkeypatch: pytest.MonkeyPatch, compact: Segmenter
) -> None:
    """One figure, the largest of any output pixel, for an image and a pixel that see less."""
    texts: list[str] = []
    for module in (panels, legend):
        monkeypatch.setattr(module, "draw_text", lambda draw, position, text, **style: texts.append(text))
    draw_receptive_field(compact, IMAGE, pixel=(30, 40))
    size = profile_spec(compact.model.spec, (64, 64)).receptive_field
    assert f"Receptive field: at most {size} x {size} pixels" in texts
    assert any(text.startswith("from row 30, column 40: ") for text in texts)


def test_no_output_pixel_sees_more_than_the_figure() -> None:
    """At sizes that are no multiple of the stride, where maps are resized by odd factors, and at random pixels."""
    with on_meta():
        model = create_model("compact", 5).eval()
    size = receptive_field_size(model, 16)
    assert size is not None
    assert size == read_table()["compact"].receptive_field
    rng = np.random.default_rng(0)
    for length in (2000, 2049, 2055, 2201):
        pixels = [int(pixel) for pixel in rng.integers(600, length - 600, 4)]
        assert max(stop - start for start, stop in receptive_field_extent(model, length, pixels)) <= size
