"""Packing: what goes in comes out, byte for byte, and nothing that happens on the way is lost or half-written."""

import errno
import gc
import io
import json
import multiprocessing
import os
import signal
import subprocess
import tarfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.processes import start

from upchirp import InputError
from upchirp.data import FolderSource, GeneratedSource, ShardSource, open_data
from upchirp.data.packing import PackSettings, pack, verify
from upchirp.data.sources import Source
from upchirp.data.tars.index import index_path, load_index, save_index

SETTINGS = PackSettings(sizes=(12, 24), shard_size=10)


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def contents(source: Source) -> Counter[tuple[bytes, str]]:
    """The original files with their classes."""
    if isinstance(source, ShardSource):
        pairs = [source.encoded(index) for index in range(len(source))]
    else:
        pairs = [(Path(source.describe(i)).read_bytes(), source.load(i)[1]) for i in range(len(source))]
    return Counter((data, source.classes[label]) for data, label in pairs)


@pytest.fixture(scope="module")
def packed(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("packed") / "out"
    pack(image_folder, root, SETTINGS, workers=2)
    return root


@pytest.fixture
def damaged(image_folder: Path, tmp_path: Path) -> Path:
    """A packed folder to be spoilt."""
    pack(image_folder, tmp_path / "out", SETTINGS, workers=1)
    return tmp_path / "out"


def odd_folder(root: Path) -> Path:
    """Originals of all kinds, in the order that the folder gives them."""
    for split in ("train", "val"):
        folder = root / split / "a"
        folder.mkdir(parents=True)
        rng = np.random.default_rng(0)
        coarse = Image.fromarray(rng.integers(0, 256, (10, 15, 3)).astype(np.uint8))
        blurred = np.asarray(coarse.resize((90, 60), Image.Resampling.BICUBIC), dtype=float)
        # Grain makes the originals larger than their smaller versions.
        noise = Image.fromarray(np.clip(blurred + rng.normal(0, 25, blurred.shape), 0, 255).astype(np.uint8))
        noise.convert("RGBA").save(folder / "alpha.png")
        noise.convert("CMYK").save(folder / "cmyk.jpg")
        noise.convert("L").save(folder / "grey.jpg")
        exif = Image.Exif()
        exif[0x0112] = 6
        noise.save(folder / "rotated.jpg", exif=exif)
        noise.save(folder / "web.webp", quality=95)
    return root


def test_originals_and_labels_come_back(image_folder: Path, packed: Path) -> None:
    for split, source in zip(("train", "val"), open_data(packed, 32), strict=True):
        assert contents(source) == contents(FolderSource(image_folder / split))
        assert source.classes == ("cat", "dog")


def test_a_sample_has_its_name_from_before(image_folder: Path, packed: Path) -> None:
    source, _ = open_data(packed, 32)
    folder = FolderSource(image_folder / "train")
    for index in (0, 17, 63):
        name = source.describe(index)
        member, was = name.split(": ")[1].removesuffix(")").split(" (was ")
        # The key is the number in the data that were packed.
        assert folder.describe(int(member.removesuffix(".jpg"))) == str(image_folder / was)
        assert source.encoded(index)[0] == (image_folder / was).read_bytes()


def test_shards_mix_the_classes(packed: Path) -> None:
    for shard in sorted((packed / "train").glob("*.tar"))[:-1]:
        assert len(set(load_index(index_path(shard)).labels.tolist())) == 2


def test_levels_are_the_whole_image_at_their_size(packed: Path) -> None:
    source, val = open_data(packed, 32)
    assert isinstance(source, ShardSource) and isinstance(val, ShardSource)
    assert (source.sizes, val.sizes) == ((12, 24), ())
    with tarfile.open(packed / "train/000000.tar") as archive:
        members = {member.name: archive.extractfile(member).read() for member in archive}
    keys = {name.partition(".")[0] for name in members}
    assert len(keys) == 10
    for key in keys:
        original = Image.open(io.BytesIO(members[f"{key}.jpg"]))
        for size, wide in ((12, 14), (24, 29)):
            small = Image.open(io.BytesIO(members[f"{key}.{size}.jpg"]))
            assert small.size == (wide, size)
            reference = original.resize(small.size, Image.Resampling.LANCZOS)
            difference = np.asarray(small, dtype=float) - np.asarray(reference, dtype=float)
            assert abs(difference.mean()) < 2


# It leaves its files to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_plain_webdataset_reads_it(packed: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    shards = [str(path) for path in sorted((packed / "train").glob("*.tar"))]
    samples = list(webdataset.WebDataset(shards, shardshuffle=False))
    source, _ = open_data(packed, 32)
    assert [(sample["jpg"], int(sample["cls"])) for sample in samples] == [
        source.encoded(index) for index in range(len(source))
    ]
    assert all("24.jpg" in sample for sample in samples)
    gc.collect()


def test_the_same_data_give_the_same_bytes(image_folder: Path, packed: Path, tmp_path: Path) -> None:
    pack(image_folder, tmp_path / "again", SETTINGS, workers=1)
    assert files(tmp_path / "again") == files(packed)
    with tarfile.open(packed / "val/000000.tar") as archive:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in archive} == {(0, 0, 0, "", 0o644)}


