"""Data sets of the library `datasets`, saved to disk and as parquet, against the same files in folders."""

import pickle
import socket
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from tests.processes import ENVIRONMENT, start

from upchirp import Augmentation, InputError, Loader, efficienttrain_plus_plus, plan
from upchirp.data import FolderSource, Request, Source, TrainTransform, open_data
from upchirp.data.sources.hugging_face import HuggingFaceSource
from upchirp.data.sources.hugging_face_folder import is_hugging_face, open_hugging_face
from upchirp.data.sources.layout import SplitNames
from upchirp.data.sources.relabelled import with_common_sets
from upchirp.training import Classification, MultiLabel
from upchirp.training.methods.chosen import for_images
from upchirp.training.recipes.groups import Objective

datasets = pytest.importorskip("datasets")

CLASSES = ["cat", "dog"]
IMAGE = {"image": datasets.Image()}
LABELLED = {**IMAGE, "label": datasets.ClassLabel(names=CLASSES)}


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: object) -> None:
        # Loader workers talk to the loader through sockets of the file system.
        assert self.family == socket.AF_UNIX, "the network was asked"
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)


def rows(folder: Path, classes: list[str] = CLASSES) -> list[dict[str, Any]]:
    """The images of a class folder in the order of `FolderSource`."""
    source = FolderSource(folder)
    found = []
    for index in range(len(source)):
        path = Path(source.describe(index))
        found.append({"bytes": path.read_bytes(), "path": path.name, "label": classes.index(path.parent.name)})
    return found


def build(
    samples: list[dict[str, Any]], features: dict[str, Any] = LABELLED, label: str = "label", image: str = "image"
) -> Any:
    columns = {
        image: [{"bytes": sample["bytes"], "path": sample["path"]} for sample in samples],
        label: [sample["label"] for sample in samples],
    }
    return datasets.Dataset.from_dict(columns, datasets.Features(features))


@pytest.fixture
def splits(image_folder: Path) -> dict[str, Any]:
    return {name: build(rows(image_folder / folder)) for name, folder in (("train", "train"), ("validation", "val"))}


