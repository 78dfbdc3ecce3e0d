"""Loops by other libraries' parts; those that are not installed are skipped."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.integration.ranks.conftest import finish

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = {"model": "test_vit3", "size": 64, "epochs": 3.0, "batch_size": 16, "workers": 0}
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
def test_lightning(image_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("lightning", reason="Lightning is not installed")
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    place = {"accelerator": "cpu", "default_root_dir": str(tmp_path)}
    trainer = main_of("lightning_module")(str(image_folder), **SMALL, **quiet, **place, save_every=5)
    assert trainer.global_step == trainer.datamodule.plan.total_steps
    assert trainer.callback_metrics["top1"] > 75 and len(list(tmp_path.rglob("*.ckpt"))) == trainer.global_step // 5
