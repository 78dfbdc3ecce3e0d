"""The identity of a training's data: names of classes and a fingerprint of the images, wherever they lie."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from upchirp.data.label_sets import label_sets_of
from upchirp.data.sources import JoinedSource, RelabelledSource, Source, SubsetSource, UnlabelledSource
from upchirp.data.sources.listing import normal
from upchirp.errors import InputError, some


@dataclass(frozen=True)
class Fingerprint:
    """What tells the images of one split from others."""

    images: int
    """How many there are."""
    sha256: str
    """Of the labels in their order and, where the source knows them without opening an image, of the images' names
    or lengths."""


@dataclass(frozen=True, kw_only=True)
class DataIdentity:
    """The classes of a data set and the fingerprints of its splits.

    It depends neither on the folder's path nor on the machine: a copy elsewhere is the same data.

    >>> from upchirp.data import GeneratedSource
    >>> train, val = (GeneratedSource(split, num_images=8, num_classes=2) for split in ("train", "val"))
    >>> DataIdentity.of(train, val).classes
    ('disc-stripes', 'disc-checks')
    """

    classes: tuple[str, ...] = ()
    """The names of the classes, label 0 first; empty where they are not known."""
    train: Fingerprint | None = None
    """The images of the training."""
    val: Fingerprint | None = None
    """The images of its evaluations."""

    @classmethod
    def of(cls, train: Source, val: Source) -> "DataIdentity":
        """The identity of a training's data."""
        return cls(classes=tuple(train.classes), train=fingerprint(train), val=fingerprint(val))

    def to_dict(self) -> dict[str, Any]:
        """Plain data, which `from_dict` reads."""
        splits = {"train": self.train, "val": self.val}
        return {"classes": list(self.classes), **{name: vars(split) for name, split in splits.items() if split}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "DataIdentity":
        """Read what `to_dict` gave.

        Raises:
            LookupError, TypeError: something else.
        """
        splits = {name: Fingerprint(**data[name]) for name in ("train", "val") if data.get(name)}
        return cls(classes=tuple(map(str, data["classes"])), **splits)

    def check_same(self, now: "DataIdentity", what: str) -> list[str]:
        """Refuse to go on with other training data; other validation images only get a note.

        Args:
            now: the data that are there now.
            what: goes on, for the message.

        Returns:
            Notes.

        Raises:
            InputError: saying how they differ.
        """
        if self.classes and now.classes and _composed(self.classes) != _composed(now.classes):
            raise InputError(
                f"{what} was trained on other classes: {_class_difference(self.classes, now.classes)}: give the data "
                "that it was started with, or choose another `output`"
            )
        if self.train and now.train and self.train != now.train:
            raise InputError(
                f"{what} was trained on other images: {_image_difference(self.train, now.train)}: give the data that "
                "it was started with, or choose another `output`"
            )
        if self.val and now.val and self.val != now.val:
            return [
                f"the validation images are others than before ({_image_difference(self.val, now.val)}): do not "
                "compare accuracies from before and after"
            ]
        return []


def fingerprint(source: Source) -> Fingerprint:
    """The fingerprint of a source, without opening an image.

    >>> from upchirp.data import GeneratedSource
    >>> one, other = (GeneratedSource("val", num_images=8, num_classes=classes) for classes in (2, 4))
    >>> fingerprint(one) == fingerprint(one), fingerprint(one) == fingerprint(other)
    (True, False)
    """
    digest = hashlib.sha256(str(len(source)).encode())
    for part in _told_by(source):
        digest.update(part)
    return Fingerprint(len(source), digest.hexdigest())


def _told_by(source: Source) -> Iterator[bytes]:
    """What tells a source from others of as many images."""
    match source:
        case JoinedSource():
            yield from (_sha256(part) for part in source.parts)
        case SubsetSource():
            yield from (_sha256(source.whole), source.indices.astype("<i8").tobytes())
        case UnlabelledSource():
            yield _sha256(source.whole)
        case RelabelledSource():
            yield from (_sha256(source.whole), np.asarray(source.new_labels, dtype="<i8").tobytes(), _sets(source))
        case _:
            if (labels := getattr(source, "labels", None)) is not None:
                yield np.asarray(labels).astype("<i8").tobytes()
            yield _sets(source)
            if (content := getattr(source, "fingerprint_bytes", None)) is not None:
                yield content()


def _sha256(source: Source) -> bytes:
    return fingerprint(source).sha256.encode()


def _sets(source: Source) -> bytes:
    return b"" if (sets := label_sets_of(source)) is None else sets.sha256.encode()


def are_numbers(classes: Sequence[str]) -> bool:
    """Whether the classes have only their labels as names: 0, 1, 2, ... in this order.

    >>> are_numbers(("0", "1", "2")), are_numbers(("0", "1", "10", "2")), are_numbers(())
    (True, False, False)
    """
    return bool(classes) and tuple(classes) == tuple(map(str, range(len(classes))))


def match_classes(data: Sequence[str], model: Sequence[str]) -> tuple[int, ...]:
    """Which of a model's classes each class of the data is, by name.

    Args:
        data: names of the data's classes, label 0 first.
        model: names of the model's classes, output 0 first.

    Raises:
        InputError: the model lacks a class of the data, or a name stands twice; it says which.

    >>> match_classes(["dog", "cat"], ["cat", "dog", "owl"])
    (1, 0)
    >>> match_classes(["cat", "cow"], ["cat", "dog", "owl"])
    Traceback (most recent call last):
    ...
    upchirp.errors.InputError: 1 class of the data is unknown to the weights (cow), which know dog, owl beside
    """
    own, theirs = _composed(model), _composed(data)
    if own == theirs:
        return tuple(range(len(own)))
    numbers = {name: number for number, name in enumerate(own)}
    if unknown := [name for name, composed in zip(data, theirs, strict=True) if composed not in numbers]:
        others = [name for name, composed in zip(model, own, strict=True) if composed not in theirs]
        classes = "1 class of the data is" if len(unknown) == 1 else f"{len(unknown)} classes of the data are"
        having = f", which know {some(others)} beside" if others else ""
        raise InputError(f"{classes} unknown to the weights ({some(unknown)}){having}")
    for side, names in (("weights", own), ("data", theirs)):
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise InputError(f"two classes of the {side} have the name {twice}, so names do not tell them apart")
    return tuple(numbers[name] for name in theirs)


def same_classes(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two data sets have the same classes in the same order, as far as their names tell.

    >>> same_classes(["cat", "dog"], ["cat", "dog"]), same_classes(["cat", "dog"], ["dog", "cat"])
    (True, False)
    >>> same_classes(["cat", "dog"], ["0", "1"]), same_classes(["cat", "dog"], [])
    (True, True)
    """
    if not one or not other:
        return True
    if are_numbers(one) or are_numbers(other):
        return len(one) == len(other)
    return _composed(one) == _composed(other)


def _composed(names: Sequence[str]) -> tuple[str, ...]:
    # File systems of macOS give names with accents taken apart; they are the same names.
    return tuple(map(normal, names))


def _class_difference(before: Sequence[str], now: Sequence[str]) -> str:
    old, new = _composed(before), _composed(now)
    gone = [name for name, composed in zip(before, old, strict=True) if composed not in new]
    added = [name for name, composed in zip(now, new, strict=True) if composed not in old]
    parts = [f"{some(gone)} {'is' if len(gone) == 1 else 'are'} missing"] if gone else []
    parts += [f"{some(added)} {'is' if len(added) == 1 else 'are'} new"] if added else []
    return ", ".join(parts) or "they have another order now"


def _image_difference(before: Fingerprint, now: Fingerprint) -> str:
    if before.images != now.images:
        return f"there were {before.images}, now there are {now.images}"
    return f"as many, {now.images}, but with other names, labels or contents"
