"""Groups of images from their names or a file, and validation on groups that are held out of training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from helpers.tiny_data import tiny_config, write_dataset
from pixelwise.config import Config, DataConfig
from pixelwise.core import Taxonomy
from pixelwise.data import Dataset, Groups, Item, Split, find_groups, open_dataset
from pixelwise.data.held_out import training_data
from pixelwise.errors import ConfigError, DatasetError, PixelwiseError
from pixelwise.evaluation.result import read_scores
from pixelwise.train.callbacks import silence_lightning
from pixelwise.train.finish import finish_run
from pixelwise.train.run import train

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*:FutureWarning")
TAXONOMY = Taxonomy(("a", "b"))
# Names as they are published: CamVid (four drives; val lies in a drive of train).
CAMVID = {
    "train": ["0001TP_006690", "0001TP_006720", "0006R0_f00930", "0006R0_f00960", "0016E5_00390", "0016E5_00420"],
    "val": ["0016E5_07959", "0016E5_07961"],
    "test": ["Seq05VD_f00000", "Seq05VD_f00030", "0001TP_008550", "0001TP_008580"],
}


def dataset_of(splits: dict[str, list[str]], **groups: str) -> Dataset:
    """A dataset of images that do not exist."""
    made = {
        name: Split(name, [Item(k, Path(f"{k}.png"), Path(f"{k}_m.png"), groups.get(k, "")) for k in keys], TAXONOMY)
        for name, keys in splits.items()
    }
    return Dataset("folder", Path(), TAXONOMY, made)


def by_key(groups: Groups | None) -> dict[str, str]:
    assert groups is not None
    return {item.key: group for item, group in groups.by_item.items()}


def test_groups_of_camvid_are_its_drives() -> None:
    dataset = dataset_of(CAMVID)
    groups = find_groups(dataset)
    assert groups is not None
    assert groups.sizes(dataset.split("train")) == {"0001TP": 2, "0006R0": 2, "0016E5": 2}
    assert groups.sizes(dataset.split("val")) == {"0016E5": 2}
    assert groups.of(dataset.split("test")) == ["Seq05VD", "Seq05VD", "0001TP", "0001TP"]
    assert groups.rule == "the part of the name before its last number"


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (["Image_01L", "Image_01R", "Image_02L", "Image_02R"], ["Image_01", "Image_02"]),  # CHASE_DB1: two eyes
        (["patient1/slice_01", "patient1/slice_02", "p2/slice_01", "p2/slice_2"], ["patient1", "p2"]),
        (["p1/1f6b7", "p1/0bf4", "p2/538b", "p2/6bd3"], ["p1", "p2"]),  # names alone show nothing
        (["all/p1/t1", "all/p1/t2", "all/p2/t1", "all/p2/t2"], ["all/p1", "all/p2"]),
        (["1d4f_F1B-000000", "1d4f_F1B-000001", "ec09_06B-000002", "ec09_06B-000003"], ["1d4f_F1B", "ec09_06B"]),
        (["p12slice3", "p12slice4", "p3slice1", "p3slice2"], ["p12", "p3"]),
        (["Abyssinian_1", "Abyssinian_2", "Maine_Coon_205", "Maine_Coon_3"], ["Abyssinian", "Maine_Coon"]),
    ],
)
def test_names_that_show_groups(keys: list[str], expected: list[str]) -> None:
    groups = by_key(find_groups(dataset_of({"train": keys})))
    assert list(dict.fromkeys(groups[key] for key in keys)) == expected


@pytest.mark.parametrize(
    "keys",
    [
        ["ISIC_0000000", "ISIC_0000001", "ISIC_0000002"],  # one prefix
        ["2007_000032", "2007_000033", "2008_000001", "2008_000002"],  # VOC's years
        ["train_1", "train_2", "val_1", "val_2"],
        ["0", "1", "2", "3"],
        ["00ae65c1", "0bf4b144", "1f6b7cea", "3934a094", "538b7673", "6bd33023"],
        ["21_training", "22_training", "23_training"],  # DRIVE: a patient each
        [],
    ],
)
def test_names_that_show_none(keys: list[str]) -> None:
    assert find_groups(dataset_of({"train": keys})) is None


def test_groups_of_a_format_count_before_names() -> None:
    keys = ["aachen_000000_000019", "aachen_000001_000019", "ulm_000000_000019"]
    groups = find_groups(dataset_of({"train": keys}, **{key: key.split("_")[0] for key in keys}))
    assert list(by_key(groups).values()) == ["aachen", "aachen", "ulm"]


def test_groups_from_a_file(tmp_path: Path) -> None:
    dataset = dataset_of({"train": ["a", "b"], "val": ["c"]})
    file = tmp_path / "groups.csv"
    file.write_text("\ufeffsite,name,group\nx,a.png,one\nx,b,two\nx,c,one\ny,other,three\n", "utf-8")
    groups = find_groups(dataset, file)
    assert by_key(groups) == {"a": "one", "b": "two", "c": "one"}
    assert groups is not None
    assert "groups.csv" in groups.rule


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,group\na,one\n", "has no row for 1 images: b"),
        ("name;group\na;one\n", "expected the columns name and group, got name;group"),
        ("", "got an empty file"),
        ("name,group\na,one\nb,\n", "got none for b"),
        ('name,group\na,one\nb,"x, y"\n', "without a comma, got none for b"),
    ],
)
def test_group_files_that_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "groups.csv").write_text(text)
    with pytest.raises(DatasetError, match=message):
        find_groups(dataset_of({"train": ["a", "b"]}), tmp_path / "groups.csv")


def keys_of(dataset: Dataset, name: str) -> list[str]:
    return [item.key for item in dataset.split(name).items]


def test_hold_out_validates_on_the_named_drives_alone() -> None:
    data, held_out = training_data(dataset_of(CAMVID), DataConfig(hold_out="0006R0"))
    assert held_out is not None
    assert held_out.groups == ("0006R0",)
    assert keys_of(data, "val") == CAMVID["train"][2:4]
    assert keys_of(data, "train") == CAMVID["train"][:2] + CAMVID["train"][4:]
    assert keys_of(data, "test") == CAMVID["test"]
    assert data.split("val").name == "hold-out 0006R0"
    assert "0006R0 (2 images)" in data.notes[-1]
    assert "0001TP 2, 0006R0 2, 0016E5 2" in data.notes[-1]
    two = training_data(dataset_of(CAMVID), DataConfig(hold_out=" 0016E5,0001TP"))[0]
    assert keys_of(two, "train") == CAMVID["train"][2:4]


def test_without_hold_out_an_existing_validation_split_stays() -> None:
    dataset = dataset_of(CAMVID)
    assert training_data(dataset, DataConfig()) == (dataset, None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hold_out": "0006RO"}, r"no group '0006RO'; its groups: 0001TP, 0006R0, 0016E5; fix: did you mean 0006R0"),
        ({"hold_out": "Seq05VD"}, "split train has no group 'Seq05VD'"),
        ({"hold_out": "0001TP,0006R0,0016E5"}, "leaves no image to train on"),
        ({"hold_out": "0001TP", "val_split": "train"}, "replaces --data.val_split"),
        ({"hold_out": "0001TP", "train_split": "tran"}, "unknown split 'tran'"),
    ],
)
def test_hold_outs_that_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(PixelwiseError, match=message):
        training_data(dataset_of(CAMVID), DataConfig(**settings))


def test_hold_out_needs_groups() -> None:
    with pytest.raises(ConfigError, match="show no groups; fix: name the groups in a CSV file"):
        training_data(dataset_of({"train": ["a", "b"]}), DataConfig(hold_out="a"))


def test_a_missing_validation_split_is_made_of_whole_groups() -> None:
    keys = [f"Image_{number:02d}{eye}" for number in range(1, 11) for eye in "LR"]
    dataset = dataset_of({"train": keys, "test": ["Image_11L", "Image_11R"]})
    data, held_out = training_data(dataset, DataConfig())
    train, val = keys_of(data, "train"), keys_of(data, "val")
    assert sorted(train + val) == sorted(keys)
    assert len(val) == 4  # a fifth
    assert not {key[:-1] for key in train} & {key[:-1] for key in val}
    assert held_out is not None
    assert set(held_out.groups) == {key[:-1] for key in val}
    assert sorted(held_out.keys) == sorted(val)
    # The choice depends on the names alone, not on their order.
    again, _ = training_data(dataset_of({"train": keys[::-1]}), DataConfig())
    assert sorted(keys_of(again, "val")) == sorted(val)
    _, by_image = training_data(dataset, DataConfig(split_by="image"))
    assert by_image is not None
    assert 2 <= len(by_image.keys) <= 8
    assert by_image.groups == ()


def test_a_missing_validation_split_without_groups_is_made_of_images() -> None:
    keys = [f"ISIC_{number:07d}" for number in range(50)]
    data, _ = training_data(dataset_of({"train": keys}), DataConfig())
    val = keys_of(data, "val")
    assert 4 <= len(val) <= 20, "a fifth, by chance"
    assert sorted(keys_of(data, "train") + val) == keys
    assert f"{len(val)} of 50 images held out" in data.notes[-1]
    assert val[0] in data.notes[-1]
    # Each name falls on one side by itself: other images move none.
    more, _ = training_data(dataset_of({"train": [*keys, *(f"ISIC_{k:07d}" for k in range(50, 70))]}), DataConfig())
    assert [key for key in keys_of(more, "val") if key in keys] == val


def test_one_big_group_of_three_is_not_held_out() -> None:
    """CamVid's drives have 62, 101 and 204 frames; a fifth of them is 73."""
    sizes = {"0001TP": 62, "0006R0": 101, "0016E5": 204}
    keys = [f"{name}_{number:05d}" for name, size in sizes.items() for number in range(size)]
    _, held = training_data(dataset_of({"train": keys}), DataConfig())
    assert held is not None
    assert held.groups in (("0001TP",), ("0006R0",))


