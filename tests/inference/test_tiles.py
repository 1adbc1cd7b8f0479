"""The overlap-tile strategy: tiles against the whole image, pieces with their surroundings, tiles that a network cannot
compute.
"""

from __future__ import annotations

import pytest
import torch

from pixelwise.core import Taxonomy
from pixelwise.errors import ConfigError
from pixelwise.inference.segmenter import Segmenter
from pixelwise.inference.tiles import tiled_logits
from pixelwise.models import create_model
from pixelwise.models.base import SegmentationModel
from pixelwise.weights.checkpoint import Checkpoint


def unet() -> SegmentationModel:
    torch.manual_seed(0)
    return create_model("unet", 3, 1, tiny=True).eval()


def images(*size: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, 256, (1, 1, *size), generator=torch.Generator().manual_seed(seed)).float()


@pytest.mark.parametrize("tile", [20, 36, 68, 1044])
@pytest.mark.parametrize("size", [(1, 1), (52, 53), (53, 20), (100, 70), (36, 37)])
def test_tiles_equal_the_whole(tile: int, size: tuple[int, int]) -> None:
    model, image = unet(), images(*size)
    with torch.no_grad():
        tiled = tiled_logits(model, image, tile).upsample_to(size).logits
        torch.testing.assert_close(tiled, model(image).logits, atol=1e-4, rtol=1e-4)


def test_a_piece_with_its_surroundings_has_the_logits_of_the_whole() -> None:
    """Pieces cut with 92 pixels of the true image around them, at a step of the poolings."""
    model, image = unet(), images(320, 280)
    with torch.no_grad():
        whole = model(image).logits
        for top, left in ((96, 112), (112, 96)):
            piece = image[..., top - 92 : top + 100 + 92, left - 92 : left + 68 + 92]
            inner = model.forward_with_context(piece).logits
            torch.testing.assert_close(inner, whole[..., top : top + 100, left : left + 68], atol=1e-4, rtol=1e-4)


def test_tiles_edge_to_edge_as_in_the_paper_are_not_quite_the_whole() -> None:
    """Tiles of 388 edge to edge move the grid of the poolings by 4 pixels: the reason for steps of multiples of 16."""
    model, image = unet(), images(320, 200)
    with torch.no_grad():
        whole = model(image).logits
        for top, equal in ((96, True), (100, False)):
            inner = model.forward_with_context(image[..., top - 92 : top + 112, 4:192]).logits
            difference = float((inner - whole[..., top : top + 20, 96:100]).abs().max())
            assert difference < 1e-4 if equal else difference > 1e-2


@pytest.mark.parametrize("tile", [-4, 0, 4, 16, 19, 388 + 8, 1])
def test_tiles_that_the_network_cannot_compute(tile: int) -> None:
    with pytest.raises(ConfigError, match=r"must be 20 \+ a multiple of 16, got .*; fix: take"):
        tiled_logits(unet(), images(9, 9), tile)


@pytest.mark.parametrize("name", ["compact", "unet_padded"])
def test_a_padded_network_takes_no_tiles(name: str) -> None:
    with pytest.raises(ConfigError, match="pads its convolutions"):
        tiled_logits(create_model(name, 3, 1, tiny=True), images(9, 9), 36)


def test_a_segmenter_labels_in_tiles() -> None:
    torch.manual_seed(0)
    model = create_model("unet", 3, 3, tiny=True).eval()
    segmenter = Segmenter(Checkpoint(model, Taxonomy(("a", "b", "c")), {}), "a tiny network", device="cpu")
    image = torch.randint(0, 256, (70, 90, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)).numpy()
    whole, tiled = segmenter.predict(image, probs=True), segmenter.predict(image, probs=True, tile=36)
    assert whole.probs is not None
    assert tiled.probs is not None
    assert abs(whole.probs - tiled.probs).max() < 1e-4
    assert (whole.mask != tiled.mask).mean() < 1e-3
