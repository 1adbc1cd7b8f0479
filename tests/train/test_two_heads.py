"""A network with two label maps, trained, scored and predicted from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import pixelwise
from helpers.channel_data import write_two_maps
from helpers.command_line import call, refused
from helpers.tiny_data import TINY_FCN, tiny_config, write_dataset
from pixelwise.config import LossConfig
from pixelwise.core import Output
from pixelwise.data import open_dataset
from pixelwise.data.second_labels import PairSplit, split_pair
from pixelwise.images import read_mask
from pixelwise.models import create_model
from pixelwise.train.build import make_loader
from pixelwise.train.losses import SegmentationLoss
from pixelwise.train.two_heads import TwoHeadLoss
from pixelwise.weights.checkpoint import load_checkpoint

NETWORK = "fcn16s_two_heads_vgg16"


def two_masks(seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    first, second = (torch.from_numpy(rng.choice(ids, (2, 8, 8))) for ids in ([0, 1, 2, 255], [0, 1, 255]))
    return first, second


@pytest.mark.parametrize("options", [{}, {"dice": 0.5}, {"reduction": "sum"}, {"name": "ohem"}])
def test_the_loss_is_the_sum_of_those_of_both_heads(options: dict[str, Any]) -> None:
    config = LossConfig(**options)
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 8, 8)
    first, second = two_masks()
    weights = torch.tensor([1.0, 2.0, 3.0])
    losses = SegmentationLoss(config, 255, class_weights=weights), SegmentationLoss(config, 255)
    both = TwoHeadLoss(*losses, 3)(Output(logits), 256 * first + second, seed=5)
    expected = losses[0](Output(logits[:, :3]), first, seed=5) + losses[1](Output(logits[:, 3:]), second, seed=5)
    torch.testing.assert_close(both, expected)
    if not options:
        by_hand = F.cross_entropy(logits[:, 3:], second, ignore_index=255)
        by_hand = by_hand + F.cross_entropy(logits[:, :3], first, weights, ignore_index=255, reduction="sum") / (
            weights[first[first < 255]].sum()
        )
        torch.testing.assert_close(both, by_hand)


def test_crops_show_the_same_place_of_both_maps(tmp_path: Path) -> None:
    data = write_two_maps(tmp_path / "data")
    split = open_dataset(data).split("train")
    pair = PairSplit(split)[1]
    assert pair.mask is not None
    assert split.second is not None
    first, second = (part.numpy() for part in split_pair(torch.from_numpy(pair.mask.astype(np.int64))))
    np.testing.assert_array_equal(first, read_mask(data / "masks/train/p1.png"))
    np.testing.assert_array_equal(second, read_mask(data / "geometry/train/p1.png"))
    # Classes of the two maps lie above each other: what is a bar lies in the left third, in every crop.
    config = tiny_config(data, model={"name": NETWORK, "options": TINY_FCN}, augment={"class_balanced_prob": 0.5})
    masks = torch.cat([batch.masks for batch in make_loader(config, split)])
    one, other = split_pair(masks)
    assert masks.max() == 65535
    assert set(other[one == 2].tolist()) == {0, 255}
    assert set(one.unique().tolist()) == set(other.unique().tolist()) == {0, 1, 2, 255}


def test_both_heads_are_trained_scored_and_predicted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, run = write_two_maps(tmp_path / "data"), tmp_path / "run"
    sizes = {"augment.crop": "[32, 48]", "data.batch_size": 4, "data.workers": 0, "train.steps": 4}
    settings = {**sizes, "train.validate_every": 4, "optimizer.lr": 0.02, "augment.flip": 0}
    words = [word for name, value in settings.items() for word in (f"--{name}", value)]
    options = ("--model.options", json.dumps({**TINY_FCN, "batch_norm": True, "dropout": 0.0}))
    assert call(capsys, "train", data, "--model", NETWORK, "--out", run, *words, *options).code == 0
    checkpoint = load_checkpoint(run / "checkpoints" / "last")
    assert checkpoint.second is not None
    assert checkpoint.second[0] == "geometry"
    assert checkpoint.model.head_classes == (3, 3)

    scores = {}
    for head in ((), ("--head", "geometry")):
        out = tmp_path / f"masks{len(head)}"
        scored = call(capsys, "evaluate", "--model", run, "--data", data, "--split", "val", "--json", *head)
        scores[len(head)] = json.loads(scored.out)
        assert call(capsys, "predict", data / "images/val", "--model", run, "--out", out, *head).code == 0
    assert "left" in json.dumps(scores[2])
    assert "disc" in json.dumps(scores[0])
    segmenter = pixelwise.load(run)
    second = segmenter.with_head("geometry")
    photo = data / "images" / "val" / "p0.png"
    np.testing.assert_array_equal(read_mask(tmp_path / "masks2" / "p0.png"), second(photo).mask)
    np.testing.assert_array_equal(read_mask(tmp_path / "masks0" / "p0.png"), segmenter(photo).mask)
    assert second.taxonomy.names == ("left", "middle", "right")
    # The second map was learned: its score layer started at zero.
    weights = checkpoint.model.get_submodule("score_fr.geometric").state_dict()["weight"]
    assert float(weights.abs().max()) > 0
    assert "it has geometry" in refused(
        capsys, "predict", photo, "--model", run, "--out", tmp_path / "x", "--head", "sky"
    )


def test_data_and_networks_that_do_not_fit_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two, one = write_two_maps(tmp_path / "two"), write_dataset(tmp_path / "one")
    options = ("--model", NETWORK, "--model.options", json.dumps(TINY_FCN), "--out", tmp_path / "run")
    assert "the data have one label map" in refused(capsys, "train", one, *options)
    (two / "geometry" / "train" / "p1.png").unlink()
    assert "1 of 4 images of split train have no mask in geometry: p1" in refused(capsys, "train", two, *options)
    assert "declares none" in refused(capsys, "evaluate", "--data", one, "--split", "val", "--head", "geometry")
    (two / "classes.yaml").write_text("classes: [a, b, c]\nsecond: {classes: [x]}\n")
    assert "expected a folder and classes" in refused(capsys, "train", two, *options, names=two / "classes.yaml")


def test_the_second_head_is_the_second_map_of_the_network() -> None:
    model = create_model(NETWORK, 4, num_geometric=2, **TINY_FCN).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    images = torch.randint(0, 256, (1, 3, 40, 56), dtype=torch.uint8)
    with torch.inference_mode():
        first, second = model.forward_low_res_all(images)
        torch.testing.assert_close(model.with_second_head()(images), second.upsample_to((40, 56)))
        torch.testing.assert_close(model(images), first.upsample_to((40, 56)))
