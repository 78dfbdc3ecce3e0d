"""Labels of two data sets: matched by name, and inside of the classes."""

import unicodedata

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import Subset

from upchirp.data import as_source, split
from upchirp.data.labels import validation_for
from upchirp.errors import InputError

GREY = Image.new("RGB", (5, 4))


class Photos:
    """Samples with these labels, of which only some know their `targets`."""

    def __init__(self, labels, classes=(), *, targets=False):
        self.values, self.classes, self.asked = list(labels), classes, []
        if targets:
            self.targets = self.values

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        self.asked.append(index)
        return GREY, self.values[index]


def matched(train, val):
    source, notes = validation_for(as_source(train), as_source(val))
    return [source.load(index)[1] for index in range(len(source))], notes


def test_classes_are_matched_by_name():
    train = Photos([0, 1, 2, 3], ("ant", "bee", "café", "dog"))
    labels = [0, 1, 2]
    assert matched(train, Photos(labels, ("ant", "café", "dog"))) == (
        [0, 2, 3],
        ["1 of 4 classes have no validation images: bee"],
    )
    assert matched(train, Photos(labels, ("dog", "bee", "ant"))) == (
        [3, 1, 0],
        [
            "1 of 4 classes have no validation images: café",
            "the validation images have their classes in another order: labels are matched by name",
        ],
    )
    taken_apart = tuple(unicodedata.normalize("NFD", name) for name in train.classes)
    assert matched(train, Photos(labels, taken_apart)) == (labels, [])
    # Without names there is nothing to match, and numbers are in order.
    assert matched(train, Photos(labels)) == matched(train, Photos(labels, ("0", "1", "2"))) == (labels, [])
    assert matched(Photos([0]), Photos([9])) == ([9], [])


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (("ant", "cow"), r"1 class\(es\) that the training images lack \(cow\), and lack bee"),
        (("ant", "ant"), "two classes of one name"),
    ],
)
def test_classes_that_cannot_be_matched_are_refused(classes, words):
    with pytest.raises(InputError, match=words):
        matched(Photos([0, 1], ("ant", "bee")), Photos([0, 1], classes))


def test_one_class_is_refused():
    with pytest.raises(InputError, match=r"one class only \(ant\)"):
        matched(Photos([0, 0], ("ant",)), Photos([0], ("ant",)))


FOUR = ("a", "b", "c", "d")


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (4, r"sample 700 of Photos has label 4, and labels must be 0 to 3, as there are 4 classes: count"),
        (-1, r"sample 700 of Photos has label -1, .*: leave out what has no label"),
    ],
)
@pytest.mark.parametrize("side", ["train", "val"])
def test_labels_outside_of_the_classes_are_found_where_they_are_known(label, words, side):
    good, bad = Photos([0, 1], FOUR), Photos(np.arange(1000) % 4, FOUR, targets=True)
    bad.values[700] = bad.targets[700] = label
    with pytest.raises(InputError, match=words):
        matched(*((bad, good) if side == "train" else (good, bad)))
    assert bad.asked == [700], "what a data set says is believed only of the sample that it gives"
    bad.values = [0] * 1000
    assert matched(*((bad, good) if side == "train" else (good, bad)))[1] == []


def test_labels_that_are_not_known_are_sampled():
    bad = Photos([1, 2, 3, 4] * 100)
    with pytest.raises(InputError, match="has label 4"):
        matched(Photos([0, 1], FOUR), bad)
    assert len(bad.asked) <= 16
    # A part of a data set that knows its labels knows its own.
    whole = Photos([0, 1, 2, 9], FOUR, targets=True)
    assert matched(Photos([0, 1], FOUR), Subset(whole, [2, 0]))[0] == [2, 0]
    with pytest.raises(InputError, match="has label 9"):
        matched(Photos([0, 1], FOUR), Subset(whole, [3, 0]))
    part = split(as_source(Photos([0, 1, 2, 3] * 5, FOUR, targets=True)), 0.5, seed=0)[1]
    assert validation_for(part, part) == (part, [])
