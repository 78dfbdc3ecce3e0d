from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from upchirp import InputError
from upchirp.data import Augmentation, as_source
from upchirp.training.evaluation.evaluation import View, evaluate
from upchirp.training.evaluation.images import EvaluationSet
from upchirp.training.evaluation.predictions import Predictions, read_answers, write_answers


class Shades:
    """Grey images, each darker or brighter than the middle; the label says which, but for some."""

    classes = ("dark", "bright", "none")

    def __init__(self, broken: int | None = None) -> None:
        self.broken = broken

    def __len__(self) -> int:
        return 300

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if index == self.broken:
            raise OSError("damaged")
        bright = index % 3 == 0
        return torch.full((3, 32, 32), 250 if bright else 5, dtype=torch.uint8), int(bright) if index % 10 else 2


class Brightness(nn.Module):
    """Says 1 for bright images and 0 for dark ones."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        mean = images.mean(dim=(1, 2, 3))
        return torch.stack([-mean, mean, torch.full_like(mean, -9.0)], dim=1)


def predictions(source: Any, **options: Any) -> Predictions:
    seen = Augmentation(mean=(0.5,) * 3, std=(0.25,) * 3)
    images = EvaluationSet(as_source(source), 32, seen, workers=0, batch_size=64, **options)
    views = [View("model", Brightness(), 32)]
    evaluate(views, images, device=torch.device("cpu"))
    (again,) = evaluate(views, images, device=torch.device("cpu"))
    assert again.predictions is not None
    assert again.top1 == pytest.approx(100 * again.predictions.hits.mean())
    return again.predictions


def test_every_image_has_its_label_and_guess() -> None:
    made = predictions(Shades())
    np.testing.assert_array_equal(made.indices, np.arange(300))
    np.testing.assert_array_equal(made.guesses, np.arange(300) % 3 == 0)
    np.testing.assert_array_equal(made.labels, [label for _, label in map(Shades().__getitem__, range(300))])


def test_an_unreadable_image_is_missing() -> None:
    made = predictions(Shades(broken=7))
    assert len(made) == 299 and 7 not in made.indices
    np.testing.assert_array_equal(made.guesses, made.indices % 3 == 0)


def test_classes_and_confusions_are_counted() -> None:
    made = predictions(Shades())
    right, images = made.by_class(3)
    assert right.tolist() == [180, 90, 0] and images.tolist() == [180, 90, 30]
    assert made.confusions() == [(2, 0, 20), (2, 1, 10)]
    assert made.matrix(3).tolist() == [[180, 0, 0], [0, 90, 0], [20, 10, 0]]


@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 5, 21_000]))
def test_counts_agree_with_each_other(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    labels, guesses = rng.integers(0, classes, (2, 200), dtype=np.int32)
    made = Predictions(indices=np.arange(200, dtype=np.int32), labels=labels, guesses=guesses)
    right, images = made.by_class(classes)
    assert images.sum() == 200 and right.sum() == made.hits.sum()
    assert sum(count for *_, count in made.confusions()) == 200 - right.sum()
    if classes < 10:
        matrix = made.matrix(classes)
        np.testing.assert_array_equal(matrix.diagonal(), right)
        assert all(matrix[label, guess] == count for label, guess, count in made.confusions())


def test_they_are_kept(tmp_path: Path) -> None:
    made = predictions(Shades())
    write_answers(tmp_path / "made.npz", made)
    kept = read_answers(Predictions, tmp_path / "made.npz")
    assert kept is not None
    for name in ("indices", "labels", "guesses"):
        np.testing.assert_array_equal(getattr(kept, name), getattr(made, name))
    assert [path.name for path in tmp_path.iterdir()] == ["made.npz"]
    assert read_answers(Predictions, tmp_path / "other.npz") is None


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "made.npz").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(InputError, match=r"cannot read .*made\.npz"):
        read_answers(Predictions, tmp_path / "made.npz")
