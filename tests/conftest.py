"""Fixtures that several parts share: a small folder of real JPEG files, and a run on it that takes seconds.

What takes seconds to import is imported inside: the process that hands tests out to others reads this file, too, and
runs none.
"""

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from upchirp import TrainConfig

if TYPE_CHECKING:
    from tests.commanded import Commanded
    from tests.runs import Make

hypothesis.settings.register_profile("suite", deadline=None, max_examples=50)
hypothesis.settings.load_profile("suite")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests go first: no process is left with one in the end, or takes over some that share a fixture."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session", autouse=True)
def _collect_no_imports() -> None:
    """Garbage is looked for among what tests make, and forks share the memory of what was imported."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _one_thread_per_process() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _deaths_of_workers_are_seen_at_once() -> None:
    from tests.worker_deaths import look_often

    look_often()


@pytest.fixture(scope="session", autouse=True)
def _files_need_not_outlive_the_machine() -> Iterator[None]:
    """To wait for the disk after each file is for machines that fail; a descriptor must be open all the same."""
    real = os.fsync
    os.fsync = os.fstat
    yield
    os.fsync = real


@pytest.fixture(scope="session", autouse=True)
def _no_reports_by_default() -> Iterator[None]:
    """A report takes a second, which the runs of hundreds of tests are spared; `report=True` asks for it."""
    defaults = TrainConfig.__init__.__wrapped__.__kwdefaults__
    assert defaults is not None and defaults["report"] is True
    defaults["report"] = False
    yield
    defaults["report"] = True


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.runs import write_folder

    return write_folder(tmp_path_factory.mktemp("images"))


@pytest.fixture
def config(image_folder: Path, tmp_path: Path) -> "Make":
    """Makes the configuration of a small run: three bandwidths, 11 steps, a vision transformer with an average."""
    from tests.runs import settings

    own = {"data": str(image_folder), "output": str(tmp_path / "run")}
    return lambda **changes: TrainConfig.from_flat(settings(**{**own, **changes}))


@pytest.fixture(scope="session")
def uninterrupted(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run with the settings of `config` leaves that nothing disturbed."""
    from tests.runs import settings

    from upchirp import train

    output = tmp_path_factory.mktemp("uninterrupted") / "run"
    train(TrainConfig.from_flat(settings(data=str(image_folder), output=str(output))))
    return output


@pytest.fixture(scope="session")
def commanded(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> "Commanded":
    """What the command came to by the settings that the adapters of other libraries are tested with."""
    from tests.commanded import commanded

    return commanded(image_folder, tmp_path_factory.mktemp("commanded") / "run")
