"""`pixelwise.load()` and its result: the same labels for every form of image, and one line for each error."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pixelwise
from helpers.bad_inputs import encoded, photo
from helpers.command_line import TAXONOMY, call, save_tiny
from pixelwise.errors import CheckpointError, ConfigError, ImageError, InputError, ResourceError
from pixelwise.images import read_image
from pixelwise.inference.base import as_pixels
from pixelwise.weights.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def segmenter(checkpoint: Path) -> pixelwise.Segmenter:
    return pixelwise.load(checkpoint, device="cpu")


def test_three_lines(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(encoded(photo(), "PNG"))
    m = pixelwise.load(checkpoint)
    p = m(tmp_path / "photo.png")
    p.overlay().save(tmp_path / "o.png")
    assert read_image(tmp_path / "o.png").shape == (24, 40, 3)
    assert p.mask.shape == (24, 40)
    assert p.taxonomy == TAXONOMY
    assert p.probs is None
    assert not m.model.training
    assert len(np.unique(p.mask)) > 1, "a network that says one thing tests nothing"


def test_path_string_array_and_pil_give_the_same(segmenter: pixelwise.Segmenter, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(encoded(photo(), "PNG"))
    forms = (path, str(path), photo(), photo()[:, ::-1][:, ::-1], Image.fromarray(photo()))
    masks = [segmenter(form).mask for form in forms]
    assert all((mask == masks[0]).all() for mask in masks)


def test_labels_and_probabilities_are_the_models(segmenter: pixelwise.Segmenter) -> None:
    prediction = segmenter.predict(photo(), probs=True)
    with torch.inference_mode():
        logits = segmenter.model(torch.from_numpy(photo().transpose(2, 0, 1).copy())[None]).logits[0]
    assert prediction.probs is not None
    assert np.abs(prediction.probs - logits.softmax(0).numpy()).max() < 1e-5
    assert (prediction.mask == logits.argmax(0).numpy()).mean() > 0.999
    assert prediction.probs.dtype == np.float32


def test_confidence_and_margin_are_those_of_the_probabilities(segmenter: pixelwise.Segmenter) -> None:
    for model in (segmenter, segmenter.with_temperature(3.0), segmenter.with_augmentation(flip=True)):
        prediction = model.predict(photo(), probs=True, certainty=True)
        assert prediction.probs is not None
        assert prediction.confidence is not None
        ordered = np.sort(prediction.probs, 0)
        np.testing.assert_array_equal(prediction.confidence, ordered[-1])
        np.testing.assert_array_equal(prediction.margin, ordered[-1] - ordered[-2])
        of_label = np.take_along_axis(prediction.probs, prediction.mask[None].astype(np.int64), 0)[0]
        np.testing.assert_allclose(prediction.confidence, of_label, atol=1e-6)
    plain = segmenter.predict(photo(), certainty=True)
    assert plain.probs is None
    assert plain.confidence is not None
    assert segmenter(photo()).confidence is None


def stored_as(mode: str, tmp_path: Path) -> Path:
    """A file in that mode, the pixels differing in every quarter of it."""
    image = Image.fromarray(photo())
    if mode == "I;16":
        image = Image.fromarray(np.linspace(0, 65535, 960).astype(np.uint16).reshape(24, 40))
    elif mode == "RGBA":
        image.putalpha(Image.fromarray(photo()[..., 0]))
    else:
        image = image.convert(mode)
    path = tmp_path / ("p.tif" if mode == "CMYK" else "p.png")
    image.save(path)
    return path


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_pil_images_are_read_as_their_files(mode: str, tmp_path: Path) -> None:
    path = stored_as(mode, tmp_path)
    with Image.open(path) as image:
        assert (as_pixels(image) == read_image(path)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_photo_is_labeled_as_the_user_sees_it(
    segmenter: pixelwise.Segmenter, tmp_path: Path, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = tmp_path / "turned.jpg"
    turned.write_bytes(encoded(photo(), "JPEG", quality=95, exif=exif))
    with Image.open(turned) as opened:
        # The eight orientations of the EXIF standard, written out: which move brings the stored image upright.
        moves = [None, 0, 3, 1, 5, 4, 6, 2]
        move = moves[orientation - 1]
        upright = opened.convert("RGB") if move is None else opened.convert("RGB").transpose(Image.Transpose(move))
        from_pil = segmenter(opened).mask
    expected = segmenter(np.asarray(upright)).mask
    assert expected.shape == ((24, 40) if orientation < 5 else (40, 24))
    assert (segmenter(turned).mask == expected).all()
    assert (from_pil == expected).all()


@pytest.mark.parametrize(
    ("mode", "value", "words"),
    [("I", 0, "has 32-bit integers of an unknown range"), ("F", 7, "expected float pixels of 0 to 1, got 7 to 7")],
)
def test_pil_images_of_unknown_range_are_refused(
    segmenter: pixelwise.Segmenter, mode: str, value: int, words: str
) -> None:
    with pytest.raises(ImageError, match=words):
        segmenter(Image.new(mode, (8, 8), value))


def test_cut_pil_image_is_refused(segmenter: pixelwise.Segmenter, tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    data = encoded(np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8), "JPEG")
    path.write_bytes(data[: len(data) // 2])
    with Image.open(path) as image, pytest.raises(ImageError, match=r"cut\.jpg"):
        segmenter(image)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((4, 5), np.uint8),
        np.zeros((4, 5, 3), np.float32),
        np.zeros((0, 5, 3), np.uint8),
        np.zeros((4, 5, 4), np.uint8),
        np.zeros((3, 40, 50), np.uint8),
        np.zeros((1, 4, 5, 3), np.uint8),
        torch.zeros(4, 5, 3, dtype=torch.uint8),
        [[1, 2]],
        None,
        b"bytes",
    ],
    ids=lambda wrong: f"{type(wrong).__name__}-{getattr(wrong, 'shape', '')}",
)
def test_other_things_are_refused(segmenter: pixelwise.Segmenter, wrong: Any) -> None:
    with pytest.raises(InputError, match="image"):
        segmenter(wrong)


def test_an_image_alone_equals_the_same_image_among_others(segmenter: pixelwise.Segmenter) -> None:
    images = [np.random.default_rng(n).integers(0, 256, (20 + 7 * n, 50 - 9 * n, 3)).astype(np.uint8) for n in range(4)]
    alone = [np.asarray(segmenter.predict(image, probs=True).probs) for image in images]
    for order in ([3, 1, 2, 0], [0, 0, 3, 3]):
        for n in order:
            assert np.array_equal(np.asarray(segmenter.predict(images[n], probs=True).probs), alone[n])


def test_run_folder_gives_its_best_else_its_last(checkpoint: Path, tmp_path: Path) -> None:
    other = save_tiny(tmp_path / "other", pixelwise.Taxonomy(("a", "b")))
    last, best = tmp_path / "run/checkpoints/last", tmp_path / "run/checkpoints/best"
    shutil.copytree(checkpoint, last)
    assert pixelwise.load(tmp_path / "run").taxonomy == TAXONOMY
    shutil.copytree(other, best)
    assert pixelwise.load(str(tmp_path / "run")).taxonomy.names == ("a", "b")


@pytest.mark.parametrize(
    "name", ["nowhere", "../no/where", "/no/where", "~/model", "owner/model", "a/b/c", "-", "owner/mo del?"]
)
def test_no_such_model_is_one_line(name: str) -> None:
    with pytest.raises(CheckpointError) as error:
        pixelwise.load(name)
    assert str(error.value).startswith(f"{name}: ")
    assert "\n" not in str(error.value)
    assert "hub id like owner/model" in str(error.value)


def test_the_name_of_a_network_has_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of the same name is a checkpoint like any other."""
    monkeypatch.chdir(tmp_path)
    for name in ("compact", "fcn8s_vgg16"):
        with pytest.raises(CheckpointError) as error:
            pixelwise.load(name)
        assert str(error.value).startswith(f"{name}: is the name of a network, which has no weights; fix: ")
        assert f"pixelwise train DATA --model {name} --out" in error.value.fix
    save_tiny(tmp_path / "compact")
    assert pixelwise.load("compact").taxonomy == TAXONOMY


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.pth").write_bytes(b"x")
    with pytest.raises(
        CheckpointError, match=r"model\.pth: expected a checkpoint folder, got a file.*pixelwise import"
    ):
        pixelwise.load(tmp_path / "model.pth")


