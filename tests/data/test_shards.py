"""Tar shards: images are found where they lie, whoever wrote the shards, and nothing else is read."""

import io
import json
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from upchirp import InputError, Loader, TrainConfig, efficienttrain_plus_plus, plan, train
from upchirp.data import Augmentation, FolderSource, ShardSource, open_data
from upchirp.data.images.augmentation import TrainTransform
from upchirp.data.images.pyramid import choose_level, scale_box
from upchirp.data.packing import PackSettings, pack
from upchirp.data.requests import Request
from upchirp.data.sources import shards
from upchirp.data.tars.index import Level, index_path, load_index, load_names
from upchirp.data.tars.scan import scan
from upchirp.data.workers.requested import Requested

SETTINGS = PackSettings(sizes=(12, 24), shard_size=10)


def smooth(path: Path, size: tuple[int, int], seed: int = 0, **options: object) -> Path:
    """A photograph-like image whose smaller versions look like it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path, **options)
    return path


def jpeg(size: tuple[int, int] = (40, 30), colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "JPEG")
    return buffer.getvalue()


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def unheard(note: str) -> None:
    """Take a note that is not what a test is about: of classes without validation images, most of all."""


def foreign(root: Path, **train: bytes) -> Path:
    """Two folders of shards; `train` has members of its own, named `a__jpg` for `a.jpg`."""
    members = {name.replace("__", "."): data for name, data in train.items()}
    write_tar(root / "train" / "0.tar", members or {"a.jpg": jpeg(), "a.cls": b"1"})
    write_tar(root / "val" / "0.tar", {"v.jpg": jpeg(), "v.cls": b"0"})
    return root


@pytest.fixture(scope="module")
def packed(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("packed") / "out"
    pack(image_folder, root, SETTINGS, workers=2)
    return root


@pytest.fixture
def pyramid(tmp_path: Path) -> ShardSource:
    """One class of smooth images, 600 x 400, at 128 and 192 pixels too."""
    for split in ("train", "val"):
        for number in range(3):
            smooth(tmp_path / "in" / split / "a" / f"{number}.jpg", (600, 400), number, quality=98)
    pack(tmp_path / "in", tmp_path / "out", PackSettings(sizes=(128, 192)), workers=1)
    source, _ = open_data(tmp_path / "out", 224)
    assert isinstance(source, ShardSource)
    return source


def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Offset and length of all that is read from shards from now on."""
    seen: list[tuple[int, int]] = []
    original = os.pread

    def watched(descriptor: int, length: int, offset: int) -> bytes:
        seen.append((offset, length))
        return original(descriptor, length, offset)

    monkeypatch.setattr(os, "pread", watched)
    return seen


@pytest.mark.parametrize(
    ("box", "least", "level"),
    [
        ((0, 0, 600, 400), 128, 1),
        ((0, 0, 600, 400), 129, 2),
        ((0, 0, 400, 400), 192, 2),
        ((0, 0, 600, 400), 193, 0),
        # The narrow side decides.
        ((0, 0, 600, 200), 96, 2),
        ((0, 0, 100, 400), 96, 0),
    ],
)
def test_a_region_reads_the_smallest_version_that_will_do_and_nothing_else(
    pyramid: ShardSource, monkeypatch: pytest.MonkeyPatch, box: tuple[int, int, int, int], least: int, level: int
) -> None:
    seen = reads(monkeypatch)
    picture, _ = pyramid.load(1)
    assert picture.size == (600, 400)
    assert seen == []
    pixels = picture.region(box, least)
    stored = pyramid.levels(1)[level]
    assert seen == [(stored.offset, stored.length)]
    assert min(pixels.shape[:2]) >= least
    # The same part of the image as the original has there.
    reference = picture.whole().crop(box).resize(pixels.shape[1::-1], Image.Resampling.LANCZOS)
    assert np.abs(np.asarray(reference, dtype=float) - pixels).mean() < 4


