"""FCN against the papers' tables, against ramps that have to land on their pixels, and through its staged training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from helpers.papers import number
from pixelwise.analysis.mult_adds import multiply_adds, num_parameters
from pixelwise.backbones import create_backbone
from pixelwise.backbones.classifier import ClassifierBackbone
from pixelwise.config import OptimizerConfig
from pixelwise.errors import CheckpointError, ConfigError
from pixelwise.models import create_model
from pixelwise.models.base import SegmentationModel
from pixelwise.models.fcn import FCN, SCORED_MAPS, FCN8s, FCN16s, FCN32s, FullyConnected
from pixelwise.models.fcn_fusion import LateFusionFCN, TwoHeadFCN
from pixelwise.nn.geometry import CoordMap, Layer, affected_outputs
from pixelwise.nn.upsampling import Identity, TransposedBilinear, Upscore
from pixelwise.train.build import start_from
from pixelwise.train.schedule import build_optimizer

LADDER = ("fcn32s_vgg16", "fcn16s_vgg16", "fcn8s_vgg16")
# One case per variant and one per backbone run always.
CASES: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in (*LADDER, "fcn8s_alexnet", "fcn8s_googlenet")]
SLOW_CASES: list[tuple[str, dict[str, Any]]] = [
    *((f"fcn{n}s_{backbone}", {}) for backbone in ("alexnet", "googlenet") for n in (32, 16)),
    ("fcn8s_vgg16", {"backbone": "vgg13"}),
    ("fcn8s_alexnet", {"backbone": "alexnet"}),
    ("fcn8s_googlenet", {"backbone": "googlenet_torchvision"}),
]
EVERY_GEOMETRY = [
    pytest.param(name, {"geometry": geometry, **options}, marks=[pytest.mark.slow] if cases is SLOW_CASES else [])
    for cases in (CASES, SLOW_CASES)
    for name, options in cases
    for geometry in ("caffe", "same")
]


def paper_name(name: str) -> str:
    return f"FCN-{name[3:].partition('s')[0]}s VGG16, 21 classes"


def meta(name: str, num_classes: int = 21, in_channels: int = 3, **options: Any) -> SegmentationModel:
    """A net of the paper's size without numbers."""
    with torch.device("meta"):
        return create_model(name, num_classes, in_channels, **options).eval()


def full(name: str, num_classes: int = 21, in_channels: int = 3, **options: Any) -> FCN:
    model = meta(name, num_classes, in_channels, **options)
    assert isinstance(model, FCN)
    return model


def variants() -> tuple[FCN32s, FCN16s, FCN8s]:
    n32, n16, n8 = (full(name) for name in LADDER)
    assert isinstance(n32, FCN32s)
    assert isinstance(n16, FCN16s)
    assert isinstance(n8, FCN8s)
    return n32, n16, n8


def tiny(name: str, num_classes: int = 5, seed: int = 0, **options: Any) -> FCN:
    """A narrow net whose score layers are not zero."""
    torch.manual_seed(seed)
    model = create_model(name, num_classes, tiny=True, **options).eval()
    assert isinstance(model, FCN)
    for layer in score_convs(model):
        nn.init.normal_(layer.weight, std=0.1)
        assert layer.bias is not None
        nn.init.normal_(layer.bias)
    return model


def score_convs(model: FCN) -> list[nn.Conv2d]:
    return [layer for layer in model.score_layers() if isinstance(layer, nn.Conv2d)]


def classifier_of(backbone: str, **options: Any) -> ClassifierBackbone:
    classifier = create_backbone(backbone, tiny=True, **options).eval()
    assert isinstance(classifier, ClassifierBackbone)
    return classifier


def fc7(model: FCN, pixels: torch.Tensor) -> torch.Tensor:
    """fc7 for normalized pixels."""
    result: torch.Tensor = model.fc7(model.fc6(model.backbone(pixels)[-1]))
    return result


@pytest.mark.parametrize("name", LADDER)
def test_parameters(name: str) -> None:
    variant = paper_name(name)
    assert num_parameters(full(name)) == number(variant, "parameters, learnable")
    learned = full(name, upsampling="learned")
    assert num_parameters(learned) == number(variant, "parameters incl. grouped")
    dense = sum(21 * 21 * layer.kernel**2 for layer in learned.modules() if isinstance(layer, Upscore))
    assert num_parameters(full(name)) + dense == number(variant, "parameters incl. dense")


