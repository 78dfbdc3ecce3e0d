"""Data as people have it: names of splits, one folder of classes, archives, and what else lies about."""

import json
import os
import pickle
import shutil
import stat
import struct
import sys
import tarfile
import unicodedata
import warnings
import zipfile
from concurrent.futures import ProcessPoolExecutor
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from upchirp.data import ArchiveSource, FolderSource, Source, fingerprint, open_data, open_evaluation
from upchirp.data.packing import PackSettings, pack
from upchirp.data.sources import ArchiveFolder, hold_out
from upchirp.errors import InputError


def encoded(seed: int = 0, kind: str = "JPEG") -> bytes:
    buffer = BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def fill(root: Path, *names: str) -> Path:
    for seed, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(seed))
    return root


def opened(data: Path | str, **options: object) -> tuple[Source, Source, list[str]]:
    notes: list[str] = []
    train, val = open_data(data, note=notes.append, **options)  # type: ignore[arg-type]
    return train, val, notes


def names(source: Source, root: Path) -> list[str]:
    return [os.path.relpath(source.describe(index), root) for index in range(len(source))]


def refusal(data: Path) -> str:
    with pytest.raises(InputError) as caught:
        open_data(data, note=lambda message: None)
    assert "\n" not in str(caught.value)
    return str(caught.value)


SPLITS = ("cat/1.jpg", "cat/2.jpg", "dog/1.jpg")


def parted(root: Path, train: str = "train", val: str = "val") -> Path:
    return fill(root, *(f"{split}/{name}" for split in (train, val) for name in SPLITS))


@pytest.mark.parametrize("val", ["val", "valid", "validation", "dev", "test", "Val"])
@pytest.mark.parametrize("train", ["train", "training", "Train"])
def test_splits_under_the_names_that_people_give_them(tmp_path, train, val):
    first, second, notes = opened(parted(tmp_path, train, val))
    assert names(first, tmp_path) == [f"{train}/{name}" for name in SPLITS]
    assert names(second, tmp_path) == [f"{val}/{name}" for name in SPLITS]
    assert notes == ([] if val == "val" else [f"validation images are those of {val}/"])


def test_validation_comes_before_test(tmp_path):
    parted(parted(tmp_path, val="test"), val="valid")
    _, val, notes = opened(tmp_path)
    assert names(val, tmp_path)[0] == "valid/cat/1.jpg"
    assert notes == ["validation images are those of valid/"]


def test_unlabelled_test_images_do_not_validate(tmp_path):
    fill(tmp_path, *(f"train/{name}/{number}.jpg" for name in ("a", "b") for number in range(10)), "test/1.jpg")
    train, val, notes = opened(tmp_path)
    assert (len(train), len(val)) == (18, 2)
    assert "no validation images" in notes[0]


def many(prefix: str = "", counts: tuple[int, ...] = (1, 2, 5, 40)) -> list[str]:
    return [f"{prefix}class{label}/{number}.jpg" for label, count in enumerate(counts) for number in range(count)]


@pytest.mark.parametrize("prefix", ["", "train/"])
def test_of_classes_alone_a_share_validates(tmp_path, prefix):
    root = fill(tmp_path, *many(prefix))
    train, val, notes = opened(root, val_share=0.25)
    assert np.bincount(val.labels).tolist() == [0, 1, 1, 10]
    assert np.bincount(train.labels).tolist() == [1, 1, 4, 30]
    taken = [*names(train, root), *names(val, root)]
    assert sorted(taken) == sorted(many(prefix))
    assert notes == [
        f"{root} has no validation images: 12 of 48 images, 0.25 of each class and always the same ones, validate and "
        "are not trained on (another share by `val_share`)",
        "1 of 4 classes have no validation images: class0",
    ]
    # Wherever the data lie, and whatever is asked for beside.
    moved = shutil.copytree(root, tmp_path.with_name(f"{tmp_path.name}-moved"))
    again = opened(moved, final_size=32, val_share=0.25)[1]
    assert names(again, moved) == names(val, root)
    assert again.classes == train.classes == ("class0", "class1", "class2", "class3")


