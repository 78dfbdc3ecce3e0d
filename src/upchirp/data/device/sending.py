"""Values of the host on the device."""

from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor


def to_device(values: npt.NDArray[Any], device: torch.device) -> Tensor:
    """A tensor of host values on a device, without waiting for it."""
    tensor = torch.from_numpy(values)
    if device.type == "cuda":
        # From pinned memory the copy is queued behind the device's work; from ordinary memory the host waits.
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
