"""Data: which image when (requests), from where (sources), prepared how (augmentation), on the device (batch)."""

from upchirp.data.batch import Batch
from upchirp.data.channels import for_channels
from upchirp.data.device.mixing import Targets, mix_group, mixed_cross_entropy, multi_hot
from upchirp.data.device.moment import Moment, Transform
from upchirp.data.device.transform import BatchTransform, normalize, scale_of
from upchirp.data.identity import (
    DataIdentity,
    Fingerprint,
    are_numbers,
    fingerprint,
    match_classes,
    same_classes,
)
from upchirp.data.images.augmentation import TrainTransform
from upchirp.data.images.crops import default_crop_pct
from upchirp.data.images.evaluation import EvalTransform
from upchirp.data.images.pillow import DECODE_ERRORS
from upchirp.data.label_sets import LabelSets
from upchirp.data.loader import Loader
from upchirp.data.requests import Request, RequestSampler
from upchirp.data.selection import PassSummary
from upchirp.data.settings import RGB, Augmentation, Channels, Interpolation, Mode, PixelType
from upchirp.data.sources import (
    ArchiveSource,
    FolderSource,
    GeneratedSource,
    HuggingFaceSource,
    JoinedSource,
    LooseSource,
    MapStyleSource,
    RelabelledSource,
    ShardSource,
    Source,
    SubsetSource,
    TableSource,
    UnlabelledSource,
    as_source,
    find_images,
    open_data,
    open_evaluation,
    open_more,
    open_unlabelled,
    split,
)
from upchirp.data.workers.processes import outlive_interrupts
from upchirp.data.workers.requested import Corrupt

__all__ = [
    "DECODE_ERRORS",
    "RGB",
    "Channels",
    "PixelType",
    "for_channels",
    "scale_of",
    "ArchiveSource",
    "Augmentation",
    "Batch",
    "BatchTransform",
    "Moment",
    "Transform",
    "Corrupt",
    "DataIdentity",
    "EvalTransform",
    "Fingerprint",
    "FolderSource",
    "GeneratedSource",
    "HuggingFaceSource",
    "JoinedSource",
    "LabelSets",
    "Interpolation",
    "Loader",
    "LooseSource",
    "MapStyleSource",
    "Mode",
    "PassSummary",
    "RelabelledSource",
    "Request",
    "RequestSampler",
    "ShardSource",
    "Source",
    "SubsetSource",
    "TableSource",
    "Targets",
    "TrainTransform",
    "UnlabelledSource",
    "are_numbers",
    "as_source",
    "default_crop_pct",
    "find_images",
    "fingerprint",
    "outlive_interrupts",
    "match_classes",
    "mix_group",
    "mixed_cross_entropy",
    "multi_hot",
    "normalize",
    "open_data",
    "open_evaluation",
    "open_more",
    "open_unlabelled",
    "same_classes",
    "split",
]
