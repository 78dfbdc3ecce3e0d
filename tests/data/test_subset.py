"""Stratified shares of a source."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from upchirp import InputError
from upchirp.data import GeneratedSource, MapStyleSource, split
from upchirp.data.sources.subset import labels_of, stratified


@given(st.lists(st.integers(0, 5), min_size=1, max_size=200), st.floats(0, 1), st.integers(0, 5))
def test_every_class_has_its_share(labels: list[int], share: float, seed: int) -> None:
    array = np.array(labels)
    taken = stratified(array, share, seed)
    assert abs(taken.sum() - share * len(labels)) <= 0.5 + 1e-9
    for label in set(labels):
        assert abs(taken[array == label].sum() - share * (array == label).sum()) < 1 + 1e-9
    assert (taken == stratified(array, share, seed)).all()


def test_seeds_choose_differently_and_the_same_again() -> None:
    labels = np.arange(400) % 4
    first, second = (stratified(labels, 0.25, seed) for seed in (0, 1))
    assert (first != second).any()
    # NumPy keeps the raw output of Philox for good, so what a seed chooses is for good too; values of this code.
    assert np.flatnonzero(first)[:6].tolist() == [0, 1, 3, 4, 5, 15]


def test_parts_make_the_whole_and_can_be_sent_to_workers() -> None:
    whole = GeneratedSource("val", num_images=40, num_classes=4, size=32)
    rest, part = (pickle.loads(pickle.dumps(source)) for source in split(whole, 0.25, seed=3))
    names = [source.describe(index) for source in (rest, part) for index in range(len(source))]
    assert sorted(names) == sorted(whole.describe(index) for index in range(40))
    assert sorted(np.bincount(labels_of(part)).tolist()) == [2, 2, 3, 3]
    assert [part.load(index)[1] for index in range(len(part))] == labels_of(part).tolist()
    assert part.classes == whole.classes
    with pytest.raises(IndexError):
        part.load(10)


def test_labels_of_a_data_set_of_ones_own() -> None:
    source = MapStyleSource([(Image.new("RGB", (4, 4)), label) for label in (2, 0, 1)])
    assert labels_of(source).tolist() == [2, 0, 1]


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan"), 0.01])
def test_a_share_that_is_none(share: float) -> None:
    with pytest.raises(InputError):
        split(GeneratedSource("val", num_images=20, num_classes=4, size=32), share, seed=0)
