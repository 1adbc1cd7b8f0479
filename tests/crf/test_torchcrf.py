"""The differentiable CRF: equal to the numba engine, batch by batch, with gradients checked by finite differences."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixelwise.crf import NORMALIZATIONS, Kernel, Parameters, refine, torchcrf
from pixelwise.crf.lattice import Lattice
from pixelwise.crf.torchcrf import BatchLattice, MeanField, mean_field, refine_batch, smooth
from pixelwise.errors import ConfigError, ImageError, UnknownNameError

SMALL = Parameters(w1=4, theta_alpha=6, theta_beta=40, w2=3, theta_gamma=2, iterations=2)


def batch(seed: int, size: tuple[int, int] = (9, 11), num_classes: int = 4, num: int = 2) -> tuple[Tensor, Tensor]:
    """Images (B, 3, H, W) uint8, alike within blocks, and probabilities (B, C, H, W)."""
    rng = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 200, (num, 3, 1, 1), generator=rng) + torch.randint(0, 50, (num, 3, *size), generator=rng)
    return images.to(torch.uint8), (3 * torch.randn(num, num_classes, *size, generator=rng)).softmax(1)


def as_numpy(image: Tensor) -> NDArray[np.uint8]:
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_both_engines_give_the_same(normalization: str) -> None:
    images, probs = batch(1)
    parameters = Parameters(
        w1=4, theta_alpha=20, theta_beta=13, w2=3, theta_gamma=2, iterations=4, normalization=normalization
    )
    found = refine_batch(images, probs, parameters)
    for image, own, refined in zip(images, probs, found, strict=True):
        np.testing.assert_allclose(refined.numpy(), refine(as_numpy(image), own.numpy(), parameters), atol=2e-4)


def test_both_engines_give_the_same_of_an_image_of_several_tiles() -> None:
    images, probs = batch(3, (101, 133), num=1)
    for preset in ("deeplabv1", "deeplabv2"):
        found = refine_batch(images, probs, preset)[0]
        np.testing.assert_allclose(found.numpy(), refine(as_numpy(images[0]), probs[0].numpy(), preset), atol=2e-4)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("d", "spread"), [(1, 2.0), (3, 1.0), (5, 1.0), (6, 3e4)])
def test_both_lattices_are_the_same(d: int, spread: float, reverse: bool) -> None:
    rng = np.random.default_rng(d)
    features = (rng.normal(size=(2, 200, d)) * spread).astype(np.float32)
    values = rng.normal(size=(2, 200, 3)).astype(np.float32)
    found = BatchLattice(torch.from_numpy(features)).filter(torch.from_numpy(values).flatten(0, 1), reverse=reverse)
    expected = [Lattice([f]).filter(v.T, reverse=reverse).T for f, v in zip(features, values, strict=True)]
    np.testing.assert_allclose(found.view(2, 200, 3).numpy(), expected, atol=1e-5)


def test_a_batch_is_its_images() -> None:
    images, probs = batch(2, num=3)
    together = refine_batch(images, probs)
    for i in range(3):
        torch.testing.assert_close(refine_batch(images[i : i + 1], probs[i : i + 1])[0], together[i], atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_only_that_of_the_scores(dtype: torch.dtype) -> None:
    """An even image and wide kernels: a lattice point adds up more than half precision can hold."""
    images = torch.full((1, 3, 200, 200), 7, dtype=torch.uint8)
    scores = torch.randn(1, 2, 200, 200, generator=torch.Generator().manual_seed(0)).to(dtype)
    layer = MeanField(2, Parameters(w1=4, theta_alpha=80, theta_beta=13, w2=0, iterations=2, normalization="after"))
    layer.requires_grad_(requires_grad=False)
    expected = layer(images, scores.float())
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(images, scores)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)


def test_a_layer_gives_scores_and_takes_further_kernels() -> None:
    images, probs = batch(3, num=1)
    features = torch.randn(1, 99, 3, generator=torch.Generator().manual_seed(0))
    layer = MeanField(4, SMALL, extra_weights=[0.7])
    found = layer(images, probs.log(), [features]).softmax(1)[0].detach().numpy()
    expected = refine(as_numpy(images[0]), probs[0].numpy(), SMALL, kernels=[Kernel(features[0].numpy(), 0.7)])
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_the_filter_s_gradients_are_right() -> None:
    rng = torch.Generator().manual_seed(0)
    lattice = BatchLattice(torch.randn(2, 7, 2, generator=rng))
    values = torch.randn(14, 2, dtype=torch.float64, generator=rng, requires_grad=True)
    for reverse in (False, True):
        assert torch.autograd.gradcheck(lambda x, r=reverse: smooth(x, lattice, reverse=r), values)
        assert torch.autograd.gradgradcheck(lambda x, r=reverse: smooth(x, lattice, reverse=r), values)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_gradients_reach_scores_weights_and_compatibility(normalization: str) -> None:
    rng = torch.Generator().manual_seed(1)
    lattices = [BatchLattice(torch.randn(1, 8, d, generator=rng)) for d in (2, 5)]
    scores = torch.randn(8, 3, dtype=torch.float64, generator=rng, requires_grad=True)
    weights = torch.rand(2, dtype=torch.float64, generator=rng, requires_grad=True)
    compatibility = torch.rand(3, 3, dtype=torch.float64, generator=rng, requires_grad=True)

    def run(scores: Tensor, weights: Tensor, compatibility: Tensor) -> Tensor:
        return mean_field(
            scores,
            lattices,
            weights=weights,
            compatibility=compatibility,
            iterations=3,
            normalization=normalization,
        )

    assert torch.autograd.gradcheck(run, (scores, weights, compatibility))


def test_training_learns_to_trust_the_image() -> None:
    images = torch.zeros(1, 3, 12, 12, dtype=torch.uint8)
    images[..., 6:] = 200
    truth = (torch.arange(12) >= 6).long().expand(1, 12, 12)
    noise = torch.randn(1, 2, 12, 12, generator=torch.Generator().manual_seed(0))
    scores = torch.stack([1.0 - truth, 1.0 * truth], 1) + 2 * noise
    layer = MeanField(2, Parameters(w1=0.1, theta_alpha=6, theta_beta=20, w2=0.1, theta_gamma=2, iterations=3))
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    losses = []
    for _ in range(15):
        loss = torch.nn.functional.cross_entropy(layer(images, scores), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    assert float(layer.weights[1].detach()) > 0.5, "the appearance kernel was found useful"


def test_a_state_dict_makes_the_round_trip() -> None:
    layer, other = MeanField(5, SMALL), MeanField(5)
    other.load_state_dict(layer.state_dict())
    assert set(layer.state_dict()) == {"weights", "compatibility"}
    torch.testing.assert_close(other.weights, layer.weights)


def test_frozen_kernels_without_weight_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    built = []

    class CountedLattice(BatchLattice):
        def __init__(self, features: Tensor) -> None:
            built.append(features.shape)
            super().__init__(features)

    monkeypatch.setattr(torchcrf, "BatchLattice", CountedLattice)
    images, probs = batch(4)
    refine_batch(images, probs, Parameters(w1=0))
    assert built == [(2, 99, 2)]
    torch.testing.assert_close(refine_batch(images, probs, Parameters(w1=0, w2=0)), probs, atol=1e-4, rtol=0)


WRONG: list[tuple[tuple[int, ...], tuple[int, ...], list[tuple[int, ...]], str]] = [
    ((2, 3, 8, 8), (1, 4, 8, 8), [], r"got \(2, 3, 8, 8\) and"),
    ((1, 3, 8, 8), (1, 4, 8, 9), [], r"and \(1, 4, 8, 9\)"),
    ((1, 1, 8, 8), (1, 4, 8, 8), [], "at the same size"),
    ((1, 3, 8, 8), (1, 5, 8, 8), [], "num_classes=5"),
    ((1, 3, 8, 8), (1, 4, 8, 8), [(1, 64, 2)], "expected extra features: 0"),
]


def test_wrong_shapes_are_named() -> None:
    layer = MeanField(4)
    for images, scores, features, says in WRONG:
        with pytest.raises(ConfigError, match=says):
            layer(torch.zeros(images), torch.zeros(scores), [torch.zeros(shape) for shape in features])


IMAGES, PROBS = batch(6)
INVALID: list[tuple[str, type[Exception], Tensor, Tensor, str]] = [
    ("NaN", ConfigError, IMAGES, PROBS.where(PROBS > 0.01, torch.nan), "got min nan"),
    ("scores", ConfigError, IMAGES, PROBS.log(), "apply a softmax"),
    ("negative", ConfigError, IMAGES, PROBS + torch.tensor([0.5, -0.5, 0, 0])[:, None, None], "got min -0"),
    ("sum", ConfigError, IMAGES, PROBS * 1.5, "off by 0.5"),
    ("labels", ConfigError, IMAGES, PROBS.long(), "int64"),
    ("float images", ImageError, IMAGES / 255, PROBS, "expected uint8, got torch.float32"),
    ("no batch", ConfigError, IMAGES[0], PROBS[0], r"got \(3, 9, 11\)"),
    ("no pixel", ConfigError, IMAGES[:, :, :0], PROBS[:, :, :0], r"\(2, 4, 0, 11\)"),
]


def test_an_invalid_batch_is_named() -> None:
    for name, error, images, probs, says in INVALID:
        with pytest.raises(error) as raised:
            refine_batch(images, probs)
        assert re.search(says, str(raised.value)), name


def test_an_unknown_preset_is_named() -> None:
    with pytest.raises(UnknownNameError, match="deeplabv2"):
        MeanField(4, "deeplab2")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_gives_the_same() -> None:
    images, probs = batch(5, (60, 70), 21)
    found = refine_batch(images.cuda(), probs.cuda()).cpu()
    torch.testing.assert_close(found, refine_batch(images, probs), atol=1e-4, rtol=0)
