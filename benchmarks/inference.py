"""From logits to labels, scores and files, beside what is usually written: ratios, peer over pixelwise.

    python -m benchmarks.inference [labels networks counts process folder] [--rounds 5] [--photos samples]

labels   upsampling and argmax in one pass against `F.interpolate` and `argmax`; logits of a photo, and of noise
networks image to labels at 512x512, random weights: full logits and `argmax` in plain torch, and in OpenVINO from an
         export of the full logits, against ours in torch, ONNX Runtime and OpenVINO from exported scores
counts   confusion matrix against torchmetrics' default; boundary regions against the confusion matrix
process  one photo, whole process from nothing to the PNG: `pixelwise predict` with the exported shipped model, and with
         the checkpoint, against a script of a dozen lines in torch
folder   200 photos in one process, likewise

Rounds alternate, so that other load on the machine affects all sides; milliseconds are medians, of the processor
(user and system) and by the clock.
"""

from __future__ import annotations

import argparse
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchmetrics
from PIL import Image
from torch import Tensor

import pixelwise
from pixelwise.core import LowResLogits, Taxonomy
from pixelwise.evaluation.boundary_iou import boundary_counts
from pixelwise.evaluation.metrics import confusion_matrix
from pixelwise.export.run import export_segmenter
from pixelwise.images import find_images, read_image
from pixelwise.inference import label_map
from pixelwise.inference.exported import load_exported
from pixelwise.inference.runtimes import RuntimeName, open_runtime
from pixelwise.inference.segmenter import Segmenter
from pixelwise.models.base import ModelSpec, SegmentationModel
from pixelwise.nn.upsampling import Bilinear
from pixelwise.weights.checkpoint import Checkpoint

PLAIN_TORCH = """
import sys
from pathlib import Path
import numpy as np, torch
import torch.nn.functional as F
from PIL import Image
import pixelwise
model = pixelwise.load().model.to(memory_format=torch.contiguous_format)
with torch.inference_mode():
    for path in sorted(Path(sys.argv[1]).iterdir()):
        image = np.asarray(Image.open(path).convert("RGB"))
        logits = model(torch.from_numpy(image.transpose(2, 0, 1).copy())[None]).logits
        Image.fromarray(logits.argmax(1)[0].byte().numpy()).save(Path(sys.argv[2]) / (path.stem + ".png"))
"""
"""What a user of torch writes: the same network, full logits, argmax."""

NETWORKS: dict[str, dict[str, Any]] = {
    "torchvision_deeplabv3_resnet50": {},
    "deeplabv3plus_resnet50": {"separable": True},
    "fcn8s_vgg16": {},
    "unet": {},
}
"""Name -> options. The first is torchvision's network, bit by bit: its plain form is torchvision's eager one."""

RUNTIMES: tuple[RuntimeName, ...] = ("onnxruntime", "openvino")

Seconds = tuple[float, float]
"""Of the processor, and by the clock."""


def main() -> None:
    """Run the parts that are asked for."""
    parts = {"labels": labels, "networks": networks, "counts": counts, "process": process, "folder": folder}
    parser = argparse.ArgumentParser(description="Labels, scores and files beside plain torch.")
    parser.add_argument("parts", nargs="*", choices=[*parts, []], metavar="PART", help="; ".join(parts))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--photos", type=Path, default=Path("samples"))
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.processor() or platform.machine()}")
    for name in arguments.parts or parts:
        parts[name](arguments.photos, arguments.rounds)


