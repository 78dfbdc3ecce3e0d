"""Models: made from timm, fitted to a bandwidth, and priced."""

from upchirp.models.classifier import classifier_names, in_classifier
from upchirp.models.create import check_name, create_model, size_arguments
from upchirp.models.cswin import CSWinTransformer
from upchirp.models.flops import count_flops, count_parameters, flops_table
from upchirp.models.kernel_gradients import DeadShare, dead_kernel_shares
from upchirp.models.outputs import check_given, check_given_model, check_outputs
from upchirp.models.precision import autocast, computes
from upchirp.models.pvt import PyramidVisionTransformer
from upchirp.models.resizing.grids import GridChange, ResizableInput, follows_shape
from upchirp.models.resizing.input_size import at_size, fit_to_bandwidth, fit_to_tried, lent_at_size
from upchirp.models.resizing.sizes import check_sizes, resized_parameters, size_multiple
from upchirp.models.resizing.weights_size import LARGEST_WEIGHTS_SIZE, fit_stored, size_of_weights
from upchirp.models.unused import has_unused_parameters

__all__ = [
    "CSWinTransformer",
    "LARGEST_WEIGHTS_SIZE",
    "DeadShare",
    "GridChange",
    "PyramidVisionTransformer",
    "ResizableInput",
    "at_size",
    "autocast",
    "computes",
    "check_given",
    "check_given_model",
    "check_name",
    "check_outputs",
    "check_sizes",
    "classifier_names",
    "count_flops",
    "count_parameters",
    "create_model",
    "dead_kernel_shares",
    "fit_stored",
    "fit_to_bandwidth",
    "fit_to_tried",
    "flops_table",
    "follows_shape",
    "has_unused_parameters",
    "in_classifier",
    "lent_at_size",
    "resized_parameters",
    "size_arguments",
    "size_multiple",
    "size_of_weights",
]