def test_no_share_is_held_out_where_there_are_validation_images(tmp_path):
    root = fill(tmp_path, *many("train/"), *many("val/"))
    assert opened(root, val_share=0.25)[2] == [f"{root} has validation images: `val_share` is not used"]
    assert opened(root)[2] == []


def test_a_share_needs_two_images_of_a_class(tmp_path):
    assert "leave none to validate" in refusal(fill(tmp_path, "a/1.jpg", "b/1.jpg"))
    with pytest.raises(InputError, match="`val_share` is 1"):
        hold_out(FolderSource(tmp_path), 1.0)


def test_evaluation_takes_all_of_a_folder_of_classes(tmp_path):
    def half(whole):
        assert len(whole) == 8
        return 0.5

    notes: list[str] = []
    root = fill(tmp_path / "one", *many(counts=(4, 4)))
    assert len(open_evaluation(root, note=notes.append)) == 8
    assert "all of its 8 images" in notes[0]
    assert len(open_evaluation(root, val_share=0.5, note=notes.append)) == 4
    split = fill(tmp_path / "two", *many("train/", counts=(4, 4)))
    # What lies in train/ was meant to be trained on.
    assert len(open_evaluation(split, note=notes.append)) == 2
    parted(tmp_path / "three")
    assert names(open_evaluation(tmp_path / "three"), tmp_path / "three")[0] == "val/cat/1.jpg"
    # What a training held out is nothing that was asked for.
    for shares, told in (({"held_out": half}, False), ({"held_out": half, "val_share": 0.1}, True)):
        heard: list[str] = []
        open_evaluation(tmp_path / "three", note=heard.append, **shares)
        assert any("has validation images: `val_share` is not used" in line for line in heard) == told
        assert len(open_evaluation(root, note=heard.append, **shares)) == (2 if told else 4)


def test_training_images_are_evaluated_where_they_are_asked_for(tmp_path):
    root = fill(tmp_path, *many("train/"), *many("val/", (1, 1, 1, 2)))
    with pytest.raises(InputError, match="cannot both train and validate"):
        open_data(root, val_split="train")
    assert len(open_evaluation(root, val_split="train")) == 48
    table = tmp_path.with_suffix(".csv")
    rows = [
        f"{tmp_path}/{name},{name.split('/')[1]},{name.split('/')[0]}" for name in (*many("train/"), "val/class0/0.jpg")
    ]
    table.write_text("\n".join(["path,label,split", *rows]))
    notes: list[str] = []
    assert len(open_evaluation(table, val_split="train", note=notes.append)) == 48
    assert notes == ["left out is what is neither: 1 of val"]


def test_the_only_folder_in_a_folder_is_entered(tmp_path):
    parted(tmp_path / "download" / "pets" / "pets")
    (tmp_path / "download" / "README.md").write_text("hello")
    train, _, notes = opened(tmp_path / "download")
    assert train.describe(0) == str(tmp_path / "download/pets/pets/train/cat/1.jpg")
    assert notes == [f"the images are in {tmp_path / 'download/pets/pets'}"]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["seg_train/a/1.jpg", "seg_test/a/1.jpg"], "seg_test, seg_train: rename the folders"),
        (["pets/train/a/1.jpg", "notes/1.jpg"], "holds pets/train/: give "),
        (["only/1.jpg"], r"one class folder only \(only\)"),
        (["val/a/1.jpg"], r"no train/ in data folder .* \(found val/\)"),
        (["1.jpg", "2.jpg"], "2 images, but no class folders"),
        (["pets.zip"], r"holds archives \(pets.zip\): give one of them"),
        (["a.txt"], r"neither splits nor class folders \(found a.txt\)"),
        (["train/a/1.jpg", "Train/b/1.jpg"], "has Train and train: keep one"),
        (["a/1.jpg", "b/1.txt"], "without images: b; passed over 1 file that Pillow reads no images from: 1 .txt"),
    ],
)
def test_other_layouts_are_told_what_to_do(tmp_path, files, words):
    import re

    message = refusal(fill(tmp_path, *files))
    assert re.search(words, message), message


