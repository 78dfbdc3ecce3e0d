"""Annotations of COCO, whose images have the categories of what is in them as labels."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from upchirp.data import Source, TableSource, open_data, open_evaluation
from upchirp.data.labels import unranked
from upchirp.errors import InputError

CATEGORIES = [{"id": 30, "name": "dog"}, {"id": 5, "name": "cat"}, {"id": 7, "name": "cow"}]
SHOWN: list[tuple[int, ...]] = [(30, 5, 30), (), (5,), (7, 30)]
"""The categories of what is in each image."""


def write(path: Path, folder: Path, shown: list[tuple[int, ...]] = SHOWN, name: str = "{}.png", **changes: Any) -> Path:
    """Images, and a file of what is in them; their ids fall and do not begin at 0."""
    ids = [90 - 2 * place for place in range(len(shown))]
    for image in ids:
        (folder / name.format(image)).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (5, 4), (image, 0, 0)).save(folder / name.format(image))
    annotations = [
        {
            "id": 100 * image + number,
            "image_id": image,
            "category_id": category,
            "bbox": [0, 0, 2, 2],
            "iscrowd": number,
        }
        for image, own in zip(ids, shown, strict=True)
        for number, category in enumerate(own)
    ]
    images = [{"id": image, "file_name": name.format(image)} for image in ids]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": CATEGORIES, **changes}))
    return path


def named(source: Source) -> list[str]:
    """The names of each image's classes, by what its label says; the pixels must be its own."""
    assert isinstance(source, TableSource) and source.label_sets is not None
    assert [source.load(row)[0].whole().getpixel((0, 0))[0] for row in range(len(source))] == [90, 88, 86, 84][
        : len(source)
    ]
    members = source.label_sets.members
    return [" ".join(source.classes[number] for number in members[source.load(row)[1]]) for row in range(len(source))]


def test_training_and_validation_images(tmp_path: Path) -> None:
    train_path = write(tmp_path / "annotations/instances_train2017.json", tmp_path / "train2017")
    # As many images of the same names: those of each file are its own.
    val_path = write(tmp_path / "annotations/instances_val2017.json", tmp_path / "val2017", [(5, 7), (30,)])
    notes: list[str] = []
    train, val = open_data(train_path, note=notes.append)
    assert train.classes == val.classes == ("cat", "cow", "dog")
    assert (named(train), named(val)) == (["cat dog", "", "cat", "cow dog"], ["cat cow", "dog"])
    assert train.label_sets is val.label_sets  # type: ignore[attr-defined]
    assert Path(train.describe(0)) == tmp_path / "train2017" / "90.png"
    assert Path(val.describe(0)) == tmp_path / "val2017" / "90.png"
    assert notes == [
        f"{train_path}: images have several labels, those of 3 categories: each class is told by itself",
        f"validation images are those of {val_path}",
        f"1 of 4 images of {train_path} have no annotation, and no label",
    ]
    assert named(open_evaluation(val_path, note=notes.append)) == ["cat cow", "dog"]
    assert notes[-1] == f"{val_path} has no splits: all of its 2 images are evaluated"
    with pytest.raises(InputError, match="no splits to find dev in"):
        open_data(train_path, val_split="dev")


@pytest.mark.parametrize(
    ("file", "other", "folder", "name"),
    [
        ("train/_annotations.coco.json", "valid/_annotations.coco.json", "{}", "{}.png"),
        ("train.json", "val.json", "images/{}", "{}.png"),
        ("annotations/train.json", "annotations/validation.json", "", "{}/{{}}.png"),
        ("instances_Train.json", "instances_val.json", "photos", "x_{}_{{}}.png"),
        # The images of both have the same names.
        ("instances_train.json", "instances_val.json", "{}", "{}.png"),
    ],
)
def test_where_files_and_images_lie(tmp_path: Path, file: str, other: str, folder: str, name: str) -> None:
    for path, shown in ((file, SHOWN), (other, SHOWN[:2])):
        split = Path(path).stem.rpartition("_")[2] if Path(path).stem[0] != "_" else Path(path).parts[0]
        own = name.format(split) if "{{" in name else name
        write(tmp_path / path, tmp_path / folder.format(split), shown, own)
    train, val = open_data(tmp_path / file, note=lambda line: None)
    assert (len(train), named(val)) == (4, ["cat dog", ""])
    assert split in val.describe(0).removeprefix(str(tmp_path))


