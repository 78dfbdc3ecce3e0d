import importlib
import json
import pickle
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from upchirp import InputError
from upchirp.dense import Pictures, read_pictures

XML = """<annotation><filename>{name}.jpg</filename><size><width>{size[0]}</width><height>{size[1]}</height></size>
{objects}</annotation>"""
OBJECT = """<object><name>{0}</name><difficult>{2}</difficult><bndbox><xmin>{1[0]}</xmin><ymin>{1[1]}</ymin>
<xmax>{1[2]}</xmax><ymax>{1[3]}</ymax></bndbox></object>"""
SQUARE = (4, 4, 20, 12)


def picture(path: Path, size: tuple[int, int] = (32, 24)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)


def voc(root: Path, name: str, *objects: tuple[str, Any, int], size: tuple[int, int] = (32, 24)) -> None:
    picture(root / "JPEGImages" / f"{name}.jpg")
    (root / "Annotations").mkdir(exist_ok=True)
    marked = "".join(OBJECT.format(*entry) for entry in objects)
    (root / "Annotations" / f"{name}.xml").write_text(XML.format(name=name, size=size, objects=marked))


def listed(root: Path, **lists: list[str]) -> None:
    folder = root / "ImageSets/Main"
    folder.mkdir(parents=True, exist_ok=True)
    for split, names in lists.items():
        (folder / f"{split}.txt").write_text("\n".join(names) + "\n")


def coco(root: Path, **changes: Any) -> None:
    """A training picture with a polygon and a crowd, and a picture without objects for validation."""
    square = [[4, 4, 20, 4, 20, 12, 4, 12]]
    objects = [
        {"id": 1, "image_id": 7, "category_id": 30, "bbox": [4, 4, 16, 8], "segmentation": square, "iscrowd": 0},
        {"id": 2, "image_id": 7, "category_id": 5, "bbox": [0, 0, 32, 24], "iscrowd": 1,
         "segmentation": {"size": [24, 32], "counts": [0, 768]}},
    ]  # fmt: skip
    categories = [{"id": 30, "name": "dog"}, {"id": 5, "name": "cat"}]
    (root / "annotations").mkdir()
    for split, marked in (("train", objects), ("val", [])):
        picture(root / f"{split}2017" / "a.jpg")
        images = [{"id": 7, "file_name": "a.jpg", "width": 32, "height": 24}]
        content = {"images": images, "annotations": marked, "categories": categories, **changes}
        (root / f"annotations/instances_{split}2017.json").write_text(json.dumps(content))


def test_voc_with_lists(tmp_path: Path) -> None:
    voc(tmp_path, "one", ("dog", SQUARE, 0), ("cat", (0, 0, 33, 24), 1))
    voc(tmp_path, "two", ("cat", SQUARE, 0), ("cat", (9, 9, 9, 9), 0))
    voc(tmp_path, "unlisted", ("bird", SQUARE, 0))
    listed(tmp_path, train=["one", "two"], val=["two  1"])
    splits = read_pictures(tmp_path)
    assert splits.classes == ("cat", "dog")
    assert [picture.path.stem for picture in splits.val] == ["two"]
    assert splits.notes == (f"left out are boxes without an area: 2, the first in {tmp_path}/Annotations/two.xml",)
    image, target = Pictures(splits.train, splits.classes)[0]
    assert image.shape == (3, 24, 32) and image.dtype == torch.float32
    assert target["boxes"].tolist() == [[4, 4, 20, 12], [0, 0, 32, 24]]
    assert (target["labels"].tolist(), target["iscrowd"].tolist()) == ([2, 1], [0, 1])
    torch.manual_seed(0)
    training = Pictures(splits.train, splits.classes, train=True)
    assert {tuple(training[0][1]["boxes"][0].tolist()) for _ in range(9)} == {(4, 4, 20, 12), (12, 4, 28, 12)}
    assert training[0][1]["labels"].tolist() == [2]


def test_voc_without_lists_is_parted_the_same_way_each_time(tmp_path: Path) -> None:
    for index in range(10):
        voc(tmp_path, f"p{index}", ("cell", SQUARE, 0))
    splits = read_pictures(tmp_path, val_share=0.3)
    assert (len(splits.train), len(splits.val)) == (7, 3)
    assert not set(splits.train) & set(splits.val)
    assert read_pictures(tmp_path, val_share=0.3) == splits


def test_coco_with_masks(tmp_path: Path) -> None:
    coco(tmp_path)
    splits = read_pictures(tmp_path)
    assert splits.classes == ("cat", "dog")
    _, target = Pictures(splits.train, splits.classes, masks=True)[0]
    assert target["labels"].tolist() == [2, 1] and target["iscrowd"].tolist() == [0, 1]
    assert [mask.sum().item() for mask in target["masks"]] == [16 * 8, 32 * 24]
    assert target["masks"][0, 4:12, 4:20].all()
    _, empty = Pictures(splits.val, splits.classes, masks=True)[0]
    assert empty["boxes"].shape == (0, 4) and empty["masks"].shape == (0, 24, 32)


