"""Images with several labels, or none: tables of them, what their labels stand for, and what is made of them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from upchirp import constant, plan
from upchirp.data import (
    Augmentation,
    JoinedSource,
    LabelSets,
    Loader,
    RelabelledSource,
    Source,
    SubsetSource,
    TableSource,
    Targets,
    fingerprint,
    multi_hot,
    open_data,
    open_evaluation,
    open_more,
)
from upchirp.data.images.decoding import Picture, PillowPicture
from upchirp.data.labels import unranked, validation_for
from upchirp.data.packing import pack
from upchirp.data.sources.relabelled import with_common_sets
from upchirp.errors import InputError
from upchirp.lightning import CurriculumData
from upchirp.timm import CurriculumLoader

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    for number in range(6):
        Image.new("RGB", (20, 16), (40 * number, 0, 0)).save(root / f"{number}.png")
    return root


@pytest.fixture
def write(images: Path) -> Write:
    def written(text: str, name: str = "list.csv") -> Path:
        path = images / name
        path.write_text(text, encoding="utf-8")
        return path

    return written


def named(source: Source) -> list[str]:
    """The names of each image's classes, as its label says."""
    sets = source.label_sets  # type: ignore[attr-defined]
    labels = [source.load(index)[1] for index in range(len(source))]
    return [
        " ".join(name for name, has in zip(source.classes, sets.rows[label], strict=True) if has) for label in labels
    ]


def opened(path: Path) -> tuple[Source, list[str]]:
    notes: list[str] = []
    return open_evaluation(path, note=notes.append), notes


EXPECTED = ["cat dog", "cat", "", "bird dog"]


@pytest.mark.parametrize(
    "text",
    [
        "path,label\n0.png,cat;dog\n1.png,cat\n2.png,\n3.png,dog; bird\n",
        "0.png,cat|dog\n1.png,cat\n2.png,\n3.png,dog|bird|\n",
        # By blanks or commas where the column is one of lists.
        "image_name,Tags\n0,cat dog\n1,cat\n2,\n3,dog bird\n4,bird\n5,dog\n",
        'path\tlabels\n0.png\tcat, dog\n1.png\tcat\n2.png\t\n3.png\t"dog,bird"\n4.png\tbird\n5.png\tdog\n',
        # All lines have as many semicolons as commas.
        "0.png,cat;dog\n1.png,cat;cat\n2.png,;\n3.png,dog;bird\n",
        "0.png cat;dog\n1.png cat;cat\n2.png ;\n3.png dog;bird\n",
        # A column for each class.
        "id,bird,cat,dog\n0,0,1,1\n1,0,1.0,0\n2,0,,\n3,True,0,1\n",
        # As pandas writes it, with the numbers of the rows.
        ",id,bird,cat,dog\n0,0,0,1,1\n1,1,0,1,0\n2,2,0,0,0\n3,3,1,0,1\n",
    ],
)
def test_lists_of_labels_and_columns_of_classes(write: Write, text: str) -> None:
    source, notes = opened(write(text, "l.txt" if text.startswith("0.png cat;") else "l.csv"))
    assert source.classes == ("bird", "cat", "dog")
    assert named(source)[:4] == EXPECTED
    assert "each class is told by itself" in notes[0] and "\n" not in notes[0]


@pytest.mark.parametrize(
    "text",
    [
        "path,label\n0.png,sea lion\n1.png,lion\n2.png,sea\n",
        # As many words as classes, or more: names.
        "path,labels\n0.png,sea lion\n1.png,house cat\n2.png,dog\n",
        'path,tags\n0.png,"tench, Tinca tinca"\n1.png,"goldfish, Carassius auratus"\n',
        "path,cat,dog\n0.png,1,0\n1.png,0,1\n",
    ],
)
def test_names_of_several_words_and_one_column_each_are_one_label(write: Write, text: str) -> None:
    source, _ = opened(write(text))
    assert getattr(source, "label_sets", None) is None
    assert len({source.load(index)[1] for index in range(len(source))}) == len(source.classes)


