"""Checkpoint folders: complete or refused with a reason, and never a mixture of two, whenever the writer is killed."""

from __future__ import annotations

import errno
import json
import os
import random
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from huggingface_hub import ModelCard

import pixelwise.weights.checkpoint as checkpoint_module
from helpers.tiny_data import NAMES, TINY_COMPACT
from pixelwise.core import Taxonomy
from pixelwise.errors import CheckpointError, ConfigError, ResourceError
from pixelwise.inference.stored_config import SHIPPED
from pixelwise.models import SegmentationModel, create_model
from pixelwise.weights.checkpoint import (
    CARD,
    CONFIG,
    PIXELS_FORMAT,
    WEIGHTS,
    finish_save,
    is_checkpoint,
    load_checkpoint,
    load_weights,
    save_checkpoint,
)
from pixelwise.weights.model_card import public_command, render_card

TAXONOMY = Taxonomy(NAMES)
CARD_FIELDS = {
    "title": "Test",
    "license": "apache-2.0",
    "scores": [
        {"dataset": "shapes", "split": "val", "metrics": {"mean_iou": 0.5, "pixel_accuracy": 0.75}},
        {"dataset": "shapes", "split": "test", "precision": "bfloat16", "metrics": {"mean_iou": 0.25}}
        | {"class_iou": {"ground": 0.4, "disc": 0.1}},
    ],
    "recipe": {"steps": 5},
    "command": "`x`",
}


def model(seed: int = 0, num_classes: int = 3) -> SegmentationModel:
    torch.manual_seed(seed)
    net = create_model("compact", num_classes, **TINY_COMPACT)
    for name, tensor in net.state_dict().items():
        if name.endswith("running_mean"):
            tensor.normal_()
    return net.eval()


def equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def saved(folder: Path, seed: int = 0, **card: Any) -> Path:
    return save_checkpoint(folder, model(seed), TAXONOMY, {**CARD_FIELDS, **card})


def edit(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, **changes}))


def test_round_trip(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(saved(tmp_path / "a"))
    assert equal(checkpoint.model, model())
    assert checkpoint.taxonomy == TAXONOMY
    assert checkpoint.card == CARD_FIELDS
    assert not checkpoint.model.training
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted([CARD, CONFIG, WEIGHTS])
    images = torch.randint(0, 256, (1, 3, 20, 30), dtype=torch.uint8)
    assert torch.equal(checkpoint.model(images).logits, model()(images).logits)


def test_other_options_are_taken_where_the_weights_fit(tmp_path: Path) -> None:
    """DeepLab v3 is trained at output stride 16 and evaluated at 8, with the same weights (section 4 of its paper)."""
    taxonomy = Taxonomy(NAMES)
    trained = create_model("deeplabv3_resnet50", 3, tiny=True, output_stride=16).eval()
    save_checkpoint(tmp_path, trained, taxonomy)
    loaded = load_checkpoint(tmp_path, {"output_stride": 8}).model
    assert equal(loaded, trained)
    fine = create_model("deeplabv3_resnet50", 3, tiny=True, output_stride=8).eval()
    fine.load_state_dict(trained.state_dict())
    images = torch.rand(1, 3, 65, 97) * 255
    with torch.inference_mode():
        torch.testing.assert_close(loaded(images).logits, fine(images).logits)
        assert not torch.equal(loaded(images).logits, trained(images).logits)
    with pytest.raises(CheckpointError, match="does not fit the network"):
        load_checkpoint(tmp_path, {"width_mult": 0.5})
    for options, says in (
        ({"stride": 8}, "has no option 'stride'"),
        ({"num_classes": 4}, "num_classes is fixed by the checkpoint"),
        ({"multi_grid": [1, 2]}, "multi_grid"),
        ({"width_mult": 1e9}, "cannot be built"),
    ):
        with pytest.raises(ConfigError, match=says):
            load_checkpoint(tmp_path, options)


def test_half_precision_halves_the_file(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "half", model(), TAXONOMY, dtype=torch.float16)
    stored = safetensors.torch.load_file(tmp_path / "half" / WEIGHTS)
    assert {t.dtype for t in stored.values() if t.is_floating_point()} == {torch.float16}
    loaded = load_checkpoint(tmp_path / "half").model
    for name, tensor in model().state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.half().float() if tensor.is_floating_point() else tensor)
    assert {t.dtype for t in loaded.parameters()} == {torch.float32}


