"""The fully connected CRF in torch: whole batches, on a GPU where there is one, and differentiable.

    crf = MeanField(num_classes=21)                     # a layer behind any model
    logits = crf(images, model(images).logits)          # (B, 3, H, W), (B, C, H, W) -> (B, C, H, W)

Paper: Zheng et al., "Conditional random fields as recurrent neural networks" (ICCV 2015, https://arxiv.org/abs/1502.03240):
mean field as layers, trained with the network. Gradients reach the scores, the kernels' weights and the compatibility matrix;
as there, none reach the kernels' widths. Deviations: one weight for each kernel, not one for each kernel and class.

The lattice is that of the numba engine, vertex by vertex (`codes.py`); a batch is one lattice in which the images'
vertices have codes of their own. On a GPU, sums are added up in no fixed order.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError, ImageError
from .codes import alpha, scales, strides
from .features import LEAST_PROBABILITY, SUM_TOLERANCE, Parameters, find_parameters


class BatchLattice:
    """Tables of a permutohedral lattice over a batch: features (B, N, d) in standard deviations, on any device.

    ids         (B * N, d + 1) int64 lattice points around each pixel; weights (B * N, d + 1), barycentric
    neighbours  (d + 1, 2, M) int64, one step back and forth along each direction; M where there is none
    norms       (B * N,): the filter of ones
    """

    def __init__(self, features: Tensor) -> None:
        batch, num, d = features.shape
        points = features.detach().float().flatten(0, 1)
        steps = torch.from_numpy(strides(points.amin(0).cpu().numpy(), points.amax(0).cpu().numpy(), batch)).to(
            points.device
        )
        codes, self.weights = _enclose(points, steps[: d + 1])
        codes += (torch.arange(batch, device=points.device) * steps[d + 1]).repeat_interleave(num)[:, None]
        vertices, self.ids = torch.unique(codes, return_inverse=True)
        self.size = len(vertices)
        directions = (d + 1) * steps[: d + 1] - steps[: d + 1].sum()
        self.neighbours = torch.stack([self._find(vertices, torch.stack([-step, step])) for step in directions])
        self.alpha = alpha(d)
        self.norms = self.filter(points.new_ones(len(points), 1))[:, 0]

    def _find(self, vertices: Tensor, steps: Tensor) -> Tensor:
        """(2, M): the number of the vertex whose code is a step more, or M."""
        wanted = vertices + steps[:, None]
        found = torch.searchsorted(vertices, wanted)
        return found.masked_fill(vertices[found.clamp_max(self.size - 1)] != wanted, self.size)

    def filter(self, values: Tensor, reverse: bool = False) -> Tensor:
        """values (B * N, C) -> (B * N, C); `reverse` gives the transposed map. Not recorded for gradients: see `smooth`."""
        weights = self.weights.to(values.dtype)
        points = values.new_zeros(self.size + 1, values.shape[1])
        for ids, weight in zip(self.ids.T, weights.T, strict=True):
            points.index_add_(0, ids, values * weight[:, None])
        for both in reversed(self.neighbours) if reverse else self.neighbours:
            points[:-1] += 0.5 * (points[both[0]] + points[both[1]])
        pairs = zip(self.ids.T, weights.T, strict=True)
        return self.alpha * sum((points[ids] * weight[:, None] for ids, weight in pairs), torch.zeros_like(values))


class _Smooth(torch.autograd.Function):
    """The filter with its gradient, which is the transposed filter: autograd would keep every intermediate row."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, lattice: BatchLattice, reverse: bool) -> Tensor:
        """Filter values (B * N, C)."""
        ctx.lattice, ctx.reverse = lattice, reverse
        return lattice.filter(values, reverse)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """The other direction, itself differentiable."""
        return smooth(gradients[0], ctx.lattice, not ctx.reverse), None, None


def smooth(values: Tensor, lattice: BatchLattice, reverse: bool = False) -> Tensor:
    """The lattice's filter of values (B * N, C), recorded for gradients."""
    result: Tensor = _Smooth.apply(values, lattice, reverse)  # type: ignore[no-untyped-call]
    return result


