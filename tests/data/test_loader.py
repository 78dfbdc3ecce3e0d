import warnings
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from upchirp import Augmentation, BatchTransform, InputError, Loader, Plan, efficienttrain_plus_plus, plan
from upchirp.curriculum import Curriculum, Operator, Phase
from upchirp.data import FolderSource
from upchirp.data.batch import Batch


class Squares(torch.utils.data.Dataset):
    """The user's own data set: (image, label) pairs, as torchvision's are."""

    classes = ("red", "green")

    def __init__(self, images: int = 30) -> None:
        self.images = images

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        if index >= len(self):
            raise IndexError(index)
        return Image.new("RGB", (50, 40), self.classes[index % 2]), index % 2


def small_plan(dataset_size: int, **changes: object) -> Plan:
    return plan(
        efficienttrain_plus_plus(32, multiple=4), **{"epochs": 2, "batch_size": 8, **changes}, dataset_size=dataset_size
    )


def same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        one.step == other.step and torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)
        for one, other in zip(first, second, strict=True)
    )


def test_batches_follow_the_plan() -> None:
    run = small_plan(30)
    batches = list(Loader(Squares(), run, workers=0))
    assert [batch.step for batch in batches] == list(run.steps())
    assert {batch.bandwidth for batch in batches} == {12, 24, 32}
    for batch in batches:
        assert batch.images.dtype == torch.uint8
        assert batch.images.shape == (8, 3, batch.bandwidth, batch.bandwidth)
        assert batch.labels.shape == (8,)
        assert (batch.learning_rate, batch.progress) == (batch.step.learning_rate, batch.step.progress)


@pytest.mark.parametrize("share_cores", [False, True])
def test_workers_change_nothing(image_folder: Path, share_cores: bool) -> None:
    source = FolderSource(image_folder / "train")
    run = small_plan(len(source))
    alone = list(Loader(source, run, workers=0, seed=5))
    assert same(alone, list(Loader(source, run, workers=2, seed=5, share_cores=share_cores)))
    assert not same(alone, list(Loader(source, run, workers=0, seed=6)))