def test_validation_classes_are_a_part_of_the_training_classes(tmp_path):
    root = fill(tmp_path, *(f"train/{name}/1.jpg" for name in "abcd"), "val/d/1.jpg", "val/b/1.jpg")
    (root / "val" / "c").mkdir()
    train, val, notes = opened(root)
    assert train.classes == val.classes == ("a", "b", "c", "d")
    assert val.labels.tolist() == [1, 3]
    assert [val.load(index)[1] for index in range(2)] == [1, 3]
    assert notes == ["2 of 4 classes have no validation images: a, c"]
    fill(root, "val/e/1.jpg")
    assert "1 class folder(s) that are no class of the training set (e), and has none of a: rename" in refusal(root)


def test_names_in_two_normal_forms_are_one_name(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    assert composed != decomposed
    root = fill(tmp_path, f"train/{composed}/1.jpg", "train/dog/1.jpg", f"val/{decomposed}/1.jpg", "val/dog/1.jpg")
    train, val, notes = opened(root)
    assert train.classes == val.classes == (composed, "dog")
    assert not notes
    assert val.load(0)[0].size == (9, 8)
    fill(root, f"train/{decomposed}/2.jpg")
    assert "two class folders of the same name" in refusal(root)


def test_every_kind_of_image_is_taken_and_the_others_are_counted(tmp_path):
    kinds = {"gif": "GIF", "jfif": "JPEG", "jp2": "JPEG2000", "mpo": "MPO", "jpe": "JPEG", "PNG": "PNG", "tga": "TGA"}
    for suffix, kind in kinds.items():
        fill(tmp_path, f"a/1.{suffix}")
        (tmp_path / "a" / f"1.{suffix}").write_bytes(encoded(kind=kind))
    fill(tmp_path, "a/1.HEIC", "a/2.heic", "a/clip.mp4", "a/clip.mpg", "a/logo.eps", "a/notes", "b/1.jpg", "b/2.jpg")
    fill(tmp_path, "a/@eaDir/1.jpg", "b/__MACOSX/1.jpg", "b/._1.jpg", "b/Thumbs.db", "@eaDir/c/1.jpg", "b/.x/1.jpg")
    train, val, notes = opened(tmp_path)
    assert len(train) + len(val) == len(kinds) + 2
    assert all(source.load(index)[0].whole().size == (9, 8) for source in (train, val) for index in range(len(source)))
    assert notes[0] == (
        "passed over 6 files that Pillow reads no images from: 2 .heic, 1 without a suffix, 1 .eps, 1 .mp4, 1 .mpg"
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        open_data(tmp_path)
    assert len(caught) == len(notes) == 2
    assert {warning.filename for warning in caught} == {__file__}


def test_what_two_links_lead_to_is_counted_once(tmp_path):
    root = fill(tmp_path / "data", "train/cat/1.jpg", "train/cat/more/2.jpg", "train/dog/1.jpg")
    fill(tmp_path / "else", "birds/1.jpg", "birds/sub/2.jpg", "fish/1.jpg")
    train = root / "train"
    before = names(FolderSource(train), train)
    for link, target in {
        "cat/up": "..", "cat/itself": ".", "cat/again": "more", "dog/of-cat": "../cat", "dog/nowhere": "gone",
    }.items():  # fmt: skip
        (train / link).symlink_to(target, target_is_directory=True)
    # Links that lead to images of their own are followed, for classes and inside them.
    (train / "bird").symlink_to(tmp_path / "else" / "birds")
    (tmp_path / "else" / "birds" / "up").symlink_to("..")
    (train / "cat" / "single.jpg").symlink_to("1.jpg")
    source = FolderSource(train)
    found = names(source, train)
    assert found == ["bird/1.jpg", "bird/sub/2.jpg", "cat/1.jpg", "cat/single.jpg", *before[1:]]
    assert len(source.passed_over.links) == 5
    assert "passed over 5 linked folder(s)" in source.passed_over.notes()[-1]
    (train / "kitty").symlink_to("cat")
    with pytest.raises(InputError, match=r"without images: kitty; .*linked folder"):
        FolderSource(train)


def zipped(source: Path, path: Path, *, top: str = "", method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for file in sorted(source.rglob("*"), reverse=True):
            archive.write(file, top + str(file.relative_to(source)))
    return path


@pytest.mark.parametrize("form", ["stored", "deflated", "one folder inside", "tar"])
def test_an_archive_reads_as_the_folder_it_holds(tmp_path, form):
    root = fill(tmp_path / "pets", *many("train/", (3, 2)), *many("test/", (1, 1)), "train/class0/sub-2/x.png")
    fill(root, "train/class0/sub/y.jpg", "train/class0/notes.txt")
    path = tmp_path / "pets.zip"
    if form == "tar":
        path = tmp_path / "pets.tar"
        with tarfile.open(path, "w") as archive:
            archive.add(root, ".")
    else:
        zipped(
            root,
            path,
            top="pets-1.0/" if form.startswith("one") else "",
            method=zipfile.ZIP_DEFLATED if form == "deflated" else zipfile.ZIP_STORED,
        )
    train, val, notes = opened(path)
    plain = opened(root)
    inner = path / "pets-1.0" if form.startswith("one") else path
    for source, reference in zip((train, val), plain[:2], strict=True):
        assert isinstance(source, ArchiveSource)
        assert names(source, inner) == names(reference, root)
        assert source.classes == reference.classes
        copy = pickle.loads(pickle.dumps(source))
        for index in range(len(source)):
            assert copy.encoded(index) == source.encoded(index) == reference.encoded(index)  # type: ignore[attr-defined]
        with pytest.raises(IndexError):
            source.load(len(source))
    assert notes == plain[2]


def loaded(source: Source) -> list[bytes]:
    return [source.encoded(index)[0] for index in range(len(source))]  # type: ignore[attr-defined]


def test_processes_share_an_open_archive(tmp_path):
    root = fill(tmp_path / "pets", *many(counts=(20, 20)))
    source = ArchiveSource(ArchiveFolder(zipped(root, tmp_path / "pets.zip")))
    expected = loaded(source)
    with ProcessPoolExecutor(3, get_context("fork" if sys.platform == "linux" else "spawn")) as pool:
        assert list(pool.map(loaded, [source] * 6)) == [expected] * 6


def test_a_zip_can_write_nowhere_and_fill_no_memory(tmp_path):
    path = tmp_path / "in" / "bad.zip"
    path.parent.mkdir()
    link = zipfile.ZipInfo("a/link.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("../../evil.jpg", "/etc/evil.jpg", "__MACOSX/a/._1.jpg", "b\\2.jpg", "a/1.jpg", "b/1.jpg"):
            archive.writestr(name, encoded())
        archive.writestr(link, "/etc/passwd")
        archive.writestr("b/bomb.png", bytes(50_000_000))
    before = sorted(tmp_path.rglob("*"))
    source = ArchiveSource(ArchiveFolder(path), ("a", "b", "etc"))
    assert names(source, path) == ["a/1.jpg", "b/1.jpg", "b/2.jpg", "b/bomb.png", "etc/evil.jpg"]
    with pytest.raises(OSError, match="no image of a kind"):
        source.load(3)
    assert sorted(tmp_path.rglob("*")) == before
    # A directory that says less than there is, and one that says more than any image has.
    for told, words in ((1000, "CRC-32"), (2**31, "claims to have 2,147,483,648 bytes")):
        lying = source._members.copy()
        lying["size"][3] = told
        source._members = lying
        with pytest.raises(OSError, match=words):
            source.load(3)


def test_a_damaged_archive_is_named(tmp_path):
    root = fill(tmp_path / "pets", *many(counts=(2, 2)))
    whole = zipped(root, tmp_path / "pets.zip").read_bytes()
    path = tmp_path / "bad.zip"
    path.write_bytes(whole[: len(whole) // 2])
    assert "is no zip and no plain tar archive, or it is cut off" in refusal(path)
    for offset, words in ((struct.calcsize("<30x") + 200, "CRC-32"), (0, "its directory leads to no file")):
        data = bytearray(whole)
        with zipfile.ZipFile(tmp_path / "pets.zip") as archive:
            data[archive.getinfo("class0/1.jpg").header_offset + offset] ^= 0xFF
        path.write_bytes(data)
        source = ArchiveSource(ArchiveFolder(path))
        with pytest.raises(OSError, match=words):
            source.load(1)
    encrypted = bytearray(whole)
    encrypted[encrypted.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(encrypted)
    assert "is encrypted" in refusal(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a/1.jpg", encoded())
    assert "a method other than deflate" in refusal(path)
    for name in ("pets.tar.gz", "pets.7z"):
        (tmp_path / name).write_bytes(b"x")
        assert "unpack it" in refusal(tmp_path / name)


def test_names_that_macos_zips(tmp_path):
    path = tmp_path / "mac.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("café/1.jpg", "dog/1.jpg"):
            archive.writestr(name, encoded())
    data = path.read_bytes()
    # UTF-8 without saying so: bit 11 of the flags, in the directory.
    for position in [i for i in range(len(data)) if data.startswith(b"PK\x01\x02", i)]:
        data = data[: position + 9] + bytes([data[position + 9] & ~0x08]) + data[position + 10 :]
    path.write_bytes(data)
    assert ArchiveSource(ArchiveFolder(path)).classes == ("café", "dog")


def test_archives_and_parts_are_packed_with_their_own_bytes(tmp_path):
    root = fill(tmp_path / "pets", *many(counts=(6, 5)))
    path = zipped(root, tmp_path / "pets.zip")
    notes: list[str] = []
    pack(path, tmp_path / "packed", PackSettings(sizes=()), val_share=0.4, workers=1, note=notes.append)
    assert "4 of 11 images" in notes[0]
    packed, held = open_data(tmp_path / "packed")
    train, val, _ = opened(root, val_share=0.4)
    for source, reference in ((packed, train), (held, val)):
        files = sorted(reference.whole.encoded(reference.place(index)) for index in range(len(reference)))  # type: ignore[attr-defined]
        assert sorted(source.encoded(index) for index in range(len(source))) == files  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="train images, the data have"):
        pack(path, tmp_path / "packed", PackSettings(sizes=()), val_share=0.2, workers=1, note=notes.append)
    assert json.loads((tmp_path / "packed" / "pack.json").read_text())["classes"] == ["class0", "class1"]


def test_an_archive_beside_what_it_was_unpacked_from(tmp_path):
    root = parted(tmp_path / "pets")
    for name in ("pets.tgz", "pets.tar", "pets.zip"):
        (tmp_path / name).write_bytes(b"")
    train, _, _ = opened(tmp_path)
    assert train.describe(0) == str(root / "train/cat/1.jpg")


def test_a_zip_is_the_same_data_as_its_folder(tmp_path):
    root = fill(tmp_path / "pets", *many(counts=(3, 3)))
    folder, archive = (fingerprint(opened(data)[0]) for data in (root, zipped(root, tmp_path / "pets.zip")))
    assert folder == archive


def test_splits_by_names_of_ones_own(tmp_path):
    parted(tmp_path, "Fit", "holdout")
    train, val = open_data(tmp_path, train_split="fit", val_split="holdout")
    assert (names(train, tmp_path)[0], names(val, tmp_path)[0]) == ("Fit/cat/1.jpg", "holdout/cat/1.jpg")
    (parted(tmp_path / "b")).rename(tmp_path / "c")
    train, val = open_data(tmp_path / "c", train_split="val", val_split="train")
    assert names(val, tmp_path / "c")[0] == "train/cat/1.jpg"
    with pytest.raises(InputError, match=r"has no split dev \(found train/, val/\)"):
        open_data(tmp_path / "c", val_split="dev")
    with pytest.raises(InputError, match="leave out `train_split` and `val_split`"):
        open_data("generated", val_split="dev")
