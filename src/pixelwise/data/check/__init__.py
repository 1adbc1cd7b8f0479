"""What is wrong with a dataset: every problem that one pass over its files shows, each once, with its files.

    diagnosis    all findings of a dataset
    finding      one kind of problem: how bad, in how many files, which, and what to do
    pairs        missing files, repeated names, images without masks
    files        unreadable files, sizes
    orientation  images that EXIF turns, and what their masks were drawn on
    values       what masks hold that are no classes
    images       bits, channels and sizes of the images
    leaks        copies between and within splits; `near_copies`: other files of one photo, frames of one recording
    hold_out     the images that a training would hold out for validation
    fix          a copy of the dataset without what can be fixed
    classes      absent classes, frequencies, sizes of objects, what a crop shows

`check_dataset` is what a training does before its first step; `pixelwise check` prints all of `diagnose`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

from ...errors import DatasetError, InputError, listed, printable
from ..counts import inspect_masks, inspect_splits
from ..dataset import Dataset, Split
from ..inspection import Inspected
from ..second_labels import second_dataset
from .classes import (
    find_ambiguous_masks,
    find_class_figures,
    find_unlearnable,
    find_unscorable,
    find_unscored_classes,
)
from .diagnosis import Diagnosis
from .files import find_file_faults
from .finding import Finding, Look, sort_findings
from .hold_out import find_hold_out
from .images import find_image_facts
from .leaks import find_leaks, find_repeats
from .orientation import find_orientation_faults
from .pairs import find_pair_faults
from .values import find_value_faults

__all__ = ["Diagnosis", "Finding", "Look", "check_classes", "check_dataset", "check_masks", "diagnose"]


def diagnose(dataset: Dataset) -> Diagnosis:
    """Read every file of every split once, on all cores; return what is wrong with them.

    dataset  as `open_dataset(path, check=False)` returns it
    """
    splits = tuple(dataset.splits.values())
    look = Look(dataset, inspect_splits(dataset, splits), splits)
    findings = [*find_pair_faults(look), *find_file_faults(look), *find_value_faults(look)]
    findings += find_orientation_faults(look)
    for split in splits:
        found = look.found[split.name]
        if not split.items or not split.has_masks or not any(row.pixels for row in found if row.error is None):
            continue
        findings += find_unlearnable(split, found) if split.name.startswith("train") else find_unscorable(split, found)
        if not split.name.startswith("train"):
            findings += find_unscored_classes(split, found)
        findings += find_ambiguous_masks(split, found)
    findings += [*find_leaks(look), *find_repeats(look), *find_image_facts(look), *find_class_figures(look)]
    findings += [*find_hold_out(look), *_find_second_faults(dataset)]
    return Diagnosis(dataset, tuple(sort_findings(findings)), look)


def _find_second_faults(dataset: Dataset) -> list[Finding]:
    """Return what is wrong with the masks of the second label map, if there is one; the images are not read again."""
    folder = next((split.second.folder for split in dataset.splits.values() if split.second is not None), None)
    if folder is None:
        return []
    try:
        second = second_dataset(dataset, folder)
    except DatasetError as error:
        return [Finding("second label map", "error", error.subject, error.what, error.fix)]
    splits = tuple(second.splits.values())
    look = Look(second, {split.name: inspect_masks(split) for split in splits}, splits)
    findings = [*find_file_faults(look), *find_value_faults(look), *find_class_figures(look)]
    for split in splits:
        if split.name.startswith("train") and any(row.pixels for row in look.found[split.name]):
            findings += find_unlearnable(split, look.found[split.name])
    return [replace(finding, kind=f"{folder}: {finding.kind}") for finding in findings]


def check_dataset(dataset: Dataset, train: Split, val: Split, *, skip_bad: bool = False) -> list[Inspected]:
    """Read all images and masks of two splits once, print notes and warnings, and return what was found of `train`.

    skip_bad  warn of files that cannot be used, instead of raising their error
    Raises InputError for files that cannot be used, and DatasetError if nothing can be learned or scored.
    """
    look = Look(dataset, inspect_splits(dataset, (train, val)), tuple({train.name: train, val.name: val}.values()))
    found = look.found
    names = [split.name for split in look.splits]
    bad = [(i.item, i.error) for name in names for i in found[name] if i.error is not None]
    file_faults = [*find_file_faults(look), *find_value_faults(look)]
    turned = find_orientation_faults(look)
    warnings = []
    if bad and not skip_bad:
        errors = [finding for finding in (*file_faults, *turned) if finding.severity == "error"]
        _refuse([error for _, error in bad], errors, dataset.root)
    if bad:
        keys = listed(item.key for item, _ in bad)
        warnings.append(f"{len(bad)} images or masks cannot be used and are skipped: {keys}; the first: {bad[0][1]}")
    for name in names:
        if all(i.error is not None for i in found[name]):
            fix = "run `pixelwise check DATA`, which lists what is wrong"
            raise DatasetError(name, "no sample of the split can be read", fix)
    findings = find_unscorable(val, found[val.name])
    for name in found.keys() - set(names):
        # Read to find copies alone: training does without them, their scores do not.
        unreadable = [i for i in found[name] if i.error is not None]
        if unreadable:
            keys = listed(i.item.key for i in unreadable)
            what = f"{len(unreadable)} of {len(found[name])} images cannot be read: {keys}; the first"
            warnings.append(f"split {name}: {what}: {unreadable[0].error}")
    findings += [*find_unlearnable(train, found[train.name]), *find_ambiguous_masks(train, found[train.name])]
    if val.name != train.name:
        findings += find_ambiguous_masks(val, found[val.name])
    findings += [*find_leaks(look), *file_faults, *turned]
    skipped = {item for item, _ in bad}
    for finding in findings:
        is_skipped = finding in file_faults or (finding in turned and skipped.issuperset(finding.items))
        if finding.severity == "error" and not is_skipped:
            raise finding.error()
    warnings += [str(finding) for finding in findings if finding.severity == "warning"]
    for line in (*dataset.notes, *(f"warning: {line}" for line in warnings)):
        print(printable(line), file=sys.stderr)
    return found[train.name]


def _refuse(errors: Sequence[InputError], findings: Sequence[Finding], root: object) -> None:
    """Raise the error of a single file; of several, print one line for each kind and raise a summary."""
    if len(errors) == 1:
        raise errors[0]
    for finding in findings:
        print(f"error: {finding}", file=sys.stderr)
    what = f"{len(errors)} images or masks cannot be used (listed above)"
    fix = "fix or remove them, `pixelwise check DATA --fix OUT`, or set --train.on_read_error skip"
    raise InputError(root, what, fix)


def check_classes(split: Split, *, skip_bad: bool = False, found: Sequence[Inspected] | None = None) -> list[str]:
    """Return a warning for classes that no mask of the split contains, and those of `check_masks`.

    skip_bad  leave out masks that cannot be read, instead of raising their error
    found     what `inspect_splits` found, to read no mask again
    Raises DatasetError for what `find_unlearnable` calls an error.
    """
    found = _masks(split, found, skip_bad=skip_bad)
    findings = [*find_ambiguous_masks(split, found), *find_unlearnable(split, found)]
    for finding in findings:
        if finding.severity == "error":
            raise finding.error()
    return [str(finding) for finding in findings]


def check_masks(split: Split, *, skip_bad: bool = False, found: Sequence[Inspected] | None = None) -> list[str]:
    """Return the warnings of `find_ambiguous_masks`; `skip_bad` and `found` as in `check_classes`."""
    if found is None and not (split.taxonomy.num_classes == 2 and 255 in split.taxonomy.ignored):
        # No pixel is needed.
        found = []
    return [str(finding) for finding in find_ambiguous_masks(split, _masks(split, found, skip_bad=skip_bad))]


def _masks(split: Split, found: Sequence[Inspected] | None, *, skip_bad: bool) -> Sequence[Inspected]:
    found = inspect_masks(split) if found is None else found
    for inspected in found:
        if inspected.error is not None and not skip_bad:
            raise inspected.error
    return found
