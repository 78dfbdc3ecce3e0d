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
from upchirp.data.batch import BatchTransform, normalize
from upchirp.data.loader import Batch, Loader
from upchirp.data.mixing import Targets, mix_group, mixed_cross_entropy
from upchirp.data.regrouping import regroup
from upchirp.data.requests import Request, RequestSampler
from upchirp.data.selection import PassSummary
from upchirp.data.sources import (
    FolderSource,
    GeneratedSource,
    HuggingFaceSource,
    MapStyleSource,
    ShardSource,
    Source,
    SubsetSource,
    as_source,
    open_data,
    split,
)
from upchirp.data.workers import DECODE_ERRORS, Corrupt, outlive_interrupts

__all__ = [
    "DECODE_ERRORS",
    "Augmentation",
    "Batch",
    "BatchTransform",
    "Corrupt",
    "EvalTransform",
    "FolderSource",
    "GeneratedSource",
    "HuggingFaceSource",
    "Interpolation",
    "Loader",
    "LowFrequency",
    "MapStyleSource",
    "Mode",
    "PassSummary",
    "Request",
    "RequestSampler",
    "ShardSource",
    "Source",
    "SubsetSource",
    "Targets",
    "TrainTransform",
    "as_source",
    "default_crop_pct",
    "outlive_interrupts",
    "mix_group",
    "mixed_cross_entropy",
    "normalize",
    "open_data",
    "regroup",
    "split",
]
