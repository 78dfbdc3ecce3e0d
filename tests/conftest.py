"""Fixtures that several parts share: a small folder of real JPEG files, and a run on it that takes seconds."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

from upchirp import TrainConfig

settings.register_profile("suite", deadline=None, max_examples=50)
settings.load_profile("suite")


@pytest.fixture(scope="session", autouse=True)
def _one_thread_per_process() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _no_reports_by_default() -> Iterator[None]:
    """A report takes a second, which the runs of hundreds of tests are spared; `report=True` asks for it."""
    defaults = TrainConfig.__init__.__wrapped__.__kwdefaults__
    assert defaults is not None and defaults["report"] is True
    defaults["report"] = False
    yield
    defaults["report"] = True


def write_folder(root: Path, *, train: int = 32, val: int = 8, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    """A data folder of 48 x 40 JPEGs whose classes differ in colour, so that a few steps can learn them."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for label, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 120, (40, 48, 3))
                pixels[..., label % 3] += 130
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index:03d}.jpg")
    return root


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("images"))


@pytest.fixture
def config(image_folder: Path, tmp_path: Path) -> Callable[..., TrainConfig]:
    """Makes the configuration of a small run: three bandwidths, 13 steps, a vision transformer with an average."""

    def make(**changes: object) -> TrainConfig:
        settings = {
            "data": str(image_folder),
            "model": "test_vit",
            "final_size": 64,
            "epochs": 3,
            "batch_size": 32,
            "micro_batch": 16,
            "workers": 0,
            "device": "cpu",
            "deterministic": True,
            "recipe": "light",
            "model_ema": True,
            "model_ema_decay": 0.9,
            "mixup": 0.2,
            "randaug_layers": 1,
            "drop": 0.1,
            "evaluations": 2,
            "log_interval": 2,
            "checkpoint_interval": 1000,
            "output": str(tmp_path / "run"),
            **changes,
        }
        return TrainConfig.from_flat(settings)

    return make
