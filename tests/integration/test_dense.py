"""Detection and segmentation on photographs of blood cells, where the project's archive lies beside the checkout."""

import runpy
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.benchmarks.conftest import load

ROOT = Path(__file__).parents[2]
ARCHIVE = ROOT.parent / "shared/data/bccd.zip"
SMALL = {"model": "test_resnet", "workers": 0, "batch_size": 4}


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first photographs."""
    if not ARCHIVE.exists():
        pytest.skip(f"the photographs are not here: {ARCHIVE.name} is not shipped with the project")
    root = tmp_path_factory.mktemp("cells")
    with zipfile.ZipFile(ARCHIVE) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith((".xml", ".jpg")))
        wanted = [name for name in names if int(Path(name).stem.rpartition("_")[2]) < 28]
        archive.extractall(root, wanted)
    return root / "BCCD"


def example(name: str) -> Callable[..., dict[str, float]]:
    main: Callable[..., dict[str, float]] = runpy.run_path(str(ROOT / "examples" / f"{name}.py"))["main"]
    return main


@pytest.mark.parametrize("name", ["detection", "segmentation"])
def test_the_examples_are_short(name: str) -> None:
    assert len((ROOT / "examples" / f"{name}.py").read_text().splitlines()) < 200


def losses(shown: str) -> list[float]:
    return [float(line.rpartition(" ")[2]) for line in shown.splitlines() if "loss" in line]


def test_a_detector_learns_from_boxes(cells: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = example("detection")(
        cells, None, **SMALL, min_size=96, epochs=4, lr=2e-3, channels=16, output=tmp_path / "detector.pt"
    )
    first, *_, last = losses(capsys.readouterr().out)
    assert last < 0.8 * first
    assert {"map", "map_50", "mar_100"} <= found.keys() and 0 <= found["map"] <= 1
    assert (tmp_path / "detector.pt").exists()


def test_a_network_learns_from_masks(cells: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    masks = load("backbones").draw_masks(cells, tmp_path, size=(128, 96))
    options: dict[str, Any] = {**SMALL, "size": 96, "steps": 30, "lr": 1e-2, "channels": 16, "scales": (1.0,)}
    found = example("segmentation")(masks, None, **options)
    first, *_, last = losses(capsys.readouterr().out)
    assert last < 0.9 * first
    # All background would be 0.2.
    assert found["mIoU"] > 0.25 and found["mIoU, scales and mirror"] > 0.25