def test_splits_share_what_labels_stand_for(write: Write) -> None:
    rows = [
        "path,labels,split",
        "0.png,cat;dog,train",
        "1.png,cat,train",
        "2.png,,train",
        "3.png,dog,val",
        "4.png,,val",
    ]
    train, val = open_data(write("\n".join(rows)), note=lambda line: None)
    assert (named(train), named(val)) == (["cat dog", "cat", ""], ["dog", ""])
    assert train.label_sets is val.label_sets  # type: ignore[attr-defined]
    assert unranked(val) == ["1 of 2 classes have no validation images, and no part in mAP: cat"]
    # A table of training images decides for the one beside it, where each image may have one label.
    write("3.png,dog\n", "val.csv")
    _, val = open_data(write("0.png,cat;dog\n1.png,cat\n", "train.csv"), note=lambda line: None)
    assert named(val) == ["dog"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,a,b,c\n0.png,1,0,0\n1.png,1,1,-1\n", "write 0 or 1 in all of them.*line 3: c is '-1'"),
        ("path,a,a\n0.png,1,0\n", "two columns of one name"),
        ("path,a,b\n0.png,1,1\n1.png,0\n", "line 3: .* lacks its path, label or split"),
        ("path,labels\n0.png,;\n1.png,\n", "one class only .none."),
        ("path,labels\n0.png,cat\n1.png,\n", "line 3: '1.png' lacks its label"),
        ("path,label,split\n0.png,a;b,train\n1.png,a;c,val\n", "line 3: c is no class of the training images"),
    ],
)
def test_bad_tables(write: Write, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        open_data(write(text), note=lambda line: None)
    assert "\n" not in str(caught.value)


def test_a_class_that_no_training_image_has_is_told(write: Write) -> None:
    _, notes = opened(write("path,a,b,c\n0.png,1,1,0\n1.png,0,0,0\n"))
    assert notes[1] == "1 of 3 classes have no training images: c"


def table(images: Path, members: list[tuple[int, ...]], classes: tuple[str, ...] = ("a", "b", "c")) -> TableSource:
    sets = LabelSets.of(sorted(set(members)), len(classes))
    labels = [sorted(set(members)).index(each) for each in members]
    return TableSource(images, [f"{number % 6}.png" for number in range(len(members))], labels, classes, sets)


def test_other_numbers_and_tables_keep_what_images_show(images: Path) -> None:
    one, other = table(images, [(0, 1), (), (2,)]), table(images, [(1,), (0, 1)])
    joined = JoinedSource([one, other])
    assert named(joined) == ["a b", "", "c", "b", "a b"] == [*named(one), *named(other)]
    assert named(SubsetSource(joined, [4, 0])) == ["a b", "a b"]
    assert joined.labels.tolist() == [joined.load(index)[1] for index in range(5)]
    turned, _ = validation_for(table(images, [(0,), (1, 2)], ("c", "b", "a")), one)
    assert (turned.classes, named(turned)) == (("c", "b", "a"), ["b a", "", "c"])
    first, second = with_common_sets([one, other])
    assert fingerprint(first) != fingerprint(one) and named(second) == named(other)
    with pytest.raises(InputError, match="several labels and those of another one each"):
        with_common_sets([one, RelabelledSource(other, range(2), ("a", "b"))])


def test_more_data_of_the_same_classes(write: Write) -> None:
    train, _ = opened(write("0.png,a;b\n1.png,a\n", "first.csv"))
    more = open_more(write("2.png,a;b\n3.png,b\n4.png,\n", "second.csv"), train, note=lambda line: None)
    assert named(JoinedSource([train, more])) == ["a b", "a", "a b", "b", ""]


def test_other_labels_are_other_data(images: Path) -> None:
    one, other = table(images, [(0,), (1, 2)]), table(images, [(0,), (1,)])
    assert one.labels.tolist() == other.labels.tolist()
    assert fingerprint(one) != fingerprint(other)


def test_rare_classes_are_held_out_too(images: Path) -> None:
    from upchirp.data.sources import hold_out

    # Every set differs from nearly all others, and `c` is in a few images only.
    members = [(0,)] * 30 + [(0, 1)] * 30 + [(0, 1, 2), (0, 2), (1, 2), (2,)] * 5
    train, val = hold_out(table(images, members), 0.1)
    sets, labels = val.label_sets, val.labels
    assert sets is not None and len(val) == 8 and sets.counts(labels)[2] == 2
    assert len(train) == 72


def test_numbers_outside_are_refused(images: Path) -> None:
    with pytest.raises(InputError, match="hold"):
        LabelSets.of([(3,)], 3)
    with pytest.raises(InputError, match="give a table"):
        LabelSets([True])
    whole = table(images, [(0,), (1,)], ("a", "b"))
    faulty = RelabelledSource(whole, (0, 5), ("a", "b"), LabelSets.of([(0, 1)], 2))
    with pytest.raises(InputError, match="label 5, and labels must be 0 to 0, as there are 1 sets of classes"):
        validation_for(faulty, faulty)


class Counted:
    """Images whose labels stand for sets, and perhaps names of classes."""

    labels = np.array([0, 1, 1])

    def __init__(self, sets: LabelSets, classes: tuple[str, ...] = ()) -> None:
        self.label_sets, self.classes = sets, classes

    def __len__(self) -> int:
        return 3

    def describe(self, index: int) -> str:
        return f"image {index}"

    def load(self, index: int) -> tuple[Picture, int]:
        return PillowPicture(Image.new("RGB", (8, 8))), int(self.labels[index])


def test_sources_need_no_names_and_as_many_classes_as_their_sets() -> None:
    sets = LabelSets.of([(0,), (0, 1)], 3)
    bare = Counted(sets)
    assert validation_for(bare, bare) == (bare, []) and "1 of 3 classes" in unranked(bare)[0]
    assert validation_for(Counted(sets, ("a", "b", "c")), bare) == (bare, [])
    fewer, _ = validation_for(Counted(sets, ("a", "b", "c")), Counted(LabelSets.of([(0,), (1,)], 2)))
    assert named(fewer) == ["a", "b", "b"]
    with pytest.raises(InputError, match="image 0 names 2 classes, and its `label_sets` have 3: give both the same"):
        validation_for(Counted(sets, ("a", "b")), bare)
    with pytest.raises(InputError, match="of 3 and of 4 classes"):
        with_common_sets([bare, Counted(LabelSets.of([(3,), ()], 4))])


def test_mixed_and_smoothed_shares() -> None:
    sets = LabelSets.of([(0,), (1,), (2,)], 3)
    targets = Targets(torch.tensor([0, 2]), torch.tensor([1, 2]), torch.tensor([0.7, 0.2]), smoothing=0.3)
    # With one class in each set they are those of one label.
    torch.testing.assert_close(multi_hot(targets, sets), targets.dense(3))
    both = LabelSets.of([(0, 1), (1, 2)], 3)
    mixed = Targets(torch.tensor([0]), torch.tensor([1]), torch.tensor([0.75]))
    torch.testing.assert_close(multi_hot(mixed, both), torch.tensor([[0.75, 1.0, 0.25]]))


def test_packed_images_keep_their_labels(write: Write, tmp_path: Path) -> None:
    path = write("path,a,b,split\n0.png,1,1,train\n1.png,0,0,train\n2.png,0,1,train\n3.png,1,0,val\n4.png,0,1,val\n")
    pack(path, tmp_path / "packed", workers=1, note=lambda line: None)
    train, val = open_data(tmp_path / "packed", note=lambda line: None)
    assert sorted(named(train)) == ["", "a b", "b"] and sorted(named(val)) == ["a", "b"]
    # Other labels under the same names are other data.
    path.write_text(path.read_text().replace("2.png,0,1", "2.png,1,0"))
    with pytest.raises(InputError, match="other labels of the train images"):
        pack(path, tmp_path / "packed", workers=1, note=lambda line: None)
    manifest = json.loads((tmp_path / "packed" / "pack.json").read_text())
    assert manifest["label_sets"] == [[], [0], [0, 1], [1]]


def test_trainers_of_others_are_for_one_label(images: Path) -> None:
    source = table(images, [(0, 1), (), (2,), (0,)])
    steps = plan(constant(32), epochs=1, dataset_size=4, batch_size=4)
    loader = Loader(source, steps, workers=0, augmentation=Augmentation(mixup=0.0, cutmix=0.0, smoothing=0.0))
    (batch,) = loader
    _, targets = batch.prepare(loader.transform)
    assert loader.label_sets is not None
    assert multi_hot(targets, loader.label_sets).tolist() == loader.label_sets.rows[batch.labels].tolist()
    for refused in (lambda: CurriculumLoader(loader, epochs=1, classes=3), lambda: CurriculumData(source, None, steps)):
        with pytest.raises(InputError, match="for images with one label each"):
            refused()