def test_the_card_shows_facts_and_scores(tmp_path: Path) -> None:
    text = (saved(tmp_path) / CARD).read_text()
    digest = json.loads((tmp_path / CONFIG).read_text())["weights"]["sha256"]
    for line in (
        "# Test",
        f"- weights: float32, SHA-256 `{digest}`",
        "- classes: ground, disc, bar",
        "| steps | 5 |",
        "| dataset | split | precision | mean IoU | pixel accuracy |",
        "| shapes | val |  | 50.00 | 75.00 |",
        "| shapes | test | bfloat16 | 25.00 | - |",
        "| dataset | split | precision | ground | disc |",
        "| shapes | test | bfloat16 | 40.0 | 10.0 |",
    ):
        assert line in text.splitlines()


EVIL = ("<script>alert(1)</script>", "a | b\nc", "**[x](javascript:y)** `z`", "_under_ &amp; $tex$ ~~no~~")


def test_names_of_classes_are_text_in_the_card(tmp_path: Path) -> None:
    """A Markdown engine of another hand reads them back as they are, without a link, a tag or another row."""
    markdown_it = pytest.importorskip("markdown_it")
    taxonomy = Taxonomy(EVIL)
    scores = [{"dataset": "d", "split": EVIL[1], "metrics": {"mean_iou": 0.5}, "class_iou": dict.fromkeys(EVIL, 0.5)}]
    scores[0]["group_iou"] = dict.fromkeys(EVIL, 0.5)
    save_checkpoint(tmp_path, model(num_classes=4), taxonomy, {"scores": scores, "recipe": {EVIL[0]: EVIL[1]}})
    text = (tmp_path / CARD).read_text(encoding="utf-8").split("---\n", 2)[2]
    assert "<script" not in text
    tokens = markdown_it.MarkdownIt("gfm-like", {"linkify": False, "html": True}).parse(text)
    inline = [token for token in tokens if token.type == "inline"]
    kinds = {child.type for token in inline for child in token.children or ()}
    assert not kinds & {"html_inline", "link_open", "image", "strong_open", "em_open", "s_open"}
    assert not any(token.type == "html_block" for token in tokens)
    texts = ["".join(child.content for child in token.children or ()) for token in inline]
    plain = [" ".join(name.split()) for name in EVIL]
    # The last two tables are those per class and per group: names in the header, then a row that names the split.
    assert [cell for cell in texts if cell in plain][-10:] == [*plain, plain[1]] * 2
    assert any(", ".join(plain) in line for line in texts)


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["train", "/home/ann/cam vid", "--out", "runs/a"], "train 'cam vid' --out runs/a"),
        (["train", "C:\\Users\\ann\\data"], "train data"),
        (["train", "~ann/data", "--out=~/runs/b/"], "train data --out=b"),
        (["train", "../ann/data", "--model.init_from", "owner/model"], "train data --model.init_from owner/model"),
        (["train", "d", "--a", "[/home/ann/x, /home/ann/y]"], "train d --a '[x, y]'"),
        (["train", "d", "--a", "{b: /home/ann/x.pth}", "--c", "0.5"], "train d --a '{b: x.pth}' --c 0.5"),
        (["train", "./data", "hf://ann/x"], "train ./data hf://ann/x"),
        (["train", "/home/ann/a,b=c/data"], "train data"),
        (["train", "caf\udce9"], "train 'caf\\udce9'"),
    ],
)
def test_the_cards_command_names_no_person(words: list[str], shown: str) -> None:
    assert public_command(shlex.join(["pixelwise", *words])) == f"`pixelwise {shown}`"


