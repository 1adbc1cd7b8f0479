"""Findings about the classes: what a split lacks, how frequent and how large they are, what a crop shows of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...core import size_text
from ...errors import listed, shown
from ...images import odd_palettes
from ..counts import count_ids
from ..crops import crop_size
from ..dataset import Item, Split
from ..inspection import Inspected
from ..mask_shapes import crop_shares
from .finding import Finding, Look

# A class in fewer crops is hardly ever seen; `augment.class_balanced_prob` centers crops on it.
_RARE_CROPS = 0.05


def find_unlearnable(split: Split, found: Sequence[Inspected]) -> list[Finding]:
    """Return why nothing, or not every class, can be learned from a split.

    An error for images without masks, for a single class, if every pixel is ignored, and if one of two classes is
    missing while 255 is ignored: such 0/255 masks usually mean 255 as a class. Otherwise a warning for classes that no
    mask contains.
    """
    subject, taxonomy = f"split {split.name}", split.taxonomy
    unlabeled = [item.key for item in split.items if item.mask is None]
    if unlabeled:
        what = f"{len(unlabeled)} images have no mask, first {unlabeled[0]}"
        fix = "add masks, or train on a split that has them"
        return [Finding("images without mask", "error", subject, what, fix, len(unlabeled), tuple(unlabeled))]
    if taxonomy.num_classes == 1 and not taxonomy.multilabel:
        what = f"has the single class {shown(taxonomy.names[0])}: every pixel would get it, whatever the image"
        fix = "add a class for the rest of the pixels, such as background"
        return [Finding("classes", "error", subject, what, fix)]
    counts = count_ids(split, found)
    unseen = [taxonomy.names[k] for k in np.flatnonzero(counts[: taxonomy.num_classes] == 0)]
    is_pair = taxonomy.num_classes == 2 and not taxonomy.multilabel
    if unseen and is_pair and 255 in taxonomy.ignored and counts[taxonomy.ignore_id]:
        num_ignored = counts[taxonomy.ignore_id]
        what = f"no mask contains class {shown(unseen[0])}, but {num_ignored} pixels are 255, which is ignored"
        fix = f"did you mean class {shown(unseen[0])}? set `value: 255` for it in classes.yaml"
        return [Finding("0/255 masks", "error", subject, what, fix, items=_with_masks(found))]
    if len(unseen) == taxonomy.num_classes:
        what = "every pixel of every mask is ignored, so that nothing can be learned"
        if taxonomy.multilabel:
            what = "no mask contains any class, so that nothing can be learned"
        return [Finding("classes", "error", subject, what, "label some pixels, or name another --data.train_split")]
    return _absent(subject, unseen, taxonomy.num_classes, "be learned")


def find_unscorable(split: Split, found: Sequence[Inspected]) -> list[Finding]:
    """Return an error if every pixel of a labeled split is ignored, so that no score can be computed."""
    taxonomy = split.taxonomy
    if any(id_ != taxonomy.ignore_id for row in found if row.error is None for id_ in row.pixels):
        return []
    what = "every pixel of every mask is ignored, so that no score can be computed"
    if taxonomy.multilabel:
        what = "no mask contains any class, so that no score can be computed"
    return [
        Finding("classes", "error", f"split {split.name}", what, "label some pixels, or name another --data.val_split")
    ]


def find_unscored_classes(split: Split, found: Sequence[Inspected]) -> list[Finding]:
    """Return a warning for classes that no mask of a split to score contains."""
    counts = count_ids(split, found)
    unseen = [split.taxonomy.names[k] for k in np.flatnonzero(counts[: split.taxonomy.num_classes] == 0)]
    return _absent(f"split {split.name}", unseen, split.taxonomy.num_classes, "be scored")


def _absent(subject: str, unseen: Sequence[str], num_classes: int, what_for: str) -> list[Finding]:
    if not unseen:
        return []
    if len(unseen) == 1:
        what, fix = f"no mask contains class {shown(unseen[0])}", f"it cannot {what_for}"
    else:
        what = f"no mask contains {len(unseen)} of the {num_classes} classes: {listed(map(shown, unseen))}"
        fix = f"they cannot {what_for}"
    return [Finding("absent classes", "warning", subject, what, fix, len(unseen), tuple(unseen))]


def _with_masks(found: Sequence[Inspected]) -> tuple[Item, ...]:
    return tuple(row.item for row in found if row.pixels)


def find_ambiguous_masks(split: Split, found: Sequence[Inspected]) -> list[Finding]:
    """Return a warning for each way in which the masks of a split may mean something else than what is read.

    - Two classes have one color, so that an overlay cannot tell them apart.
    - Some masks hold 0 and 255 and others 0 and 1, while 255 is ignored: their objects would be ignored.
    - Palettes differ between masks that are read as palette indices: a color would be another class in each.
    """
    taxonomy, subject, findings = split.taxonomy, f"split {split.name}", []
    colors: dict[tuple[int, int, int], list[str]] = {}
    for name, color in zip(taxonomy.names, taxonomy.colors, strict=True):
        colors.setdefault(color, []).append(name)
    alike = [listed(map(shown, names)) for names in colors.values() if len(names) > 1]
    if alike:
        what = f"one color stands for several classes: {'; '.join(alike[:5])}"
        findings.append(Finding("colors", "warning", subject, what, "overlays cannot tell them apart", len(alike)))
    if split.encoding.by_color or taxonomy.multilabel:
        # Of several labels per pixel, the masks of a class are bilevel: neither palettes nor a second coding.
        return findings
    masks = {item.mask: item for item in split.items if item.mask is not None and item.drawing is None}
    odd = odd_palettes(masks)
    if odd:
        what = f"{len(odd)} of {len(masks)} masks have other palettes than the rest: {listed(odd)}"
        fix = "if their numbers mean other classes, save all with one palette, or write `masks: color`"
        items = tuple(masks[path] for path in odd)
        findings.append(Finding("palettes", "warning", subject, what, fix, len(odd), tuple(map(str, odd)), items))
    if masks and taxonomy.num_classes == 2 and 255 in taxonomy.ignored:
        background = taxonomy.values.index(min(taxonomy.values))
        labeled = any(1 - background in row.pixels for row in found)
        odd_rows = [row for row in found if taxonomy.ignore_id in row.pixels and 1 - background not in row.pixels]
        if odd_rows and labeled:
            paths = [row.item.mask for row in odd_rows]
            what = f"{len(odd_rows)} of {len(masks)} masks contain 255, which is ignored, but not class"
            name, value = shown(taxonomy.names[1 - background]), taxonomy.values[1 - background]
            fix = f"if 255 means {name} there, save them with {value} in its place"
            what = f"{what} {name} ({value}): {listed(paths)}"
            items = tuple(row.item for row in odd_rows)
            findings.append(
                Finding("mixed codings", "warning", subject, what, fix, len(paths), tuple(map(str, paths)), items)
            )
    return findings


def find_class_figures(look: Look) -> list[Finding]:
    """Return, per split with masks, the share of the pixels of each class, its thickness, and what a crop shows."""
    findings = []
    for split in look.splits:
        rows = [row for row in look.found[split.name] if row.error is None and row.pixels]
        if not rows:
            continue
        counts = count_ids(split, rows)[: split.taxonomy.num_classes]
        shares = counts / max(counts.sum(), 1)
        order = [int(k) for k in np.argsort(-shares, kind="stable") if counts[k]]
        words = ", ".join(f"{split.taxonomy.names[k]} {shares[k]:.2%}" for k in order[:24])
        subject = f"split {split.name}"
        findings.append(Finding("frequencies", "note", subject, f"{len(rows)} masks: {words}", count=len(rows)))
        findings += _describe_shapes(split, rows)
    return findings


def _describe_shapes(split: Split, rows: Sequence[Inspected]) -> list[Finding]:
    """Return the sizes of the parts of each class, and a warning for classes that crops hardly ever contain."""
    looked = [row for row in rows if row.shapes is not None and row.size is not None]
    if not looked or not split.name.startswith("train"):
        return []
    sizes = [row.size for row in looked if row.size is not None]
    median = int(np.median([height for height, _ in sizes])), int(np.median([width for _, width in sizes]))
    crop = crop_size(median)
    in_crops = [crop_shares(row.shapes, crop) for row in looked if row.shapes is not None]
    words, rare = [], []
    for k, name in enumerate(split.taxonomy.names):
        shapes = [row.shapes.classes[k] for row in looked if row.shapes is not None and k in row.shapes.classes]
        parts = sorted(part for shape in shapes for part in shape.parts)
        if not parts:
            continue
        thick = 2 * sum(shape.area for shape in shapes) / max(sum(shape.outline for shape in shapes), 1)
        seen = sum(shares.get(k, 0.0) for shares in in_crops) / len(looked)
        words.append(f"{name} {thick:.0f} px wide, parts of {parts[len(parts) // 2]} px, in {seen:.0%} of the crops")
        if seen < _RARE_CROPS:
            rare.append((name, seen))
    what = f"{len(looked)} masks in crops of {size_text(crop)}, as `train` chooses them: {'; '.join(words[:24])}"
    findings = [Finding("objects", "note", f"split {split.name}", what, count=len(looked))]
    if rare:
        some = listed(f"{name} {seen:.1%}" for name, seen in rare)
        fix = "`train DATA` centers crops on rare classes; with --model, set --augment.class_balanced_prob 0.3"
        what = f"crops of {size_text(crop)} hardly ever contain {some}"
        names = tuple(name for name, _ in rare)
        findings.append(Finding("crops", "warning", f"split {split.name}", what, fix, len(rare), names))
    return findings
