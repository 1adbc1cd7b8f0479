"""A run's `metrics.csv` as curves: numbers turned into the coordinates of small line drawings (SVG)."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

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
}
_SHARES = {"miou", "pixel_accuracy", "mean_accuracy", "fw_iou"}
_COLORS = ("train", "val", "test")
_NO_CURVE = {"step", "split", "epoch", "time", "seconds"}

Point = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """One line: the split it belongs to, its last value, and its coordinates as SVG wants them; gaps begin a new line.

    color  number of the page's colour: a split has the same one in all charts
    """

    name: str
    color: int
    last: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Chart:
    """One drawing: its title, curves, and ticks as (coordinate, label)."""

    title: str
    curves: tuple[Curve, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    bottom: int = HEIGHT - _BOTTOM


def read_charts(path: Path) -> list[Chart]:
    """One chart a column of `metrics.csv`, one curve a split; none where there is no file or no number yet.

    A killed run may leave half a line: cells that are no numbers are passed over.
    """
    if not path.exists():
        return []
    series: dict[str, dict[str, list[Point]]] = {}
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        for row in csv.DictReader(file):
            step = _number(row.get("step"))
            for column in row.keys() - _NO_CURVE - {None}:
                value = _number(row[column])
                if step is not None and math.isfinite(step) and value is not None:
                    point = step, value * 100 if column in _SHARES else value
                    series.setdefault(column, {}).setdefault(row.get("split") or "value", []).append(point)
    known = [column for column in _TITLES if column in series]
    columns = known + sorted(series.keys() - _TITLES.keys())
    charts = (_chart(_TITLES.get(column, column), series[column]) for column in columns[:_MAX_CHARTS])
    return [chart for chart in charts if chart]


def _number(cell: str | None) -> float | None:
    try:
        return float(cell) if cell else None
    except ValueError:
        return None


def _chart(title: str, by_split: dict[str, list[Point]]) -> Chart | None:
    ordered = {
        split: sorted(by_split[split], key=lambda point: point[0]) for split in sorted(by_split, key=_training_first)
    }
    finite = [point for points in ordered.values() for point in points if math.isfinite(point[1])]
    if not finite:
        return None
    frame = _Frame(*_span(x for x, _ in finite), *_span(y for _, y in finite))
    curves = tuple(_curve(split, points, frame) for split, points in ordered.items())
    x_ticks = tuple((frame.x(value), _label(value)) for value in _ticks(frame.x_low, frame.x_high))
    y_ticks = tuple((frame.y(value), _label(value)) for value in _ticks(frame.y_low, frame.y_high))
    return Chart(title, curves, x_ticks, y_ticks)


def _curve(split: str, points: Sequence[Point], frame: _Frame) -> Curve:
    color = _COLORS.index(split) if split in _COLORS else len(_COLORS)
    return Curve(split, color, f"{points[-1][1]:.4g}", tuple(frame.lines(_thin(points))))


def _training_first(split: str) -> tuple[bool, str]:
    return split != "train", split


@dataclass(frozen=True)
class _Frame:
    """From values to coordinates of the drawing; y points down there."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        return round(_LEFT + (value - self.x_low) / (self.x_high - self.x_low) * (WIDTH - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        return round(_TOP + (self.y_high - value) / (self.y_high - self.y_low) * (HEIGHT - _TOP - _BOTTOM), 1)

    def lines(self, points: Sequence[Point]) -> Iterable[str]:
        """Runs of finite points as "x,y x,y"; a lone point becomes a dot of two equal ends."""
        run: list[str] = []
        for x, y in (*points, (0.0, math.nan)):
            if math.isfinite(y):
                run.append(f"{self.x(x)},{self.y(y)}")
            elif run:
                yield " ".join(run if len(run) > 1 else run * 2)
                run = []


def _thin(points: Sequence[Point]) -> list[Point]:
    """At most _MAX_POINTS points, each the mean of a stretch of equally many; a stretch with NaN is NaN, and seen as a gap."""
    size = math.ceil(len(points) / _MAX_POINTS)
    stretches = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in stretches]


def _span(values: Iterable[float]) -> tuple[float, float]:
    """Smallest and largest value, set apart where they are equal."""
    known = list(values)
    low, high = min(known), max(known)
    if high > low:
        return low, high
    room = abs(low) / 2 or 1.0
    return low - room, high + room


def _ticks(low: float, high: float) -> list[float]:
    """Three to seven round numbers between low and high: multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    return [n * step for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _label(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
