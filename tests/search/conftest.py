"""The configuration of a small search."""

from collections.abc import Callable
from pathlib import Path

import pytest

from upchirp import TrainConfig
from upchirp.search import SearchConfig


@pytest.fixture
def search_config(config: Callable[..., TrainConfig], tmp_path: Path) -> Callable[..., SearchConfig]:
    """Makes the configuration of a small search: 3 stages, 2 candidates, so 4 trials of 2 to 7 steps."""

    def make(**changes: object) -> SearchConfig:
        training = config(model_ema=False, cost="flops", batch_size=16, epochs=2, output=str(tmp_path / "search"))
        own = {"stages": 3, "candidates": (32, 64), "search_val": 0.25}
        tuning = {} if changes.get("algorithm") == "greedy" else {"tuning_epochs": 0.5}
        flat = {**SearchConfig(training=training).to_flat(), **own, **tuning, **changes}
        return SearchConfig.from_flat(flat)

    return make