def mean_field(
    scores: Tensor,
    lattices: Sequence[BatchLattice],
    weights: Tensor,
    compatibility: Tensor,
    iterations: int,
    normalization: str,
) -> Tensor:
    """Mean-field steps: scores (P, C), log of the probabilities -> (P, C), scores whose softmax are the marginals.

    weights (K,), one for each lattice; compatibility (C, C), row l, column l': what label l pays for a neighbour l'.
    """
    factors = [_factors(lattice.norms.to(scores.dtype), normalization) for lattice in lattices]
    refined = scores
    for _ in range(iterations):
        q = refined.softmax(1)
        messages = torch.zeros_like(q)
        for weight, lattice, (before, after) in zip(weights, lattices, factors, strict=True):
            messages = messages + weight * after * smooth(q * before, lattice)
        refined = scores - messages @ compatibility.T
    return refined


class MeanField(nn.Module):
    """The CRF as a layer: images and scores in, better scores out; its parameters can be trained.

    weights        (K,): smoothness, appearance, then one for each further kernel
    compatibility  (C, C), begins as Potts
    parameters as in `pixelwise.crf.refine`; extra_weights: the weights that further kernels begin with.
    Raises ConfigError and UnknownNameError as `Parameters` do.
    """

    def __init__(
        self, num_classes: int, parameters: Parameters | str = "deeplabv2", extra_weights: Sequence[float] = ()
    ) -> None:
        super().__init__()
        self.settings = find_parameters(parameters)
        self.weights = nn.Parameter(
            torch.tensor([self.settings.w2, self.settings.w1, *extra_weights], dtype=torch.float32)
        )
        self.compatibility = nn.Parameter(1 - torch.eye(num_classes))

    def forward(self, images: Tensor, scores: Tensor, extra_features: Sequence[Tensor] = ()) -> Tensor:
        """images (B, 3, H, W) uint8 or float 0..255; scores (B, C, H, W), before a softmax -> (B, C, H, W), likewise.

        extra_features: for each further kernel (B, H * W, d), in standard deviations.
        Scores of half precision give float32, under autocast too. Raises ConfigError for other shapes.
        """
        self._check(images, scores, extra_features)
        batch, num_classes, height, width = scores.shape
        features = [*_paper_features(images, self.settings), *extra_features]
        # A kernel that weighs nothing and is not trained costs nothing.
        used = [i for i, weight in enumerate(self.weights.tolist()) if weight or self.weights.requires_grad]
        settings = self.settings
        # A lattice point adds up thousands of pixels, for which half precision has neither the range nor the digits.
        with torch.autocast(scores.device.type, enabled=False):
            lattices = [BatchLattice(features[i]) for i in used]
            rows = scores.permute(0, 2, 3, 1).reshape(-1, num_classes)
            rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
            weights, compatibility = self.weights[used].to(rows.dtype), self.compatibility.to(rows.dtype)
            refined = mean_field(rows, lattices, weights, compatibility, settings.iterations, settings.normalization)
        return refined.view(batch, height, width, num_classes).permute(0, 3, 1, 2)

    def _check(self, images: Tensor, scores: Tensor, extra_features: Sequence[Tensor]) -> None:
        _check_shapes(images, scores)
        if scores.shape[1] != len(self.compatibility):
            what = f"scores have {scores.shape[1]} classes, the layer {len(self.compatibility)}"
            raise ConfigError("crf", what, f"build it with num_classes={scores.shape[1]}")
        wanted = (len(scores), scores.shape[2] * scores.shape[3])
        shapes = [tuple(features.shape) for features in extra_features]
        if len(shapes) != len(self.weights) - 2 or any(shape[:2] != wanted or len(shape) != 3 for shape in shapes):
            what = f"extra features are {shapes}, wanted are {len(self.weights) - 2} of ({wanted[0]}, {wanted[1]}, d)"
            raise ConfigError("crf", what, "one for each of extra_weights, one row for each pixel")


@torch.no_grad()
def refine_batch(images: Tensor, probs: Tensor, parameters: Parameters | str = "deeplabv2") -> Tensor:
    """`pixelwise.crf.refine` for a batch on its device: images (B, 3, H, W) uint8, probs (B, C, H, W) -> (B, C, H, W).

    Raises what `refine` raises: ImageError for images that are not uint8, ConfigError for probabilities that cannot be right.
    """
    _check_shapes(images, probs)
    _check_values(images, probs)
    layer = MeanField(probs.shape[1], parameters).to(probs.device).requires_grad_(False)
    refined: Tensor = layer(images, probs.clamp_min(LEAST_PROBABILITY).log())
    return refined.softmax(1)


