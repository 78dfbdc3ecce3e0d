"""Trained backbones in detection and segmentation: `pip install 'upchirp[dense]'`."""

from upchirp.lazy import exports

__getattr__, __dir__ = exports(__name__)