def test_the_hub_reads_the_cards_metadata(tmp_path: Path) -> None:
    """huggingface_hub's own reader finds license, task and scores in the header, as the Hub shows them."""
    data = ModelCard.load(saved(tmp_path) / CARD).data
    assert (data.license, data.library_name, data.pipeline_tag) == ("apache-2.0", "pixelwise", "image-segmentation")
    assert data.model_name == "Test"
    assert [(r.dataset_type, r.dataset_split, r.metric_type, r.metric_value) for r in data.eval_results] == [
        ("shapes", "val", "mean_iou", 50.0),
        ("shapes", "val", "pixel_accuracy", 75.0),
        ("shapes", "test", "mean_iou", 25.0),
    ]


def test_a_card_without_scores_is_valid(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, model(), TAXONOMY, {"scores": "as published"})
    card = ModelCard.load(tmp_path / CARD)
    assert card.data.license == "other"
    assert card.data.eval_results is None
    assert "# compact, 3 classes" in card.text
    assert "## Scores\n\nas published\n" in card.text


def test_the_shipped_card_is_that_of_its_configuration() -> None:
    config = json.loads((SHIPPED / CONFIG).read_text(encoding="utf-8"))
    num_parameters = sum(p.numel() for p in load_checkpoint(SHIPPED).model.parameters())
    assert (SHIPPED / CARD).read_text(encoding="utf-8") == render_card(config, num_parameters)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda f: cut(f / WEIGHTS), "is incomplete or damaged"),
        (lambda f: flip(f / WEIGHTS), "SHA-256 differs"),
        (lambda f: (f / WEIGHTS).write_bytes(b""), "is incomplete or damaged"),
        (
            lambda f: (f / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n"),
            "git lfs pull",
        ),
        (lambda f: (f / WEIGHTS).unlink(), "no such file"),
        (lambda f: (f / CONFIG).unlink(), "fix: name a checkpoint"),
        (lambda f: cut(f / CONFIG), "is damaged"),
        (lambda f: (f / CONFIG).write_text("[]"), "is damaged"),
        (lambda f: (f / CONFIG).write_text("[" * 100_000), "is damaged"),
        (lambda f: (f / CONFIG).write_bytes(b"\xff\xff"), "is damaged"),
        (lambda f: (f / CONFIG).write_text('{"model_type": "bert"}'), "from another program"),
        (
            lambda f: edit(f, format=PIXELS_FORMAT + 1),
            f"expected format 1 or {PIXELS_FORMAT}, got {PIXELS_FORMAT + 1}; fix: update pixelwise",
        ),
        (lambda f: edit(f, model={"name": "compact"}), "is damaged"),
        (lambda f: edit(f, model=5), "is damaged"),
        (
            lambda f: edit(f, taxonomy={"classes": ["a", "a", "b"]}),
            "classes: repeated name: a; fix: give each class its own name",
        ),
        (lambda f: edit(f, taxonomy={"classes": ["a", "b"]}), "3 classes in the network and 2 in the taxonomy"),
        (
            lambda f: edit_model(f, name="compakt"),
            "compakt: no such model; fix: did you mean compact? (or update pixelwise)",
        ),
        (lambda f: edit_model(f, options={"widht": 3}), "has no option"),
        (lambda f: edit_model(f, num_classes=10**15), "cannot build"),
        (lambda f: edit_model(f, num_classes="3"), "cannot build"),
        (lambda f: edit_model(f, options={**TINY_COMPACT, "decoder_channels": [8, 6, 4]}), "does not fit the network"),
        (lambda f: edit_model(f, num_classes=4, taxonomy=4), "score.weight: expected (4, 4, 1, 1), got (3, 4, 1, 1)"),
    ],
)
def test_damage_is_refused_in_one_line(tmp_path: Path, damage: Any, reason: str) -> None:
    folder = saved(tmp_path / "a")
    damage(folder)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(folder)
    assert reason in str(caught.value)
    assert "; fix: " in str(caught.value)
    assert str(folder) in str(caught.value)