@pytest.mark.parametrize("name", LADDER)
def test_multiply_adds_and_output_shape_at_500(name: str) -> None:
    model, images = full(name), torch.empty(1, 3, 500, 500, device="meta")
    assert multiply_adds(lambda: model(images)) == number(paper_name(name), "MACs (grouped deconv)")
    assert list(model(images).logits.shape) == number(paper_name(name), "output shape")


def test_alexnet_and_googlenet() -> None:
    images = torch.empty(1, 3, 500, 500, device="meta")
    alexnet = full("fcn32s_alexnet")
    assert num_parameters(alexnet) == number("FCN-AlexNet (CaffeNet", "parameters")
    pool5, size7 = alexnet.backbone(images)[-1].shape[-1], fc7(alexnet, images).shape[-1]
    expected = number("FCN-AlexNet", "intermediate")
    assert {"pool5": pool5, "fc7": size7, "up": Layer(63, 32, transposed=True).output_size(size7)} == expected
    # The paper's count has kernels between all classes, of which only the diagonal is not zero.
    between_classes = size7 * size7 * 63 * 63 * 21 * 20
    assert multiply_adds(lambda: alexnet(images)) + between_classes == number("FCN-AlexNet", "MACs")
    assert num_parameters(full("fcn32s_googlenet")) == number("FCN-GoogLeNet", "parameters")


@pytest.mark.parametrize("name", LADDER)
@pytest.mark.parametrize("size", [1, 224, 256, 375, 500])
def test_sizes_on_the_way(name: str, size: int) -> None:
    model, images = full(name, upsampling="learned"), torch.empty(1, 3, size, size, device="meta")
    seen = {pool: x.shape[-1] for pool, x in zip(model.backbone.map_names, model.backbone(images), strict=True)}
    for path, layer in model.named_children():
        # The authors call the only upsampling of FCN-32s just upscore.
        word = "upscore" if path == "upscore32" else path
        if path.startswith(("upscore", "fc7")):
            layer.register_forward_hook(lambda _, __, output, word=word: seen.__setitem__(word, output.shape[-1]))
    model(images)
    assert seen == number(paper_name(name), "intermediate", f"1x3x{size}x{size}")


def test_kernels_and_crops_are_the_authors() -> None:
    crop = "crop offset"
    (n32, n16, n8), alexnet = variants(), full("fcn32s_alexnet")
    last32, last16, last8, last_alexnet = (
        [*number(f"{upscore}", "deconv"), number(cut, crop)]
        for upscore, cut in (
            ("32s upscore", "32s score crop"),
            ("16s upscore16", "16s score crop"),
            ("8s upscore8", "8s score crop"),
            ("AlexNet upscore", "AlexNet-32s score"),
        )
    )
    assert [*astuple(n32.to_image)] == last32 == [64, 32, 19]
    assert [*astuple(n16.to_image)] == last16 == [32, 16, 27]
    assert [*astuple(n8.to_image)] == last8 == [16, 8, 31]
    assert [*astuple(alexnet.to_image)] == last_alexnet == [63, 32, 18]
    assert n16.crop_pool4 == number("16s score_pool4 crop", crop) == 5
    assert n8.crop_pool4 == number("8s score_pool4 crop", crop) == 5
    assert n8.crop_pool3 == number("8s score_pool3 crop", crop) == 9
    kernels = [[u.kernel, u.stride] for u in (n16.upscore2, n8.upscore2, n8.upscore_pool4)]
    assert kernels == [number(n, "deconv") for n in ("16s upscore2", "8s upscore2", "8s upscore_pool4")]


@pytest.mark.parametrize(
    ("name", "variant"),
    [("fcn8s_vgg16", "VGG16 fc7"), ("fcn32s_alexnet", "AlexNet fc6"), ("fcn32s_googlenet", "GoogLeNet i")],
)
def test_receptive_fields(name: str, variant: str) -> None:
    fields = full(name).receptive_fields()
    assert (fields["fc7"].size, fields["fc7"].stride) == (number(variant, "receptive field"), 32)
    if name == "fcn8s_vgg16":
        assert [*fields["pool4"][:2]] == number("VGG16 pool4", "[receptive")
        assert [*fields["pool3"][:2]] == number("VGG16 pool3", "[receptive")


