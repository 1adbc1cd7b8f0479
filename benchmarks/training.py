"""Training speed: `pixelwise train` against a plain float32 loop with the same network, in one run.

    python -m benchmarks.training [--model compact] [--batch 4] [--crop 288 384] [--steps 6] [--rounds 5]
    python -m benchmarks.training --depthwise [--precision bfloat16] [--crop 321 449] [--steps 2]

Both sides get the same batches of random pixels, the same network with the same weights, AdamW, and cross entropy at
full size. The plain loop is that of a tutorial: float32, default memory format. Ours is what `pixelwise train` runs:
Lightning's Trainer, channels_last, denormals flushed, bfloat16 if the chip supports it (`--precision auto`). Rounds
alternate, so that other load on the machine affects both; the ratio is that of the medians.

With `--depthwise` both sides are the same loop in channels_last and in one precision, with EfficientNet-Lite0 at output
stride 16 and a 1x1 as network: once with torch's backward of depthwise convolution, once with ours. It prints the
processor's seconds as well, which other load changes less.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from pathlib import Path

import lightning
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import LambdaCallback
from torch import Tensor, nn
from torch.utils.data import DataLoader

from pixelwise.backbones import Backbone, create_backbone
from pixelwise.config import Config
from pixelwise.core import Batch
from pixelwise.models import create_model
from pixelwise.models.base import SegmentationModel
from pixelwise.nn.depthwise_conv import DepthwiseConv2d
from pixelwise.train.callbacks import silence_lightning
from pixelwise.train.module import TrainingModule
from pixelwise.train.precision import choose_precision

NUM_CLASSES = 11


def main() -> None:
    """Print images per second of both sides and the ratio."""
    parser = argparse.ArgumentParser(description="Training speed: pixelwise against a plain float32 loop.")
    parser.add_argument("--model", default="compact")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--crop", type=int, nargs=2, default=(288, 384))
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--depthwise", action="store_true", help="torch's backward of depthwise convolution and ours")
    arguments = parser.parse_args()
    silence_lightning()
    torch.manual_seed(0)
    if arguments.depthwise:
        return compare_depthwise(arguments)
    model = create_model(arguments.model, NUM_CLASSES)
    batches = [random_batch(arguments.batch, *arguments.crop) for _ in range(arguments.steps)]
    precision = choose_precision(arguments.precision, "cpu")
    plain, ours = [], []
    for _ in range(arguments.rounds):
        plain.append(time_plain(copy.deepcopy(model), batches))
        ours.append(time_engine(copy.deepcopy(model), batches, precision))
    images = arguments.batch * arguments.steps
    size = "x".join(map(str, arguments.crop))
    print(
        f"{arguments.model}, batch {arguments.batch} of {size}, "
        f"{torch.get_num_threads()} threads, {arguments.rounds} rounds"
    )
    print(f"plain float32 loop  {images / statistics.median(plain):7.2f} images/s")
    print(f"pixelwise, {precision:8s} {images / statistics.median(ours):7.2f} images/s")
    print(f"ratio {statistics.median(plain) / statistics.median(ours):.2f}")


def compare_depthwise(arguments: argparse.Namespace) -> None:
    """Print images per second of a step with torch's backward of depthwise convolution, and with ours."""
    torch.set_flush_denormal(True)
    precision = choose_precision(arguments.precision, "cpu")
    batches = [random_batch(arguments.batch, *arguments.crop) for _ in range(arguments.steps)]
    backbone = create_backbone("efficientnet_lite0", output_stride=16, last_conv=False)
    networks = {"torch": DenseScores(backbone), "ours": DenseScores(copy.deepcopy(backbone))}
    for module in networks["torch"].modules():
        if isinstance(module, DepthwiseConv2d):
            module.__class__ = nn.Conv2d  # type: ignore[assignment]
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in networks}
    for _ in range(arguments.rounds):
        for name, network in networks.items():
            seconds[name].append(time_steps(network, batches, precision))
    images = arguments.batch * arguments.steps
    size = "x".join(map(str, arguments.crop))
    print(f"efficientnet_lite0, {precision}, batch {arguments.batch} of {size}, {torch.get_num_threads()} threads")
    medians = {name: [statistics.median(times) for times in zip(*runs, strict=True)] for name, runs in seconds.items()}
    for name, (wall, cpu) in medians.items():
        print(f"{name:5s} {images / wall:7.2f} images/s, {cpu / images:6.2f} cpu-s per image")
    ratios = [one / other for one, other in zip(medians["torch"], medians["ours"], strict=True)]
    print(f"ratio {ratios[0]:.2f}, of the processor's seconds {ratios[1]:.2f}")


class DenseScores(nn.Module):
    """A backbone and a 1x1 to class scores, upsampled to the image."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.score = nn.Conv2d(backbone.channels[-1], NUM_CLASSES, 1)
        self.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> Tensor:
        """Compute the scores (B, K, H, W) of images (B, 3, H, W) uint8."""
        x = (images.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        return F.interpolate(self.score(self.backbone(x)[-1]), images.shape[-2:], mode="bilinear")


def time_steps(network: DenseScores, batches: list[Batch], precision: str) -> tuple[float, float]:
    """Return the seconds of a loop over all batches, after one batch to warm up: by the clock, of the processor."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    for index, batch in enumerate([batches[0], *batches]):
        if index == 1:
            started = time.perf_counter(), time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            loss = F.cross_entropy(network(batch.images), batch.masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - started[0], time.process_time() - started[1]


def random_batch(size: int, height: int, width: int, *, num_classes: int = NUM_CLASSES) -> Batch:
    """Return a batch of random pixels and labels."""
    images = torch.randint(0, 256, (size, 3, height, width), dtype=torch.uint8)
    return Batch(images, torch.randint(0, num_classes, (size, height, width)), tuple(map(str, range(size))))


def time_plain(model: SegmentationModel, batches: list[Batch], *, device: str = "cpu") -> float:
    """Return the seconds of a tutorial's loop over all batches, after one batch to warm up."""
    torch.set_flush_denormal(False)
    model.train().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for index, batch in enumerate([batches[0], *batches]):
        if index == 1:
            started = _finished(device)
        loss = F.cross_entropy(model(batch.images.to(device)).logits, batch.masks.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return _finished(device) - started


def _finished(device: str) -> float:
    """Return the time by the clock when the device has done all that it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def time_engine(model: SegmentationModel, batches: list[Batch], precision: str, *, device: str = "cpu") -> float:
    """Return the seconds of the Trainer over all batches, after one batch to warm up."""
    torch.set_flush_denormal(True)
    marks: list[float] = []
    settings = {"optimizer": {"name": "adamw", "lr": 1e-3}, "train": {"steps": len(batches) + 1}}
    module = TrainingModule(model, Config().updated(settings), 255)
    with tempfile.TemporaryDirectory() as folder:
        trainer = lightning.Trainer(
            accelerator="gpu" if device == "cuda" else "cpu",
            devices=1,
            precision="bf16-mixed" if precision == "bfloat16" else "32-true",
            max_steps=len(batches) + 1,
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            default_root_dir=Path(folder),
            callbacks=[LambdaCallback(on_train_batch_end=lambda *_: marks.append(_finished(device)))],
        )
        trainer.fit(module, DataLoader([batches[0], *batches], batch_size=None))  # type: ignore[arg-type]
    return marks[-1] - marks[0]


if __name__ == "__main__":
    main()