def test_a_whole_image_is_the_original(pyramid: ShardSource, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = reads(monkeypatch)
    assert pyramid.load(0)[0].whole().size == (600, 400)
    assert seen == [tuple(pyramid.levels(0)[0][:2])]


def test_levels_of_no_bytes_are_never_chosen() -> None:
    levels = [Level(0, 900, 500, 400), Level(0, 0, 0, 0), Level(0, 300, 250, 200)]
    assert choose_level(levels, (0, 0, 500, 400), 1) == 2
    assert choose_level(levels, (0, 0, 500, 400), 201) == 0


def test_scaled_boxes_are_never_empty_and_stay_inside() -> None:
    original, level = Level(0, 1, 500, 375), Level(0, 1, 171, 128)
    rng = np.random.default_rng(0)
    for _ in range(500):
        (left, right), (top, bottom) = (np.sort(rng.choice(side + 1, 2, replace=False)) for side in (500, 375))
        x0, y0, x1, y1 = scale_box((int(left), int(top), int(right), int(bottom)), original, level)
        assert 0 <= x0 < x1 <= 171
        assert 0 <= y0 < y1 <= 128
        assert abs(x0 - left * 171 / 500) <= 1
        assert abs(y1 - bottom * 128 / 375) <= 1


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(packed: Path, workers: int) -> None:
    source, _ = open_data(packed, 32)
    run = plan(efficienttrain_plus_plus(32, multiple=4), epochs=2, batch_size=8, dataset_size=len(source))
    alone, shared = (list(Loader(source, run, workers=count, seed=5)) for count in (0, workers))
    assert len(alone) == len(shared) == run.total_steps
    for one, other in zip(alone, shared, strict=True):
        assert one.images.equal(other.images)
        assert one.labels.equal(other.labels)
        assert not one.corrupt


def test_a_source_survives_pickling_without_open_files(packed: Path) -> None:
    source, _ = open_data(packed, 32)
    expected = source.load(3)[0].whole()
    copy = pickle.loads(pickle.dumps(source))
    assert np.array_equal(copy.load(3)[0].whole(), expected)
    assert copy.describe(3) == source.describe(3)
    with pytest.raises(IndexError):
        copy.load(len(copy))
    with pytest.raises(IndexError):
        copy.load(-1)


def test_open_files_are_bounded_and_closed(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_OPEN_FILES", 2)
    before = open_files()
    source, _ = open_data(packed, 32)
    for index in range(len(source)):
        source.load(index)[0].whole()
    assert open_files() <= before + 2
    del source
    assert open_files() == before


def test_damage_is_reported_with_shard_and_member(pyramid: ShardSource, tmp_path: Path) -> None:
    shard = tmp_path / "out/train/000000.tar"
    level = pyramid.levels(0)[1]
    with shard.open("r+b") as stream:
        stream.seek(level.offset)
        stream.write(bytes(level.length))
    with pytest.raises(OSError, match=r"train/000000\.tar: 00000000\d\.128\.jpg: "):
        pyramid.load(0)[0].region((0, 0, 600, 400), 96)
    # The other versions are whole.
    pyramid.load(0)[0].region((0, 0, 600, 400), 192)
    os.truncate(shard, pyramid.levels(0)[2].offset + 10)
    with pytest.raises(OSError, match=r"00000000\d\.192\.jpg: the shard is cut off: 10 of"):
        pyramid.load(0)[0].region((0, 0, 600, 400), 192)


def test_a_flipped_byte_that_decodes_is_noticed(pyramid: ShardSource, tmp_path: Path) -> None:
    level = pyramid.levels(0)[1]
    with (tmp_path / "out/train/000000.tar").open("r+b") as stream:
        stream.seek(level.offset + level.length * 3 // 4)
        byte = stream.read(1)[0]
        stream.seek(level.offset + level.length * 3 // 4)
        stream.write(bytes([byte ^ 4]))
        stream.seek(level.offset)
        Image.open(io.BytesIO(stream.read(level.length))).load()
    with pytest.raises(OSError, match=r"00000000\d\.128\.jpg: it is damaged: the CRC-32 of its \d+ bytes"):
        pyramid.load(0)[0].region((0, 0, 600, 400), 96)
    # Replaced by another image, and noted.
    requested = Requested(pyramid, TrainTransform(Augmentation(scale=(1, 1), ratio=(1.5, 1.5)), 96))
    _, _, corrupt = requested.__getitems__([Request(0, 96, 0.0, seed=1)])
    assert "CRC-32" in corrupt[0].reason


def test_shards_of_an_older_format_are_packed_again(
    image_folder: Path, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("upchirp.data.tars.index.FORMAT", 1)
        pack(image_folder, tmp_path / "out", SETTINGS, workers=1)
    with pytest.raises(InputError, match="was made by an older upchirp: run the same `upchirp pack` command again"):
        open_data(tmp_path / "out", 32)
    assert pack(image_folder, tmp_path / "out", SETTINGS, workers=1).found == 0
    open_data(tmp_path / "out", 32)


def test_shards_of_webdataset(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    for split, count in (("train", 4), ("val", 2)):
        with webdataset.TarWriter(str(tmp_path / f"set-{split}-000.tar")) as sink:
            for number in range(count):
                sink.write({"__key__": f"some/folder/{number:04d}", "jpg": jpeg((40 + number, 30)), "cls": number % 2})
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    train_source, val = open_data(tmp_path, 32)
    assert isinstance(train_source, ShardSource)
    assert train_source.classes == val.classes == ("cat", "dog")
    loaded = [train_source.load(index) for index in range(4)]
    assert [(picture.size[0], label) for picture, label in loaded] == [(40, 0), (41, 1), (42, 0), (43, 1)]
    assert train_source.encoded(2) == (jpeg((42, 30)), 0)
    assert train_source.describe(2).endswith("set-train-000.tar: some/folder/0002.jpg")
    assert len(val) == 2


def test_foreign_kinds_of_images_and_labels(tmp_path: Path) -> None:
    png = io.BytesIO()
    Image.new("RGB", (5, 4)).save(png, "PNG")
    root = foreign(
        tmp_path,
        **{
            "a__PNG": png.getvalue(),
            "a__cls": b" 2\n",
            "b__txt": b"a caption",
            "b__json": json.dumps({"label": 3, "cls": 9}).encode(),
            "b__jpeg": jpeg(),
            "c__jpg": jpeg(),
            "c__json": json.dumps({"class_id": 1}).encode(),
            "d__jpg": jpeg(),
            "d__json": b"{}",
            "d__cls": b"0",
        },
    )
    source, _ = open_data(root, 32, note=unheard)
    assert [source.load(index)[1] for index in range(len(source))] == [2, 3, 1, 0]
    assert source.load(0)[0].size == (5, 4)
    assert source.classes == ("0", "1", "2", "3")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a__jpg": jpeg()}, "0.tar: sample a has no label"),
        ({"a__jpg": jpeg(), "a__json": b'{"label": "cat"}'}, "0.tar: sample a has no label"),
        ({"a__jpg": jpeg(), "a__json": b"[" * 100_000}, "0.tar: sample a has no label"),
        ({"a__jpg": jpeg(), "a__cls": b"cat"}, "the label of sample a in a.cls is no integer"),
        ({"a__jpg": jpeg(), "a__cls": b"-1"}, "is no integer from 0"),
        ({"a__jpg": jpeg(), "a__cls": b"1", "b__cls": b"1"}, "0.tar: sample b has no image"),
        ({"a__jpg": jpeg(), "a__png": b"", "a__cls": b"1"}, "sample a has two images"),
        ({"readme": b"text"}, "holds no images"),
        (
            {"a__b__jpg": jpeg(), "a__b__cls": b"1"},
            "sample a has no image: .*; the key ends at the first dot, so a.b.jpg is the b.jpg of a: rename it",
        ),
    ],
)
def test_foreign_samples_that_are_not_whole_are_refused(
    tmp_path: Path, members: dict[str, bytes], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        open_data(foreign(tmp_path, **members), 32)


def test_a_foreign_shard_is_read_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = foreign(tmp_path)
    assert len(open_data(root, 32, note=unheard)[0]) == 1
    shard = root / "train/0.tar"
    assert len(load_index(index_path(shard))) == 1
    with monkeypatch.context() as patch:
        patch.setattr("upchirp.data.sources.shard_folder.scan", None)
        assert len(open_data(root, 32, note=unheard)[0]) == 1
    write_tar(shard, {"a.jpg": jpeg(), "a.cls": b"1", "b.jpg": jpeg(), "b.cls": b"0"})
    assert len(open_data(root, 32, note=unheard)[0]) == 2
    index_path(shard).write_bytes(b"damaged")
    assert len(open_data(root, 32, note=unheard)[0]) == 2


def test_a_folder_that_cannot_be_written_is_indexed_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("upchirp.data.sources.shard_folder.save_index", refuse)
    source, _ = open_data(foreign(tmp_path), 32, note=unheard)
    assert source.load(0)[0].size == (40, 30)
    assert not list(tmp_path.rglob("*.npz"))


def test_a_cut_off_tar_is_refused(tmp_path: Path) -> None:
    shard = foreign(tmp_path) / "train/0.tar"
    os.truncate(shard, 600)
    with pytest.raises(InputError, match="cut off"):
        open_data(tmp_path, 32)
    shard.write_bytes(jpeg() * 5)
    with pytest.raises(InputError, match="no plain tar"):
        open_data(tmp_path, 32)


def test_a_tar_that_is_cut_off_anywhere_says_so(tmp_path: Path) -> None:
    members = {"a.jpg": jpeg(), "a.cls": b"1", "b.json": b'{"label": 0}', "b.txt": b"text", "b.jpg": jpeg()}
    shard = write_tar(foreign(tmp_path) / "train/0.tar", members)
    data = shard.read_bytes()
    with tarfile.open(shard) as archive:
        ends = [member.offset_data + -(-member.size // 512) * 512 for member in archive]
        inside = [member.offset_data + member.size // 2 for member in archive]
        headers = [member.offset + 300 for member in archive]
    between = [ends[0], ends[2], ends[3]]
    for length in inside + headers[1:] + between:
        shard.write_bytes(data[:length])
        with pytest.raises(InputError, match="cut off") as refusal:
            scan(shard)
        assert "download it again" in str(refusal.value)
    # Whole samples without an end mark, which some writers leave out.
    for length, images in ((ends[1], 1), (ends[4], 2), (len(data), 2)):
        shard.write_bytes(data[:length])
        assert len(scan(shard)) == images


def test_a_damaged_header_in_the_middle_is_refused(tmp_path: Path) -> None:
    shard = foreign(tmp_path, a__jpg=jpeg(), a__cls=b"1", b__jpg=jpeg(), b__cls=b"0") / "train/0.tar"
    with tarfile.open(shard) as archive:
        place = archive.getmember("b.jpg").offset
    with shard.open("r+b") as stream:
        stream.seek(place + 150)
        stream.write(b"9")
    with pytest.raises(InputError, match="a header is damaged"):
        open_data(tmp_path, 32)


def _only_val(root: Path) -> None:
    (root / "train/0.tar").unlink()


def _class_folders_too(root: Path) -> None:
    (root / "train/cat").mkdir()


def _compressed(root: Path) -> None:
    (root / "train/0.tar").rename(root / "train/0.tar.gz")


def _few_names(root: Path) -> None:
    (root / "classes.txt").write_text("cat\n")


def _names_in_latin_1(root: Path) -> None:
    (root / "classes.txt").write_bytes("café\nthé\n".encode("latin-1"))


def _val_beyond(root: Path) -> None:
    write_tar(root / "val/0.tar", {"a.jpg": jpeg(), "a.cls": b"7"})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_only_val, "only 1 val shards: train shards are missing"),
        (_class_folders_too, r"both shards \(0.tar\) and class folders \(cat\)"),
        (_compressed, "0.tar.gz is compressed"),
        (_few_names, "names 1 classes, but the shards have label 1"),
        (_names_in_latin_1, r"classes\.txt is no UTF-8 text \(.*\): save"),
        (_val_beyond, "have label 7, the train shards only 0 to 1"),
    ],
)
def test_folders_of_shards_that_do_not_fit(tmp_path: Path, spoil: Callable[[Path], None], message: str) -> None:
    spoil(foreign(tmp_path))
    with pytest.raises(InputError, match=message) as refusal:
        open_data(tmp_path, 32)
    assert "\n" not in str(refusal.value)


def test_of_shards_without_validation_images_a_share_is_held_out(tmp_path: Path) -> None:
    for index in range(4):
        names = {f"{index}{number}.jpg": jpeg() for number in range(2)}
        labels = {f"{index}{number}.cls": b"%d" % number for number in range(2)}
        write_tar(tmp_path / f"train/{index}.tar", dict(sorted({**names, **labels}.items())))
    train, val = open_data(tmp_path, 32, val_share=0.25, note=unheard)
    assert (len(train), sorted(val.load(index)[1] for index in range(len(val)))) == (6, [0, 1])


def test_an_archive_beside_class_folders_is_no_shard(image_folder: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / split).symlink_to(image_folder / split)
    (tmp_path / "ILSVRC2012_img_train.tar").touch()
    assert isinstance(open_data(tmp_path, 32)[0], FolderSource)


def test_a_shard_that_is_missing_or_partly_copied_is_named(image_folder: Path, tmp_path: Path) -> None:
    pack(image_folder, tmp_path / "out", SETTINGS, workers=1)
    shard = tmp_path / "out/train/000001.tar"
    data = shard.read_bytes()
    shard.write_bytes(data[:-512])
    with pytest.raises(InputError, match=r"000001.tar has \d+ bytes instead of \d+: copy it again"):
        open_data(tmp_path / "out", 32)
    shard.unlink()
    with pytest.raises(InputError, match=r"000001\.tar is missing"):
        open_data(tmp_path / "out", 32)
    shard.write_bytes(data)
    index_path(shard).unlink()
    with pytest.raises(InputError, match=r"000001\.tar\.index\.npz is missing"):
        open_data(tmp_path / "out", 32)


def test_training_on_shards(packed: Path, config: Callable[..., TrainConfig]) -> None:
    result = train(config(data=str(packed), epochs=2, workers=1))
    assert result.top1 > 50


def test_a_damaged_index_is_named_in_one_line(image_folder: Path, tmp_path: Path) -> None:
    pack(image_folder, tmp_path / "out", SETTINGS, workers=1)
    path = index_path(tmp_path / "out/train/000001.tar")
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        damaged = bytearray(data)
        # The zip directory at the end decides what the readers of NumPy and zipfile try.
        for place in rng.integers(max(0, len(data) - 400), len(data), 2).tolist():
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        load_names(path)
        try:
            load_index(path)
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)
            assert str(path) in str(error)
            assert "run the same `upchirp pack` command again" in str(error)
    assert refused > 200
    path.write_bytes(data[:100])
    with pytest.raises(InputError, match=r"000001\.tar\.index\.npz is damaged"):
        open_data(tmp_path / "out", 32)


def test_a_disk_that_fails_under_an_index_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Path) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(OSError, match=r"Input/output error: '.*a\.tar\.index\.npz'"):
        load_index(tmp_path / "a.tar.index.npz")
