"""The fully connected CRF in torch: whole batches, on a GPU where there is one, and differentiable.

    crf = MeanField(num_classes=21)                     # a layer after any model
    logits = crf(images, model(images).logits)          # (B, 3, H, W), (B, C, H, W) -> (B, C, H, W)

Paper: Zheng et al., "Conditional random fields as recurrent neural networks" (ICCV 2015,
https://arxiv.org/abs/1502.03240): mean field as layers, trained with the network (section 4, figure 1). Gradients reach
the scores, the kernels' weights and the compatibility matrix; as there, none reach the kernels' widths. Deviations: one
weight per kernel, not one per kernel and class.

The lattice equals that of the numba engine vertex by vertex (`crf/codes.py`); a batch is one lattice in which the
images' vertices have codes of their own. On a GPU, sums are added up in no fixed order.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError, ImageError
from .codes import alpha, code_strides, elevation_factors
from .features import LEAST_PROBABILITY, SUM_TOLERANCE, Parameters, find_parameters


class MeanField(nn.Module):
    """The CRF as a layer: images and scores in, refined scores out; its parameters can be trained.

    weights        (K,): smoothness, appearance, then one per further kernel
    compatibility  (C, C), begins as Potts
    parameters as in `pixelwise.crf.refine`; extra_weights: the initial weights of further kernels.
    Raises ConfigError and UnknownNameError as `Parameters` do.
    """

    def __init__(
        self, num_classes: int, parameters: Parameters | str = "deeplabv2", *, extra_weights: Sequence[float] = ()
    ) -> None:
        super().__init__()
        self.settings = find_parameters(parameters)
        self.weights = nn.Parameter(
            torch.tensor([self.settings.w2, self.settings.w1, *extra_weights], dtype=torch.float32)
        )
        self.compatibility = nn.Parameter(1 - torch.eye(num_classes))

    def forward(self, images: Tensor, scores: Tensor, extra_features: Sequence[Tensor] = ()) -> Tensor:
        """Return refined scores (B, C, H, W), before a softmax like the scores that are passed.

        images (B, 3, H, W) uint8 or float 0..255; scores (B, C, H, W)
        extra_features: for each further kernel (B, H * W, d), in standard deviations.
        Scores of half precision give float32, under autocast too. Raises ConfigError for other shapes.
        """
        self._check(images, scores, extra_features)
        batch, num_classes, height, width = scores.shape
        settings = self.settings
        features = [*_paper_features(images, settings), *extra_features]
        # A kernel with weight 0 that is not trained costs nothing.
        used = [i for i, weight in enumerate(self.weights.tolist()) if weight or self.weights.requires_grad]
        # A lattice point adds up thousands of pixels, for which half precision has neither the range nor the digits.
        with torch.autocast(scores.device.type, enabled=False):
            rows = scores.permute(0, 2, 3, 1).reshape(-1, num_classes)
            rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
            refined = mean_field(
                rows,
                [BatchLattice(features[i]) for i in used],
                weights=self.weights[used].to(rows.dtype),
                compatibility=self.compatibility.to(rows.dtype),
                iterations=settings.iterations,
                normalization=settings.normalization,
            )
        return refined.view(batch, height, width, num_classes).permute(0, 3, 1, 2)

    def _check(self, images: Tensor, scores: Tensor, extra_features: Sequence[Tensor]) -> None:
        _check_shapes(images, scores)
        if scores.shape[1] != len(self.compatibility):
            what = f"expected scores of {len(self.compatibility)} classes, got {scores.shape[1]}"
            raise ConfigError("crf", what, f"build the layer with num_classes={scores.shape[1]}")
        num, rows = len(self.weights) - 2, (len(scores), scores.shape[2] * scores.shape[3])
        shapes = [tuple(features.shape) for features in extra_features]
        if len(shapes) != num or any(shape[:2] != rows or len(shape) != 3 for shape in shapes):
            what = f"expected extra features: {num} of shape ({rows[0]}, {rows[1]}, d), got {shapes}"
            raise ConfigError("crf", what, "pass one per extra weight, one row per pixel")


@torch.no_grad()
def refine_batch(images: Tensor, probs: Tensor, parameters: Parameters | str = "deeplabv2") -> Tensor:
    """Refine a batch on its device: images (B, 3, H, W) uint8, probs (B, C, H, W) -> (B, C, H, W).

    Raises what `refine` raises: ImageError for images that are not uint8, ConfigError for invalid probabilities.
    """
    _check_shapes(images, probs)
    if images.dtype != torch.uint8:
        raise ImageError("crf images", f"expected uint8, got {images.dtype}", "pass the RGB pixels as read, 0..255")
    if not probs.is_floating_point():
        raise ConfigError("crf probabilities", f"expected floats in 0..1, got {probs.dtype}", "pass probabilities")
    lowest, error = float(probs.min()), float((probs.sum(1, dtype=torch.float32) - 1).abs().max())
    if not (lowest >= 0 and error <= SUM_TOLERANCE):  # NaN is neither
        what = f"must be >= 0 and sum to 1, got min {lowest:g} and a sum off by {error:g}"
        raise ConfigError("crf probabilities", what, "apply a softmax to the scores first")
    layer = MeanField(probs.shape[1], parameters).to(probs.device).requires_grad_(requires_grad=False)
    refined: Tensor = layer(images, probs.clamp_min(LEAST_PROBABILITY).log())
    return refined.softmax(1)


def mean_field(
    scores: Tensor,
    lattices: Sequence[BatchLattice],
    *,
    weights: Tensor,
    compatibility: Tensor,
    iterations: int,
    normalization: str,
) -> Tensor:
    """Run algorithm 1: scores (P, C), log of the probabilities -> (P, C), scores whose softmax are the marginals.

    weights (K,), one per lattice; compatibility (C, C), row l, column l': the penalty of label l beside a neighbor l'.
    """
    factors = [lattice.normalization_factors(normalization, scores.dtype) for lattice in lattices]
    refined = scores
    for _ in range(iterations):
        q = refined.softmax(1)  # initialize; later normalize
        messages = torch.zeros_like(q)
        for weight, lattice, (before, after) in zip(weights, lattices, factors, strict=True):
            messages = messages + weight * after * smooth(q * before, lattice)  # message passing
        refined = scores - messages @ compatibility.T  # compatibility transform, local update
    return refined


class BatchLattice:
    """Tables of a permutohedral lattice over a batch: features (B, N, d) in standard deviations, on any device.

    ids         (B * N, d + 1) int64 lattice points around each pixel; weights (B * N, d + 1), barycentric
    neighbors   (d + 1, 2, M) int64, one step back and forth along each direction; M for none
    norms       (B * N,): the filter of ones
    """

    def __init__(self, features: Tensor) -> None:
        batch, num, d = features.shape
        points = features.detach().float().flatten(0, 1)
        lowest, highest = points.amin(0).cpu().numpy(), points.amax(0).cpu().numpy()
        strides = torch.from_numpy(code_strides(lowest, highest, batch)).to(points.device)
        steps, image_stride = strides[: d + 1], strides[d + 1]
        codes, self.weights = _enclose(points, steps)
        codes += (torch.arange(batch, device=points.device) * image_stride).repeat_interleave(num)[:, None]
        vertices, self.ids = torch.unique(codes, return_inverse=True)
        self.size = len(vertices)

        def find(step: Tensor) -> Tensor:
            """Return (2, M): the numbers of the vertices whose codes are a step less and a step more, or M."""
            wanted = vertices + torch.stack([-step, step])[:, None]
            found = torch.searchsorted(vertices, wanted)
            return found.masked_fill(vertices[found.clamp_max(self.size - 1)] != wanted, self.size)

        self.neighbors = torch.stack([find(step) for step in (d + 1) * steps - steps.sum()])
        self.alpha = alpha(d)
        self.norms = self.filter(points.new_ones(len(points), 1))[:, 0]

    def filter(self, values: Tensor, *, reverse: bool = False) -> Tensor:
        """Splat, blur, slice: values (B * N, C) -> (B * N, C); `reverse` gives the transposed map.

        Not recorded for gradients: see `smooth`.
        """
        weights = self.weights.to(values.dtype)
        pairs = list(zip(self.ids.T, weights.T, strict=True))
        points = values.new_zeros(
            self.size + 1, values.shape[1]
        )  # the last one, always 0, stands for missing neighbors
        for ids, weight in pairs:
            points.index_add_(0, ids, values * weight[:, None])
        for before, after in reversed(self.neighbors) if reverse else self.neighbors:
            points[:-1] += 0.5 * (points[before] + points[after])
        return self.alpha * sum((points[ids] * weight[:, None] for ids, weight in pairs), torch.zeros_like(values))

    def normalization_factors(self, name: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return the factors of values before and after filtering, (B * N, 1) each."""
        n = self.norms.to(dtype)[:, None]
        ones = torch.ones_like(n)
        return {
            "symmetric": (n.rsqrt(), n.rsqrt()),
            "after": (ones, 1 / n),
            "before": (1 / n, ones),
            "none": (ones, ones),
        }[name]


