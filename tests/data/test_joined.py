"""Several roots of the same classes as one data set."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tests.runs import Make, differing, interrupted, write_folder

from upchirp import InputError, train
from upchirp.data import JoinedSource, open_data, open_more
from upchirp.data.identity import fingerprint
from upchirp.data.labels import check_labels
from upchirp.data.sources import GeneratedSource, MapStyleSource
from upchirp.training import Event, Working
from upchirp.training.assets.data import SCANNING, open_named_data
from upchirp.training.folders.run_folder import read_data


def test_images_come_one_source_after_the_other() -> None:
    parts = [GeneratedSource("train", num_images=count, num_classes=2) for count in (4, 2, 3)]
    joined = JoinedSource(parts)
    each = [(part, index) for part in parts for index in range(len(part))]
    assert len(joined) == 9
    for index, (part, inner) in enumerate(each):
        assert joined.describe(index) == part.describe(inner)
        assert joined.load(index)[1] == part.load(inner)[1] == joined.labels[index]
    for index in (-1, 9):
        with pytest.raises(IndexError):
            joined.load(index)
    check_labels(joined)
    assert fingerprint(joined) != fingerprint(JoinedSource(parts[::-1]))
    assert not hasattr(JoinedSource([*parts, MapStyleSource([(None, 0)])]), "labels")


def test_a_run_trains_on_all_roots_and_goes_on(config: Make, image_folder: Path, tmp_path: Path) -> None:
    more = write_folder(tmp_path / "more", train=5, val=2) / "train"
    run = config(more_data=[str(more)], epochs=1, batch_size=16)
    seen: list[Event] = []
    assert len(train(run, observers=[seen.append]).plan.stages) == 3
    assert [event.done for event in seen if isinstance(event, Working) and event.what == SCANNING].count(None) == 1
    assert run.output is not None
    data = read_data(run.output)
    assert data.train is not None and data.train.images == 64 + 10
    # Validation stays that of `data`.
    assert data.val is not None and data.val.images == 16
    again = replace(run, output=tmp_path / "again")
    train(interrupted(again, 2))
    assert not differing(run.output, again.output)


def test_other_classes_are_refused(image_folder: Path, tmp_path: Path, config: Make) -> None:
    other = write_folder(tmp_path / "other", train=2, val=1, classes=("cat", "cow"))
    with pytest.raises(InputError, match=r"other has 2 classes \(cat, cow\), which are not the 2 .* \(cat, dog\)"):
        open_more(other, open_data(image_folder)[0])
    with pytest.raises(InputError, match="gone is missing"):
        train(config(more_data=[str(tmp_path / "gone")]))
    with pytest.raises(InputError, match="`more_data` is for labelled images"):
        train(config(regime="pretrain", model_kwargs={}, more_data=[str(other)]))


def test_images_that_validate_are_not_trained_on_by_further_data(config: Make, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "root", train=20, val=4)
    (tmp_path / "way").symlink_to(root / "val")
    for data, more in ((root, tmp_path / "way"), (root / "train", root / "train")):
        with pytest.raises(InputError, match=r"\d of the \d validation .* training images of `more_data` .*, too"):
            train(config(data=str(data), more_data=[str(more)]))
    # A copy of some is told; other images of the same names are not.
    lines: list[str] = []
    other = write_folder(tmp_path / "other", train=20, val=4)
    for name in ("cat/000.jpg", "dog/001.jpg"):
        (other / "train" / name).write_bytes((root / "val" / name).read_bytes())
    start = config(data=str(root), more_data=[str(other)])
    open_named_data(start, lines.append)
    assert ["2 or more of the 8 validation images have a copy" in line for line in lines] == [True]
    pack = shutil.make_archive(str(tmp_path / "packed"), "zip", root / "val")
    with pytest.raises(InputError, match="2 of the 2 validation images"):
        open_named_data(replace(start, data=pack, more_data=(pack,), val_share=0.2), lines.append)