def test_checksums_are_those_of_sha256sum(packed: Path) -> None:
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=packed, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stdout.count(": OK") == len(list(packed.rglob("*.tar")))


def test_odd_originals_keep_their_bytes_and_their_boxes(tmp_path: Path) -> None:
    folder = odd_folder(tmp_path / "in")
    pack(folder, tmp_path / "out", PackSettings(sizes=(30,)), workers=1)
    for split, source in zip(("train", "val"), open_data(tmp_path / "out", 32), strict=True):
        assert isinstance(source, ShardSource)
        assert contents(source) == contents(FolderSource(folder / split))
    source, _ = open_data(tmp_path / "out", 32)
    assert isinstance(source, ShardSource)
    kinds = {source.describe(index).split(": ")[1].split()[0].partition(".")[2] for index in range(5)}
    assert kinds == {"png", "jpg", "webp"}
    for index in range(5):
        picture, _ = source.load(index)
        upright = (60, 90) if "rotated" in source.describe(index) else (90, 60)
        assert picture.size == picture.whole().size == upright
        assert source.levels(index)[1].size == tuple(side // 2 for side in upright)
        box = (10, 20, 50, 60)
        small = picture.region(box, 20)
        assert small.shape == (20, 20, 3)
        reference = np.asarray(picture.whole().crop(box).resize((20, 20), Image.Resampling.LANCZOS), dtype=float)
        # Another part of the image, or the image not turned, would have no correlation.
        assert np.corrcoef(reference.ravel(), small.ravel().astype(float))[0, 1] > 0.9


def test_levels_that_save_nothing_are_left_out(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / "in" / split / "a").mkdir(parents=True)
        noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3)).astype(np.uint8)
        Image.fromarray(noise).save(tmp_path / "in" / split / "a/1.jpg", quality=5)
    pack(tmp_path / "in", tmp_path / "out", PackSettings(sizes=(4, 50, 60, 90)), workers=1)
    source, _ = open_data(tmp_path / "out", 32)
    assert isinstance(source, ShardSource)
    # 50 pixels at quality 95 take more bytes than 60 pixels at quality 5.
    assert [level.width for level in source.levels(0)] == [60, 4, 0, 0, 0]


def test_raw_levels_are_the_very_pixels_and_are_read_where_they_suffice(image_folder: Path, tmp_path: Path) -> None:
    settings = PackSettings(sizes=(24,), raw=(12,), shard_size=10)
    result = pack(image_folder, tmp_path / "out", settings, workers=1)
    assert verify(tmp_path / "out") == ()
    source, _ = open_data(tmp_path / "out", 32)
    assert isinstance(source, ShardSource)
    assert source.sizes == (12, 24)
    assert all(read.images_per_second > 0 for read in result.summary.reads)
    for index in range(len(source)):
        picture, _ = source.load(index)
        width, height = picture.size
        reference = picture.whole().resize((round(width * 12 / height), 12), Image.Resampling.LANCZOS)
        small = picture.region((0, 0, width, height), least=12)
        assert np.array_equal(small, np.asarray(reference))
        left = picture.region((0, 0, height, height), least=10)
        assert np.array_equal(left, small[:, :12])
        # Twelve of a smaller box are not there.
        assert picture.region((0, 0, height - 6, height - 6), least=12).shape[0] > 12
    with tarfile.open(tmp_path / "out/train/000000.tar") as archive:
        kinds = Counter(member.name.partition(".")[2] for member in archive)
    assert kinds == {"jpg": 10, "12.ppm": 10, "24.jpg": 10, "cls": 10}
    # Of another kind than those that were packed.
    with pytest.raises(InputError, match="packed with raw 12, not none"):
        pack(image_folder, tmp_path / "out", PackSettings(sizes=(12, 24), shard_size=10), workers=1)


