"""`pixelwise import`: turn published weights of other projects into a checkpoint of this one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from rich.console import Console

from ..errors import CheckpointError, listed, shown
from ..files import check_outputs, new_folder
from ..registry import suggest
from ._console import text
from ._options import OutPath, Switch, parse_options

if TYPE_CHECKING:
    from ..weights.importing import Imported
    from ..weights.published import PublishedWeights

NUM_SHOWN = 6


def import_(
    file: str,
    *,
    as_: Annotated[str | None, Parameter(name="--as")] = None,
    out: OutPath,
    overwrite: Switch = False,
    num_classes: int | None = None,
    in_channels: int | None = None,
    geometry: Literal["caffe", "same"] | None = None,
    upsampling: Literal["fixed", "intermediate", "learned"] | None = None,
    options: Annotated[str | None, Parameter(name=["--model.options", "--options"])] = None,
) -> int:
    """Turn a published weight file into a checkpoint folder.

    Parameters
    ----------
    file
        A .caffemodel, .pth, .safetensors or .tflite file; or a name such as vgg16.torchvision, which is downloaded and
        verified.
    as_
        The registered network to load the weights into, such as fcn8s_vgg16. A .tflite names its own.
    out
        The folder to write the checkpoint to.
    overwrite
        Replace a checkpoint, and a README.md, that the folder holds.
    num_classes
        Number of classes; by default the file's own, or VOC's 21 for an image classifier.
    in_channels
        Channels of the images, such as 4 for color and depth; by default the file's own.
    geometry
        "caffe" pads the image by 100 pixels as the authors do, "same" pads every layer; by default the network's own.
    upsampling
        Upsampling kernels that are trained: none (fixed), all but the last (intermediate), all (learned).
    options
        Further options of the network, such as "{backbone: efficientnet_b0, output_stride: 8}".
    """
    from ..core import Taxonomy
    from ..data.formats.voc import TAXONOMY as VOC
    from ..weights.checkpoint import checkpoint_files, save_checkpoint
    from ..weights.importing import import_model
    from ..weights.published import verify_published

    check_outputs(checkpoint_files(out), inputs=[file], overwrite=overwrite)
    path = _locate(file)
    entry = verify_published(path)
    chosen = {"geometry": geometry, "upsampling": upsampling}
    network_options = {option: value for option, value in chosen.items() if value is not None}
    network_options |= parse_options(options)
    imported = import_model(path, as_, num_classes, in_channels=in_channels, options=network_options)
    num_classes = imported.model.num_classes
    numbered = tuple(f"class_{k}" for k in range(num_classes))
    taxonomy = VOC if num_classes == VOC.num_classes else Taxonomy(numbered)
    with new_folder(out):
        save_checkpoint(out, imported.model, taxonomy, _card(imported, path.name, entry))
    console = Console()
    for line in (*_summary(imported, path, entry), f"written to {out}"):
        console.print(text(line), soft_wrap=True)
    return 0


def _locate(file: str) -> Path:
    """Return the file, or download the published weights of that name. Raises CheckpointError for anything else."""
    from ..weights.importing.safe_open import regular_file
    from ..weights.published import WEIGHTS, cache_folder, download

    if Path(file).exists():
        return regular_file(file)
    if file in WEIGHTS:
        return download(WEIGHTS[file], cache_folder())
    raise CheckpointError(file, "neither a file nor the name of published weights", suggest(file, WEIGHTS))


def _summary(imported: Imported, path: Path, entry: PublishedWeights | None) -> list[str]:
    """Return what was loaded, checked, left out and not in the file, one line each."""
    from ..weights.importing.classifiers import COUNTER

    report = imported.report
    spec = imported.spec
    options = ", ".join(f"{key} {value}" for key, value in spec.options.items())
    lines = [f"{spec.name}, {spec.num_classes} classes, {spec.in_channels} channels, {options}"]
    lines.append(f"loaded {report.num_values:,} numbers in {len(report.loaded)} arrays of {path}")
    if entry is not None:
        lines.append(f"published as {entry.name}: {entry.score}; use: {entry.license}")
    for prefix, count in report.stripped.items():
        lines.append(f"removed the prefix {shown(prefix)} of PyTorch's wrappers from {count} names")
    if report.checked:
        lines.append(f"checked, equal to the network's fixed numbers: {listed(report.checked, NUM_SHOWN)}")
    for reason in dict.fromkeys(report.dropped.values()):
        dropped = [name for name, its_reason in report.dropped.items() if its_reason == reason]
        lines.append(f"left out: {listed(dropped, NUM_SHOWN)} ({reason})")
    # Files from before torch 0.4.1 lack the norms' counters, which nothing here reads.
    fresh = [name for name in report.fresh if not name.endswith(COUNTER)]
    if fresh:
        lines.append(f"not in the file, so train before use: {listed(fresh, NUM_SHOWN)}")
    return lines


def _card(imported: Imported, file_name: str, entry: PublishedWeights | None) -> dict[str, Any]:
    """Return the checkpoint's card: the origin of the numbers, and what is known about them."""
    report = imported.report
    summary = f"Imported from `{file_name}`; the numbers are its publisher's."
    if any("score" in name for name in report.fresh):
        summary += " Its score layers are at zero: train before predicting."
    card: dict[str, Any] = {
        "title": f"{imported.spec.name} with the weights of {file_name}",
        "summary": summary,
        "recipe": {
            "imported from": file_name,
            "arrays": len(report.loaded),
            "left out": len(report.dropped),
            "fresh": len(report.fresh),
        },
        "limits": "Nothing about these numbers was measured by this project.",
    }
    if entry is not None:
        card["recipe"] |= {
            "published as": entry.name,
            "url": entry.url,
            "source": entry.source,
            "license": entry.license,
        }
        card["scores"] = {"as published": entry.score}
    return card
