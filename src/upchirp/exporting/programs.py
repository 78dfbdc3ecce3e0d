"""A trained model as a program that needs neither timm nor upchirp: torch.export and ONNX."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from upchirp.errors import InputError, first_line
from upchirp.files import whole_path
from upchirp.models.meta import input_channels


def write_program(model: nn.Module, final_size: int, path: Path) -> None:
    """Write a `torch.export` program of float (N, 3, S, S) to (N, classes), for any N; `torch.export.load` reads it.

    Raises:
        InputError: torch cannot trace the model.
    """
    program = _traced(model, final_size)
    # By way of memory: torch refuses the name that a file has until it is complete.
    written = io.BytesIO()
    torch.export.save(program, written)
    with whole_path(path) as temporary:
        temporary.write_bytes(written.getvalue())


def write_onnx(model: nn.Module, final_size: int, path: Path) -> None:
    """Write an ONNX file of the same, with the input `images` and the output `logits`.

    Raises:
        InputError: what it takes is not installed, or torch cannot trace the model.
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError:
        raise InputError("ONNX needs two more packages: pip install 'upchirp[onnx]'") from None
    inputs = torch.zeros(2, input_channels(model), final_size, final_size)
    with whole_path(path) as temporary, _traceable():
        torch.onnx.export(
            model,
            (inputs,),
            str(temporary),
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: _any_batch()},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def _traced(model: nn.Module, final_size: int) -> "torch.export.ExportedProgram":
    # With one image torch would take the batch size for a constant.
    inputs = torch.zeros(2, input_channels(model), final_size, final_size)
    with _traceable():
        return torch.export.export(model, (inputs,), dynamic_shapes=({0: _any_batch()},))


def _any_batch() -> Any:
    # torch 2.6 takes the largest number that there is for a condition on the batch, unless a bound is named.
    return torch.export.Dim("batch", max=2**20)


@contextmanager
def _traceable() -> Iterator[None]:
    """Turn what torch raises on a model that it cannot trace into one line."""
    try:
        yield
    except (RuntimeError, ValueError, TypeError, NotImplementedError, AssertionError) as error:
        raise InputError(
            f"torch {torch.__version__} cannot make a program of this model: {first_line(error)}"
        ) from error