@pytest.mark.skipif(sys.platform == "win32", reason="peak memory as POSIX tells it")
@pytest.mark.parametrize(
    "changes",
    [
        {"in_channels": 10**9},
        {"in_channels": 10**30},
        {"num_classes": 2**63},
        {"num_classes": 10**9},
        {"name": "x" * 10**6},
        {"options": {"x" * 10**6: 1}},
        {"options": {**TINY_COMPACT, "channels": [10**9] * 4}},
        {"options": {**TINY_COMPACT, "channels": [10**30] * 4}},
        {"options": {**TINY_COMPACT, "num_blocks": [10**9, 1]}},
        {"options": {**TINY_COMPACT, "preprocessing": {"order": "rgb", "mean": [0.0] * 10**5, "std": [1.0] * 10**5}}},
        {"name": "fcn32s_vgg16", "options": {"width_mult": 1e300}},
        {"name": "fcn32s_vgg16", "options": {"width_mult": float("inf")}},
        {"name": "deeplabv3_resnet50", "options": {"width_mult": 1e6}},
    ],
)
def test_no_configuration_takes_more_memory_than_the_weights(tmp_path: Path, changes: dict[str, Any]) -> None:
    import resource

    folder = saved(tmp_path / "a")
    edit_model(folder, **changes)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(folder)
    # In seconds and in KiB. The longest line lists every network.
    assert time.monotonic() - start < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 2**10
    assert len(str(caught.value)) < len(str(folder)) + 1500


def edit_model(folder: Path, taxonomy: int = 0, **changes: Any) -> None:
    config = json.loads((folder / CONFIG).read_text())
    more = {"taxonomy": {"classes": [f"c{k}" for k in range(taxonomy)]}} if taxonomy else {}
    edit(folder, model={**config["model"], **changes}, **more)


def test_weights_of_another_network_list_what_differs() -> None:
    blocks = {**TINY_COMPACT["backbone_options"], "num_blocks": [2, 1]}
    wider = create_model("compact", 3, **{**TINY_COMPACT, "backbone_options": blocks})
    own = model().state_dict()
    with pytest.raises(CheckpointError) as caught:
        load_weights(wider, own, "weights")
    missing = sorted(set(wider.state_dict()) - set(own))
    assert f"{len(missing)} missing ({missing[0]}, {missing[1]}, " in str(caught.value)
    with pytest.raises(CheckpointError, match="unexpected"):
        load_weights(model(), wider.state_dict(), "weights")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, number: float) -> None:
    broken = model()
    broken.state_dict()["score.bias"][1] = number
    with pytest.raises(CheckpointError, match=r"score\.bias holds numbers that are not finite"):
        load_weights(model(), broken.state_dict(), "weights")
    saved(tmp_path)
    with pytest.raises(CheckpointError, match=r"score\.bias holds numbers that are not finite"):
        save_checkpoint(tmp_path, broken, TAXONOMY)
    assert equal(load_checkpoint(tmp_path).model, model()), "the old one has to stay"


def test_weights_too_large_for_half_precision_are_refused(tmp_path: Path) -> None:
    large = model()
    large.state_dict()["score.bias"][0] = 1e6
    with pytest.raises(CheckpointError, match="not finite"):
        save_checkpoint(tmp_path / "a", large, TAXONOMY, dtype=torch.float16)