def to_parquet(dataset: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.disable_progress_bars()
    dataset.to_parquet(str(path))
    datasets.enable_progress_bars()


def save(splits: dict[str, Any], root: Path) -> Path:
    datasets.disable_progress_bars()
    datasets.DatasetDict(splits).save_to_disk(str(root))
    datasets.enable_progress_bars()
    return root


def hub_layout(splits: dict[str, Any], root: Path, shards: int = 2) -> Path:
    for name, dataset in splits.items():
        for number in range(shards):
            to_parquet(
                dataset.shard(shards, number, contiguous=True), root / f"{name}-{number:05d}-of-{shards:05d}.parquet"
            )
    return root


def opened(root: Path, tmp_path: Path) -> tuple[HuggingFaceSource, HuggingFaceSource]:
    assert is_hugging_face(root)
    return open_hugging_face(root, cache_dir=tmp_path / "cache")


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        act()
    message = str(caught.value)
    assert "\n" not in message
    return message


def same_images(first: Source, second: Source) -> None:
    transform = TrainTransform(Augmentation(), final_size=32)
    assert first.classes == second.classes
    assert len(first) == len(second)
    for index in range(len(first)):
        (one, label), (other, expected) = first.load(index), second.load(index)
        assert label == expected
        request = Request(index, 24, 5.0, seed=index)
        np.testing.assert_array_equal(transform(one, request), transform(other, request))


def test_saved_to_disk(splits: dict[str, Any], image_folder: Path, tmp_path: Path) -> None:
    train, val = opened(save(splits, tmp_path / "saved"), tmp_path)
    same_images(train, FolderSource(image_folder / "train"))
    same_images(val, FolderSource(image_folder / "val"))
    assert isinstance(train, Source)
    # Mapped where it lies: nothing is copied.
    assert not (tmp_path / "cache").exists()
    assert val.describe(3) == f"row 3 of validation in {tmp_path / 'saved'} (003.jpg)"
    for index in (-1, len(val)):
        with pytest.raises(IndexError):
            val.load(index)


@pytest.mark.parametrize("place", ["", "data", "a [b]* ü"])
def test_hub_parquet(splits: dict[str, Any], image_folder: Path, tmp_path: Path, place: str) -> None:
    root = tmp_path / "hub"
    hub_layout(splits, root / place)
    (root / "README.md").write_text("a card")
    train, val = opened(root if place == "data" else root / place, tmp_path)
    same_images(train, FolderSource(image_folder / "train"))
    same_images(val, FolderSource(image_folder / "val"))


def test_many_shards_keep_their_order(splits: dict[str, Any], image_folder: Path, tmp_path: Path) -> None:
    # More than 16 files: from there on the library shows a bar while it looks them up.
    hub_layout({"train": splits["train"]}, tmp_path / "hub", shards=20)
    hub_layout({"validation": splits["validation"]}, tmp_path / "hub", shards=1)
    train, _ = opened(tmp_path / "hub", tmp_path)
    same_images(train, FolderSource(image_folder / "train"))


def test_parquet_is_converted_once_and_again_when_it_changes(splits: dict[str, Any], tmp_path: Path) -> None:
    root = hub_layout(splits, tmp_path / "hub", shards=1)

    def copies() -> set[Path]:
        return set((tmp_path / "cache").rglob("*.arrow"))

    opened(root, tmp_path)
    before = copies()
    opened(root, tmp_path)
    assert copies() == before
    assert before
    to_parquet(splits["train"].select(range(10)), root / "train-00000-of-00001.parquet")
    assert len(opened(root, tmp_path)[0]) == 10


@pytest.mark.parametrize("name", ["val", "validation", "valid", "test"])
def test_names_of_the_validation_split(splits: dict[str, Any], tmp_path: Path, name: str) -> None:
    train, val = splits.values()
    for kind, root in enumerate((tmp_path / "folders", tmp_path / "files")):
        to_parquet(train, root / ("train.parquet" if kind else "train/0.parquet"))
        to_parquet(val, root / (f"{name}.parquet" if kind else f"{name}/0.parquet"))
        assert [len(source) for source in opened(root, tmp_path)] == [64, 16]
    assert len(opened(save({"train": train, name: val}, tmp_path / "saved"), tmp_path)[1]) == 16


def test_test_is_for_want_of_a_validation_split(splits: dict[str, Any], tmp_path: Path) -> None:
    root = save({**splits, "test": splits["validation"].select(range(2))}, tmp_path / "saved")
    assert len(opened(root, tmp_path)[1]) == 16


def test_other_folders_are_none(image_folder: Path, tmp_path: Path) -> None:
    assert not is_hugging_face(image_folder)
    assert not is_hugging_face(tmp_path)
    assert not is_hugging_face(tmp_path / "gone")
    (tmp_path / "trainer.parquet").touch()
    for folder in ("train", "data"):
        (tmp_path / folder).mkdir()
    (tmp_path / "train" / "metadata.parquet").touch()
    (tmp_path / "data" / "metadata.parquet").touch()
    assert not is_hugging_face(tmp_path)


def test_missing_splits(splits: dict[str, Any], tmp_path: Path) -> None:
    root = save({"train": splits["train"]}, tmp_path / "saved")
    for place in (root, root / "train"):
        train, none = opened(place, tmp_path)
        assert (len(train), none) == (len(splits["train"]), None)
        # A share of it validates.
        kept, held = open_data(place, val_share=0.5, note=lambda line: None)
        assert len(kept) + len(held) == len(train)
    message = refusal(lambda: open_hugging_face(root, SplitNames(val="dev")))
    assert "has the splits train, and no dev: expected" in message
    root = hub_layout({"test": splits["validation"]}, tmp_path / "hub")
    assert "has the splits test, and no train: expected" in refusal(lambda: opened(root, tmp_path))


def test_splits_by_other_names(splits: dict[str, Any], tmp_path: Path) -> None:
    named = {"even": splits["train"], "odd": splits["validation"]}
    for root in (save(named, tmp_path / "saved"), hub_layout(named, tmp_path / "hub")):
        train, val = open_data(root, train_split="even", val_split="odd")
        assert (len(train), len(val)) == (len(splits["train"]), len(splits["validation"]))


def test_missing_and_damaged_files(splits: dict[str, Any], tmp_path: Path) -> None:
    root = hub_layout(splits, tmp_path / "hub", shards=3)
    (root / "train-00001-of-00003.parquet").write_bytes(b"PAR1 no more")
    assert f"cannot read train in {root}: " in refusal(lambda: opened(root, tmp_path))
    (root / "train-00001-of-00003.parquet").unlink()
    message = refusal(lambda: opened(root, tmp_path))
    assert "lacks 1 of 3 parquet shards beside train-00000-of-00003.parquet, the first is number 1" in message
    (root / "train-00001-of-00002.parquet").touch()
    assert "of more than one version of a split" in refusal(lambda: opened(root, tmp_path))
    root = save(splits, tmp_path / "saved")
    arrow = next((root / "train").glob("*.arrow"))
    arrow.write_bytes(arrow.read_bytes()[:1000])
    assert f"cannot read train in {root}: " in refusal(lambda: opened(root, tmp_path))
    arrow.unlink()
    assert f"cannot read train in {root}: " in refusal(lambda: opened(root, tmp_path))


def test_classes_of_the_two_splits(splits: dict[str, Any], image_folder: Path, tmp_path: Path) -> None:
    numbers = {**IMAGE, "label": datasets.Value("int64")}
    other = {**IMAGE, "label": datasets.ClassLabel(names=["cat", "fox"])}
    swapped = {**IMAGE, "label": datasets.ClassLabel(names=CLASSES[::-1])}
    samples = rows(image_folder / "val")
    for number, (train, val, expected) in enumerate(
        [
            (numbers, numbers, ("0", "1")),
            (LABELLED, numbers, ("cat", "dog")),
            (LABELLED, other, "different classes, 2 and 2 (dog, fox)"),
            (LABELLED, swapped, "the same ones in another order"),
        ]
    ):
        # Eight cats only: the split lacks the last class.
        root = save({"train": build(samples, train), "val": build(samples[:8], val)}, tmp_path / str(number))
        if isinstance(expected, tuple):
            assert [source.classes for source in opened(root, tmp_path)] == [expected, expected]
        else:
            assert expected in refusal(lambda root=root: opened(root, tmp_path))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_of_the_folder(
    splits: dict[str, Any], image_folder: Path, tmp_path: Path, workers: int
) -> None:
    source, _ = opened(save(splits, tmp_path / "saved"), tmp_path)
    folder = FolderSource(image_folder / "train")
    run = plan(efficienttrain_plus_plus(32, multiple=4), epochs=2, batch_size=8, dataset_size=len(folder))
    pairs = list(zip(Loader(source, run, workers=workers), Loader(folder, run, workers=0), strict=True))
    assert len(pairs) > 10
    for one, other in pairs:
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
        assert not one.corrupt


def test_shuffled_filtered_and_pickled(splits: dict[str, Any], image_folder: Path, tmp_path: Path) -> None:
    save(splits, tmp_path / "saved")
    dataset = datasets.load_from_disk(str(tmp_path / "saved" / "train"))
    folder = FolderSource(image_folder / "train")
    order = np.random.default_rng(0).permutation(len(folder))
    chosen = HuggingFaceSource(dataset.select(order.tolist()).select(range(3, 40)))
    # Its files are named, not copied: the images take 55 KB.
    stored = pickle.dumps(chosen)
    assert len(stored) < 20_000
    for source in (chosen, pickle.loads(stored)):
        for index in range(37):
            picture, label = source.load(index)
            expected, expected_label = folder.load(int(order[3 + index]))
            assert label == expected_label
            assert picture.whole().tobytes() == expected.whole().tobytes()


@pytest.mark.parametrize(
    ("features", "label", "classes"),
    [
        (LABELLED, "label", ("cat", "dog")),
        ({**IMAGE, "target": datasets.ClassLabel(num_classes=3)}, "target", ("0", "1", "2")),
        ({**IMAGE, "labels": datasets.Value("uint8")}, "labels", ("0", "1")),
        ({**IMAGE, "cls": datasets.Value("int64")}, "cls", ("0", "1")),
        ({"image": {"bytes": datasets.Value("large_binary"), "path": datasets.Value("string")},
          "label": datasets.Value("int32")}, "label", ("0", "1")),
    ],
    ids=["class label", "other name", "uint8", "cls", "struct"],
)  # fmt: skip
def test_columns_are_found(image_folder: Path, features: dict[str, Any], label: str, classes: tuple[str, ...]) -> None:
    source = HuggingFaceSource(build(rows(image_folder / "val"), features, label))
    assert source.classes == classes
    assert [source.load(index)[1] for index in (0, 7, 8, 15)] == [0, 0, 1, 1]
    assert source.load(0)[0].size == (48, 40)


def test_columns_are_chosen_by_name(image_folder: Path) -> None:
    dataset = build(
        rows(image_folder / "val"), {"img": datasets.Image(), "fine_label": LABELLED["label"]}, "fine_label", "img"
    )
    coarse = dataset.add_column("coarse", [0] * 16).cast_column("coarse", datasets.ClassLabel(names=["animal"]))
    assert HuggingFaceSource(coarse).classes == ("cat", "dog")
    assert HuggingFaceSource(coarse, label="coarse").classes == ("animal",)
    assert HuggingFaceSource(dataset, classes=["a", "b", "c"]).classes == ("a", "b", "c")
    raw = [sample["bytes"] for sample in rows(image_folder / "val")]
    binary = datasets.Dataset.from_dict({"jpg": raw, "cls": [0] * 16, "n": [5] * 16})
    assert HuggingFaceSource(binary).load(3)[0].size == (48, 40)
    assert HuggingFaceSource(binary, image="jpg", label="n").load(3)[1] == 5
    assert HuggingFaceSource(binary).describe(3) == "row 3 of the data set"


def test_columns_that_are_missing_or_ambiguous(image_folder: Path) -> None:
    dataset = build(rows(image_folder / "val"))
    message = refusal(lambda: HuggingFaceSource(dataset.remove_columns("label"), name="pets"))
    assert message.startswith("pets needs one column of labels (the feature ClassLabel, or integers named label,")
    assert "it has the columns image (Image)" in message
    text = dataset.remove_columns("label").add_column("label", ["x"] * 16)
    assert "image (Image), label (string)" in refusal(lambda: HuggingFaceSource(text))
    message = refusal(lambda: HuggingFaceSource(dataset.remove_columns("image")))
    assert "needs one column of encoded images" in message
    assert "it has the columns label (ClassLabel)" in message
    message = refusal(lambda: HuggingFaceSource(dataset.rename_columns({"image": "a", "label": "b"}), label="c"))
    assert "'c' is none: it has the columns a (Image), b (ClassLabel)" in message
    two = dataset.rename_column("label", "a").add_column("b", [0] * 16).cast_column("b", LABELLED["label"])
    message = refusal(lambda: HuggingFaceSource(two))
    assert "has 2 (a, b): name one by `label_column`, HuggingFaceSource(dataset, label='a')" in message
    integers = dataset.cast_column("label", datasets.Value("int64")).add_column("cls", [0] * 16)
    assert "has 2 (label, cls)" in refusal(lambda: HuggingFaceSource(integers))


def test_labels_that_are_no_classes(image_folder: Path) -> None:
    samples = rows(image_folder / "val")
    for label in (-1, None):
        samples[5]["label"] = label
        for features in (LABELLED, {**IMAGE, "label": datasets.Value("int64")}):
            message = refusal(lambda features=features: HuggingFaceSource(build(samples, features), name="pets"))
            assert message.startswith("the labels (label) of pets must be 0 to 1, and 1 are not or are missing (row 5 ")
    dataset = build(samples)
    message = refusal(lambda: HuggingFaceSource(dataset, classes=["only one"]))
    assert "must be 0 to 0, and 9 are not" in message
    # Rows that were removed do not count.
    assert len(HuggingFaceSource(dataset.select([0, 9, 6]))) == 3
    samples[5]["label"] = 10**9
    large = build(samples, {**IMAGE, "label": datasets.Value("int64")})
    assert "go up to 1000000000: they are no class numbers" in refusal(lambda: HuggingFaceSource(large))


def test_what_is_no_split(splits: dict[str, Any]) -> None:
    assert "is a DatasetDict, not a datasets.Dataset" in refusal(
        lambda: HuggingFaceSource(datasets.DatasetDict(splits))
    )
    assert "without streaming" in refusal(lambda: HuggingFaceSource(splits["train"].to_iterable_dataset()))
    assert "has no rows" in refusal(lambda: HuggingFaceSource(splits["train"].select([])))


def test_rows_without_an_image(image_folder: Path, tmp_path: Path) -> None:
    samples = rows(image_folder / "val")
    path = tmp_path / "own.jpg"
    path.write_bytes(samples[0]["bytes"])
    samples[0] |= {"bytes": None, "path": str(path)}
    samples[1] |= {"bytes": None, "path": ""}
    samples[2] |= {"bytes": b"no image", "path": None}
    samples[3] |= {"bytes": None, "path": str(tmp_path / "gone.jpg")}
    dataset = build(samples)
    dataset = datasets.concatenate_datasets(
        [dataset, datasets.Dataset.from_dict({"image": [None], "label": [0]}, dataset.features)]
    )
    source = HuggingFaceSource(dataset, name="pets")
    assert source.load(0)[0].size == (48, 40)
    for index, words in (
        (1, "neither the bytes nor the path"),
        (2, "no image of a kind"),
        (3, "No such file"),
        (16, "neither"),
    ):
        with pytest.raises(OSError, match=words) as caught:
            source.load(index)
        assert str(caught.value).startswith(f"row {index} of pets")
    run = plan(efficienttrain_plus_plus(32, multiple=4), epochs=4, batch_size=4, dataset_size=len(source))
    corrupt = {
        (one.index, one.name) for batch in Loader(source, run, workers=0, on_corrupt=list) for one in batch.corrupt
    }
    assert {index for index, _ in corrupt} == {1, 2, 3, 16}
    assert (1, "row 1 of pets") in corrupt


def test_quiet(splits: dict[str, Any], tmp_path: Path) -> None:
    hub_layout(dict.fromkeys(splits, splits["train"]), tmp_path / "hub", shards=20)
    script = (
        "import sys, warnings; warnings.simplefilter('error'); from pathlib import Path\n"
        # torch 2.6 leaves a temporary folder of its own behind.
        "warnings.simplefilter('ignore', ResourceWarning)\n"
        "from upchirp.data.sources.hugging_face_folder import open_hugging_face\n"
        "open_hugging_face(Path(sys.argv[1]), cache_dir=Path(sys.argv[2]))\n"
        "import datasets\n"
        "assert not datasets.are_progress_bars_disabled()\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "hub"), str(tmp_path / "cache")], capture_output=True, text=True
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_a_truncated_file_gives_one_line(splits: dict[str, Any], tmp_path: Path) -> None:
    root = hub_layout(splits, tmp_path / "hub")
    file = root / "train-00001-of-00002.parquet"
    file.write_bytes(file.read_bytes()[:-200])
    words = ["-m", "upchirp", "pack", "--data", root, "--output", tmp_path / "out"]
    run = start(*words, environment={**ENVIRONMENT, "HF_DATASETS_CACHE": str(tmp_path / "cache")}).finish()
    # Before it stands that the libraries are loaded.
    assert sum("error" in line for line in run.stderr.splitlines()) == 1, run.stderr
    line = run.stderr.splitlines()[-1]
    assert run.returncode == 2
    assert line.startswith(f"upchirp: error: cannot read train in {root}: ")


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train.parquet").touch()
    (tmp_path / "val.parquet").touch()
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "pip install 'upchirp[hf]'" in refusal(lambda: opened(tmp_path, tmp_path))
    assert "pip install 'upchirp[hf]'" in refusal(lambda: HuggingFaceSource(object()))


CLASS, LISTS = datasets.ClassLabel(names=["ant", "bee", "cow"]), [[2, 0], [], [1], [0, 0]]
NAMED = [["cow", "ant"], [], ["bee"], ["ant", "ant"]]


def tagged(values: list[Any], feature: Any, column: str = "tags", **others: Any) -> Any:
    """A row for each value, with a tiny image."""
    stream = BytesIO()
    PIL.Image.new("RGB", (12, 10)).save(stream, "PNG")
    features = {**IMAGE, column: feature, **{name: kind for name, (kind, _) in others.items()}}
    columns = {"image": [{"bytes": stream.getvalue(), "path": None}] * len(values), column: values}
    columns.update({name: own for name, (_, own) in others.items()})
    return datasets.Dataset.from_dict(columns, datasets.Features(features))


def shown(source: Any) -> list[list[str]]:
    """The names of each image's classes."""
    assert source.label_sets is not None and [source.load(row)[1] for row in range(len(source))] == list(source.labels)
    members = source.label_sets.members
    return [[source.classes[number] for number in members[label]] for label in source.labels]


@pytest.mark.parametrize(
    ("values", "feature", "classes"),
    [
        (LISTS, datasets.Sequence(CLASS), ("ant", "bee", "cow")),
        (LISTS, [CLASS], ("ant", "bee", "cow")),
        (LISTS, datasets.LargeList(datasets.Value("int16")), ("0", "1", "2")),
        (NAMED, datasets.Sequence(datasets.Value("string")), ("ant", "bee", "cow")),
        ([[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 0, 0]], datasets.Sequence(datasets.Value("uint8"), length=3), "012"),
        ([[True, False, True], [False] * 3, [False, True, False], [True, False, False]], [datasets.Value("bool")],
         "012"),
    ],
    ids=["classes", "list", "numbers", "texts", "columns", "truths"],
)  # fmt: skip
def test_lists_of_labels(values: list[Any], feature: Any, classes: tuple[str, ...]) -> None:
    dataset = tagged(values, feature)
    source = HuggingFaceSource(dataset)
    assert source.classes == tuple(classes)
    ant, bee, cow = source.classes
    assert shown(source) == [[ant, cow], [], [bee], [ant]]
    assert shown(HuggingFaceSource(dataset.select([3, 2, 0]))) == [[ant], [bee], [ant, cow]]
    # Without being asked for labels, it has images whatever they are.
    assert HuggingFaceSource(dataset, labelled=False).label_sets is not None


def test_a_column_of_lists_is_found_beside_others() -> None:
    kind = datasets.Sequence(CLASS)
    assert HuggingFaceSource(tagged(LISTS, kind, "shown", site=(datasets.Value("int64"), [7] * 4))).label_sets
    beside = {"label": (CLASS, [0, 1, 2, 0])}
    assert HuggingFaceSource(tagged(LISTS, kind, **beside)).label_sets is None
    assert HuggingFaceSource(tagged(LISTS, kind, **beside), label="tags").label_sets
    assert HuggingFaceSource(tagged(LISTS, kind, "labels", site=(CLASS, [0, 1, 2, 0]))).label_sets
    words = {"words": (datasets.Sequence(datasets.Value("string")), NAMED)}
    assert HuggingFaceSource(tagged([0, 1, 2, 0], datasets.Value("int64"), "label", **words)).label_sets is None
    assert "words (" in refusal(lambda: HuggingFaceSource(tagged([0.5] * 4, datasets.Value("float32"), "x", **words)))


def test_lists_of_two_splits(tmp_path: Path) -> None:
    texts, notes = datasets.Sequence(datasets.Value("string")), list[str]()
    root = save({"train": tagged(NAMED, texts), "val": tagged([["cow"], []], texts)}, tmp_path / "texts")
    train, val = open_data(root, note=notes.append)
    assert (shown(train), shown(val)) == ([["ant", "cow"], [], ["bee"], ["ant"]], [["cow"], []])
    assert notes == [f"images of train in {root} have several labels, in the column tags: each class is told by itself"]
    common = with_common_sets([train, val])
    assert isinstance(for_images(Classification(), Objective(), common), MultiLabel) and shown(common[1]) == shown(val)
    # The validation images lack the last class, or have one too many.
    counts = datasets.Sequence(datasets.Value("int64"))
    root = save({"train": tagged(LISTS, counts), "val": tagged([[0, 1], [1, 0]], counts)}, tmp_path / "numbers")
    _, val = open_data(root, note=notes.append)
    assert (shown(val), val.classes) == ([["0", "1"], ["0", "1"]], ("0", "1", "2"))
    root = save({"train": tagged(NAMED, texts), "val": tagged([["fox"]], texts)}, tmp_path / "unknown")
    # Another column than the one that is found by itself.
    both = {"label": (CLASS, [0, 1, 2, 0])}
    root = save({"train": tagged(NAMED, texts, **both), "val": tagged(NAMED, texts, **both)}, tmp_path / "both")
    assert open_data(root)[0].label_sets is None  # type: ignore[attr-defined]
    assert all(shown(source) == shown(train) for source in open_data(root, label_column="tags", note=notes.append))
    assert "'c' is none: it has the columns image (Image), tags" in refusal(lambda: open_data(root, label_column="c"))
    root = tmp_path / "unknown"
    assert f"(tags) of val in {root}: fox in row 0 is none of the 3 classes" in refusal(lambda: open_data(root))


@pytest.mark.parametrize(
    ("values", "feature", "message"),
    [
        ([[0], [], [-1]], CLASS, "must be 0 to 2, and 1 are not or are missing (row 2 has -1)"),
        ([[0], None], CLASS, "are missing in row 1: an image without labels has an empty list"),
        ([[0], [None]], CLASS, "are missing in row 1"),
        ([[], []], datasets.Value("string"), "are empty lists: choose a split with labels"),
        ([[True], [True, False]], datasets.Value("bool"), "of 2 lengths: give one for each class"),
        ([[20_000_000]], datasets.Value("int64"), "go up to 20000000"),
    ],
)
def test_lists_that_are_no_labels(values: list[Any], feature: Any, message: str) -> None:
    assert message in refusal(lambda: HuggingFaceSource(tagged(values, datasets.Sequence(feature))))