def test_masks_are_trained_on_and_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco(tmp_path)
    (tmp_path / "annotations/instances_val2017.json").write_bytes(
        (tmp_path / "annotations/instances_train2017.json").read_bytes()
    )
    main = runpy.run_path(str(Path(__file__).parents[2] / "examples/detection.py"))["main"]
    few = {"rpn_post_nms_top_n_train": 8, "box_batch_size_per_image": 4, "box_detections_per_img": 5}
    small = {"model": "test_resnet", "min_size": 64, "channels": 8, "batch_size": 1, "workers": 0, "epochs": 1}
    found = main(tmp_path, None, kind="mask-rcnn", **small, **few)
    # Only the crowd has the other class, and it does not count.
    assert {"bbox_map", "segm_map", "segm_mar_100"} <= found.keys() and found["segm_map"] >= 0
    assert "epoch 1 of 1: loss" in capsys.readouterr().out


def test_what_the_example_gives_its_workers_can_be_sent_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where workers are not forked, on macOS and from Python 3.14 on, it is pickled.
    coco(tmp_path)
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "examples")
    example, given = importlib.import_module("detection"), {}

    def loader(*arguments: Any, **settings: Any) -> None:
        given.update(settings)
        raise KeyboardInterrupt

    monkeypatch.setattr(example, "DataLoader", loader)
    with pytest.raises(KeyboardInterrupt):
        example.main(tmp_path, None, model="test_resnet", workers=1)
    assert pickle.loads(pickle.dumps(given["collate_fn"]))([(1, 2), (3, 4)]) == ((1, 3), (2, 4))


def alone(root: Path, *objects: tuple[str, Any, int], **size: tuple[int, int]) -> None:
    """A picture that trains and validates."""
    voc(root, "one", *objects, **size)
    listed(root, train=["one"], val=["one"])


def outside(root: Path) -> None:
    alone(root, ("dog", (4, 4, 40, 12), 0))


def unknown_class(root: Path) -> None:
    voc(root, "one", ("dog", SQUARE, 0))
    voc(root, "two", ("cat", SQUARE, 0))
    listed(root, train=["one"], val=["two"])


def other_size(root: Path) -> None:
    alone(root, ("dog", SQUARE, 0), size=(24, 32))


def no_picture(root: Path) -> None:
    alone(root, ("dog", SQUARE, 0))
    (root / "JPEGImages/one.jpg").unlink()


def no_annotation(root: Path) -> None:
    alone(root, ("dog", SQUARE, 0))
    listed(root, train=["one", "two"], val=["one"])


def no_xml(root: Path) -> None:
    alone(root)
    (root / "Annotations/one.xml").write_text("<annotation><object>")


def unknown_category(root: Path) -> None:
    coco(root, categories=[{"id": 30, "name": "dog"}])


def no_json(root: Path) -> None:
    coco(root)
    (root / "annotations/instances_val2017.json").write_text("[]")


def no_val(root: Path) -> None:
    coco(root)
    (root / "annotations/instances_val2017.json").unlink()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (outside, "one.xml: the box (4, 4, 40, 12) of a dog leaves its picture of 32 x 24 pixels"),
        (unknown_class, "two.xml marks a cat, a class that no training picture has: those are dog"),
        (other_size, "one.jpg is 32 x 24 pixels but"),
        (no_picture, "cannot read the picture of"),
        (no_annotation, "two.xml: there is no such file"),
        (no_xml, "is no annotation of Pascal VOC"),
        (unknown_category, "annotation 2 is of category 5, which its categories lack"),
        (no_json, "is no annotation of COCO"),
        (no_val, "should hold one file *val*.json: it holds none"),
        (lambda root: None, "is neither Pascal VOC"),
    ],
)
def test_bad_input_is_refused_in_one_line(make: Callable[[Path], None], said: str, tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(InputError) as refusal:
        read_pictures(tmp_path)
    assert said in str(refusal.value) and "\n" not in str(refusal.value)


def test_an_archive_is_to_be_unpacked(tmp_path: Path) -> None:
    archive = tmp_path / "bccd.zip"
    archive.touch()
    with pytest.raises(InputError, match=r"bccd.zip is no folder: unpack an archive, and give the folder"):
        read_pictures(archive)


def test_boxes_alone_make_no_masks(tmp_path: Path) -> None:
    alone(tmp_path, ("dog", SQUARE, 0))
    splits = read_pictures(tmp_path)
    with pytest.raises(InputError, match="boxes without masks"):
        Pictures(splits.train, splits.classes, masks=True)