def test_weights_are_read_back_before_the_old_ones_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a disk that stores other bytes than it was given, the save fails and the old checkpoint stays."""
    saved(tmp_path)
    monkeypatch.setattr(
        checkpoint_module, "write_bytes", lambda path, data: path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    )
    with pytest.raises(ResourceError, match="cannot be read back"):
        save_checkpoint(tmp_path, model(seed=1), TAXONOMY)
    assert equal(load_checkpoint(tmp_path).model, model()), "the old one has to stay"


def test_model_and_taxonomy_must_have_the_same_classes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the model has 4 classes, the taxonomy 3"):
        save_checkpoint(tmp_path, model(num_classes=4), TAXONOMY)


class Killed(BaseException):
    """Raised in place of a kill; nothing catches it."""


def test_a_kill_between_any_two_renames_leaves_one_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, left = os.replace, 0

    def replace_or_die(source: Any, target: Any) -> None:
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1
        replace(source, target)

    monkeypatch.setattr(os, "replace", replace_or_die)
    seen = []
    # Three files written aside, then three renames into place.
    for allowed in range(6):
        folder = tmp_path / str(allowed)
        left = 99
        saved(folder, seed=1, n=1)
        left = allowed
        with pytest.raises(Killed):
            saved(folder, seed=2, n=2)
        checkpoint = load_checkpoint(folder)
        assert equal(checkpoint.model, model(checkpoint.card["n"]))
        seen.append(checkpoint.card["n"])
        left = 99
        finish_save(folder)
        assert equal(load_checkpoint(folder).model, checkpoint.model)
        assert sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) == sorted(
            [CARD, CONFIG, WEIGHTS]
        )
        assert json.loads((folder / CONFIG).read_text())["card"]["n"] == checkpoint.card["n"]
        left = 99
        saved(folder, seed=3, n=3)
        assert load_checkpoint(folder).card["n"] == 3
    assert seen == [1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("writes", range(3))
def test_a_save_that_fails_leaves_the_old_checkpoint_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    """The disk is full after some of the three files, each of which is synced before it gets its name."""
    saved(tmp_path, seed=1, n=1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    sync, left = os.fsync, 2 * writes  # The file and its folder.

    def sync_or_fail(number: int) -> None:
        nonlocal left
        if left == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left -= 1
        sync(number)

    monkeypatch.setattr(os, "fsync", sync_or_fail)
    with pytest.raises(ResourceError, match="No space left on device"):
        saved(tmp_path, seed=2, n=2)
    assert left == 0
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    monkeypatch.undo()
    assert equal(load_checkpoint(tmp_path).model, model(1))
    saved(tmp_path, seed=2, n=2)
    assert equal(load_checkpoint(tmp_path).model, model(2))


def test_a_first_checkpoint_exists_before_its_renaming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_checkpoint(tmp_path)
    monkeypatch.setattr("pixelwise.weights.checkpoint.finish_save", lambda folder: None)
    saved(tmp_path)
    assert not (tmp_path / CONFIG).exists()
    assert is_checkpoint(tmp_path)
    assert equal(load_checkpoint(tmp_path).model, model())


def kill_while_saving(folder: Path, kills: int) -> list[int]:
    """Kill a process that saves without a pause, `kills` times; return the number of the checkpoint found each time."""
    chance = random.Random(0)
    found: list[int] = []
    nets = {seed: model(seed) for seed in range(4)}
    saved(folder, seed=0, n=0)
    for _ in range(kills):
        child = os.fork()
        if child == 0:
            number = found[-1] if found else 0
            while True:
                number += 1
                save_checkpoint(folder, nets[number % 4], TAXONOMY, {"n": number})
        before = (folder / WEIGHTS).stat().st_mtime_ns
        while (folder / WEIGHTS).stat().st_mtime_ns == before:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.05))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        checkpoint = load_checkpoint(folder)
        assert equal(checkpoint.model, nets[checkpoint.card["n"] % 4]), "weights and configuration of two checkpoints"
        found.append(checkpoint.card["n"])
    return found


@pytest.mark.skipif(sys.platform == "win32", reason="fork and SIGKILL")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("kills", [8, pytest.param(150, marks=pytest.mark.slow)])
def test_a_kill_in_the_middle_of_saving_leaves_one_checkpoint(tmp_path: Path, kills: int) -> None:
    found = kill_while_saving(tmp_path, kills)
    assert found == sorted(found)
    assert found[-1] > 0


def test_a_reader_reads_again_when_a_writer_was_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer replaces the files after the reader has read the configuration."""
    from pixelwise.weights import checkpoint as module

    saved(tmp_path, seed=1, n=1)
    read, calls = module.read_safetensors, []

    def read_late(path: Path, sha256: str | None = None) -> Any:
        calls.append(path)
        if len(calls) == 1:
            saved(tmp_path, seed=2, n=2)
        return read(path, sha256)

    monkeypatch.setattr(module, "read_safetensors", read_late)
    checkpoint = load_checkpoint(tmp_path)
    assert checkpoint.card["n"] == 2
    assert equal(checkpoint.model, model(2))