def _check_shapes(images: Tensor, scores: Tensor) -> None:
    if scores.ndim != 4 or images.shape != (len(scores), 3, *scores.shape[2:]) or not scores.numel():
        what = f"images are {tuple(images.shape)}, scores {tuple(scores.shape)}"
        raise ConfigError("crf", what, "hand over (B, 3, H, W) and (B, classes, H, W), none of them 0")


def _check_values(images: Tensor, probs: Tensor) -> None:
    if images.dtype != torch.uint8:
        raise ImageError(
            "crf images", f"are {images.dtype}, wanted is uint8", "hand over the RGB pixels as read, 0..255"
        )
    if not probs.is_floating_point():
        raise ConfigError("crf probabilities", f"are {probs.dtype}", "hand over floats in 0..1, not labels")
    lowest, error = float(probs.min()), float((probs.sum(1, dtype=torch.float32) - 1).abs().max())
    if not (lowest >= 0 and error <= SUM_TOLERANCE):  # NaN is neither
        what = f"go down to {lowest:g}, and their sum is off 1 by up to {error:g}"
        raise ConfigError("crf probabilities", what, "apply a softmax to the scores first")


def _paper_features(images: Tensor, parameters: Parameters) -> list[Tensor]:
    """Features (B, N, 2) of the smoothness and (B, N, 5) of the appearance kernel, on the images' device."""
    batch, _, height, width = images.shape
    rows, columns = (torch.arange(n, dtype=torch.float32, device=images.device) for n in (height, width))
    places = (
        torch.stack([columns.expand(height, width), rows[:, None].expand(height, width)], -1)
        .view(1, -1, 2)
        .expand(batch, -1, 2)
    )
    colours = images.permute(0, 2, 3, 1).reshape(batch, -1, 3).float()
    # Divided by tensors: by a number, a GPU multiplies with its reciprocal, which moves points on the borders of simplices.
    thetas = torch.tensor(
        [parameters.theta_gamma, parameters.theta_alpha, parameters.theta_beta], device=images.device
    )[:, None]
    smoothness, positions = places / thetas[0], places / thetas[1]
    return [smoothness, torch.cat([positions, colours / thetas[2]], 2)]


def _factors(norms: Tensor, normalization: str) -> tuple[Tensor, Tensor]:
    """What values are multiplied by before and after filtering, (P, 1) each."""
    ones = torch.ones_like(norms)
    before, after = {
        "symmetric": (norms.rsqrt(), norms.rsqrt()),
        "after": (ones, 1 / norms),
        "before": (1 / norms, ones),
        "none": (ones, ones),
    }[normalization]
    return before[:, None], after[:, None]


def _enclose(points: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
    """The simplex around each point (P, d): its vertices' codes (P, d + 1) int64 and barycentric weights (P, d + 1).

    Single precision in the order of the authors' code: see `simplex.py`, which does the same point by point.
    """
    num, d = points.shape
    scaled = points * torch.from_numpy(scales(d)).to(points.device)
    above = points.new_zeros(num)
    elevated = []
    for j in range(d, 0, -1):
        elevated.append(above - j * scaled[:, j - 1])
        above = above + scaled[:, j - 1]
    places = torch.stack([above, *reversed(elevated)], 1)
    inverse = torch.tensor(1 / (d + 1), dtype=torch.float32, device=points.device)
    nearest = (places * inverse).round()
    corner = nearest * (d + 1)
    rest = places - corner
    rank = nearest.sum(1).long()[:, None].repeat(1, d + 1)
    for i, j in combinations(range(d + 1), 2):
        below = rest[:, i] < rest[:, j]
        rank[:, i] += below
        rank[:, j] += ~below
    shift = (d + 1) * ((rank < 0).long() - (rank > d).long())
    corner, rank = corner + shift, rank + shift
    axis = (d - rank).argsort(1)  # which coordinate takes the r-th step from the corner
    part = ((places - corner) * inverse).gather(1, axis)
    first = part[:, :1] + (1 - part[:, -1:])
    start = (corner.long() * steps).sum(1, keepdim=True)
    jumps = (steps.sum() - (d + 1) * steps)[axis[:, :-1]]
    return torch.cat([start, start + jumps.cumsum(1)], 1), torch.cat([first, part[:, 1:] - part[:, :-1]], 1)