@pytest.mark.parametrize("device", ["tpu", "", "cuda:x", "meta", "cpu:7", "CPU"])
def test_unknown_devices_are_refused(checkpoint: Path, device: str) -> None:
    with pytest.raises(InputError, match=f"device: unknown device {device!r}; available devices: cpu"):
        pixelwise.load(checkpoint, device=device)


@pytest.mark.parametrize("device", ["cuda", "cuda:9"])
def test_missing_device_lists_those_there_are(checkpoint: Path, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(
        ResourceError, match=f"device: {device!r} is not available; available devices: cpu; fix: use --device auto"
    ):
        pixelwise.load(checkpoint, device=device)
    assert pixelwise.load(checkpoint).device == torch.device("cpu")


def test_model_of_four_channels_names_the_image_it_cannot_take(tmp_path: Path) -> None:
    segmenter = pixelwise.load(save_tiny(tmp_path / "rgbd", in_channels=4))
    (tmp_path / "photo.png").write_bytes(encoded(photo(), "PNG"))
    with pytest.raises(InputError, match=r"photo\.png: expected 4 channels \(red, green, blue, channel4\), got 3"):
        segmenter(Path(tmp_path / "photo.png"))
    four = np.dstack([photo(), photo()[..., 0]])
    assert segmenter(four).overlay().size == (40, 24)


def test_unknown_arguments_of_from_pretrained_are_one_line_with_the_fix(checkpoint: Path) -> None:
    """Other toolkits give a network a new head here."""
    with pytest.raises(ConfigError, match=r"unknown argument 'num_classes'; fix: .*--model\.init_from"):
        pixelwise.Segmenter.from_pretrained(checkpoint, num_classes=5)
    with pytest.raises(ConfigError, match=r"unknown argument 'devise'; fix: did you mean device"):
        pixelwise.Segmenter.from_pretrained(str(checkpoint), devise="cpu")
    assert pixelwise.Segmenter.from_pretrained(checkpoint, device="cpu").taxonomy == TAXONOMY


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_answers_that_are_not_finite_are_no_mask(
    checkpoint: Path, tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Finite weights whose products are beyond float32: their labels would all be class 0."""
    loaded = load_checkpoint(checkpoint)
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            parameter.mul_(1e30)
    save_checkpoint(tmp_path / "model", loaded.model, loaded.taxonomy)
    for kind, pixels in (("images", photo()), ("masks", np.full(photo().shape[:2], 7, np.uint8))):
        (tmp_path / "data" / kind / "test").mkdir(parents=True)
        (tmp_path / "data" / kind / "test" / "photo.png").write_bytes(encoded(pixels, "PNG"))
    (tmp_path / "data" / "classes.yaml").write_text(
        "classes: [{name: sky, value: 7}, {name: 'road & <b>', value: 11}, {name: '[car]', value: 250}]\nignore: [0]\n"
    )
    out = tmp_path / "out"
    options = {
        "predict": (tmp_path / "data" / "images" / "test" / "photo.png", "--out", out),
        "evaluate": ("--data", tmp_path / "data", "--out", out),
    }
    result = call(capsys, command, *options[command], "--model", tmp_path / "model")
    assert result.code in (1, 2)
    assert "photo" in result.err[0]
    assert "logits that are not finite" in result.err[0]
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and out in path.parents]
    assert not out.is_file()
