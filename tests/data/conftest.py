"""Images that several tests use."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image


def _photo(width: int = 60, height: int = 45, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    noise = rng.normal(0, 6, (height, width, 3))
    pixels = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)) + noise
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def photo() -> Callable[..., Image.Image]:
    """Makes images of smooth content with all grey levels and some noise: no two operations agree by accident."""
    return _photo
