"""Loops by other libraries' parts; those that are not installed are skipped."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.integration.ranks.conftest import finish

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = {"model": "test_vit", "size": 64, "epochs": 3.0, "batch_size": 16, "workers": 0}
SHOWN = "of 16 validation images at 64 px"


def main_of(name: str) -> Callable[..., Any]:
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]


@pytest.mark.parametrize("name", ["lightning_module", "accelerate_loop", "timm_loop"])
def test_they_are_short_and_take_a_handful_of_lines(name: str) -> None:
    lines = (EXAMPLES / f"{name}.py").read_text().splitlines()
    assert len(lines) <= 105
    assert sum("# upchirp" in line for line in lines) <= 12


def test_the_parts_of_timm(image_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main_of("timm_loop")(str(image_folder), **SMALL, layer_decay=0.75, ema_decay=0.9) > 75
    shown = capsys.readouterr().out
    assert "32 px" in shown and SHOWN in shown


def test_accelerate(image_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("accelerate", reason="Accelerate is not installed")
    assert main_of("accelerate_loop")(str(image_folder), **SMALL) > 75
    assert SHOWN in capsys.readouterr().out
    words = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    # A transformer's positions are resized on the way, so it is wrapped anew.
    assert SHOWN in finish(2, EXAMPLES / "accelerate_loop.py", f"--data={image_folder}", *words)


@pytest.mark.filterwarnings("ignore")  # Lightning's own
def test_lightning_goes_on_exactly_where_it_was(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("lightning", reason="Lightning is not installed")
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    place = {"accelerator": "cpu", "default_root_dir": str(tmp_path)}
    whole = main_of("lightning_module")(str(image_folder), **SMALL, **quiet, **place, save_every=5)
    assert whole.trainer.global_step == whole.plan.total_steps
    (checkpoint,) = tmp_path.rglob("*step=5.ckpt")
    resumed = main_of("lightning_module")(str(image_folder), checkpoint, **SMALL, **quiet, **place)
    assert resumed.trainer.global_step == whole.plan.total_steps
    torch.testing.assert_close(resumed.net.state_dict(), whole.net.state_dict(), rtol=0, atol=0)
    assert capsys.readouterr().out.count(SHOWN) == 2
