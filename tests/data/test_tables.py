"""Tables of paths and labels, as public data sets and competitions come."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from upchirp.data import Source, fingerprint, open_data, open_evaluation, open_more
from upchirp.errors import InputError

IMAGES = ("cat/1.png", "cat/2.png", "dog 3.png", "4.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for shade, name in enumerate(IMAGES):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (5, 4), (shade, 0, 0)).save(path)
    return tmp_path


def write(folder: Path, text: str, name: str = "labels.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def listed(source: Source) -> list[tuple[str, str]]:
    """Name and class of each image, as its pixels and label tell."""
    loaded = [source.load(index) for index in range(len(source))]
    return [(IMAGES[np.asarray(image.whole())[0, 0, 0]], source.classes[label]) for image, label in loaded]


ALL = [("cat/1.png", "cat"), ("cat/2.png", "cat"), ("dog 3.png", "dog"), ("4.png", "dog")]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.csv", "images/cat/1.png,cat\nimages/cat/2.png,cat\nimages/dog 3.png,dog\nimages/4.png,dog\n"),
        # One folder down, without suffix, with columns that nobody needs, a byte order mark and blank lines.
        ("train.csv", "\ufeffwidth,Image ID,Breed\n5,cat/1,cat\n5,cat/2,cat\n\n5,dog 3,dog\n5,4,dog\n"),
        ("l.tsv", "file_name\tclass\ncat/1.png\tcat\ncat/2.png\tcat\ndog 3.png\tdog\n4.png\tdog\n"),
        ("l.txt", "cat/1.png cat\ncat/2.png cat\ndog 3.png dog\n4.png dog\n"),
        ("l.csv", 'path;label\n"cat/1.png";cat\ncat/2.png;cat\n"dog 3.png";dog\n4.png;dog\n'),
    ],
)
def test_tables_as_people_have_them(folder: Path, name: str, text: str) -> None:
    source = open_evaluation(write(folder, text, name), note=lambda line: None)
    assert source.classes == ("cat", "dog")
    assert listed(source) == ALL
    assert listed(pickle.loads(pickle.dumps(source))) == ALL


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("file,artist", "are those in its column artist: 2 classes"),
        ("artist,file", "are those in its column artist: 2 classes"),
        ("file,Class Name", ""),
        ("file,categories", ""),
    ],
)
def test_a_column_that_is_taken_for_labels_unasked_is_told(folder: Path, header: str, told: str) -> None:
    rows = [f"{name},{label}" if header.startswith("file") else f"{label},{name}" for name, label in ALL]
    path, notes = write(folder, "\n".join([header, *rows])), list[str]()
    assert listed(open_evaluation(path, note=notes.append)) == ALL
    assert [line for line in notes if "its column" in line] == ([f"the labels of {path} {told}"] if told else [])


def test_a_column_that_is_asked_for(folder: Path, tmp_path: Path) -> None:
    rows = ["Place,file,label,Split", "a b,cat/1.png,cat,train", "c,cat/2.png,cat,train", "c,4.png,dog,val"]
    notes: list[str] = []
    path = write(folder, "\n".join(rows))
    train, val = open_data(path, label_column="place", note=notes.append)
    assert (listed(train), listed(val)) == ([("cat/1.png", "a b"), ("cat/2.png", "c")], [("4.png", "c")])
    assert notes == ["1 of 2 classes have no validation images: a b"]
    assert listed(open_evaluation(path, label_column="Place", note=notes.append)) == [("4.png", "c")]
    more = open_more(path, train, label_column="Place", note=notes.append)
    assert listed(more) == listed(train)
    for asked, message in (
        ("site", "no column site of labels, only Place, file"),
        ("file", "no column file of labels"),
    ):
        with pytest.raises(InputError, match=message):
            open_data(path, label_column=asked)
    with pytest.raises(InputError, match="no header to find the column Place in"):
        open_data(write(folder, "cat/1.png,cat\n4.png,dog\n"), label_column="Place")
    for other in (folder, "generated"):
        with pytest.raises(InputError, match="has no columns, and so no column Place: leave out `label_column`"):
            open_data(other, label_column="Place")


def test_a_column_of_splits(folder: Path) -> None:
    rows = ["path,label,split", "cat/1.png,cat,train", "cat/2.png,cat,Val", "dog 3.png,dog,train", "4.png,dog,test"]
    notes: list[str] = []
    train, val = open_data(write(folder, "\n".join(rows)), note=notes.append)
    assert (listed(train), listed(val)) == ([ALL[0], ALL[2]], [ALL[1]])
    assert notes == ["left out is what is neither: 1 of test", "1 of 2 classes have no validation images: dog"]
    assert fingerprint(train) != fingerprint(val)


def test_splits_by_other_names(folder: Path) -> None:
    rows = ["path,label,split", "cat/1.png,cat,fold 1", "cat/2.png,cat,fold 2", "dog 3.png,dog,fold 1"]
    path = write(folder, "\n".join(rows))
    with pytest.warns(UserWarning, match="1 of 2 classes have no validation images: dog"):
        train, val = open_data(path, train_split="fold 1", val_split="Fold 2")
    assert (listed(train), listed(val)) == ([ALL[0], ALL[2]], [ALL[1]])
    with pytest.raises(InputError, match="no images of the split fold 3, only of fold 1, fold 2"):
        open_data(path, train_split="fold 1", val_split="fold 3")


def test_without_splits_a_share_validates(folder: Path) -> None:
    path = write(folder, "\n".join(f"{name},{label}" for name, label in ALL))
    train, val = open_data(path, val_share=0.5, note=lambda line: None)
    assert sorted(listed(train) + listed(val)) == sorted(ALL)
    assert {label for _, label in listed(val)} == {"cat", "dog"}


def test_a_table_beside_the_training_images_table(folder: Path) -> None:
    write(folder, "4.png,dog\n", "val.csv")
    train, val = open_data(write(folder, "cat/1.png,cat\ndog 3.png,dog\n", "train.csv"), note=lambda line: None)
    assert (len(train), listed(val)) == (2, [ALL[3]])


def test_absolute_paths_and_what_looks_like_something_else(folder: Path) -> None:
    images = folder / "images"
    text = f'"{images / "4.png"}";"dog, big"\n"images/cat/1.png";image\n'
    source = open_evaluation(write(folder, text), note=lambda line: None)
    # A class may be called as a column is, and a label may hold another mark.
    assert listed(source) == [("4.png", "dog, big"), ("cat/1.png", "image")]
    text = "cat/1.png,image\n4.png,file\n"
    assert open_evaluation(write(folder, text), note=lambda line: None).classes == ("file", "image")
    # What is no number has no place among numbers.
    text = "cat/1.png,10\ncat/2.png,nan\n4.png,9\n"
    assert open_evaluation(write(folder, text), note=lambda line: None).classes == ("10", "9", "nan")


def test_names_of_splits_need_splits(folder: Path) -> None:
    plain = write(folder, "\n".join(f"{name},{label}" for name, label in ALL))
    with pytest.raises(InputError, match="no column of splits to find dev in"):
        open_data(plain, val_split="dev")
    parted = write(folder, "path,label,split\ncat/1.png,cat,train\n4.png,dog,train\n")
    with pytest.raises(InputError, match="cannot both train and validate"):
        open_data(parted, val_split="train")


def test_numbers_for_classes_are_sorted_by_value(folder: Path) -> None:
    path = write(folder, "cat/1.png 10\ncat/2.png 9\n", "l.txt")
    source = open_evaluation(path, note=lambda line: None)
    assert source.classes == ("9", "10")
    assert [source.load(index)[1] for index in range(2)] == [1, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("path,label\n", "a header and no images"),
        ("cat/1.png,cat\ncat/2.png\n", "line 2"),
        ("cat/1.png,cat\ncat/9.png,dog\n", "line 2: there is no image"),
        ("9.png,cat\n4.png,dog\n", "line 1: there is no image 9.png"),
        ("cat/1.png,cat\ncat/2.png,cat\n", "one class only"),
        ("path,a,b\ncat/1.png,cat,dog\n", "name that of the classes by `label_column`"),
        ("path,label,split\ncat/1.png,cat,train\n4.png,dog,fold1\n", "line 3: unknown split 'fold1'"),
        ("path,label,split\ncat/1.png,cat,train\ncat/2.png,dog,train\n4.png,bird,val\n", "line 4: bird is no class"),
        ("path,label,split\ncat/1.png,cat,val\n", "no images of the split train"),
        (f"{'a' * 200_000},cat\n4.png,dog\n", "field larger than"),
        (f"{'a' * 300}.png,cat\n4.png,dog\n", "line 1: there is no image"),
    ],
)
def test_bad_tables_are_told_by_their_line(folder: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        open_data(write(folder, text), note=lambda line: None)
    assert "\n" not in str(caught.value) and "labels.csv" in str(caught.value)


def test_bytes_that_are_no_text_and_a_folder_with_a_table(folder: Path) -> None:
    (folder / "l.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot read the table"):
        open_data(folder / "l.csv")
    with pytest.raises(InputError, match=r"holds tables \(l\.csv\)"):
        open_data(folder)
