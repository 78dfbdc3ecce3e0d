"""torch's process-wide switches during a run."""

from collections.abc import Iterator

import pytest
import torch

from upchirp.training.parallel.device import numerics


@pytest.fixture(autouse=True)
def switches() -> Iterator[None]:
    """As a user may have set them."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    yield
    torch.backends.cudnn.benchmark = before


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_run_sets_its_switches_and_sets_them_back(deterministic: bool) -> None:
    with pytest.raises(RuntimeError, match="stopped"), numerics(torch.device("cpu"), deterministic=deterministic):
        # Its choice could be another one when an interrupted run goes on.
        assert not torch.backends.cudnn.benchmark
        assert torch.are_deterministic_algorithms_enabled() is deterministic
        raise RuntimeError("stopped")
    assert torch.backends.cudnn.benchmark
    assert not torch.are_deterministic_algorithms_enabled()