@pytest.mark.parametrize("geometry", ["caffe", "same"])
def test_the_receptive_field_holds_in_the_running_net(geometry: str) -> None:
    """Pixels in the receptive field of an element of fc7 reach it, the pixels just outside do not."""
    model = tiny("fcn32s_vgg16", geometry=geometry)
    first, end = model.receptive_fields()["fc7"].span(6)
    reached = [
        affected_outputs(lambda x: fc7(model, x), (1, end + 2), (0, column))
        for column in (first - 1, first, end - 1, end)
    ]
    assert [w.left <= 6 < w.right for w in reached] == [False, True, True, False]


def make_scores(model: FCN, make: Callable[[CoordMap, int, int], torch.Tensor]) -> None:
    """Replace the output of each score layer by what `make` returns for its grid, rows and columns."""

    def replace(layer: nn.Module, grid: CoordMap) -> None:
        layer.register_forward_hook(lambda _, __, scores: make(grid, *scores.shape[-2:]))

    for name in model.score_layer_names:
        replace(model.get_submodule(name), model.coordinates_of(SCORED_MAPS[name]))


@pytest.mark.parametrize(("name", "options"), EVERY_GEOMETRY)
def test_scores_land_on_the_pixels_of_their_centers(name: str, options: dict[str, Any]) -> None:
    """Bilinear interpolation reproduces a ramp, so a crop that is off by one pixel shows as a difference of one."""

    def ramp(grid: CoordMap, height: int, width: int) -> torch.Tensor:
        """Each score is the row and the column of the pixel on which its center lies."""
        rows, columns = (torch.tensor([float(grid.inverse()(i)) for i in range(n)]) for n in (height, width))
        return torch.stack(torch.meshgrid(rows, columns, indexing="ij"))[None]

    size = (150, 177)
    model = tiny(name, num_classes=2, **options)
    make_scores(model, ramp)
    landed = model(torch.zeros(1, 3, *size)).logits[0] / len(model.score_layer_names)
    truth = torch.stack(torch.meshgrid(*(torch.arange(float(n)) for n in size), indexing="ij"))
    inner = slice(64, -64)  # repeated border scores bend the ramp
    assert landed.shape == truth.shape
    torch.testing.assert_close(landed[:, inner, inner], truth[:, inner, inner], atol=1e-3, rtol=0)


@pytest.mark.parametrize(("name", "options"), EVERY_GEOMETRY)
def test_a_constant_score_stays_constant_up_to_the_border(name: str, options: dict[str, Any]) -> None:
    """No pixel is faded in geometry "same"; in "caffe" the outermost are, but none lies beyond the maps."""
    model = tiny(name, num_classes=1, **options)
    make_scores(model, lambda _, height, width: torch.ones(1, 1, height, width))
    for size in [(1, 1), (3, 50), (101, 64)]:
        logits = model(torch.zeros(1, 3, *size)).logits / len(model.score_layer_names)
        assert logits.min() > 0.3
        assert logits.max() < 1 + 1e-5
        if options["geometry"] == "same":
            torch.testing.assert_close(logits, torch.ones(1, 1, *size), atol=1e-5, rtol=0)


def test_caffe_geometry_fits_every_size() -> None:
    for name in ("fcn8s_vgg16", "fcn16s_alexnet", "fcn8s_googlenet"):
        model = full(name, width_mult=1 / 32 if name != "fcn8s_googlenet" else 1 / 8)
        for height in (*range(2, 20), 139, 321, 1024):
            size = (height, height + 17)
            assert model(torch.empty(1, 3, *size, device="meta")).logits.shape[-2:] == size


def _bilinear(kernel: int, num_classes: int) -> torch.Tensor:
    """Dense kernels between all classes, zero off the diagonal, as in the authors' surgery.py."""
    factor = (kernel + 1) // 2
    center = factor - 1 if kernel % 2 == 1 else factor - 0.5
    weight = torch.zeros(num_classes, num_classes, kernel, kernel)
    for i in range(kernel):
        for j in range(kernel):
            value = (1 - abs(i - center) / factor) * (1 - abs(j - center) / factor)
            weight[range(num_classes), range(num_classes), i, j] = value
    return weight


