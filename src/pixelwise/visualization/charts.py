"""Turn `metrics.csv` and trimap scores into curves: coordinates of SVG lines, which the report's template draws."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError, os_reason
from ..evaluation.trimap import TrimapPoint
from ..files import read_regular

WIDTH, HEIGHT = 460, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 10, 10, 26
_MAX_POINTS = 400
_MAX_CHARTS = 8
_TITLES = {
    "loss": "Loss",
    "lr": "Learning rate",
    "miou": "Mean IoU %",
    "pixel_accuracy": "Pixel accuracy %",
    "mean_accuracy": "Mean accuracy %",
    "fw_iou": "Frequency weighted IoU %",
    "mean_dice": "Mean Dice %",
    "foreground_dice": "Foreground Dice %",
}
_SHARES = _TITLES.keys() - {"loss", "lr"}
_COLORS = ("train", "val", "test")
_NO_CURVE = {"step", "split", "epoch", "time", "seconds"}

Point = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """A curve: its split, its last value, and its coordinates as SVG polylines; a gap in the values starts a new line.

    color  index of the page's color: a split has the same color in all charts
    """

    name: str
    color: int
    last: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Chart:
    """One drawing: its title, curves, ticks as (coordinate, label), and what its horizontal axis shows."""

    title: str
    curves: tuple[Curve, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    width: int = WIDTH
    height: int = HEIGHT
    x_name: str = "steps"
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    bottom: int = HEIGHT - _BOTTOM


def read_charts(path: Path) -> list[Chart]:
    """Return one chart per column of `metrics.csv` with one curve per split; empty without a file or numbers.

    A killed run may leave half a line, so cells that are not numbers are skipped. Raises ConfigError for a file that is
    not CSV.
    """
    if not path.exists():
        return []
    series: dict[str, dict[str, list[Point]]] = {}
    try:
        text = read_regular(path).decode("utf-8", errors="replace")
        for row in csv.DictReader(io.StringIO(text, newline="")):
            step = _number(row.get("step"))
            for column in row.keys() - _NO_CURVE - {None}:
                value = _number(row[column])
                if step is not None and math.isfinite(step) and value is not None:
                    point = step, value * 100 if column in _SHARES else value
                    series.setdefault(column, {}).setdefault(row.get("split") or "value", []).append(point)
    except (OSError, csv.Error) as error:
        raise ConfigError(path, f"cannot be read: {os_reason(error)}", "restore or remove it") from None
    known = [column for column in _TITLES if column in series]
    columns = known + sorted(series.keys() - _TITLES.keys())
    charts = (_chart(_TITLES.get(column, column), series[column]) for column in columns[:_MAX_CHARTS])
    return [chart for chart in charts if chart]


def trimap_chart(points: Sequence[TrimapPoint], mean_iou: float) -> Chart | None:
    """Return the mean IoU over the width of the band around boundaries, beside that of all pixels; None without values.

    Each tick is a band, twice as wide as the one before.
    """
    known = [(math.log2(p.width), p.mean_iou * 100) for p in points if p.mean_iou is not None]
    if not known:
        return None
    # Half a step of room, so that a single point is not on both ends.
    axes = _Axes(known[0][0], max(known[-1][0], known[0][0] + 0.5), *_span([*(y for _, y in known), mean_iou * 100]))
    band = Curve("near boundaries", 0, f"{known[-1][1]:.4g}", tuple(axes.lines(known)))
    all_pixels = [(x, mean_iou * 100) for x in (axes.x_low, axes.x_high)]
    overall = Curve("all pixels", 1, f"{mean_iou * 100:.4g}", tuple(axes.lines(all_pixels)))
    x_ticks = tuple((axes.x(math.log2(p.width)), str(p.width)) for p in points if p.mean_iou is not None)
    y_ticks = tuple((axes.y(value), _label(value)) for value in _ticks(axes.y_low, axes.y_high))
    return Chart("Mean IoU %", (band, overall), x_ticks, y_ticks, x_name="pixels to a boundary")


def _number(cell: str | None) -> float | None:
    try:
        return float(cell) if cell else None
    except ValueError:
        return None


def _chart(title: str, by_split: dict[str, list[Point]]) -> Chart | None:
    """Scale all splits of one column to the same axes; None if no value is finite."""
    splits = sorted(by_split, key=lambda split: (split != "train", split))
    ordered = {split: sorted(by_split[split], key=lambda point: point[0]) for split in splits}
    finite = [point for points in ordered.values() for point in points if math.isfinite(point[1])]
    if not finite:
        return None
    axes = _Axes(*_span(x for x, _ in finite), *_span(y for _, y in finite))
    curves = []
    for split, points in ordered.items():
        color = _COLORS.index(split) if split in _COLORS else len(_COLORS)
        curves.append(Curve(split, color, f"{points[-1][1]:.4g}", tuple(axes.lines(_thin(points)))))
    x_ticks = tuple((axes.x(value), _label(value)) for value in _ticks(axes.x_low, axes.x_high))
    y_ticks = tuple((axes.y(value), _label(value)) for value in _ticks(axes.y_low, axes.y_high))
    return Chart(title, tuple(curves), x_ticks, y_ticks)


@dataclass(frozen=True)
class _Axes:
    """The ranges of values, and the mapping of values to coordinates of the drawing, where y points down."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        return round(_LEFT + (value - self.x_low) / (self.x_high - self.x_low) * (WIDTH - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        return round(_TOP + (self.y_high - value) / (self.y_high - self.y_low) * (HEIGHT - _TOP - _BOTTOM), 1)

    def lines(self, points: Sequence[Point]) -> Iterable[str]:
        """Yield runs of finite points as "x,y x,y"; a single point becomes a dot, a line with two equal ends."""
        run: list[str] = []
        for x, y in (*points, (0.0, math.nan)):
            if math.isfinite(y):
                run.append(f"{self.x(x)},{self.y(y)}")
            elif run:
                yield " ".join(run if len(run) > 1 else run * 2)
                run = []


def _thin(points: Sequence[Point]) -> list[Point]:
    """Average stretches of equally many points, to at most _MAX_POINTS. A stretch with NaN is NaN: a gap."""
    size = math.ceil(len(points) / _MAX_POINTS)
    stretches = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in stretches]


def _span(values: Iterable[float]) -> tuple[float, float]:
    """Return the smallest and the largest value, moved apart if they are equal."""
    known = list(values)
    low, high = min(known), max(known)
    if high > low:
        return low, high
    room = abs(low) / 2 or 1.0
    return low - room, high + room


def _ticks(low: float, high: float) -> list[float]:
    """Return three to seven round numbers between low and high: multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    return [n * step for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _label(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
