"""Train vision backbones faster by showing them low frequencies first (EfficientTrain++)."""

from upchirp.curriculum import (
    Curriculum,
    LearningRate,
    Phase,
    Plan,
    Selection,
    Stage,
    Step,
    constant,
    efficienttrain,
    efficienttrain_plus_plus,
    efficienttrain_plus_plus_convnext,
    efficienttrain_plus_plus_deit,
    linear,
    load_curriculum,
    plan,
    preset,
)
from upchirp.data import Augmentation, Batch, BatchTransform, Loader, mixed_cross_entropy, open_data
from upchirp.errors import InputError
from upchirp.models import autocast, count_flops, fit_to_bandwidth, size_multiple
from upchirp.spectral import downsample, high_pass_filter, low_frequency_crop, low_pass_filter, sinc_kernel
from upchirp.training import TrainConfig, TrainResult, train, validate

__all__ = [
    "Augmentation",
    "Batch",
    "BatchTransform",
    "Curriculum",
    "InputError",
    "LearningRate",
    "Loader",
    "Phase",
    "Plan",
    "Selection",
    "Stage",
    "Step",
    "TrainConfig",
    "TrainResult",
    "autocast",
    "constant",
    "count_flops",
    "downsample",
    "efficienttrain",
    "efficienttrain_plus_plus",
    "efficienttrain_plus_plus_convnext",
    "efficienttrain_plus_plus_deit",
    "fit_to_bandwidth",
    "high_pass_filter",
    "linear",
    "load_curriculum",
    "low_frequency_crop",
    "low_pass_filter",
    "mixed_cross_entropy",
    "open_data",
    "plan",
    "preset",
    "sinc_kernel",
    "size_multiple",
    "train",
    "validate",
]