@pytest.mark.parametrize(
    ("name", "scale4", "scale3"), [("fcn8s_vgg16", 1.0, 1.0), ("fcn8s_atonce_vgg16", 0.01, 0.0001)]
)
def test_fcn8s_is_the_authors_prototxt_written_out(name: str, scale4: float, scale3: float) -> None:
    model, image = tiny(name, num_classes=4), torch.rand(1, 3, 53, 90) * 255
    weights = iter([layer for layer in model.modules() if isinstance(layer, nn.Conv2d)])

    def conv(x: torch.Tensor, padding: int) -> torch.Tensor:
        layer = next(weights)
        return functional.conv2d(x, layer.weight, layer.bias, padding=padding)

    x = image.flip(1) - torch.tensor([104.00699, 116.66877, 122.67892]).view(1, 3, 1, 1)
    pools = []
    for stage, num_convs in enumerate((2, 2, 3, 3, 3)):
        for i in range(num_convs):
            x = conv(x, 100 if (stage, i) == (0, 0) else 1).relu()
        x = functional.max_pool2d(x, 2, 2, ceil_mode=True)
        pools.append(x)
    fc7 = conv(conv(x, 0).relu(), 0).relu()
    fr, pool4, pool3 = conv(fc7, 0), conv(pools[3] * scale4, 0), conv(pools[2] * scale3, 0)
    up2 = functional.conv_transpose2d(fr, _bilinear(4, 4), stride=2)
    fuse4 = up2 + pool4[..., 5 : 5 + up2.shape[2], 5 : 5 + up2.shape[3]]
    up4 = functional.conv_transpose2d(fuse4, _bilinear(4, 4), stride=2)
    fuse3 = up4 + pool3[..., 9 : 9 + up4.shape[2], 9 : 9 + up4.shape[3]]
    up8 = functional.conv_transpose2d(fuse3, _bilinear(16, 4), stride=8)
    torch.testing.assert_close(model(image).logits, up8[..., 31 : 31 + 53, 31 : 31 + 90], atol=1e-3, rtol=1e-4)


def test_score_layers_start_at_zero_and_biases_too() -> None:
    for name in ("fcn8s_vgg16", "fcn32s_googlenet"):
        model = create_model(name, 4, tiny=True).eval()
        assert not model(torch.rand(1, 3, 20, 30) * 255).logits.any()


def test_at_once_scales_the_skips() -> None:
    staged, at_once = tiny("fcn8s_vgg16"), tiny("fcn8s_atonce_vgg16")
    at_once.load_state_dict(staged.state_dict())
    assert isinstance(at_once, FCN8s)
    assert [at_once.scale_pool4, at_once.scale_pool3] == number("at-once skip scale", "[pool4")
    for layer in (*score_convs(staged), *score_convs(at_once)):
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)
    images = torch.rand(1, 3, 40, 50) * 255
    plain, scaled = staged.contributions(images), at_once.contributions(images)
    torch.testing.assert_close(scaled["fc7"], plain["fc7"])
    torch.testing.assert_close(scaled["pool4"], plain["pool4"] * 0.01)
    torch.testing.assert_close(scaled["pool3"], plain["pool3"] * 0.0001)


@pytest.mark.parametrize("geometry", ["caffe", "same"])
def test_contributions_add_up_to_the_logits(geometry: str) -> None:
    model, images = tiny("fcn8s_vgg16", geometry=geometry), torch.rand(2, 3, 45, 70) * 255
    added = model.contributions(images)
    assert list(added) == ["fc7", "pool4", "pool3"]
    torch.testing.assert_close(sum(added.values()), model(images).logits, atol=1e-4, rtol=1e-4)


def test_upsampling_fixed_intermediate_learned() -> None:
    images = torch.rand(1, 3, 33, 47) * 255
    nets = {word: tiny("fcn8s_vgg16", upsampling=word) for word in ("fixed", "intermediate", "learned")}
    logits = [net(images).logits for net in nets.values()]
    torch.testing.assert_close(logits[1], logits[0])
    torch.testing.assert_close(logits[2], logits[0])
    kernels = {word: [n for n, _ in net.named_parameters() if "upscore" in n] for word, net in nets.items()}
    assert [len(k) for k in kernels.values()] == [0, 2, 3]
    assert not [name for name in nets["fixed"].state_dict() if "upscore" in name]
    assert isinstance(nets["intermediate"].forward_low_res(images).upsample, TransposedBilinear)
    assert isinstance(nets["learned"].forward_low_res(images).upsample, Identity)
    # Learned kernels are not decayed, which would shrink the interpolation.
    optimizer = build_optimizer(nets["learned"], OptimizerConfig(weight_decay=0.1))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    decayed = {name for name, p in nets["learned"].named_parameters() if decay[id(p)]}
    assert not decayed & set(kernels["learned"])
    assert {"score_fr.weight", "score_pool4.weight", "score_pool3.weight", "fc6.conv.weight"} <= decayed


