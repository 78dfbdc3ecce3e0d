"""Trained backbones in detection and segmentation: `pip install 'upchirp[dense]'`."""

from upchirp.dense.cascade import CascadeHeads
from upchirp.dense.detectors import DETECTORS, DetectorKind, detector
from upchirp.dense.feature_maps import FeatureMaps, feature_maps_of
from upchirp.dense.fpn import Backbone, backbone
from upchirp.dense.layouts import PictureSplits, read_pictures
from upchirp.dense.mask_folder import IGNORED, MaskedFile, MaskedImages, MaskSplits, read_masks
from upchirp.dense.pictures import Marked, Picture, Pictures
from upchirp.dense.simple_pyramid import SimplePyramid

__all__ = [
    "DETECTORS",
    "IGNORED",
    "Backbone",
    "CascadeHeads",
    "DetectorKind",
    "FeatureMaps",
    "Marked",
    "MaskSplits",
    "MaskedFile",
    "MaskedImages",
    "Picture",
    "PictureSplits",
    "Pictures",
    "SimplePyramid",
    "backbone",
    "detector",
    "feature_maps_of",
    "read_masks",
    "read_pictures",
]
