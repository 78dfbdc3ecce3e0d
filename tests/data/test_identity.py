"""Names of classes and fingerprints: the same for the same data wherever they lie, others for others."""

import shutil
import unicodedata
from pathlib import Path

import pytest
import torch
from PIL import Image
from tests.runs import write_folder

from upchirp import InputError, open_data
from upchirp.data import DataIdentity, GeneratedSource, RelabelledSource, as_source, fingerprint, match_classes, split


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "data", train=3, val=2, classes=("café", "dog"))


def identity(root: Path) -> DataIdentity:
    return DataIdentity.of(*open_data(root))


def test_a_copy_elsewhere_is_the_same_data(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = identity(folder)
    assert here.classes == ("café", "dog") and here.train and here.train.images == 6
    shutil.copytree(folder, tmp_path / "copy")
    # A file system of macOS, which gives names with accents taken apart.
    for path in sorted((tmp_path / "copy").rglob("café")):
        path.rename(path.with_name(unicodedata.normalize("NFD", path.name)))
    assert here.check_same(identity(tmp_path / "copy"), "run") == []
    monkeypatch.chdir(tmp_path)
    assert identity(Path("data")) == here
    # Written last, a file comes last where the file system keeps the order of writing.
    moved = tmp_path / "copy/train/dog/000.jpg"
    moved.rename(tmp_path / "aside.jpg").rename(moved)
    assert here.check_same(identity(tmp_path / "copy"), "run") == []
    assert DataIdentity.from_dict(here.to_dict()) == here


def test_other_classes_and_images_are_told(folder: Path) -> None:
    before = identity(folder)
    for inner in ("train", "val"):
        (folder / inner / "dog").rename(folder / inner / "ant")
    with pytest.raises(InputError, match=r"^run was trained on other classes: dog is missing, ant is new: give"):
        before.check_same(identity(folder), "run")
    for inner in ("train", "val"):
        (folder / inner / "ant").rename(folder / inner / "dog")
    (folder / "val/dog/000.jpg").rename(folder / "val/dog/new.jpg")
    assert "the validation images are others than before" in before.check_same(identity(folder), "run")[0]
    (folder / "train/dog/000.jpg").rename(folder / "train/café/new.jpg")
    with pytest.raises(InputError, match="other images: as many, 6, but with other names, labels or contents"):
        before.check_same(identity(folder), "run")
    (folder / "train/café/new.jpg").unlink()
    with pytest.raises(InputError, match="other images: there were 6, now there are 5"):
        before.check_same(identity(folder), "run")
    # Runs of earlier versions say nothing.
    assert DataIdentity().check_same(before, "run") == []


def test_sources_of_every_kind(folder: Path) -> None:
    images = [(Image.new("RGB", (4, 3)), 0), (torch.zeros(3, 3, 4, dtype=torch.uint8), 1)]
    assert fingerprint(as_source(images)) == fingerprint(as_source(images))
    assert fingerprint(as_source(images)) != fingerprint(as_source(images[:1]))
    generated = GeneratedSource("val", size=32, num_images=40, num_classes=4)
    parts = [fingerprint(part) for seed in (0, 1) for part in split(generated, 0.25, seed)]
    assert len({part.sha256 for part in parts}) == 4
    assert [fingerprint(part) for part in split(generated, 0.25, 0)] == parts[:2]
    turned = [RelabelledSource(generated, labels, generated.classes) for labels in ((1, 0, 2, 3), (0, 1, 3, 2))]
    assert len({fingerprint(source).sha256 for source in (generated, *turned)}) == 3


def test_classes_are_matched_by_name() -> None:
    model = ("ant", "bee", "cat", "dog")
    assert match_classes(("dog", "ant"), model) == (3, 0)
    assert match_classes(("ant", "bee"), ("ant", "bee")) == (0, 1)
    # Equal names in equal order leave nothing to ask, even where one stands twice (ImageNet has two cranes).
    assert match_classes(("crane", "crane"), ("crane", "crane")) == (0, 1)
    for data, weights in ((("crane", "owl"), ("owl", "crane", "crane")), (("owl", "owl"), ("ant", "owl"))):
        with pytest.raises(InputError, match=r"two classes of the .* have the name (crane|owl)"):
            match_classes(data, weights)
    with pytest.raises(
        InputError,
        match=r"2 classes of the data are unknown to the weights \(cow, eel\), which know ant, bee, cat, \.\.\. beside",
    ):
        match_classes(("cow", "eel"), model)