@pytest.mark.parametrize("upsampling", ["fixed", "learned"])
def test_each_stage_starts_as_the_one_before_and_new_scores_at_zero(upsampling: str) -> None:
    images = torch.rand(1, 3, 64, 90) * 255
    coarser = tiny(LADDER[0], upsampling=upsampling)
    for name in LADDER[1:]:
        finer = create_model(name, 5, tiny=True, upsampling=upsampling).eval()
        assert isinstance(finer, FCN)
        start_from(finer, coarser, name)
        assert not score_convs(finer)[-1].weight.any()
        pixels = coarser.preprocess(images)
        torch.testing.assert_close(fc7(finer, pixels), fc7(coarser, pixels))
        # Two bilinear steps are not one, but they agree to within the neighboring scores.
        assert (finer(images).logits.argmax(1) == coarser(images).logits.argmax(1)).float().mean() > 0.8
        coarser = finer


@pytest.mark.parametrize(
    ("name", "backbone"),
    [("fcn32s_vgg16", "vgg16"), ("fcn16s_alexnet", "alexnet_caffe"), ("fcn8s_googlenet", "googlenet")],
)
def test_transplanted_net_computes_the_classifiers_last_hidden_layer(name: str, backbone: str) -> None:
    torch.manual_seed(1)
    classifier = classifier_of(backbone, num_classes=7, ceil_mode=True)
    model = tiny(name, seed=2)
    scores = {n: v.clone() for n, v in model.state_dict().items() if n.startswith("score")}
    model.transplant(classifier)
    sliding = classifier.convolutionalize()
    hidden_chain = list(sliding.head)[:-1] if classifier.fc_layers else []
    padded = torch.zeros(1, 3, 290, 290)
    pixels = torch.randn(1, 3, 90, 90)
    padded[..., 100:190, 100:190] = pixels
    classifier_body = nn.Sequential(*classifier.modules_to())
    first = next(m for m in classifier_body.modules() if isinstance(m, nn.Conv2d))
    first.padding = (0, 0)
    with torch.no_grad():
        expected = nn.Sequential(*hidden_chain)(classifier_body(padded))
        torch.testing.assert_close(fc7(model, pixels), expected, atol=1e-4, rtol=1e-4)
    assert scores
    assert all(torch.equal(model.state_dict()[n], v) for n, v in scores.items())


def test_transplant_of_another_backbone_is_an_error() -> None:
    for backbone in ("vgg13", "alexnet"):
        with pytest.raises(CheckpointError, match="shape mismatch"):
            tiny("fcn32s_vgg16").transplant(classifier_of(backbone, num_classes=3))
    with pytest.raises(ConfigError, match="without a classifier"):
        tiny("fcn32s_vgg16").transplant(classifier_of("vgg16"))


def test_early_fusion_inflates_the_first_layer() -> None:
    assert num_parameters(full("fcn32s_vgg16", 40, 4)) == number("NYUDv2 FCN-32s early", "parameters")
    classifier = classifier_of("vgg16", num_classes=3)
    model = create_model("fcn32s_vgg16", 5, in_channels=4, tiny=True)
    assert isinstance(model, FCN)
    model.transplant(classifier)
    mine, given = model.state_dict()["backbone.features.0.weight"], classifier.state_dict()["features.0.weight"]
    assert torch.equal(mine[:, :3], given)
    torch.testing.assert_close(mine[:, 3], given.mean(1))


def test_parameters_of_pascal_context_and_other_depths() -> None:
    assert num_parameters(full("fcn8s_vgg16", 60)) == number("PASCAL-Context FCN-8s", "parameters")
    vgg19 = full("fcn8s_vgg16", backbone="vgg19")
    assert num_parameters(vgg19) == number(paper_name("fcn8s"), "parameters, learnable") + 143667240 - 138357544
    fc6 = full("fcn32s_vgg16", batch_norm=True, width_mult=1 / 8).fc6
    assert isinstance(fc6, FullyConnected)
    assert isinstance(fc6.norm, nn.BatchNorm2d)


