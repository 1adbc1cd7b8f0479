"""ADE20K in the form of the scene parsing challenge (ADEChallengeData2016): 150 classes, 0 is none of them.

Source: Zhou et al., "Scene Parsing through ADE20K Dataset", CVPR 2017; objectInfo150.txt of the archive.
"""

from __future__ import annotations

from pathlib import Path

from ...core import Taxonomy
from ...errors import DatasetError
from ..dataset import Dataset, Item
from . import DATASETS
from .base import DatasetFormat, make_dataset, pair_folders

# The first name of each row of objectInfo150.txt, in its order.
_NAMES = (
    "wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth, "
    "door, table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug, "
    "field, armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column, "
    "signboard, chest of drawers, counter, sand, sink, skyscraper, fireplace, refrigerator, grandstand, path, "
    "stairs, runway, case, pool table, pillow, screen door, stairway, river, bridge, bookcase, blind, coffee "
    "table, toilet, flower, book, hill, bench, countertop, stove, palm, kitchen island, computer, swivel chair, "
    "boat, bar, arcade machine, hovel, bus, towel, light, truck, tower, chandelier, awning, streetlight, booth, "
    "television receiver, airplane, dirt track, apparel, pole, land, bannister, escalator, ottoman, bottle, "
    "buffet, poster, stage, van, ship, fountain, conveyer belt, canopy, washer, plaything, swimming pool, stool, "
    "barrel, basket, waterfall, tent, bag, minibike, cradle, oven, ball, food, step, tank, trade name, microwave,"
    " pot, animal, bicycle, lake, dishwasher, screen, blanket, sculpture, hood, sconce, vase, traffic light, "
    "tray, ashcan, fan, pier, crt screen, plate, monitor, bulletin board, shower, radiator, glass, clock, flag"
)
TAXONOMY = Taxonomy(tuple(_NAMES.split(", ")), values=tuple(range(1, 151)), ignored=(0,))
_SPLITS = {"train": "training", "val": "validation"}


@DATASETS.register("ade20k", tiny={}, paper="Zhou et al., Scene Parsing through ADE20K Dataset", year=2017)
class Ade20k(DatasetFormat):
    """ADE20K's scene parsing challenge: 150 classes of value 1 to 150, 0 ignored."""

    needs = "images/{training,validation} and annotations/{training,validation}, or these in ADEChallengeData2016/"

    def find_root(self, folder: Path) -> Path | None:
        """Return `folder` itself, or the ADEChallengeData2016/ in it."""
        parts = ("images/training", "annotations/training", "images/validation", "annotations/validation")
        roots = (folder, folder / "ADEChallengeData2016")
        return next((root for root in roots if all((root / part).is_dir() for part in parts)), None)

    def read(self, root: Path) -> Dataset:
        """Read the splits train and val."""
        splits: dict[str, list[Item]] = {
            name: pair_folders(root / "images" / folder, root / "annotations" / folder)
            for name, folder in _SPLITS.items()
        }
        if not any(splits.values()):
            raise DatasetError(root, "has no images", "unpack the archive again")
        return make_dataset("ade20k", root, TAXONOMY, splits)
