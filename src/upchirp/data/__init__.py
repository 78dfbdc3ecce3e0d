"""Data: which image when (requests), from where (sources), prepared how (augmentation), on the device (batch)."""

from upchirp.lazy import exports

__getattr__, __dir__ = exports(__name__)
