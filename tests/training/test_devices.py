"""The device that a name asks for, on machines that have other ones."""

import pytest
import torch

from upchirp import InputError
from upchirp.search import SearchConfig
from upchirp.training import TrainConfig
from upchirp.training.parallel.device import choose_device


@pytest.fixture
def current(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A machine with two CUDA devices, and those that became the current one."""
    made_current: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", made_current.append)
    return made_current


def test_one_of_several_devices_is_chosen_by_its_number(current: list[int]) -> None:
    assert choose_device(None) == choose_device("cuda") == torch.device("cuda")
    assert not current
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    # What asks for no device by name, such as a stream, takes the current one.
    assert current == [1]


@pytest.mark.parametrize(("name", "message"), [("cuda:2", "no cuda:2: it has cuda:0 to cuda:1"), ("mps", "no mps")])
def test_a_device_that_is_not_there_is_refused(current: list[int], name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        choose_device(name)


def test_ranks_share_no_device(current: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(InputError, match="several ranks cannot share cuda:1: give `device='cuda'`"):
        choose_device("cuda:1")
    assert choose_device("cuda") == torch.device("cuda", 1)


def test_candidates_that_train_at_once_share_out_the_devices() -> None:
    values = {"model": "resnet18", "recipe": "light", "epochs": 6, "device": "cuda:1"}
    assert SearchConfig.from_flat(values).training.device == "cuda:1"
    with pytest.raises(InputError, match="share out the devices: give `device='cuda'`"):
        SearchConfig.from_flat({**values, "candidates_at_once": 2})


@pytest.mark.parametrize("name", ["gpu", "cuda1", "cuda:", "cuda:-1", "CPU", ""])
def test_what_is_no_device_is_refused_before_torch_is_asked(name: str) -> None:
    for refuse in (choose_device, lambda name: TrainConfig(device=name)):
        with pytest.raises(InputError, match="give cpu, cuda, cuda:1 for the second of several, or mps"):
            refuse(name)