def test_late_fusion_is_the_mean_of_two_nets() -> None:
    assert num_parameters(meta("fcn32s_late_fusion_vgg16", 40, 6)) == number("NYUDv2 late", "parameters")
    neutral = {"order": "rgb", "mean": (100.0,) * 3, "std": (50.0,) * 3}
    both = {"order": "rgb", "mean": (100.0,) * 6, "std": (50.0,) * 6}
    color, other = (
        tiny("fcn32s_vgg16", seed=1, preprocessing=neutral),
        tiny("fcn32s_vgg16", seed=2, preprocessing=neutral),
    )
    model = create_model("fcn32s_late_fusion_vgg16", 5, 6, tiny=True, preprocessing=both).eval()
    assert isinstance(model, LateFusionFCN)
    assert isinstance(color, FCN32s)
    assert isinstance(other, FCN32s)
    model.start_from_streams(color, other)
    images = torch.rand(2, 6, 40, 61) * 255
    expected = (color(images[:, :3]).logits + other(images[:, 3:]).logits) / 2
    torch.testing.assert_close(model(images).logits, expected, atol=1e-5, rtol=1e-4)
    wider = tiny("fcn32s_vgg16", num_classes=6)
    assert isinstance(wider, FCN32s)
    with pytest.raises(CheckpointError, match=r"shape mismatch or missing layers: score_fr\.weight"):
        model.start_from_streams(color, wider)
    with pytest.raises(ConfigError, match="such as 6 of RGB and HHA"):
        create_model("fcn32s_late_fusion_vgg16", 5, 3, tiny=True)


@pytest.mark.parametrize("upsampling", ["fixed", "learned"])
def test_two_heads_share_a_backbone(upsampling: str) -> None:
    assert num_parameters(full("fcn16s_two_heads_vgg16", 33)) == number("SIFT Flow FCN-16s (33+3", "parameters")
    single = tiny("fcn16s_vgg16", upsampling=upsampling)
    model = create_model("fcn16s_two_heads_vgg16", 5, tiny=True, num_geometric=3, upsampling=upsampling).eval()
    assert isinstance(model, TwoHeadFCN)
    if upsampling == "learned":
        nn.init.uniform_(single.get_parameter("upscore2.weight"))
    model.start_from_single(single)
    images = torch.rand(1, 3, 50, 37) * 255
    semantic, geometric = (
        low.upsample_to((images.shape[-2], images.shape[-1])).logits for low in model.forward_low_res_all(images)
    )
    torch.testing.assert_close(semantic, single(images).logits)
    assert torch.equal(model(images).logits, semantic)
    assert geometric.shape == (1, 3, 50, 37)
    assert not geometric.any()
    own = {id(p) for layer in model.score_layers() for p in layer.parameters()}
    assert own == {id(p) for name, p in model.named_parameters() if name.startswith("score_")}
    assert len(own) == 2 * 2 * 2
    with pytest.raises(CheckpointError, match=r"missing layers: .*score_pool4\.semantic\.weight"):
        model.start_from_single(tiny("fcn32s_vgg16", upsampling=upsampling))


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("geometry", "valid", "caffe, same"),
        ("upsampling", "nearest", "fixed, intermediate, learned"),
        ("backbone", "vgg17", "vgg16"),
        ("width_mult", -1, "must be > 0"),
        ("dropout", 1.0, "below 1"),
        ("preprocessing", "cafe", "caffe"),
    ],
)
def test_a_wrong_option_names_what_is_allowed(option: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create_model("fcn8s_vgg16", 5, **{"width_mult": 1 / 16, option: value})


def test_batch_norm_where_there_is_none() -> None:
    with pytest.raises(ConfigError, match="alexnet_caffe_bn"):
        create_model("fcn32s_alexnet", 5, tiny=True, batch_norm=True)


def test_caffe_names_cover_every_convolution_once() -> None:
    for name in ("fcn8s_vgg16", "fcn32s_alexnet", "fcn32s_googlenet"):
        model = full(name)
        names = model.caffe_names()
        convs = {path for path, layer in model.named_modules() if isinstance(layer, nn.Conv2d)}
        assert set(names.values()) == convs
        assert len(names) == len(convs)
        assert names["score_fr"] == "score_fr"
    names = full("fcn8s_vgg16").caffe_names()
    assert names["conv1_1"] == "backbone.features.0"
    assert {names[layer] for layer in ("fc6", "fc7")} == {"fc6.conv", "fc7.conv"}
    assert all(names[layer] == layer for layer in ("score_fr", "score_pool4", "score_pool3"))
