"""Folders, a user's own data sets, and what `open_data` refuses."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, Subset
from torchvision.datasets import ImageFolder

from upchirp.data.sources import FolderSource, GeneratedSource, MapStyleSource, as_source, open_data
from upchirp.data.sources.hugging_face import HuggingFaceSource
from upchirp.errors import InputError


def add(path: Path, colour: tuple[int, int, int] = (1, 2, 3)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4), colour).save(path)


@pytest.fixture
def root(tmp_path):
    """Two splits of three classes, some of it nested, in an order that the file system need not keep."""
    for split in ("train", "val"):
        for name in ("zebra", "ape", "Bee"):
            for image in ("b.png", "a.JPEG", "sub/c.jpg", "sub-2/d.webp", "10.png", "9.png"):
                add(tmp_path / split / name / image)
    return tmp_path


def test_folder_has_torchvisions_order(root):
    source, reference = FolderSource(root / "train"), ImageFolder(str(root / "train"))
    assert source.classes == tuple(reference.classes) == ("Bee", "ape", "zebra")
    assert [(source.describe(i), source.load(i)[1]) for i in range(len(source))] == reference.samples


def test_folder_loads_lazily_and_survives_pickling(root):
    source = pickle.loads(pickle.dumps(FolderSource(root / "train")))
    image, label = source.load(7)
    assert image.size == (6, 4)
    assert label == 1
    # Nothing may be read from the disk after loading: no open files in a worker.
    Path(source.describe(7)).unlink()
    assert image.whole().size == (6, 4)
    with pytest.raises(FileNotFoundError):
        source.load(7)
    with pytest.raises(IndexError):
        source.load(len(source))
    with pytest.raises(IndexError):
        source.load(-1)


def test_folder_is_compact(root):
    # Pickled, as it goes to spawned workers: the names, 8 bytes for an end and 4 for a label, and no more.
    source = FolderSource(root / "train")
    few = len(pickle.dumps(source))
    for number in range(1000):
        (root / "train" / "ape" / f"{number:08d}.jpg").touch()
    assert len(pickle.dumps(FolderSource(root / "train"))) - few <= 1000 * (12 + 8 + 4) + 100


def test_folder_passes_over_what_is_no_image(root):
    before = len(FolderSource(root / "train"))
    (root / "train" / ".ipynb_checkpoints").mkdir()
    add(root / "train" / "ape" / ".ipynb_checkpoints" / "x.png")
    (root / "train" / "ape" / "._a.jpg").write_bytes(b"resource fork")
    (root / "train" / "ape" / "notes.txt").write_text("hello")
    (root / "train" / "README.md").write_text("hello")
    source = FolderSource(root / "train")
    assert len(source) == before
    assert len(source.classes) == 3


def test_folder_takes_any_file_name(tmp_path):
    for name in ("ä ö.png", "日本.png", "a\nb.png"):
        add(tmp_path / "class é" / name)
    source = FolderSource(tmp_path)
    assert [source.load(i)[0].size for i in range(3)] == [(6, 4)] * 3


def test_a_file_that_is_no_image_raises_oserror(tmp_path):
    add(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "2.png").write_bytes(b"not an image")
    with pytest.raises(OSError, match="no image of a kind"):
        FolderSource(tmp_path).load(1)


def refusal(data: Path | str) -> str:
    with pytest.raises(InputError) as caught:
        open_data(str(data), 64)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_open_data(root):
    train, val = open_data(str(root), 64)
    assert (len(train), len(val)) == (18, 18)
    assert train.classes == val.classes


def test_open_data_says_what_is_wrong(root, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    assert f"{empty / 'gone'} is missing" in refusal(empty / "gone")
    assert "is empty: expected train/CLASS" in refusal(empty)
    file = empty / "list.bin"
    file.write_bytes(b"")
    assert "is no zip and no plain tar archive" in refusal(file)
    message = refusal(empty)
    assert "neither splits nor class folders (found list.bin)" in message
    assert "expected train/CLASS/*.jpg and val/CLASS/*.jpg, or CLASS/*.jpg" in message
    (root / "train").rename(root / "images")
    message = refusal(root)
    assert "no train/ in" in message
    assert "found images/, val/" in message


def test_open_data_names_class_folders_without_images(root):
    for name in ("e1", "e2", "e3", "e4"):
        (root / "train" / name).mkdir()
    message = refusal(root)
    assert "4 class folder(s)" in message
    assert "e1, e2, e3, ..." in message


def test_open_data_names_a_split_without_classes(root):
    for path in sorted((root / "val").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    assert "has no class folders" in refusal(root)


def test_open_generated(monkeypatch):
    monkeypatch.setattr("upchirp.data.sources.generated._DEFAULT_IMAGES", {"train": 22, "val": 20})
    train, val = open_data("generated", 80)
    assert isinstance(train, GeneratedSource)
    assert (len(train), len(val)) == (22, 20)
    # Twice the final size: crops are real, and the textures have 3 to 4 pixels at the final size.
    assert train.load(0)[0].size == val.load(0)[0].size == (160, 160)
    assert open_data("generated", 32)[0].load(0)[0].size == (64, 64)


class Own(list):
    classes = ("a", "b")


GREY = np.arange(12, dtype=np.uint8).reshape(3, 4)
COLOUR = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.fromarray(COLOUR), COLOUR),
        (torch.from_numpy(COLOUR).permute(2, 0, 1), COLOUR),
        (COLOUR, COLOUR),
        (COLOUR[:, ::-1], COLOUR[:, ::-1]),
        (GREY, np.stack([GREY] * 3, axis=-1)),
        (GREY[..., None], np.stack([GREY] * 3, axis=-1)),
        (torch.from_numpy(GREY)[None], np.stack([GREY] * 3, axis=-1)),
    ],
    ids=["pil", "tensor", "array", "strided", "2-d", "one channel", "grey tensor"],
)
def test_map_style_takes(image, expected):
    source = MapStyleSource(Own([(image, np.int64(1))]))
    assert source.classes == ("a", "b")
    loaded, label = source.load(0)
    np.testing.assert_array_equal(np.asarray(loaded.whole()), expected)
    assert label == 1
    assert type(label) is int


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        ((torch.zeros(3, 4, 4), 0), r"torch.float32 tensor of shape \(3, 4, 4\)"),
        (
            (torch.zeros(4, 4, 3, dtype=torch.uint8), 0),
            r"shape \(4, 4, 3\); expected a PIL image, a uint8 tensor",
        ),
        ((np.zeros((4, 4, 3)), 0), "float64 array"),
        ((np.zeros((3, 4, 4), np.uint8), 0), r"uint8 array of shape \(3, 4, 4\)"),
        (("path.jpg", 0), "the image is a str"),
        ((COLOUR, 1.0), "label is a float, expected an integer"),
        ((COLOUR, "cat"), "label is a str"),
        (COLOUR[:1], r"not a pair \(image, label\)"),
        (7, "not a pair"),
    ],
)
def test_map_style_refuses(sample, words):
    with pytest.raises(InputError, match=words) as caught:
        MapStyleSource(Own([sample])).load(0)
    assert "sample 0 of Own" in str(caught.value)


def test_map_style_needs_samples_by_index():
    with pytest.raises(InputError, match="no map-style data set"):
        MapStyleSource(iter([]))


@pytest.mark.parametrize(
    ("image", "channels"), [(torch.zeros(12, 40, 41, dtype=torch.uint8), 12), (np.zeros((40, 41, 4), np.uint8), 4)]
)
def test_map_style_counts_the_channels(image, channels):
    loaded, _ = MapStyleSource(Own([(image, 0)])).load(0)
    assert loaded.size == (41, 40)
    with pytest.raises(OSError, match=f"it has {channels} channels, not 1 or 3"):
        loaded.whole()


@pytest.mark.parametrize(("image", "label"), [("image", "label"), ("img", "target"), ("image", "labels")])
def test_map_style_takes_dictionaries_under_the_usual_names(image, label):
    loaded, number = MapStyleSource([{image: COLOUR, label: 1, "path": "x"}]).load(0)
    assert (loaded.size, number) == ((4, 3), 1)


@pytest.mark.parametrize("names", [("photo", "label"), ("image", "img", "label"), ("image",)])
def test_map_style_says_how_to_wrap_other_dictionaries(names):
    with pytest.raises(InputError, match=f"is a dictionary of {', '.join(names)}: it needs one of image, img"):
        MapStyleSource([dict.fromkeys(names, COLOUR)]).load(0)


def test_map_style_refuses_streams():
    class Stream(IterableDataset):
        def __len__(self):
            return 3

        def __iter__(self):
            return iter([(COLOUR, 0)] * 3)

    with pytest.raises(InputError, match="Stream is an IterableDataset, which has no samples by index"):
        as_source(Stream())


def test_map_style_knows_classes_and_labels_of_torchvision_and_of_parts(root):
    folder = ImageFolder(str(root / "train"))
    part = MapStyleSource(Subset(folder, [17, 0, 6]))
    assert part.classes == ("Bee", "ape", "zebra")
    assert part.labels.tolist() == [2, 0, 1]
    named = Own([(COLOUR, 0)])
    named.classes, named.class_to_idx = None, {"b": 1, "a": 0}
    assert MapStyleSource(named).classes == ("a", "b")
    folder.target_transform = str
    assert MapStyleSource(folder).labels is None


def test_map_style_without_class_names():
    source = MapStyleSource([(COLOUR, 0)])
    assert source.classes == ()
    assert len(source) == 1


def test_a_data_set_of_ones_own_may_lie_in_a_module_named_datasets():
    kinds = {"__module__": "datasets", "__len__": lambda self: 1, "__getitem__": lambda self, index: (COLOUR, 0)}
    for module in ("datasets", "datasets.pets"):
        source = as_source(type("Pets", (Dataset,), {**kinds, "__module__": module})())
        assert isinstance(source, MapStyleSource)
        assert source.load(0)[0].size == (4, 3)


def test_data_sets_of_hugging_face_are_known_by_their_modules():
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(image=datasets.Image(), label=datasets.Value("int64"))
    columns = {"image": [{"bytes": b"", "path": None}], "label": [0]}
    built = datasets.Dataset.from_dict(columns, features)
    assert isinstance(as_source(built), HuggingFaceSource)
    derived = type("Derived", (datasets.Dataset,), {})(built.data, built.info)
    assert isinstance(as_source(derived), HuggingFaceSource)
    for other in (datasets.DatasetDict(train=built), built.to_iterable_dataset()):
        with pytest.raises(InputError, match="give one split of it"):
            as_source(other)
