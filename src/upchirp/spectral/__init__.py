"""Low-frequency views of image tensors: exact crops of the spectrum, filters and anti-aliased resizing."""

from upchirp.spectral.cropping import low_frequency_crop
from upchirp.spectral.filtering import high_pass_filter, low_pass_filter, sinc_kernel
from upchirp.spectral.resampling import downsample

__all__ = ["downsample", "high_pass_filter", "low_frequency_crop", "low_pass_filter", "sinc_kernel"]
