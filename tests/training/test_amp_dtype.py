"""The number format of mixed precision: chosen by the device where it is left open, told, and kept."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.runs import Make, differing, interrupted, notes

from upchirp import train
from upchirp.training import Event, Optimization
from upchirp.training.folders.run_folder import read_settings
from upchirp.training.recipes import precision
from upchirp.training.recipes.precision import autocast_dtype, fast_autocast_dtype, with_amp_dtype

CPU = torch.device("cpu")


@pytest.fixture
def device_computes(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def set_to(*formats: torch.dtype) -> None:
        monkeypatch.setattr(precision, "computes", lambda device, dtype: dtype in formats)

    return set_to


@pytest.mark.parametrize(
    ("formats", "chosen", "unscaled"),
    [
        ((torch.bfloat16, torch.float16), "bfloat16", "bfloat16"),
        ((torch.bfloat16,), "bfloat16", "bfloat16"),
        # Ranks that share a model out scale no loss.
        ((torch.float16,), "float16", "float32"),
        ((), "float32", "float32"),
    ],
)
def test_the_first_format_that_the_device_computes_is_chosen(
    device_computes: Callable[..., None], formats: tuple[torch.dtype, ...], chosen: str, unscaled: str
) -> None:
    device_computes(*formats)
    open_choice, asked = Optimization(), Optimization(amp_dtype="bfloat16")
    assert with_amp_dtype(open_choice, CPU).amp_dtype == chosen
    assert with_amp_dtype(open_choice, CPU, scaled=False).amp_dtype == unscaled
    assert autocast_dtype(open_choice, CPU) == (None if chosen == "float32" else getattr(torch, chosen))
    assert autocast_dtype(Optimization(amp=False), CPU) is None
    # What is asked for is computed; an evaluation elsewhere does so if that costs nothing.
    assert autocast_dtype(asked, CPU) == torch.bfloat16
    assert fast_autocast_dtype(asked, CPU) == (torch.bfloat16 if torch.bfloat16 in formats else None)


def test_a_run_keeps_the_format_that_was_chosen(
    config: Make, tmp_path: Path, device_computes: Callable[..., None]
) -> None:
    device_computes()
    seen: list[Event] = []
    whole = config(output=str(tmp_path / "whole"))
    train(whole, observers=[seen.append])
    assert any("float32" in line and "bfloat16" in line for line in notes(seen))
    assert whole.output is not None and read_settings(whole.output).optimization.amp_dtype == "float32"
    stopped = interrupted(config(output=str(tmp_path / "stopped")), 5)
    # It goes on where there are instructions for another.
    device_computes(torch.bfloat16)
    train(stopped)
    assert not differing(stopped.output, whole.output)
    # From its checkpoint, too, into another folder.
    other = config(output=str(tmp_path / "other"), resume=str(tmp_path / "stopped"))
    (tmp_path / "stopped/config.yaml").unlink()
    train(other)
    assert read_settings(other.output).optimization.amp_dtype == "float32"


def test_an_emulated_format_is_told_of(config: Make, device_computes: Callable[..., None]) -> None:
    device_computes()
    seen: list[Event] = []
    interrupted(config(amp_dtype="bfloat16", model="test_resnet"), 1, seen.append)
    assert any("emulates" in line and "amp=False" in line for line in notes(seen))
