"""Findings about what masks hold: unknown values, lossy files, mixtures at edges, several codings in one dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from ...core import MAX_BORDER_FRACTION
from ...errors import listed
from ..inspection import Inspected
from ..mask_values import BORDER_SHARE, MAX_VALUES, classes_and_mixtures, doubtful_values, thin_classes
from ..thin_values import REACH
from .coding import lossy_values
from .finding import Finding, Look, from_errors, short_names

# Void and borders cover less of most datasets: 4 % in CamVid, 12 % in the Oxford pets, where it is a border.
_MAX_IGNORED = 0.1
_SNAP = "`pixelwise check DATA --fix OUT` gives each pixel the nearest class around it; better, export from the source"


def find_value_faults(look: Look) -> list[Finding]:
    """Return one finding per way in which masks hold what are no classes."""
    wrong = [inspected for _, inspected in look.inspected() if inspected.values is not None]
    lossy = [row for row in wrong if row.mask_file is not None and row.mask_file.lossy]
    rest = [row for row in wrong if row not in lossy]
    if look.dataset.faults:
        # The values of all masks are a finding already, and no class is known that they could be compared with.
        rest = []
    is_color = [row for row in rest if row.values is not None and row.values.colors]
    by_value = not look.dataset.splits or not next(iter(look.dataset.splits.values())).encoding.by_color
    known = _known(look)
    findings = [*_errors("lossy masks", lossy, lambda rows: _say_lossy(look, rows, known))]
    if by_value:
        findings += _errors("color masks", is_color, _say_colors)
        rest = [row for row in rest if row not in is_color]
    unknown = {row.item: _unknown(row, known, by_value=by_value) for row in rest}
    between = [row for row in rest if unknown[row.item] and unknown[row.item] <= _mixtures(row)]
    findings += _errors("values in between", between, lambda rows: _say_between(rows, known, by_value=by_value))
    others = [row for row in rest if row not in between]
    findings += _errors("unknown values", others, lambda rows: _say_unknown(look, rows, known, by_value=by_value))
    return findings + _find_two_codings(look) + _find_ignored_objects(look)


def _errors(kind: str, rows: list[Inspected], say: Callable[[list[Inspected]], tuple[str, str]]) -> list[Finding]:
    """Return one error for the masks of a kind; a single one in the words of a training."""
    if not rows:
        return []
    errors = [(row.item, row.mask_error) for row in rows if row.mask_error is not None]
    what, fix = say(rows)
    if len(rows) == 1:
        return [from_errors(kind, errors, fix=f"{errors[0][1].fix}; or {fix}" if kind != "unknown values" else "")]
    names = short_names(row.item.mask for row in rows if row.item.mask is not None)
    subject = str(rows[0].item.mask)
    what = f"and {len(rows) - 1} more masks: {what}: {listed(names)}"
    return [Finding(kind, "error", subject, what, fix, len(rows), names, tuple(row.item for row in rows))]


def _known(look: Look) -> set[int]:
    taxonomy = look.dataset.taxonomy
    encodings = [split.encoding for split in look.splits]
    if encodings and encodings[0].by_color:
        colors = (*taxonomy.colors, *encodings[0].ignored)
        return {red << 16 | green << 8 | blue for red, green, blue in colors}
    return {*taxonomy.values, *taxonomy.ignored}


def _unknown(row: Inspected, known: set[int], *, by_value: bool) -> set[int]:
    assert row.values is not None, "the caller asks for it"
    return set(row.values.pixels if by_value else row.values.by_color()) - known


def _mixtures(row: Inspected) -> set[int]:
    assert row.values is not None, "the caller asks for it"
    return set(classes_and_mixtures(row.values)[1])


def _say_lossy(look: Look, rows: list[Inspected], known: set[int]) -> tuple[str, str]:
    formats = sorted({row.mask_file.format for row in rows if row.mask_file is not None})
    what, fix = f"lossy {' and '.join(formats)}, which does not keep labels exactly", _SNAP
    found = lossy_values(rows)
    if found.colors:
        if look.dataset.seen:
            # A rare color lies among the mixtures of the others, so that no count tells it from them.
            fix += "; colors of rare or small classes may be lost: a classes.yaml with all colors keeps them"
        return what, fix
    total = max(found.pixels.total(), 1)
    thin = thin_classes(found, classes_and_mixtures(found)[0])
    for values, say in (
        (thin, "a thin class"),
        (doubtful_values(found), "either a thin class or blurred edges; the values do not tell which"),
    ):
        for value in values:
            near = range(value - REACH, value + REACH + 1)
            share = sum(found.pixels[v] for v in near) / total
            what += f"; values near {value} ({share:.2%}) lie between two classes and fill no area: {say}"
            if not known & set(near):
                fix += f"; if {value} is a class, list it in classes.yaml with `value: {value}`, or it is lost"
    return what, fix


def _say_colors(rows: list[Inspected]) -> tuple[str, str]:
    codes = {code for row in rows if row.values is not None for code in row.values.colors}
    some = listed(f"[{code >> 16}, {code >> 8 & 255}, {code & 255}]" for code in sorted(codes))
    what = f"are drawn in colors ({some}), while the classes are numbers"
    return what, "write `masks: color` and the color of each class in classes.yaml"


def _counts(rows: Iterable[Inspected], known: set[int], *, by_value: bool) -> Counter[int]:
    total: Counter[int] = Counter()
    for row in rows:
        assert row.values is not None, "the caller asks for it"
        total += row.values.pixels if by_value else row.values.by_color()
    return Counter({value: count for value, count in total.items() if value not in known})


def _say_between(rows: list[Inspected], known: set[int], *, by_value: bool) -> tuple[str, str]:
    counts = _counts(rows, known, by_value=by_value)
    word = "values" if by_value else "colors"
    what = f"{len(counts)} {word} that occur only between two classes, as antialiasing and resizing mix them"
    return what, _SNAP


def _say_unknown(look: Look, rows: list[Inspected], known: set[int], *, by_value: bool) -> tuple[str, str]:
    counts = _counts(rows, known, by_value=by_value)
    some = (
        f"{value if by_value else [value >> 16, value >> 8 & 255, value & 255]} ({count} px)"
        for value, count in counts.most_common(MAX_VALUES)
    )
    what = f"unknown {'values' if by_value else 'colors'} {listed(some)}; known are {listed(sorted(known), 12)}"
    total = sum(row.values.counts().total() for row in rows if row.values is not None)
    if set(counts) == {255} and look.dataset.taxonomy.num_classes == 2:
        fix = "in a 0/255 mask 255 is a class: set `value: 255` for it in classes.yaml"
    elif counts and max(counts.values()) > MAX_BORDER_FRACTION * total:
        fix = "give each value to a class in classes.yaml, or correct the masks"
    else:
        fix = "add each value to a class, or to `ignore`, in classes.yaml"
    return what, fix


def _find_two_codings(look: Look) -> list[Finding]:
    """Return an error for masks of 0 and 1 beside masks of 0 and 255 in a folder whose classes were inferred."""
    taxonomy = look.dataset.taxonomy
    if taxonomy.values != (0, 1, 255) or taxonomy.names != ("class0", "class1", "class255"):
        return []
    rows = [row for _, row in look.inspected() if row.pixels]
    one, other = ([row for row in rows if k in row.pixels] for k in (1, 2))
    if not one or not other or any(2 in row.pixels for row in one):
        return []
    fewer = min(one, other, key=len)
    names = short_names(row.item.mask for row in fewer if row.item.mask is not None)
    what = f"{len(one)} masks hold 0 and 1, {len(other)} hold 0 and 255, and none holds both: {listed(names)}"
    fix = "if 255 and 1 are one class, save all with one of them, or let `pixelwise check DATA --fix OUT` do it"
    items = tuple(row.item for row in fewer)
    return [Finding("mixed codings", "error", str(look.dataset.root), what, fix, len(names), names, items)]


def _find_ignored_objects(look: Look) -> list[Finding]:
    """Return a warning if 255 is ignored and covers areas that are no border."""
    taxonomy = look.dataset.taxonomy
    if 255 not in taxonomy.ignored:
        return []
    rows = [row for _, row in look.inspected() if row.shapes is not None]
    shares = [row.shapes.ignored for row in rows if row.shapes is not None]
    covered = sum(share for share, _ in shares) / max(len(shares), 1)
    in_border = sum(share * part for share, part in shares) / max(len(shares), 1)
    if covered <= _MAX_IGNORED or in_border >= BORDER_SHARE * covered:
        return []
    items = tuple(row.item for row in rows if row.shapes is not None and row.shapes.ignored[0])
    what = f"255 is ignored and covers {covered:.1%} of the pixels, most of them not as a border between classes"
    fix = "if it is a class, give it a name and `value: 255` in classes.yaml"
    return [Finding("ignored objects", "warning", str(look.dataset.root), what, fix, len(items), (), items)]