def test_large_originals_can_be_reduced(tmp_path: Path) -> None:
    folder = odd_folder(tmp_path / "in")
    Image.new("RGB", (30, 20)).save(folder / "train/a/small.png")
    pack(folder, tmp_path / "out", PackSettings(sizes=(30, 40), max_size=40), workers=1)
    for source in open_data(tmp_path / "out", 32):
        for index in range(len(source)):
            small = "small.png" in source.describe(index)
            assert min(source.load(index)[0].size) == (20 if small else 40)
            assert (".png" in source.describe(index).split(" (was ")[0]) == small


def test_generated_and_packed_data_can_be_packed(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(packed, tmp_path / "again", PackSettings(sizes=()), workers=1)
    for before, after in zip(open_data(packed, 32), open_data(tmp_path / "again", 32), strict=True):
        assert contents(before) == contents(after)
    few = {split: GeneratedSource(split, size=32, num_images=6, num_classes=3) for split in ("train", "val")}
    monkeypatch.setattr("upchirp.data.packing.folder.open_data", lambda *_, **__: (few["train"], few["val"]))
    pack("generated", tmp_path / "made", SETTINGS, workers=1)
    train, _ = open_data(tmp_path / "made", 32)
    assert train.classes == few["train"].classes
    assert Counter(train.load(index)[1] for index in range(6)) == {0: 2, 1: 2, 2: 2}


def test_images_that_cannot_be_read_are_left_out_and_named(image_folder: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / "in" / split / "a").mkdir(parents=True)
        for path in sorted((image_folder / split / "cat").iterdir())[:5]:
            (tmp_path / "in" / split / "a" / path.name).write_bytes(path.read_bytes())
    data = (tmp_path / "in/train/a/001.jpg").read_bytes()
    (tmp_path / "in/train/a/001.jpg").write_bytes(data[: len(data) // 2])
    (tmp_path / "in/train/a/002.jpg").write_bytes(b"no image")
    (tmp_path / "in/val/a/003.jpg").unlink()
    (tmp_path / "in/val/a/003.jpg").symlink_to("nowhere")
    summary = pack(tmp_path / "in", tmp_path / "out", SETTINGS, workers=1).summary
    assert sorted(name for name, _ in summary.left_out) == ["train/a/001.jpg", "train/a/002.jpg", "val/a/003.jpg"]
    assert all(reason for _, reason in summary.left_out)
    assert [len(source) for source in open_data(tmp_path / "out", 32)] == [3, 4]
    assert pack(tmp_path / "in", tmp_path / "out", SETTINGS, workers=1).summary == summary
    assert not any("0x" in reason for _, reason in summary.left_out)
    pack(tmp_path / "in", tmp_path / "again", SETTINGS, workers=2)
    assert files(tmp_path / "again") == files(tmp_path / "out")


def test_a_split_of_which_nothing_can_be_read_is_refused(image_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in/val/cat").mkdir(parents=True)
    (tmp_path / "in/train").mkdir()
    (tmp_path / "in/train/cat").symlink_to(image_folder / "train/cat")
    (tmp_path / "in/val/cat/1.jpg").touch()
    for _ in range(2):
        with pytest.raises(InputError, match=r"none of the val images can be read, the first is val/cat/1\.jpg"):
            pack(tmp_path / "in", tmp_path / "out", SETTINGS, workers=1)


def test_a_failing_disk_leaves_no_holes(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = FolderSource.encoded

    def fail(self: FolderSource, index: int) -> object:
        if index == 20:
            raise OSError(errno.EIO, "Input/output error")
        return original(self, index)

    monkeypatch.setattr(FolderSource, "encoded", fail)
    with pytest.raises(InputError, match="Input/output error; run the same command again"):
        pack(image_folder, tmp_path / "out", SETTINGS, workers=2)
    monkeypatch.undo()
    result = pack(image_folder, tmp_path / "out", SETTINGS, workers=2)
    assert not result.summary.left_out


def test_a_folder_without_rights_is_told_what_to_do(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *args: object, **kwargs: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(InputError, match=r"cannot write .*out: Permission denied; give it rights, or choose another"):
        pack(image_folder, tmp_path / "out", SETTINGS, workers=1)


def test_a_full_disk_leaves_nothing_half_written(
    image_folder: Path, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync
    calls = []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 14:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr("upchirp.files.os.fsync", full)
    with pytest.raises(InputError, match=r"cannot write .*: No space left on device; make room"):
        pack(image_folder, tmp_path / "out", SETTINGS, workers=1)
    left = files(tmp_path / "out")
    whole = files(packed)
    assert 1 < len(left) < len(whole)
    assert all(left[name] == whole[name] for name in left if name != "pack.json")
    monkeypatch.undo()
    pack(image_folder, tmp_path / "out", SETTINGS, workers=1)
    assert files(tmp_path / "out") == whole


@pytest.mark.parametrize("calls", [0, 1])
def test_packing_that_ended_before_its_manifest_goes_on(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    """The disk is full, or a kill comes, before the manifest is there or right after it."""
    real = os.fsync
    left = [real] * calls

    def full(descriptor: int) -> None:
        if not left:
            raise OSError(errno.ENOSPC, "No space left on device")
        left.pop()(descriptor)

    monkeypatch.setattr("upchirp.files.os.fsync", full)
    with pytest.raises(InputError, match="run the same command again"):
        pack(image_folder, tmp_path / "out", SETTINGS, workers=1)
    monkeypatch.undo()
    assert (tmp_path / "out/pack.json").exists() == (calls > 0)
    assert pack(image_folder, tmp_path / "out", SETTINGS, workers=1).shards == 9
    for split in ("train", "val"):
        (tmp_path / "older" / split).mkdir(parents=True)
    assert pack(image_folder, tmp_path / "older", SETTINGS, workers=1).shards == 9
    (tmp_path / "foreign/train/cat").mkdir(parents=True)
    with pytest.raises(InputError, match="is not empty"):
        pack(image_folder, tmp_path / "foreign", SETTINGS, workers=1)


def test_two_packings_into_one_folder_are_kept_apart(image_folder: Path, packed: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    seen = []

    def second(done: int, total: int) -> None:
        if not seen:
            with pytest.raises(InputError, match=r"is in use by process .* on .*: wait until") as refusal:
                pack(image_folder, output, SETTINGS, workers=1)
            seen.append(refusal)

    pack(image_folder, output, SETTINGS, workers=1, progress=second)
    assert seen
    assert files(output) == files(packed)
    # What a kill leaves behind holds nobody up.
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed/pack.lock").touch()
    pack(image_folder, tmp_path / "killed", SETTINGS, workers=1)
    assert files(tmp_path / "killed") == files(packed)


def test_a_worker_that_is_killed_ends_the_packing(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = os.getpid()

    def die(*arguments: object) -> None:
        assert os.getpid() != parent
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr("upchirp.data.packing.shard.make_versions", die)
    with pytest.raises(InputError, match=r"killed \(signal 9"):
        pack(image_folder, tmp_path / "out", SETTINGS, workers=2)


def test_progress_counts_images_and_a_second_call_does_nothing(image_folder: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    first = pack(image_folder, tmp_path / "out", SETTINGS, workers=1, progress=lambda *now: seen.append(now))
    assert seen[0] == (0, 80)
    assert seen[-1] == (80, 80)
    assert seen == sorted(seen)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    second = pack(image_folder, tmp_path / "out", SETTINGS, workers=1)
    assert (first.shards, first.found, second.found) == (9, 0, 9)
    assert first.summary == second.summary
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}


def test_processes_may_be_started_as_new_ones(
    image_folder: Path, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on other systems than Linux, where older Pythons fork and Python 3.14 forks a server, as below."""
    context = multiprocessing.get_context("spawn")
    monkeypatch.setattr("upchirp.data.packing.processes.multiprocessing.get_context", lambda: context)
    result = pack(image_folder, tmp_path / "out", SETTINGS, workers=1)
    assert (result.shards, result.found) == (9, 0)
    assert files(tmp_path / "out") == files(packed)


SLOW = PackSettings(sizes=(256, 400), shard_size=4)


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Images that take long enough to be packed for a signal to come meanwhile, and what comes of them without one."""
    root = tmp_path_factory.mktemp("slow")
    rng = np.random.default_rng(0)
    for split, count in (("train", 60), ("val", 4)):
        (root / "in" / split / "a").mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (500, 700, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / "in" / split / "a" / f"{number}.jpg")
    pack(root / "in", root / "out", SLOW, workers=2)
    return root / "in", root / "out"


@pytest.mark.parametrize(
    ("signum", "method"),
    [
        (signal.SIGKILL, "forkserver"),
        (signal.SIGINT, "fork"),
        (signal.SIGTERM, "fork"),
    ],
)
def test_interrupted_packing_goes_on_to_the_same_bytes(
    tmp_path: Path, slow: tuple[Path, Path], signum: signal.Signals, method: str
) -> None:
    data, undisturbed = slow
    program = "import multiprocessing, signal, sys; from upchirp.cli import main; "
    # A shell's background jobs are started with SIGINT ignored.
    program += "signal.signal(signal.SIGINT, signal.default_int_handler); "
    # One process imports for all that it forks.
    program += "multiprocessing.set_forkserver_preload(['upchirp.data.packing.processes']); "
    program += f"multiprocessing.set_start_method({method!r}); sys.exit(main())"
    words = ["-c", program, "pack", "--data", str(data), "--sizes", "256", "400"]
    words += ["--shard-size", "4", "--workers", "2", "--output"]
    output = tmp_path / "out"
    process = start(*words, output)
    deadline = time.monotonic() + 180
    while len(list(output.glob("train/*.index.npz"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    # Only the parent: its workers have to notice.
    process.send_signal(signum)
    code, _, told = process.finish()
    assert code == (130 if signum == signal.SIGINT else -signum), told
    if signum == signal.SIGINT:
        assert told.splitlines()[-1] == "upchirp: interrupted; run the same command again, it goes on"
        assert not list(output.rglob("*.tmp"))
    with pytest.raises(InputError, match="has not ended: run the same `upchirp pack` command again"):
        open_data(output, 32)
    result = pack(data, output, SLOW, workers=2)
    assert 2 <= result.found < result.shards == 16
    assert files(output) == files(undisturbed)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (PackSettings(sizes=(12,), shard_size=10), "packed with sizes 12 24, not 12: use the same"),
        (PackSettings(sizes=(12, 24), shard_size=10, quality=90), "packed with quality 95, not 90"),
        (PackSettings(sizes=(12, 24), shard_size=9), "packed with shard-size 10, not 9"),
        (PackSettings(sizes=(12, 24), shard_size=10, max_size=30), "packed with max-size none, not 30"),
    ],
)
def test_other_settings_are_refused(image_folder: Path, packed: Path, settings: PackSettings, message: str) -> None:
    before = files(packed)
    with pytest.raises(InputError, match=message):
        pack(image_folder, packed, settings, workers=1)
    assert files(packed) == before


def test_other_data_are_refused(image_folder: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / "in" / split / name).mkdir(parents=True)
            for path in sorted((image_folder / split / name).iterdir())[:3]:
                (tmp_path / "in" / split / name / path.name).symlink_to(path)
    pack(tmp_path / "in", tmp_path / "out", SETTINGS, workers=1)
    extra = tmp_path / "in/train/cat/more.jpg"
    extra.symlink_to(image_folder / "train/cat/010.jpg")
    with pytest.raises(InputError, match="packed with 6 train images, the data have 7"):
        pack(tmp_path / "in", tmp_path / "out", SETTINGS, workers=1)
    (tmp_path / "in/train/cat/000.jpg").unlink()
    with pytest.raises(InputError, match="packed with train images of other names"):
        pack(tmp_path / "in", tmp_path / "out", SETTINGS, workers=1)
    for split in ("train", "val"):
        (tmp_path / "in" / split / "dog").rename(tmp_path / "in" / split / "wolf")
    with pytest.raises(InputError, match="packed with other classes"):
        pack(tmp_path / "in", tmp_path / "out", SETTINGS, workers=1)


def test_other_labels_of_the_same_names_are_refused(image_folder: Path, tmp_path: Path) -> None:
    images = sorted((image_folder / "val" / "cat").iterdir())[:4]
    table, manifest = tmp_path / "table.csv", tmp_path / "out" / "pack.json"

    def written(*labels: str) -> Path:
        lines = zip(images, labels, ("train", "train", "val", "val"), strict=True)
        table.write_text("path,label,split\n" + "\n".join(map(",".join, ((str(a), b, c) for a, b, c in lines))))
        return table

    pack(written("a", "b", "a", "b"), tmp_path / "out", SETTINGS, workers=1)
    for labels, split in ((("b", "a", "a", "b"), "train"), (("a", "b", "b", "a"), "val")):
        with pytest.raises(InputError, match=f"packed with other labels of the {split} images than the data have"):
            pack(written(*labels), tmp_path / "out", SETTINGS, workers=1)
    assert pack(written("a", "b", "a", "b"), tmp_path / "out", SETTINGS, workers=1).found == 2
    # What earlier versions packed says it in its shards alone.
    stored = json.loads(manifest.read_text())
    for split in stored["splits"].values():
        del split["labels_sha256"]
    manifest.write_text(json.dumps(stored))
    assert pack(written("a", "b", "a", "b"), tmp_path / "out", SETTINGS, workers=1).found == 2
    with pytest.raises(InputError, match="packed with other labels of the train images than the data have"):
        pack(written("b", "a", "a", "b"), tmp_path / "out", SETTINGS, workers=1)


def test_foreign_outputs_are_refused(image_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match="is not empty"):
        pack(image_folder, tmp_path, SETTINGS)
    with pytest.raises(InputError, match="is a file"):
        pack(image_folder, tmp_path / "thesis.tex", SETTINGS)
    (tmp_path / "link").symlink_to(image_folder)
    for inside in (image_folder, image_folder / "train/packed", tmp_path / "link/packed"):
        with pytest.raises(InputError, match="lies in the data folder"):
            pack(image_folder, inside, SETTINGS)
    assert sorted(path.name for path in image_folder.iterdir()) == ["train", "val"]


def test_only_leftovers_of_our_own_names_are_deleted(image_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tmp").write_text("years of work")
    with pytest.raises(InputError, match="is not empty"):
        pack(image_folder, tmp_path, SETTINGS)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/pack.json.17.tmp").touch()
    pack(image_folder, tmp_path / "out", SETTINGS, workers=1)
    shard = tmp_path / "out/train/000001.tar"
    theirs = [tmp_path / "out/notes.tmp", tmp_path / "out/train/cat.tar.tmp", tmp_path / "out/val/000000.tar.a.tmp"]
    ours = [shard.with_name("000001.tar.17.tmp"), shard.with_name("000001.tar.index.npz.17.tmp")]
    for path in theirs + ours:
        path.touch()
    shard.unlink()
    pack(image_folder, tmp_path / "out", SETTINGS, workers=1)
    assert sorted((tmp_path / "out").rglob("*.tmp")) == sorted(theirs)
    assert (tmp_path / "thesis.tmp").read_text() == "years of work"


@pytest.mark.parametrize(
    "settings",
    [
        {"sizes": (0,)},
        {"sizes": (8, 8)},
        {"raw": (0,)},
        {"quality": 0},
        {"quality": 101},
        {"max_size": 0},
        {"shard_size": 0},
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(InputError):
        PackSettings(**settings)  # type: ignore[arg-type]


def test_the_summary_counts_what_is_there(packed: Path, image_folder: Path) -> None:
    summary = pack(image_folder, packed, SETTINGS).summary
    sizes = Counter[tuple[str, str]]()
    counts = Counter[tuple[str, str]]()
    for shard in packed.rglob("*.tar"):
        with tarfile.open(shard) as archive:
            for member in archive:
                kind = member.name.partition(".")[2]
                sizes[shard.parent.name, kind] += member.size
                counts[shard.parent.name, kind] += 1
    for total in summary.levels:
        kind = "jpg" if total.size is None else f"{total.size}.jpg"
        assert (total.images, total.bytes) == (counts[total.split, kind], sizes[total.split, kind])
    assert [(total.split, total.size) for total in summary.levels] == [
        ("train", None), ("train", 12), ("train", 24), ("val", None)
    ]  # fmt: skip
    assert summary.tar_bytes == sum(path.stat().st_size for path in packed.rglob("*.tar"))
    shares = [read.bytes / read.original_bytes for read in summary.reads]
    assert shares == sorted(shares)
    assert shares[0] < 0.9


def test_what_was_packed_passes(packed: Path) -> None:
    assert verify(packed, workers=2) == ()


def test_verify_finds_what_is_damaged_and_packing_mends_it(damaged: Path, image_folder: Path) -> None:
    whole = files(damaged)
    flipped, short, missing, unindexed = (damaged / f"train/{number:06d}.tar" for number in range(4))
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 1
    flipped.write_bytes(data)
    os.truncate(short, short.stat().st_size - 700)
    missing.unlink()
    index_path(unindexed).unlink()
    found = {damage.shard: damage.reason for damage in verify(damaged)}
    assert set(found) == {f"train/{number:06d}.tar" for number in range(4)}
    assert "SHA-256" in found["train/000000.tar"]
    assert "bytes instead of" in found["train/000001.tar"]
    assert found["train/000002.tar"] == "000002.tar is missing"
    assert found["train/000003.tar"] == "000003.tar.index.npz is missing"
    flipped.unlink()
    assert pack(image_folder, damaged, SETTINGS).found == 5
    assert files(damaged) == whole
    assert verify(damaged) == ()


def test_verify_names_a_file_of_checksums_that_is_not_whole(damaged: Path, image_folder: Path) -> None:
    """The shards are whole: nobody shall be told to delete them."""
    sums = damaged / "SHA256SUMS"
    whole = sums.read_bytes()
    for data, message in (
        (b"", "no checksum of 9 of 9 shards, the first is train/000000.tar"),
        (whole[:-1], ""),
        (whole[:-4], r"no checksum of 1 of 9 shards, the first is val/000001\.tar"),
        (whole[40:], r"no checksum of 1 of 9 shards, the first is train/000000\.tar"),
        (b"\xff" + whole, "cannot read"),
    ):
        sums.write_bytes(data)
        if not message:
            assert verify(damaged) == ()
            continue
        with pytest.raises(InputError, match=message) as refusal:
            verify(damaged)
        assert "SHA256SUMS" in str(refusal.value) and "delete it, then run the same" in str(refusal.value)
    sums.unlink()
    with pytest.raises(InputError, match="SHA256SUMS is missing: run the same"):
        verify(damaged)
    pack(image_folder, damaged, SETTINGS, workers=1)
    assert sums.read_bytes() == whole
    assert verify(damaged) == ()


def test_verify_finds_an_index_of_another_shard(damaged: Path) -> None:
    one, other = (damaged / f"train/{number:06d}.tar" for number in range(2))
    index_path(one).write_bytes(index_path(other).read_bytes())
    assert [damage.shard for damage in verify(damaged)] == ["train/000000.tar"]


@pytest.mark.parametrize(
    ("column", "change", "message"),
    [
        ("label", 1, "the label of"),
        ("offset", 512, "where no such member is"),
        ("length", 1, "where no such member is"),
        ("width", 1, "pixels, its index says"),
        ("crc", 1, "CRC-32 of"),
    ],
)
def test_verify_finds_an_index_that_disagrees_with_its_shard(
    damaged: Path, column: str, change: int, message: str
) -> None:
    path = index_path(damaged / "train/000001.tar")
    index = load_index(path)
    if column == "label":
        index.labels[3] ^= change
    else:
        index.levels[column][3, 1] += change
    save_index(index, path)
    (damage,) = verify(damaged)
    assert damage.shard == "train/000001.tar"
    assert message in damage.reason