class _Smooth(torch.autograd.Function):
    """The filter with its gradient, which is the transposed filter: autograd would keep every intermediate row."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, lattice: BatchLattice, reverse: bool) -> Tensor:
        """Filter values (B * N, C)."""
        ctx.lattice, ctx.reverse = lattice, reverse
        return lattice.filter(values, reverse=reverse)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Apply the transposed filter to the gradient; this is differentiable too."""
        return smooth(gradients[0], ctx.lattice, reverse=not ctx.reverse), None, None


def smooth(values: Tensor, lattice: BatchLattice, *, reverse: bool = False) -> Tensor:
    """Return the lattice's filter of values (B * N, C), recorded for gradients."""
    result: Tensor = _Smooth.apply(values, lattice, reverse)  # type: ignore[no-untyped-call]
    return result


def _check_shapes(images: Tensor, scores: Tensor) -> None:
    if scores.ndim != 4 or images.shape != (len(scores), 3, *scores.shape[2:]) or not scores.numel():
        what = (
            f"expected images (B, 3, H, W) and scores (B, C, H, W), got {tuple(images.shape)} and {tuple(scores.shape)}"
        )
        raise ConfigError("crf", what, "pass both at the same size, at least one pixel")


def _paper_features(images: Tensor, parameters: Parameters) -> list[Tensor]:
    """Return features (B, N, 2) of the smoothness and (B, N, 5) of the appearance kernel, on the images' device."""
    batch, _, height, width = images.shape
    rows, columns = (torch.arange(n, dtype=torch.float32, device=images.device) for n in (height, width))
    places = torch.stack([columns.expand(height, width), rows[:, None].expand(height, width)], -1)
    places = places.view(1, -1, 2).expand(batch, -1, 2)
    colors = images.permute(0, 2, 3, 1).reshape(batch, -1, 3).float()
    # Divided by tensors: a GPU replaces division by a number with multiplication by its reciprocal, which moves points
    # on the borders of simplices.
    thetas = [parameters.theta_gamma, parameters.theta_alpha, parameters.theta_beta]
    gamma, alpha, beta = torch.tensor(thetas, device=images.device)[:, None]
    return [places / gamma, torch.cat([places / alpha, colors / beta], 2)]