def labels(photos: Path, rounds: int) -> None:
    """Compare ways from low-resolution logits to labels."""
    label_map.PIXELS_BEFORE_LOOPS = 0
    photo = photo_logits(photos)
    print(f"{'labels from logits':44s}    plain      ours   ratio (processor)  (clock)")
    for title, logits, size in (
        ("x8, 21 classes, 1024x2048, photo", as_21_classes(photo, (128, 256)), (1024, 2048)),
        ("x8, 21 classes, 1024x2048, noise", torch.randn(1, 21, 128, 256), (1024, 2048)),
        ("x8, 21 classes, 512x512, photo", as_21_classes(photo, (64, 64)), (512, 512)),
        ("x2, 11 classes, 360x480, photo", photo, (360, 480)),
    ):
        for layout, memory in (("contiguous", torch.contiguous_format), ("channels_last", torch.channels_last)):
            given = logits.contiguous(memory_format=memory)
            low_res = LowResLogits(given, Bilinear())
            sides: dict[str, Callable[[], object]] = {
                "plain": lambda given=given, size=size: plain_labels(given, size),  # type: ignore[misc]
                "ours": lambda low_res=low_res, size=size: label_map.argmax_upsampled(low_res, size),  # type: ignore[misc]
            }
            differ = (label_map.argmax_upsampled(low_res, size) != plain_labels(given, size)).mean()
            print_ratio(f"{title}, {layout}", alternate(sides, rounds), note=f"  {differ:.1e} of the labels differ")


def plain_labels(logits: Tensor, size: tuple[int, int]) -> Any:
    """Return the labels by two calls of torch."""
    return F.interpolate(logits, size=size, mode="bilinear").argmax(1)[0].numpy()


def photo_logits(photos: Path) -> Tensor:
    """Return the shipped model's logits of a photo, (1, 11, 180, 240)."""
    segmenter = pixelwise.load()
    image = read_image(find_images(photos)[0])
    with torch.inference_mode():
        return label_map.low_res_logits(segmenter.model, image, torch.device("cpu")).logits.clone()


def as_21_classes(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize logits and add classes that are nowhere the best, as most of VOC's are in a photo."""
    resized = F.interpolate(logits, size=size, mode="bilinear")
    others = resized.amin(1, keepdim=True) + torch.randn(1, 21 - resized.shape[1], *size)
    return torch.cat([resized, others], 1)


def networks(photos: Path, rounds: int) -> None:
    """Compare ways from an image to its labels."""
    pixels = np.asarray(Image.open(find_images(photos)[0]).convert("RGB").resize((512, 512)))
    images = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None]
    taxonomy = Taxonomy(tuple(f"class {k}" for k in range(21)))
    for name, options in NETWORKS.items():
        torch.manual_seed(0)
        plain = ModelSpec(name, 21, 3, options).build().eval()
        for layer in plain.score_layers():
            torch.nn.init.normal_(layer.get_parameter("weight"), std=0.05)
        segmenter = Segmenter(Checkpoint(deepcopy(plain), taxonomy), name, device="cpu")
        with tempfile.TemporaryDirectory() as folder:
            files = {output: Path(folder) / f"{output}.onnx" for output in ("scores", "logits")}
            for output, file in files.items():
                export_segmenter(segmenter, file, format="onnx", output=output)  # type: ignore[arg-type]
            logits = open_runtime(files["logits"], "openvino")
            exported = {runtime: load_exported(files["scores"], runtime=runtime) for runtime in RUNTIMES}
            sides: dict[str, Callable[[], object]] = {
                "plain": lambda plain=plain: network_labels(plain, images),  # type: ignore[misc]
                "plain openvino": lambda logits=logits: logits.run(images.float().numpy()).argmax(1),  # type: ignore[misc]
                "torch": lambda segmenter=segmenter: segmenter(pixels),  # type: ignore[misc]
                **{runtime: (lambda model=model: model(pixels)) for runtime, model in exported.items()},  # type: ignore[misc]
            }
            seconds = alternate(sides, rounds)
        print(f"{name + ', 512x512':44s}    plain      ours   ratio (processor)  (clock)")
        for peer, side in (("plain", "torch"), *(("plain", runtime) for runtime in RUNTIMES),
                           ("plain openvino", "openvino")):  # fmt: skip
            print_ratio(f"{side} against {peer}", {"plain": seconds[peer], "ours": seconds[side]})


def network_labels(model: SegmentationModel, images: Tensor) -> Any:
    """Return the labels as a user of torch computes them."""
    with torch.inference_mode():
        return model(images).logits.argmax(1)[0].numpy()


