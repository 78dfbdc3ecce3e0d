"""Data: which image when (requests), from where (sources), prepared how (augmentation), on the device (batch)."""

from upchirp.data.augmentation import (
    Augmentation,
    EvalTransform,
    Interpolation,
    LowFrequency,
    Mode,
    TrainTransform,
    default_crop_pct,
)
from upchirp.data.batch import BatchTransform, Targets, mix_group, mixed_cross_entropy, normalize
from upchirp.data.loader import DECODE_ERRORS, Batch, Corrupt, Loader, outlive_interrupts
from upchirp.data.requests import Request, RequestSampler
from upchirp.data.sources import FolderSource, GeneratedSource, MapStyleSource, Source, open_data

__all__ = [
    "DECODE_ERRORS",
    "Augmentation",
    "Batch",
    "BatchTransform",
    "Corrupt",
    "EvalTransform",
    "FolderSource",
    "GeneratedSource",
    "Interpolation",
    "Loader",
    "LowFrequency",
    "MapStyleSource",
    "Mode",
    "Request",
    "RequestSampler",
    "Source",
    "Targets",
    "TrainTransform",
    "default_crop_pct",
    "outlive_interrupts",
    "mix_group",
    "mixed_cross_entropy",
    "normalize",
    "open_data",
]