def _enclose(points: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
    """Return the codes (P, d + 1) int64 and barycentric weights (P, d + 1) of the vertices around points (P, d).

    Single precision in the order of the authors' code. `crf/simplex.py` does the same point by point, with more
    comments, and gives the reason for two versions.
    """
    num, d = points.shape
    scaled = points * torch.from_numpy(elevation_factors(d)).to(points.device)
    above = points.new_zeros(num)
    falling = []
    for j in range(d, 0, -1):
        falling.append(above - j * scaled[:, j - 1])
        above = above + scaled[:, j - 1]
    elevated = torch.stack([above, *reversed(falling)], 1)
    inverse = torch.tensor(1 / (d + 1), dtype=torch.float32, device=points.device)
    nearest = (elevated * inverse).round()
    corner = nearest * (d + 1)
    offset = elevated - corner
    rank = nearest.sum(1).long()[:, None].repeat(1, d + 1)
    for i, j in combinations(range(d + 1), 2):
        below = offset[:, i] < offset[:, j]
        rank[:, i] += below
        rank[:, j] += ~below
    shift = (d + 1) * ((rank < 0).long() - (rank > d).long())
    corner, rank = corner + shift, rank + shift
    axis = (d - rank).argsort(1)  # which coordinate takes the r-th step from the corner
    offset = ((elevated - corner) * inverse).gather(1, axis)
    first = offset[:, :1] + (1 - offset[:, -1:])
    start = (corner.long() * steps).sum(1, keepdim=True)
    jumps = (steps.sum() - (d + 1) * steps)[axis[:, :-1]]
    return torch.cat([start, start + jumps.cumsum(1)], 1), torch.cat([first, offset[:, 1:] - offset[:, :-1]], 1)
