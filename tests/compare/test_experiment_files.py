from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from upchirp.compare import CompareConfig
from upchirp.compare.jobs import jobs_of
from upchirp.compare.settling import Sources
from upchirp.data import Source
from upchirp.training import load_config

FILES = sorted((Path(__file__).parents[2] / "experiments").glob("*.yaml"))
EVIDENCE = Path(__file__).parents[2] / "docs/evidence.md"


class Images:
    """20,000 training images of 40 classes."""

    classes = tuple(f"class {label}" for label in range(40))

    def __len__(self) -> int:
        return 20_000

    def load(self, index: int) -> tuple[Image.Image, int]:
        return Image.new("RGB", (64, 64)), 0


class Unopened(Sources):
    """Such images for every data set."""

    def of(self, start: Any) -> tuple[Source, Source]:
        images: Any = Images()
        return images, images


UNOPENED = Unopened()


@pytest.fixture(scope="module")
def evidence() -> Iterator[str]:
    yield EVIDENCE.read_text()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_experiment_plans_and_is_listed(path: Path, evidence: str) -> None:
    config = CompareConfig.from_flat({**load_config(path), "data": "any", "seeds": [0]}, source=str(path))
    jobs = jobs_of(config, Path("out"), UNOPENED)
    assert len(jobs) >= len(config.variants)
    # Two minutes or so on two cores: no variant costs more than the whole budget but by fine-tuning.
    assert all(job.plan.equivalent_epochs <= 6.1 for job in jobs)
    assert f"experiments/{path.name}" in evidence


def test_tables_and_figures_are_all_listed(evidence: str) -> None:
    rows = [line.split("|")[1].strip() for line in evidence.splitlines() if line.startswith("| ")]
    for kind, last in (("Table", 25), ("Figure", 8)):
        for number in range(1, last + 1):
            assert any(row == f"{kind} {number}" for row in rows), f"{kind} {number}"