@pytest.mark.parametrize(
    ("file", "folder", "data"),
    [
        ("annotations/instances_train2017.json", "train2017", ""),
        ("annotations/instances_train2017.json", "train2017", "annotations"),
        ("train/_annotations.coco.json", "train", ""),
        ("train/_annotations.coco.json", "train", "train"),
    ],
)
def test_a_folder_of_annotations_says_what_to_give(tmp_path: Path, file: str, folder: str, data: str) -> None:
    path = write(tmp_path / file, tmp_path / folder)
    with pytest.raises(InputError, match=rf"annotations \({path.name}\): give (one of )?them by `data`"):
        open_data(tmp_path / data)


def test_without_others_a_share_validates_and_classes_may_lack_images(tmp_path: Path) -> None:
    notes: list[str] = []
    path = write(tmp_path / "objects.json", tmp_path, [(30, 5), (5,), (30,), ()])
    train, val = open_data(path, val_share=0.5, note=notes.append)
    assert len(train) + len(val) == 4 and len(val)
    assert "1 of 3 classes have no training images: cow" in notes
    assert "cow" in unranked(val)[0]


def test_one_category_each_is_one_label(tmp_path: Path) -> None:
    notes: list[str] = []
    source = open_evaluation(write(tmp_path / "flowers.json", tmp_path, [(7,), (30,), (5, 5)]), note=notes.append)
    assert source.label_sets is None and [source.load(row)[1] for row in range(3)] == [1, 2, 0]  # type: ignore[attr-defined]
    assert notes[0].endswith("each image has one of 3 categories")


def lacking(path: Path) -> None:
    (path.parent / "88.png").unlink()
    (path.parent / "84.png").unlink()


def with_val(categories: list[dict[str, Any]]) -> Callable[[Path], None]:
    return lambda path: write(path.with_name("val.json"), path.parent, [(5,)], categories=categories) and None


@pytest.mark.parametrize(
    ("changes", "act", "message"),
    [
        ({}, lacking, r"train\.json: 2 of its 4 images are missing, the first is .*88\.png"),
        ({}, lambda path: (path.parent / "90.png").unlink(), r"there is no image 90\.png in .*put the images there"),
        ({"categories": CATEGORIES[1:]}, None, "annotation 9000 is of category 30, which its categories lack"),
        ({"images": [{"id": 88, "file_name": "88.png"}]}, None, "annotation 9000 is of image 90, which its"),
        ({"annotations": []}, None, r"no image of .*train\.json has an annotation"),
        ({"annotations": [{"id": 1, "image_id": 90}]}, None, "no annotation of COCO: KeyError.'category_id'"),
        ({"images": []}, None, "which its images lack"),
        ({"images": [], "annotations": []}, None, r"train\.json has no images"),
        ({"categories": [*CATEGORIES, {"id": 8, "name": "cow"}]}, None, "two categories of the name cow"),
        ({"categories": [*CATEGORIES, {"id": 7, "name": "ox"}]}, None, "two categories of one id"),
        ({"categories": [{"id": "a", "name": "ox"}, *CATEGORIES]}, None, "no annotation of COCO: TypeError"),
        ({}, lambda path: path.write_text('{"images": []}'), "no annotation of COCO: it has no annotations"),
        ({}, lambda path: path.write_text("[]"), "it holds no images, annotations and categories"),
        ({}, lambda path: path.write_text("{"), "no annotation of COCO: Expecting"),
        ({}, with_val([{"id": 5, "name": "fox"}]), r"val\.json has the category fox, which .*train\.json lacks"),
    ],
)  # fmt: skip
def test_bad_annotations_are_told_in_one_line(
    tmp_path: Path, changes: dict[str, Any], act: Callable[[Path], Any] | None, message: str
) -> None:
    path = write(tmp_path / "train.json", tmp_path, **changes)
    if act is not None:
        act(path)
    with pytest.raises(InputError, match=message) as caught:
        open_data(path, note=lambda line: None)
    assert "\n" not in str(caught.value)
