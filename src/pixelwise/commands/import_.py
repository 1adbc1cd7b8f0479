"""`pixelwise import`: published weights of other projects as a checkpoint of this one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from rich.console import Console
from rich.text import Text

from ..core import Taxonomy
from ..data.formats.voc import TAXONOMY as VOC
from ..errors import CheckpointError
from ..registry import suggest
from ..weights.checkpoint import save_checkpoint
from ..weights.importing import Imported, Report, import_model
from ..weights.importing.classifiers import COUNTER
from ..weights.importing.safe_open import regular_file
from ..weights.published import WEIGHTS, PublishedWeights, cache_folder, download, verify_published

NUM_SHOWN = 6


def import_(
    file: str,
    *,
    as_: Annotated[str, Parameter(name="--as")],
    out: Path,
    num_classes: int | None = None,
    in_channels: int | None = None,
    geometry: Literal["caffe", "same"] | None = None,
    upsampling: Literal["fixed", "intermediate", "learned"] | None = None,
) -> int:
    """Turn a published weight file into a checkpoint folder.

    Parameters
    ----------
    file
        A .caffemodel, .pth or .safetensors file; or a name such as vgg16.torchvision, which is downloaded and proved.
    as_
        The registered network to fill, such as fcn8s_vgg16.
    out
        The folder to write the checkpoint to.
    num_classes
        Number of classes; left out, it is the file's own, or VOC's 21 for an image classifier.
    in_channels
        Channels of the images, such as 4 for colour and depth; left out, it is the file's own.
    geometry
        "caffe" pads the image by 100 pixels as the authors do, "same" pads every layer; left out, it is the network's own.
    upsampling
        Which upsampling kernels can be trained: none (fixed), all but the last (intermediate), all (learned).
    """
    path = _locate(file)
    entry = verify_published(path)
    chosen = {"geometry": geometry, "upsampling": upsampling}
    options = {option: value for option, value in chosen.items() if value is not None}
    imported = import_model(path, as_, num_classes, in_channels=in_channels, options=options)
    model = imported.model
    taxonomy = VOC if model.num_classes == VOC.num_classes else _numbered(model.num_classes)
    save_checkpoint(out, model, taxonomy, _card(imported, path.name, entry))
    console = Console()
    for line in _lines(imported, path, entry):
        console.print(Text(line), soft_wrap=True)
    console.print(Text(f"written to {out}"), soft_wrap=True)
    return 0


def _locate(file: str) -> Path:
    """The file itself, or the download that a published name stands for. Raises CheckpointError where it is neither."""
    if Path(file).exists():
        return regular_file(file)
    if file in WEIGHTS:
        return download(WEIGHTS[file], cache_folder())
    raise CheckpointError(file, "is no file and no published name", suggest(file, WEIGHTS))


def _numbered(num_classes: int) -> Taxonomy:
    return Taxonomy(tuple(f"class_{k}" for k in range(num_classes)))


def _lines(imported: Imported, path: Path, entry: PublishedWeights | None) -> list[str]:
    """What was loaded, proved, left out and started fresh, one line each."""
    report = imported.report
    spec = imported.spec
    options = ", ".join(f"{key} {value}" for key, value in spec.options.items())
    lines = [f"{spec.name}, {spec.num_classes} classes, {spec.in_channels} channels, {options}"]
    lines.append(f"loaded {report.num_values:,} numbers in {len(report.loaded)} arrays of {path}")
    if entry is not None:
        lines.append(f"published as {entry.name}: {entry.score}; use: {entry.licence}")
    if report.checked:
        lines.append(f"proved to be the network's own fixed numbers: {_some(report.checked)}")
    for reason in dict.fromkeys(report.dropped.values()):
        lines.append(f"left out: {_some([name for name, why in report.dropped.items() if why == reason])} ({reason})")
    # Files from before torch 0.4.1 lack the norms' counters, which nothing here reads.
    fresh = [name for name in report.fresh if not name.endswith(COUNTER)]
    if fresh:
        lines.append(f"started fresh, so train before use: {_some(fresh)}")
    return lines


def _some(names: list[str] | tuple[str, ...]) -> str:
    more = f" and {len(names) - NUM_SHOWN} more" if len(names) > NUM_SHOWN else ""
    return ", ".join(names[:NUM_SHOWN]) + more


def _card(imported: Imported, file_name: str, entry: PublishedWeights | None) -> dict[str, Any]:
    """The checkpoint's card: where the numbers come from, and what may be said about them."""
    report = imported.report
    card: dict[str, Any] = {
        "title": f"{imported.spec.name} with the weights of {file_name}",
        "summary": f"Imported from `{file_name}`; the numbers are its publisher's." + _untrained(report),
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
            "licence": entry.licence,
        }
        card["scores"] = {"as published": entry.score}
    return card


def _untrained(report: Report) -> str:
    if any("score" in name for name in report.fresh):
        return " Its score layers are at zero: train before predicting."
    return ""