def counts(photos: Path, rounds: int) -> None:
    """Compare ways to count pixels by class."""
    with torch.inference_mode():
        truth = label_map.argmax_upsampled(LowResLogits(photo_logits(photos), Bilinear()), (1024, 2048))
    prediction = np.roll(truth, 9, 1)
    taxonomy = Taxonomy(tuple(f"class {k}" for k in range(19)))
    both = torch.from_numpy(prediction), torch.from_numpy(truth)
    peer = torchmetrics.functional.confusion_matrix
    assert (confusion_matrix(truth, prediction, taxonomy) == peer(*both, "multiclass", num_classes=19).numpy()).all()
    print(f"{'counts, 19 classes, 1024x2048':44s}    plain      ours   ratio (processor)  (clock)")
    seconds = alternate(
        {
            "plain": lambda: peer(*both, "multiclass", num_classes=19),
            "ours": lambda: confusion_matrix(truth, prediction, taxonomy),
            "boundary": lambda: boundary_counts(truth, prediction, taxonomy),
        },
        rounds,
    )
    print_ratio(f"confusion matrix, torchmetrics {torchmetrics.__version__}", seconds)
    print_ratio("boundary regions (matrix over boundary)", {"plain": seconds["ours"], "ours": seconds["boundary"]})


def process(photos: Path, rounds: int) -> None:
    """Compare whole processes that label one photo."""
    compare_processes("one photo, whole process", [find_images(photos)[0]], rounds)


def folder(photos: Path, rounds: int) -> None:
    """Compare whole processes that label 200 photos."""
    compare_processes("200 photos", (find_images(photos) * 200)[:200], rounds)


def compare_processes(title: str, files: list[Path], rounds: int) -> None:
    """Label copies of the files by each program."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for part in ("photos", "plain"):
            (place / part).mkdir()
        for number, file in enumerate(files):
            shutil.copy(file, place / "photos" / f"{number:03d}{file.suffix}")
        model = place / "model.onnx"
        run([sys.executable, "-m", "pixelwise", "export", "--out", str(model)])
        predict = [sys.executable, "-m", "pixelwise", "predict", str(place / "photos"), "--overwrite", "--out"]
        sides: dict[str, Callable[[], object]] = {
            "plain": lambda: run([sys.executable, "-c", PLAIN_TORCH, str(place / "photos"), str(place / "plain")]),
            "exported": lambda: run([*predict, str(place / "exported"), "--model", str(model)]),
            "checkpoint": lambda: run([*predict, str(place / "checkpoint")]),
        }
        seconds = alternate(sides, rounds)
        print(f"{title:44s}    plain      ours   ratio (processor)  (clock)")
        for side in ("exported", "checkpoint"):
            print_ratio(f"pixelwise predict, {side}", {"plain": seconds["plain"], "ours": seconds[side]})


def run(command: list[str]) -> None:
    """Run a program, and fail if it fails."""
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)


def alternate(sides: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Seconds]:
    """Return the median seconds of each side, after a round that is not counted."""
    seconds: dict[str, list[Seconds]] = {side: [] for side in sides}
    for number in range(rounds + 1):
        for side, function in sides.items():
            started = spent()
            function()
            if number:
                ended = spent()
                seconds[side].append((ended[0] - started[0], ended[1] - started[1]))
    medians = {
        side: [statistics.median(times) for times in zip(*pairs, strict=True)] for side, pairs in seconds.items()
    }
    return {side: (cpu, wall) for side, (cpu, wall) in medians.items()}


def spent() -> Seconds:
    """Return the seconds of this process and its children, and of the clock."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages), time.perf_counter()


def print_ratio(title: str, seconds: Mapping[str, Seconds], *, note: str = "") -> None:
    """Print milliseconds of the processor and the ratios."""
    plain, ours = seconds["plain"], seconds["ours"]
    milliseconds = f"{1000 * plain[0]:9.1f} {1000 * ours[0]:9.1f}"
    print(f"{title:44s}{milliseconds} {plain[0] / ours[0]:8.1f} {plain[1] / ours[1]:18.1f}{note}", flush=True)


if __name__ == "__main__":
    main()
