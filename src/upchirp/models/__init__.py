"""Models: made from timm, fitted to a bandwidth, and priced."""

from upchirp.models.create import create_model
from upchirp.models.cswin import CSWinTransformer
from upchirp.models.flops import count_flops, count_parameters, flops_table
from upchirp.models.grids import GridChange, ResizableInput
from upchirp.models.input_size import check_sizes, fit_to_bandwidth, size_multiple

__all__ = [
    "CSWinTransformer",
    "GridChange",
    "ResizableInput",
    "check_sizes",
    "count_flops",
    "count_parameters",
    "create_model",
    "fit_to_bandwidth",
    "flops_table",
    "size_multiple",
]
