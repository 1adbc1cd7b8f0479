"""save_pretrained, from_pretrained and push_to_hub, as the Hugging Face Hub's mixin has them, without a network."""

from __future__ import annotations

import inspect
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi, ModelHubMixin

import pixelwise
from helpers.tiny_data import NAMES, TINY_COMPACT
from pixelwise.core import Taxonomy
from pixelwise.errors import CheckpointError
from pixelwise.inference.segmenter import Segmenter
from pixelwise.models import create_model
from pixelwise.weights.checkpoint import CARD, CONFIG, WEIGHTS, load_checkpoint, save_checkpoint

FILES = sorted([CARD, CONFIG, WEIGHTS])


@pytest.fixture
def segmenter(tmp_path: Path) -> Segmenter:
    torch.manual_seed(0)
    net = create_model("compact", 3, **TINY_COMPACT)
    save_checkpoint(tmp_path / "source", net, Taxonomy(NAMES), {"title": "Street", "license": "mit"})
    return pixelwise.load(tmp_path / "source", device="cpu")


def same_predictions(one: Segmenter, other: Segmenter) -> bool:
    image = np.random.default_rng(0).integers(0, 256, (33, 47, 3), np.uint8)
    first, second = one.predict(image, probs=True), other.predict(image, probs=True)
    assert first.probs is not None
    assert second.probs is not None
    return np.array_equal(first.probs, second.probs) and one.taxonomy == other.taxonomy and one.card == other.card


def test_save_and_load_a_folder(segmenter: Segmenter, tmp_path: Path) -> None:
    segmenter.save_pretrained(tmp_path / "copy")
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == FILES
    assert same_predictions(segmenter, Segmenter.from_pretrained(tmp_path / "copy", device="cpu"))
    assert same_predictions(segmenter, pixelwise.load(tmp_path / "copy", device="cpu"))
    assert "license: mit" in (tmp_path / "copy" / CARD).read_text()
    # Over an older copy as well.
    segmenter.save_pretrained(tmp_path / "copy")
    assert same_predictions(segmenter, pixelwise.load(tmp_path / "copy", device="cpu"))


def test_push_to_hub_uploads_the_three_files(
    segmenter: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: dict[str, Any] = {}

    class Api:
        def __init__(self, token: str | None = None) -> None:
            sent["token"] = token

        def create_repo(self, repo_id: str, private: bool | None, exist_ok: bool) -> SimpleNamespace:
            return SimpleNamespace(repo_id=repo_id)

        def upload_folder(self, *, repo_id: str, folder_path: Path, **options: Any) -> str:
            sent.update(repo_id=repo_id, **options)
            shutil.copytree(folder_path, tmp_path / "hub" / repo_id)
            return "https://hub/commit"

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    assert segmenter.push_to_hub("someone/street", token="secret", commit_message="first") == "https://hub/commit"
    assert (sent["repo_id"], sent["token"], sent["commit_message"]) == ("someone/street", "secret", "first")
    assert sorted(path.name for path in (tmp_path / "hub" / "someone" / "street").iterdir()) == FILES
    assert same_predictions(segmenter, pixelwise.load(tmp_path / "hub" / "someone" / "street", device="cpu"))
    # In one call, to a repository with the name of the folder.
    address = segmenter.save_pretrained(tmp_path / "street", push_to_hub=True, branch="next", create_pr=True)
    assert address == "https://hub/commit"
    assert (sent["repo_id"], sent["token"], sent["revision"], sent["create_pr"]) == ("street", None, "next", True)
    assert sorted(path.name for path in (tmp_path / "hub" / "street").iterdir()) == FILES


def test_a_hub_id_is_downloaded_and_loaded(
    segmenter: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def download(name: str, **options: Any) -> str:
        asked.update(name=name, **options)
        return str(tmp_path / "source")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert same_predictions(segmenter, pixelwise.load("someone/street", device="cpu"))
    assert asked["name"] == "someone/street"
    assert sorted(asked["allow_patterns"]) == sorted([*FILES, "temperature.json"])
    damaged = tmp_path / "source" / WEIGHTS
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="is incomplete or damaged"):
        pixelwise.load("someone/street", device="cpu")


def test_a_hub_id_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match="no such local folder, and not found on the Hugging Face Hub") as caught:
        pixelwise.load("someone/street")
    assert len(str(caught.value).splitlines()) == 1
    for name in ("street", "a/b/c", "./street", "/none/such"):
        with pytest.raises(CheckpointError, match="no such folder"):
            pixelwise.load(name)


def test_a_run_is_loaded_by_its_best_checkpoint(segmenter: Segmenter, tmp_path: Path) -> None:
    for name, title in (("last", "L"), ("best", "B")):
        save_checkpoint(tmp_path / "run" / "checkpoints" / name, segmenter.model, segmenter.taxonomy, {"title": title})
    assert pixelwise.load(tmp_path / "run", device="cpu").card["title"] == "B"
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "best")
    assert pixelwise.load(tmp_path / "run", device="cpu").card["title"] == "L"


def test_half_precision_goes_through_the_hub(segmenter: Segmenter, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "half", segmenter.model, segmenter.taxonomy, dtype=torch.float16)
    half = Segmenter.from_pretrained(tmp_path / "half", device="cpu")
    half.save_pretrained(tmp_path / "again")
    first, second = (
        load_checkpoint(tmp_path / "half").model.state_dict(),
        load_checkpoint(tmp_path / "again").model.state_dict(),
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_methods_take_the_arguments_of_the_mixin() -> None:
    """But for `config` and the template of a model card: both are part of the checkpoint here."""
    for name in ("save_pretrained", "from_pretrained", "push_to_hub"):
        ours = inspect.signature(getattr(Segmenter, name)).parameters
        theirs = dict(inspect.signature(getattr(ModelHubMixin, name)).parameters)
        upload = set(inspect.signature(HfApi.upload_folder).parameters) if name == "push_to_hub" else set()
        theirs = {key: value for key, value in theirs.items() if value.kind is not inspect.Parameter.VAR_KEYWORD}
        missing = theirs.keys() - ours.keys() - upload
        assert missing == set() or missing <= {"config", "model_card_kwargs"}, name
        for key in theirs.keys() & ours.keys() - {"commit_message"}:
            assert (ours[key].kind, ours[key].default) == (theirs[key].kind, theirs[key].default), (name, key)