@pytest.fixture
def drives(tmp_path: Path) -> Path:
    """Six training images of three drives, and no validation split."""
    silence_lightning()
    folder = write_dataset(tmp_path / "data", num_train=6, num_val=0)
    for kind in ("images", "masks"):
        shutil.rmtree(folder / kind / "val")
        for number in range(6):
            file = folder / kind / "train" / f"p{number}.png"
            file.rename(file.with_name(f"drive{number // 2}_{number:04d}.png"))
    return folder


def test_a_run_trains_and_scores_on_its_own_hold_out(drives: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    config = tiny_config(drives, data={"hold_out": "drive1"}, train={"steps": 2, "validate_every": 2})
    train(config, out)
    finished = finish_run(config, out)
    assert [image.key for image in read_scores(out / "scores.json").images] == ["drive1_0002", "drive1_0003"]
    assert "hold-out drive1" in (out / "report.html").read_text("utf-8")
    card = json.loads((finished.checkpoint / "config.json").read_text())
    assert "4 images of split train, best step chosen on 2 of split hold-out drive1" in json.dumps(card)
    assert open_dataset(drives).splits.keys() == {"train"}


def test_a_run_lists_the_groups_that_it_chose(drives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tiny_config(drives, train={"steps": 1, "validate_every": 1}), tmp_path / "run")
    held = Config.from_yaml(tmp_path / "run" / "config.yaml").data.hold_out
    assert held in ("drive0", "drive1", "drive2")
    assert f"for validation: {held} (2 images)" in capsys.readouterr().err
