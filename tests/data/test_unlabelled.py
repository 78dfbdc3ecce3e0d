"""Images without labels, from whatever lies in a folder."""

import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from upchirp import InputError
from upchirp.data import UnlabelledSource, open_data, open_unlabelled
from upchirp.data.identity import fingerprint


def put(path: Path, shade: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 10), (shade, 0, 0)).save(path)
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Callable[..., Path]:
    def make(*names: str) -> Path:
        for shade, name in enumerate(names):
            put(tmp_path / "images" / name, shade)
        return tmp_path / "images"

    return make


def opened(root: Path) -> tuple[UnlabelledSource, UnlabelledSource, list[str]]:
    notes: list[str] = []
    train, val = open_unlabelled(root, val_share=0.25, note=notes.append)
    assert {train.load(0)[1], val.load(0)[1]} == {0} and train.classes == val.classes == ()
    return train, val, notes


LAYOUTS = {
    "flat": [f"{k}.png" for k in range(8)],
    "nested": [f"2024/{month}/{k}.png" for month in ("may", "june") for k in range(4)],
    "mixed": [*(f"{k}.png" for k in range(4)), *(f"more/{k}.png" for k in range(4, 8))],
    "one folder": [f"all/{k}.png" for k in range(8)],
    "single images": [f"{k}/only.png" for k in range(8)],
}


@pytest.mark.parametrize("names", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("zipped", [False, True])
def test_all_images_are_taken(names: list[str], zipped: bool, tree: Callable[..., Path], tmp_path: Path) -> None:
    root = tree(*names)
    (root / "notes.md").write_text("no image")
    if zipped:
        with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
            for path in sorted(root.rglob("*.*")):
                archive.write(path, path.relative_to(root))
        root = tmp_path / "images.zip"
    train, val, notes = opened(root)
    assert (len(train), len(val)) == (6, 2)
    seen = {source.load(index)[0].size for source in (train, val) for index in range(len(source))}
    assert seen == {(12, 10)}
    listed = {Path(source.describe(index)).name for source in (train, val) for index in range(len(source))}
    assert listed == {Path(name).name for name in names}
    assert any("2 of 8 images measure the loss" in line for line in notes)
    assert any("1 files" in line or "1 file " in line for line in notes)


def test_splits_are_kept_apart(tree: Callable[..., Path]) -> None:
    train, val, notes = opened(tree("train/0.png", "train/deep/1.png", "val/2.png"))
    assert (len(train), len(val), notes) == (2, 1, [])


def test_classes_validate_as_in_a_training(image_folder: Path, tmp_path: Path) -> None:
    """So that a probe of the weights tests on images that pre-training did not see."""
    root = shutil.copytree(image_folder / "train", tmp_path / "classes")
    _, val, _ = opened(root)
    _, labelled = open_data(root, val_share=0.25, note=lambda line: None)
    described = [[source.describe(index) for index in range(len(source))] for source in (val, labelled)]
    assert described[0] == described[1] and len(val) == 16
    assert [val.whole.load(index)[1] for index in range(16)] == [labelled.load(index)[1] for index in range(16)]


def test_other_images_have_another_fingerprint(tree: Callable[..., Path]) -> None:
    before = fingerprint(opened(tree("0.png", "1.png", "2.png", "3.png"))[0])
    (tree() / "3.png").rename(tree() / "4.png")
    assert fingerprint(opened(tree())[0]) != before


def test_nothing_to_take_is_refused(tree: Callable[..., Path], tmp_path: Path) -> None:
    root = tree("0.png")
    (root / "0.png").rename(root / "0.heic")
    with pytest.raises(InputError, match=r"there is no image in .*: passed over 1 file .*; name a folder that holds"):
        opened(root)
    with pytest.raises(InputError, match="nowhere is missing"):
        opened(tmp_path / "nowhere")


def test_data_sets_need_no_validation_images_and_no_labels(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    encoded = put(tmp_path / "one.png").read_bytes()
    columns = {"image": [{"bytes": encoded}] * 8}
    features = datasets.Features(image=datasets.Image())
    datasets.Dataset.from_dict(columns, features).save_to_disk(str(tmp_path / "saved"))
    train, val, _ = opened(tmp_path / "saved")
    assert (len(train), len(val)) == (6, 2) and train.load(0)[0].size == (12, 10)


def test_shards_need_no_validation_images(image_folder: Path, tmp_path: Path) -> None:

    with tarfile.open(tmp_path / "train-00.tar", "w") as tar:
        for number, path in enumerate(sorted((image_folder / "val").rglob("*.jpg"))):
            (tmp_path / "label").write_text(str(number % 2))
            tar.add(path, f"{number}.jpg")
            tar.add(tmp_path / "label", f"{number}.cls")
    (tmp_path / "label").unlink()
    train, val, _ = opened(tmp_path)
    assert (len(train), len(val)) == (12, 4)
    with pytest.raises(InputError, match="holds shards, in the splits train and val: leave out `train_split`"):
        open_unlabelled(tmp_path, train_split="first")


def test_splits_are_found_as_with_labels_and_their_names_are_obeyed(tree: Callable[..., Path], tmp_path: Path) -> None:
    names = [f"inner/{split}/{k}.png" for split in ("train", "val") for k in range(4)]
    root = tree(*names)
    (root / "README.md").write_text("about it")
    train, val, _ = opened(root)
    assert (len(train), len(val)) == (4, 4)
    for asked in ({"train_split": "trian"}, {"val_split": "vla"}):
        with pytest.raises(InputError, match=r"has no split (trian|vla)"):
            open_unlabelled(root, **asked)
    table = tmp_path / "labels.csv"
    table.write_text("".join(f"images/{name},{k % 2}\n" for k, name in enumerate(names)))
    train, val = open_unlabelled(table, val_share=0.5, note=lambda line: None)
    assert (len(train), len(val)) == (4, 4)


def test_folders_of_few_images_are_no_classes(tree: Callable[..., Path]) -> None:
    root = tree(*(f"patient {k}/{side}.png" for k in range(20) for side in ("left", "right")))
    train, val = open_unlabelled(root, val_share=0.1, note=lambda line: None)
    assert (len(train), len(val)) == (36, 4)
