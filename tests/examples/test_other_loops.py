"""Loops by other libraries' parts; those that are not installed are skipped."""

import itertools
import os
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from tests.commanded import command
from tests.processes import call_in_ranks

import upchirp

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = {"model": "test_vit", "size": 64, "epochs": 1.5, "batch_size": 16, "workers": 0}
SHOWN = "of 16 validation images at 64 px"


def main_of(name: str) -> Callable[..., Any]:
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]


@pytest.mark.parametrize("name", ["lightning_module", "hf_trainer", "accelerate_loop", "timm_loop", "fastai_learner"])
def test_they_are_short_and_take_a_handful_of_lines(name: str) -> None:
    lines = (EXAMPLES / f"{name}.py").read_text().splitlines()
    assert len(lines) <= 105
    assert sum("# upchirp" in line for line in lines) <= 12


@pytest.mark.filterwarnings("ignore")  # timm leaves files open
def test_timm(image_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = {**SMALL, "epochs": 2}
    assert main_of("timm_loop")(str(image_folder), **small, layer_decay=0.75, ema_decay=0.5) > 75
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("epoch 0: 48 px") and last.startswith("epoch 1: 64 px") and "% of 16 images" in last


def _accelerate(folder: str, output: str) -> None:
    from accelerate import Accelerator

    # What `accelerate launch --cpu` says; without it processes on CPUs do not know of each other.
    os.environ["ACCELERATE_USE_CPU"] = "true"
    assert Accelerator().num_processes == 2
    small = {**SMALL, "model": "test_vit3", "epochs": 1.0}
    assert main_of("accelerate_loop")(folder, Path(output), **small) > 75


@pytest.mark.slow
def test_accelerate(image_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="Accelerate is not installed")
    # Positions are resized on the way, so the model is wrapped anew.
    call_in_ranks(2, _accelerate, image_folder, tmp_path / "two.pt")


def test_accelerate_goes_on_where_it_was_killed_to_the_weights_of_the_command(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("accelerate", reason="Accelerate is not installed")
    small = {**SMALL, "model": "test_vit3", "save_every": 5}
    losses = itertools.count(1)

    def killing(*given: Any) -> torch.Tensor:
        if next(losses) == 8:
            raise KeyboardInterrupt
        return upchirp.data.mixed_cross_entropy(*given)

    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr(upchirp, "mixed_cross_entropy", killing)
        main_of("accelerate_loop")(str(image_folder), tmp_path / "cut.pt", **small)
    assert torch.load(tmp_path / "cut.pt", weights_only=True)["loader"]["step"] == 5
    assert main_of("accelerate_loop")(str(image_folder), tmp_path / "cut.pt", **small) > 75
    torch.manual_seed(0)
    model = timm.create_model("test_vit3", img_size=64, num_classes=2)
    same = {"epochs": SMALL["epochs"], "micro_batch": 16, "weight_decay": 0.05, "warmup": None, "amp": True}
    command(image_folder, tmp_path / "run", model, **same, model_ema=False)
    weights = torch.load(tmp_path / "cut.pt", weights_only=True)["model"]
    torch.testing.assert_close(weights, model.state_dict(), rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore")  # Lightning's own
def test_lightning(image_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("lightning", reason="Lightning is not installed")
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    place = {"accelerator": "cpu", "default_root_dir": str(tmp_path)}
    trainer = main_of("lightning_module")(str(image_folder), **SMALL, **quiet, **place, save_every=5)
    assert trainer.global_step == trainer.datamodule.plan.total_steps
    assert 0 <= trainer.callback_metrics["top1"] <= 100
    assert len(list(tmp_path.rglob("*.ckpt"))) == trainer.global_step // 5 > 0


@pytest.mark.filterwarnings("ignore")  # of transformers
def test_hugging_face(image_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="Accelerate is not installed")
    pytest.importorskip("transformers", reason="transformers is not installed")
    output = str(tmp_path / "run")
    quiet = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "save_every": 10}
    trainer = main_of("hf_trainer")(str(image_folder), output, **SMALL, **quiet)
    assert trainer.state.global_step == trainer.plan.total_steps
    assert trainer.evaluate()["eval_top1"] > 75


@pytest.mark.filterwarnings("ignore")  # fastai's own
def test_fastai(image_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("fastai", reason="fastai is not installed")
    small = {**SMALL, "epochs": 2, "output": str(tmp_path)}
    learner = main_of("fastai_learner")(str(image_folder), **small)
    loss, accuracy = learner.recorder.values[-1][1:]
    assert loss < 0.7 and accuracy > 0.75
    again = main_of("fastai_learner")(str(image_folder), 1, **small)
    torch.testing.assert_close(again.model.state_dict(), learner.model.state_dict(), rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore")  # those of the libraries
@pytest.mark.parametrize(
    ("name", "needs", "told"),
    [
        ("timm_loop", "timm", {}),
        ("accelerate_loop", "accelerate", {"output": Path("weights.pt")}),
        ("lightning_module", "lightning", {"logger": False, "enable_progress_bar": False, "accelerator": "cpu"}),
        ("hf_trainer", "transformers", {"use_cpu": True, "report_to": "none", "disable_tqdm": True}),
        ("fastai_learner", "fastai", {}),
    ],
)
def test_networks_do_that_are_made_for_no_size(
    name: str, needs: str, told: dict[str, Any], image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(needs, reason=f"{needs} is not installed")
    monkeypatch.chdir(tmp_path)
    main_of(name)(str(image_folder), **{**SMALL, "model": "test_resnet", "epochs": 1}, **told)
