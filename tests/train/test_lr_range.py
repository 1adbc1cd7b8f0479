"""The learning-rate range test: its rates and losses, the rate that it suggests, and what it leaves alone."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from helpers.tiny_data import tiny_config, write_dataset
from pixelwise.cli import main
from pixelwise.errors import InputError
from pixelwise.train.lr_range import RatePoint, check_folder, smooth, suggest_rate
from pixelwise.train.run import train

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*:FutureWarning")


def curve(losses: list[float]) -> list[RatePoint]:
    """Rates 1e-3, 1e-2 and so on."""
    return [RatePoint(10.0 ** (k - 3), loss, loss) for k, loss in enumerate(losses)]


def test_the_suggested_rate_is_a_tenth_of_where_the_loss_turns_up() -> None:
    rate, line = suggest_rate(curve([1.0, 0.9, 0.5, 0.7, 3.0]))
    assert rate == pytest.approx(0.01)
    assert "is lowest at rate 0.1: 0.5, 1 at first" in line
    assert line.endswith("--optimizer.lr 0.01")
    rate, line = suggest_rate(curve([1.0, 0.9, 0.5]))
    assert rate == pytest.approx(0.01)
    assert "still falls at rate 0.1" in line
    for flat in ([1.0, 0.96, 1.2], [1.0, 2.0], [1.0]):
        assert suggest_rate(curve(flat))[0] is None
    assert suggest_rate([])[0] is None


def test_losses_are_smoothed_over_seven_steps() -> None:
    points = [RatePoint(1.0, float(loss), 0.0) for loss in (7, 0, 0, 0, 14, 0, 0, 0, 7)]
    found = [point.smoothed for point in smooth(points)]
    assert found == pytest.approx([7 / 4, 21 / 5, 21 / 6, 3, 2, 3, 21 / 6, 21 / 5, 7 / 4])


def test_only_a_new_or_empty_folder_is_written(tmp_path: Path) -> None:
    check_folder(tmp_path / "new")
    check_folder(tmp_path)
    (tmp_path / "config.yaml").write_text("")
    with pytest.raises(InputError, match="new or empty"):
        check_folder(tmp_path)


def test_the_command_prints_a_table_and_writes_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first loss is that of a run with the same settings; the rates have one ratio."""
    data = write_dataset(tmp_path / "data")
    config = tiny_config(data, train={"steps": 1}, optimizer={"grad_accum_steps": 2, "lr": 0.03})
    (tmp_path / "recipe.yaml").write_text(config.to_yaml())
    monkeypatch.chdir(tmp_path)
    assert main(["train", "recipe.yaml", "--lr-range", "--out", "rates"]) == 0
    out = capsys.readouterr().out
    assert "step      rate       loss   smoothed\n   1     1e-06" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "rates", "recipe.yaml"]
    with open(tmp_path / "rates" / "lr_range.csv", encoding="utf-8") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert [path.name for path in (tmp_path / "rates").iterdir()] == ["lr_range.csv"]
    rates = [row["rate"] for row in rows]
    assert rates == pytest.approx([1e-6 * 10 ** (7 * k / 99) for k in range(len(rows))], rel=1e-4)
    assert len(rows) > 60
    train(config, tmp_path / "run")
    with open(tmp_path / "run" / "metrics.csv", encoding="utf-8") as file:
        first = next(csv.DictReader(file))
    assert rows[0]["loss"] == pytest.approx(float(first["loss"]), rel=1e-4)
    assert main(["train", "recipe.yaml", "--lr-range", "--resume"]) == 2
    assert "--lr-range: starts from step 0" in capsys.readouterr().err
