"""How long a training waits for data, and what it says about it."""

import inspect
import os
import time
from collections.abc import Iterator

import pytest
import torch
from PIL import Image

from upchirp import Loader, TrainConfig, validate
from upchirp.data import MapStyleSource, open_data
from upchirp.data.packing import PackSettings, pack
from upchirp.data.settings import loader_processes
from upchirp.machine import hardware, usable_cores
from upchirp.training import EvalLoading, Event, Logged, Noted, train
from upchirp.training.assets.data import packing_helps
from upchirp.training.engine import step_batches
from upchirp.training.engine.step_batches import Arriving
from upchirp.training.probing.waiting import Supply


class FakeDevice:
    """A device that needs 100 ms for each piece of work, and a clock that only the loader moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.busy_until = 0.0

    def event(self) -> "FakeEvent":
        return FakeEvent(self, max(self.now, self.busy_until))


class FakeEvent:
    def __init__(self, device: FakeDevice, at: float) -> None:
        self.device = device
        self.at = at

    def query(self) -> bool:
        return self.device.now >= self.at

    def synchronize(self) -> None:
        assert self.query(), "waiting for the device would stall the host"

    def elapsed_time(self, later: "FakeEvent") -> float:
        return 1000 * (later.at - self.at)


def test_on_a_cpu_waiting_is_the_time_until_a_batch_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    device = FakeDevice()
    monkeypatch.setattr(step_batches.time, "perf_counter", lambda: device.now)

    def slow() -> Iterator[int]:
        for number in range(3):
            device.now += 0.02 * number
            yield number

    arriving = Arriving(slow(), torch.device("cpu"))
    assert [arrived[1] for arrived in iter(arriving.next, None)] == pytest.approx([0.0, 0.02, 0.04])


def test_on_an_accelerator_only_an_idle_device_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    device = FakeDevice()
    monkeypatch.setattr(step_batches, "_event", device.event)
    monkeypatch.setattr(step_batches.time, "perf_counter", lambda: device.now)
    arrivals = [0.05, 0.06, 0.3, 0.0]

    def loader() -> Iterator[float]:
        for seconds in arrivals:
            device.now += seconds
            yield seconds

    measured = []
    arriving = Arriving(loader(), torch.device("cuda"))
    for _, seconds in iter(arriving.next, None):
        measured.append(seconds)
        device.busy_until = max(device.now, device.busy_until) + 0.1
        arriving.work_queued()
    # Nothing was queued before the first batch; the second came in time; the device had done both at 0.25 and waited
    # for the third until 0.41; the fourth came at once.
    assert measured == pytest.approx([0.05, 0.0, 0.16, 0.0])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "try `workers=8`, `upchirp pack`, or `replay=1`"),
        ({"workers": 8, "cores": 8}, "with 8 workers: try `upchirp pack`, or `replay=1`"),
        ({"packing_helps": False}, "try `workers=8`, or `replay=1`"),
        ({"device_helps": True}, "try `workers=8`, `prepare='device'`, `upchirp pack`, or `replay=1`"),
        ({"share": 0.8, "cores": 64}, "takes 80 % of the time at B=96 with 4 workers: try `workers=20`"),
        ({"share": 0.8}, "or `replay=4`"),
        ({"replay": 2}, "or `replay=5`"),
        ({"workers": 0}, "`workers=2`"),
        ({"workers": 1}, "with 1 worker: try"),
        ({"share": 1.0, "packing_helps": False, "workers": 8}, "try `replay=8`"),
        ({"replay": None}, "try `workers=8`, or `upchirp pack`"),
        ({"replay": None, "workers": 8, "packing_helps": False}, "try more CPU cores"),
    ],
)
def test_advice_names_the_numbers(changes: dict[str, object], expected: str) -> None:
    situation = {"share": 0.5, "replay": 0, "workers": 4, "cores": 8, "packing_helps": True, **changes}
    share, replay = situation.pop("share"), situation.pop("replay")
    assert expected in Supply(**situation).advice(share, bandwidth=96, replay=replay)


class Pictures(torch.utils.data.Dataset):
    classes = ("red", "green")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        if index >= len(self):
            raise IndexError(index)
        time.sleep(self.seconds)
        return Image.new("RGB", (40, 40), self.classes[index % 2]), index % 2


@pytest.mark.parametrize(("seconds", "log_interval"), [(0.0, 6), (0.01, 6), (0.01, 2)])
def test_a_run_that_waits_says_so_once(config, seconds: float, log_interval: int) -> None:
    events: list[Event] = []
    settings = config(
        curriculum="constant",
        epochs=12,
        batch_size=8,
        micro_batch=8,
        log_interval=log_interval,
        randaug_layers=0,
        evaluations=1,
        workers=0,
    )
    train(settings, data=(Pictures(seconds), Pictures(0.0)), observers=[events.append])
    shares = [event.wait_share for event in events if isinstance(event, Logged)]
    said = [event.message for event in events if isinstance(event, Noted) and "waiting for data" in event.message]
    assert len(shares) == -(-12 // log_interval)
    if seconds:
        assert min(shares) > 0.3
        assert len(said) == 1
        assert "at B=64 with 0 workers: try `workers=" in said[0]
        # At the final size nothing is replayed.
        assert "`replay" not in said[0]
    else:
        assert shares[1] < 0.6


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores of a process are a matter of Linux")
def test_cores_are_those_that_the_process_may_use(image_folder) -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert TrainConfig(data=str(image_folder)).processes == hardware()["cores"] == usable_cores() == 1
        assert loader_processes(None) == 1
    finally:
        os.sched_setaffinity(0, before)
    # Whatever loads takes that number by default.
    for loading in (Loader, validate, EvalLoading):
        assert inspect.signature(loading).parameters["workers"].default is None


def test_packing_is_advised_where_it_helps(image_folder, tmp_path) -> None:
    """The folder's images have a shorter side of 40 pixels."""
    pack(image_folder, tmp_path / "packed", PackSettings(sizes=(20,)), workers=1)
    folder, packed = (open_data(root)[0] for root in (image_folder, tmp_path / "packed"))
    assert packing_helps(folder, 32)
    assert not packing_helps(folder, 40)
    assert not packing_helps(packed, 32)
    assert not packing_helps(MapStyleSource(Pictures(0.0)), 32)
