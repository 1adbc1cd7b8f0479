"""The table of published weights against the publishers' lists, and downloads against every way to fail."""

from __future__ import annotations

import hashlib
import http.client
import io
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from email.message import Message
from pathlib import Path

import pytest

from pixelwise.errors import CheckpointError, ResourceError
from pixelwise.nn.preprocessing import PREPROCESSING, Preprocess
from pixelwise.weights import published as weights
from pixelwise.weights.published import WEIGHTS, PublishedWeights, download

CONTENT = b"numbers" * 300_000
ENTRY = replace(
    WEIGHTS["vgg16.torchvision"], url="https://example.org/x-0.pth", sha256=hashlib.sha256(CONTENT).hexdigest()[:8]
)


def opener(content: bytes, error: Exception | None = None) -> Callable[[str], io.BytesIO]:
    """Return a function that opens any URL as `content`, followed by `error`."""

    class Response(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            chunk = super().read(size)
            if error is not None and not chunk:
                raise error
            return chunk

    return lambda url: Response(content)


def refuse_to_open(url: str) -> io.BytesIO:
    raise AssertionError(f"{url} was opened")


def nothing_left(folder: Path) -> bool:
    return not list(folder.iterdir())


@pytest.mark.parametrize(
    ("name", "url", "sha256", "preprocessing"),
    [
        (
            "alexnet.torchvision",
            "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
            "7be5be79",
            "torchvision",
        ),
        ("vgg16.torchvision", "https://download.pytorch.org/models/vgg16-397923af.pth", "397923af", "torchvision"),
        (
            "vgg16_bn.torchvision",
            "https://download.pytorch.org/models/vgg16_bn-6c64b313.pth",
            "6c64b313",
            "torchvision",
        ),
        (
            "googlenet.torchvision",
            "https://download.pytorch.org/models/googlenet-1378be20.pth",
            "1378be20",
            "tensorflow",
        ),
        ("fcn8s-heavy-pascal.caffe", "http://dl.caffe.berkeleyvision.org/fcn8s-heavy-pascal.caffemodel", None, "caffe"),
    ],
)
def test_the_table_agrees_with_the_publishers(name: str, url: str, sha256: str | None, preprocessing: str) -> None:
    entry = WEIGHTS[name]
    assert (entry.url, entry.sha256, entry.preprocessing) == (url, sha256, preprocessing)


def test_googlenets_normalization_is_that_of_torchvision() -> None:
    """torchvision normalizes, then undoes it: transform_input multiplies by std / 0.5 and adds (mean - 0.5) / 0.5."""
    ours = PREPROCESSING[str(WEIGHTS["googlenet.torchvision"].preprocessing)]
    for channel, (mean, std) in enumerate(zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)):
        for value in (0.0, 17.0, 255.0):
            theirs = (value / 255 - mean) / std * (std / 0.5) + (mean - 0.5) / 0.5
            assert (value - ours["mean"][channel]) / ours["std"][channel] == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("entry", WEIGHTS.values(), ids=lambda entry: entry.name)
def test_every_entry_is_complete(entry: PublishedWeights) -> None:
    assert (Preprocess(entry.preprocessing, 6 if "color-hha" in entry.name else 3).std > 0).all()
    assert entry.num_classes in (21, 33, 40, 60, 1000)
    assert all((entry.license, entry.score, entry.source, entry.file_name))
    if entry.sha256 is not None:
        assert entry.url.startswith("https://")
        assert re.fullmatch("[0-9a-f]{8,64}", entry.sha256)
        assert entry.sha256 in entry.file_name


@pytest.mark.parametrize(
    ("name", "num_classes", "order", "mean"),
    [
        ("nyud-fcn32s-color-heavy", 40, "bgr", [116.190, 97.203, 92.318]),
        ("nyud-fcn32s-hha-heavy", 40, "rgb", [132.431, 94.076, 118.477]),
        ("nyud-fcn32s-color-hha-heavy", 40, "bgr", [116.190, 97.203, 92.318, 132.431, 94.076, 118.477]),
        ("siftflow-fcn16s-heavy", 33, "bgr", [114.578, 115.294, 108.353]),
        ("pascalcontext-fcn8s-heavy", 60, None, None),
    ],
)
def test_the_table_agrees_with_the_authors_data_layers(
    name: str, num_classes: int, order: str | None, mean: list[float] | None
) -> None:
    entry = WEIGHTS[f"{name}.caffe"]
    assert entry.num_classes == num_classes
    assert (entry.url, entry.sha256) == (f"http://dl.caffe.berkeleyvision.org/{name}.caffemodel", None)
    spec = {"order": order, "mean": mean, "std": [1.0] * len(mean)} if mean else "caffe"
    assert entry.preprocessing == spec


def test_a_download_is_verified_and_kept(tmp_path: Path) -> None:
    path = download(ENTRY, tmp_path / "new", opener(CONTENT))
    assert path == tmp_path / "new" / "x-0.pth"
    assert path.read_bytes() == CONTENT
    assert download(ENTRY, tmp_path / "new", refuse_to_open) == path


def test_a_damaged_copy_is_downloaded_again(tmp_path: Path) -> None:
    (tmp_path / "x-0.pth").write_bytes(CONTENT[:-1])
    assert download(ENTRY, tmp_path, opener(CONTENT)).read_bytes() == CONTENT


@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT + b"x", b"", b"<html>not found</html>"])
def test_a_wrong_digest_leaves_nothing(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(CheckpointError, match=f"expected the published SHA-256 {ENTRY.sha256}"):
        download(ENTRY, tmp_path, opener(content))
    assert nothing_left(tmp_path)


@pytest.mark.parametrize(
    "error",
    [
        urllib.error.URLError("Name or service not known"),
        TimeoutError("timed out"),
        ConnectionResetError("reset by peer"),
        http.client.IncompleteRead(b"", 7),
    ],
)
def test_a_network_error_explains_the_download_by_hand(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(ResourceError) as caught:
        download(ENTRY, tmp_path, opener(CONTENT, error))
    message = str(caught.value)
    assert message.startswith(ENTRY.url)
    assert f"save it as {tmp_path / 'x-0.pth'}" in message
    assert "\n" not in message
    assert nothing_left(tmp_path)


def test_an_endless_response_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "MAX_BYTES", 1_000_000)
    with pytest.raises(CheckpointError, match="longer than 1000000 bytes"):
        download(ENTRY, tmp_path, opener(CONTENT))
    assert nothing_left(tmp_path)


def test_only_https_and_only_with_a_digest(tmp_path: Path) -> None:
    for entry, words in (
        (replace(ENTRY, url="http://example.org/x.pth"), "not an https"),
        (replace(ENTRY, sha256=None), "sha256"),
    ):
        with pytest.raises(CheckpointError, match=words) as caught:
            download(entry, tmp_path, refuse_to_open)
        assert "download it yourself" in str(caught.value)


def test_a_redirect_away_from_https_is_not_followed() -> None:
    handler = weights.HttpsRedirectHandler()
    request = urllib.request.Request("https://example.org/a")
    with pytest.raises(urllib.error.URLError, match="not https"):
        handler.redirect_request(request, io.BytesIO(), 302, "Found", Message(), "http://example.org/b")
    followed = handler.redirect_request(request, io.BytesIO(), 302, "Found", Message(), "https://example.org/b")
    assert followed is not None
    assert followed.full_url == "https://example.org/b"


def test_the_cache_can_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIXELWISE_CACHE", str(tmp_path))
    assert weights.cache_folder() == tmp_path
    monkeypatch.delenv("PIXELWISE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert weights.cache_folder() == Path("/somewhere/pixelwise")