def test_loading_leaves_the_global_random_numbers_alone(image_folder: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    source = FolderSource(image_folder / "train")
    list(Loader(source, small_plan(len(source)), workers=1))
    assert torch.equal(torch.rand(2), expected)


def test_starting_later_continues_the_same_data(image_folder: Path) -> None:
    source = FolderSource(image_folder / "train")
    run = small_plan(len(source))
    whole = list(Loader(source, run, workers=0))
    assert same(whole[7:], list(Loader(source, run, workers=0, start_step=7)))


def test_a_state_goes_on_by_the_plan_and_the_seed_it_is_of() -> None:
    state = Loader(Squares(), small_plan(30), workers=0, seed=2).state_dict()
    for changes, seed, wrong in (({"batch_size": 4}, 2, "plan"), ({"epochs": 3}, 2, "plan"), ({}, 3, "seed")):
        other = Loader(Squares(), small_plan(30, **changes), workers=0, seed=seed)
        with pytest.raises(InputError, match=f"a run by another {wrong}, .* go on with the {wrong} of the run"):
            other.load_state_dict(state)
    # Earlier versions did not write it down.
    Loader(Squares(), small_plan(30), workers=0, seed=3).load_state_dict({"step": 4, "selection": None})


def test_micro_batches_are_the_rows_of_the_step() -> None:
    run = small_plan(30)
    whole = list(Loader(Squares(), run, workers=0))
    parts = list(Loader(Squares(), run, workers=0, micro_batch=2))
    assert [part.completes_step for part in parts[:5]] == [False, False, False, True, False]
    joined = torch.cat([part.images for part in parts[:4]])
    assert torch.equal(joined, whole[0].images)
    assert [part.rows for part in parts[:2]] == [range(0, 2), range(2, 4)]


def test_prepared_micro_batches_are_the_rows_of_the_prepared_step() -> None:
    run = small_plan(30, batch_size=16)
    transform = BatchTransform(Augmentation(), seed=0)
    inputs, targets = next(iter(Loader(Squares(), run, workers=0))).prepare(transform)
    parts = iter(Loader(Squares(), run, workers=0, micro_batch=8))
    first, second = (next(parts).prepare(transform) for _ in range(2))
    torch.testing.assert_close(torch.cat([first[0], second[0]]), inputs)
    assert torch.equal(torch.cat([first[1].partners, second[1].partners]), targets.partners)


def test_corrupt_images_are_replaced_by_the_same_ones_every_time(image_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "class"
    folder.mkdir()
    for index, path in enumerate(sorted((image_folder / "train/cat").iterdir())):
        data = path.read_bytes()
        (folder / path.name).write_bytes(data[: len(data) // 3] if index % 8 == 0 else data)
    source = FolderSource(tmp_path)
    run = small_plan(len(source))
    first, second = (list(Loader(source, run, workers=workers, on_corrupt=list)) for workers in (0, 1))
    assert same(first, second)
    found = {image.index for batch in first for image in batch.corrupt}
    assert found == set(range(0, len(source), 8))
    assert all(image.name.endswith(".jpg") and image.reason for batch in first for image in batch.corrupt)
    loader = Loader(source, run, workers=0)
    with pytest.warns(UserWarning, match="another image replaces it"):
        own = [images for images, _ in DataLoader(loader.dataset, batch_sampler=loader.sampler)]
    assert all(torch.equal(images, batch.images) for images, batch in zip(own, first, strict=True))


@pytest.mark.parametrize(("images", "damaged"), [(20, 1), (20, 2), (700, 7), (700, 8)])
def test_a_loop_of_ones_own_hears_of_images_that_were_replaced(images: int, damaged: int) -> None:
    data = Squares(images)
    load = data.__getitem__

    class Damaged(Squares):
        def __getitem__(self, index: int) -> tuple[Image.Image, int]:
            if index < damaged:
                raise FileNotFoundError(f"{index}.jpg is gone")
            return load(index)

    refused = damaged > max(1, images // 100)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(InputError, match="more than 1 %") if refused else nullcontext():
            for _ in Loader(Damaged(images), small_plan(images), workers=0):
                pass
    assert len(caught) == min(5, damaged)
    assert "is gone): replaced by another (1 so far)" in str(caught[0].message)
    assert {warning.filename for warning in caught} == {__file__}


def test_a_plan_for_another_data_set_is_refused() -> None:
    with pytest.raises(InputError, match="dataset_size=30"):
        Loader(Squares(), small_plan(31))


def test_an_open_process_group_says_which_rows_are_this_process_s(monkeypatch: pytest.MonkeyPatch) -> None:
    run = small_plan(30)
    own = list(Loader(Squares(), run, workers=0, rank=1, world_size=2))
    for name, value in (("is_initialized", True), ("get_rank", 1), ("get_world_size", 2)):
        monkeypatch.setattr(torch.distributed, name, lambda value=value: value)
    found = list(Loader(Squares(), run, workers=0))
    assert found[0].rows == range(4, 8)
    assert same(found, own)
    assert Loader(Squares(), run, workers=0, rank=0, world_size=1).sampler.world_size == 1


def test_processes_without_a_process_group_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.warns(UserWarning, match=r"2 processes .* each of them loads all rows: call torch.distributed.init"):
        Loader(Squares(), small_plan(30), workers=0)
    with pytest.raises(InputError, match="give both, or neither"):
        Loader(Squares(), small_plan(30), workers=0, rank=1)


def test_falling_bandwidths_are_left_to_lanczos() -> None:
    phases = (Phase(end=0.5, bandwidth=32), Phase(end=1.0, bandwidth=16))
    run = plan(
        Curriculum(name="falling", axis="samples", phases=phases), dataset_size=30, epochs=2, batch_size=8
    )  # fmt: skip
    with pytest.raises(InputError, match="bandwidth 32 is above the final size, 16, from which crop reduces"):
        Loader(Squares(), run, low_frequency="crop")
    assert [batch.bandwidth for batch in Loader(Squares(), run, workers=0)] == [step.bandwidth for step in run.steps()]


def test_what_moves_batches_for_a_loop_can_move_them() -> None:
    loader = Loader(Squares(), small_plan(30), workers=0)
    batch = next(iter(loader))
    # Lightning and Accelerate move whatever has `to`, and take what it returns.
    moved = batch.to("meta", non_blocking=True)
    assert isinstance(moved, Batch)
    assert moved.images.device.type == moved.labels.device.type == "meta"
    assert (moved.step, moved.rows, moved.bandwidth) == (batch.step, batch.rows, batch.bandwidth)
    assert batch.images.device.type == "cpu"
    # A progress bar asks how many there are, and a logger for the size of a batch, which it finds in the first tensor.
    assert len(loader) == len(list(loader))
    assert len(next(value for value in vars(moved).values() if isinstance(value, torch.Tensor))) == len(batch.rows)


@pytest.mark.parametrize("low_frequency", ["lanczos", "crop"])
def test_a_data_loader_of_one_s_own_gives_the_same(low_frequency: Operator) -> None:
    augmentation = Augmentation(smoothing=0.3)
    loader = Loader(
        Squares(), small_plan(30), workers=0, seed=3, augmentation=augmentation, low_frequency=low_frequency
    )
    transform = BatchTransform(augmentation, seed=3, low_frequency=low_frequency)
    own = DataLoader(loader.dataset, batch_sampler=loader.sampler)
    for batch, (images, labels) in zip(loader, own, strict=True):
        assert torch.equal(images, batch.images) and torch.equal(labels, batch.labels)
        inputs, targets = batch.prepare(loader.transform)
        assert torch.equal(inputs, batch.prepare(transform)[0])
        assert targets.smoothing == 0.3
    # It keeps the noise that it erases with.
    assert loader.transform is loader.transform


def test_what_needs_the_loader_itself_says_so() -> None:
    replayed = small_plan(30).with_replay(1)
    with pytest.raises(InputError, match="replay"):
        _ = Loader(Squares(), replayed, workers=0).dataset
