"""Hugging Face's own Trainer by curriculum: to the weights of the command."""

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.commanded import AUGMENTATION, PARTS, Commanded, net, planned
from tests.processes import call_in_ranks
from torch import nn

import upchirp
from upchirp import InputError

pytest.importorskip("accelerate", reason="Accelerate is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")
from upchirp.hf import CurriculumTrainer, as_classifier  # noqa: E402
from upchirp.hf.library import installed  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # of transformers


def vit(dropout: float = 0.1) -> nn.Module:
    """Positions are fixed, and interpolated in each pass."""
    torch.manual_seed(0)
    small = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    own = {"image_size": 64, "patch_size": 16, "num_labels": 2, "hidden_dropout_prob": dropout}
    return transformers.ViTForImageClassification(transformers.ViTConfig(**small, **own))


def of_timm(dropout: float = 0.1) -> nn.Module:
    """Positions are resized."""
    model_args = {"img_size": 64, "depth": 2, "drop_rate": dropout}
    config = transformers.TimmWrapperConfig(architecture="test_vit3", model_args=model_args, num_labels=2)
    model: Any = transformers.TimmWrapperForImageClassification(config)
    model.timm_model.load_state_dict(net().state_dict())
    return model


def trainer_of(model: nn.Module, folder: Path, output: Path, *callbacks: Any, **changes: Any) -> Any:
    train, val = upchirp.open_data(str(folder), 64)
    settings = {
        "output_dir": str(output), "use_cpu": True, "report_to": "none", "disable_tqdm": True, "save_strategy": "no",
        "eval_strategy": "no", "logging_strategy": "no", "seed": 0, "optim": "adamw_torch_fused", **changes,
    }  # fmt: skip
    return CurriculumTrainer(
        model,
        transformers.TrainingArguments(**settings),
        plan=planned(len(train)),
        train_dataset=train,
        eval_dataset=val,
        augmentation=AUGMENTATION,
        callbacks=list(callbacks),
    )


class Killed(Exception):
    pass


class Kill(transformers.TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            raise Killed


IN_PARTS = {"gradient_accumulation_steps": PARTS, "max_grad_norm": 0.0}


@pytest.fixture(scope="module")
def whole(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An uninterrupted training."""
    trainer = trainer_of(of_timm(), image_folder, tmp_path_factory.mktemp("whole"), **IN_PARTS)
    trainer.train()
    assert trainer.state.global_step == trainer.plan.total_steps == 15
    return trainer


def test_it_goes_on_exactly_where_it_was_killed(whole: Any, image_folder: Path, tmp_path: Path) -> None:
    saved = {"save_strategy": "steps", "save_steps": 7, "eval_strategy": "steps", "eval_steps": 4, "logging_steps": 4}
    saved |= {"logging_strategy": "steps", **IN_PARTS}
    killed = trainer_of(of_timm(), image_folder, tmp_path, Kill(9), **saved)
    with pytest.raises(Killed):
        killed.train()
    resumed = trainer_of(of_timm(), image_folder, tmp_path, **saved)
    resumed.train(resume_from_checkpoint=True)
    torch.testing.assert_close(resumed.model.state_dict(), whole.model.state_dict(), rtol=0, atol=0)
    told = [(each["step"], each["learning_rate"]) for each in resumed.state.log_history if "learning_rate" in each]
    assert told == [(step, pytest.approx(whole.plan.step(step - 1).learning_rate)) for step in (4, 8, 12)]
    evaluated = [each["eval_top1"] for each in resumed.state.log_history if "eval_top1" in each]
    assert len(evaluated) == 4 and all(0 <= top1 <= 100 for top1 in evaluated)


def test_weights_saved_under_other_names_are_found(image_folder: Path, tmp_path: Path) -> None:
    models = []
    for place, resume in (("whole", None), ("cut", None), ("cut", True)):
        steps = {"max_steps": 3, "save_strategy": "steps", "save_steps": 2}
        trainer = trainer_of(vit(), image_folder, tmp_path / place, **steps)
        trainer.train(resume_from_checkpoint=resume)
        models.append(trainer.model.state_dict())
        # So that the last one goes on from the middle.
        shutil.rmtree(tmp_path / place / "checkpoint-3")
    torch.testing.assert_close(models[2], models[0], rtol=0, atol=0)


def test_the_model_is_fitted_when_a_step_begins_whose_batches_are_fetched(image_folder: Path, tmp_path: Path) -> None:
    order: list[tuple[str, int]] = []
    model = of_timm()
    positions = model.timm_model.pos_embed

    class Told(CurriculumTrainer):
        def get_batch_samples(self, *given: Any) -> Any:
            batches, count = super().get_batch_samples(*given)
            order.extend(("fetched", batch["pixel_values"].shape[-1]) for batch in batches)
            return batches, count

        def training_step(self, model: Any, inputs: Any, *given: Any) -> Any:
            order.append(("trained", inputs["pixel_values"].shape[-1]))
            return super().training_step(model, inputs, *given)

        def follow(self, step: int) -> None:
            before = positions.shape[1]
            super().follow(step)
            order.append(("fitted" if positions.shape[1] != before else "left", self.plan.step(step).bandwidth))

    trainer = trainer_of(model, image_folder, tmp_path, gradient_accumulation_steps=2)
    trainer.__class__ = Told
    trainer.train()
    sides = [trainer.plan.step(step).bandwidth for step in range(15)]
    changes = {0, *(step for step in range(1, 15) if sides[step] != sides[step - 1])}
    expected = []
    for step, side in enumerate(sides):
        fitted = "fitted" if step in changes else "left"
        expected += [("fetched", side), ("fetched", side), (fitted, side), ("trained", side), ("trained", side)]
    assert order == expected and len(changes) == 3


def test_weights_are_those_of_the_command_and_evaluations_those_of_validate(
    whole: Any, commanded: Commanded, image_folder: Path
) -> None:
    assert whole.plan == commanded.plan
    torch.testing.assert_close(whole.model.timm_model.state_dict(), commanded.weights, rtol=0, atol=0)
    val = upchirp.open_data(str(image_folder), 64)[1]
    result = upchirp.validate(as_classifier(whole.model), val, 64, augmentation=AUGMENTATION, workers=0)
    told = whole.evaluate()
    assert told["eval_top1"] == pytest.approx(result.top1)
    assert told["eval_loss"] == pytest.approx(result.loss, rel=1e-5)


def _train(images: str, to: str) -> None:
    folder, output = Path(images), Path(to)
    model = of_timm(0.0)
    trainer = trainer_of(model, folder, output, ddp_backend="gloo", eval_strategy="steps", eval_steps=4)
    trainer.train()
    if trainer.args.process_index == 0:
        torch.save([trainer.args.world_size, model.state_dict(), trainer.state.log_history[-2]], output / "two.pt")


def test_two_processes_train_on_their_shares(image_folder: Path, tmp_path: Path) -> None:
    call_in_ranks(2, _train, image_folder, tmp_path)
    size, weights, told = torch.load(tmp_path / "two.pt", weights_only=True)
    one = trainer_of(of_timm(0.0), image_folder, tmp_path)
    one.train()
    assert size == 2 and told["eval_loss"] == pytest.approx(one.evaluate()["eval_loss"], rel=1e-3)
    # Sums in another order; Adam divides by what is nearly 0.
    for name, value in one.model.state_dict().items():
        assert (value - weights[name]).abs().mean() < 2e-5, name


def test_the_best_weights_may_be_of_a_smaller_bandwidth(image_folder: Path, tmp_path: Path) -> None:
    often = {"eval_strategy": "steps", "eval_steps": 5, "save_strategy": "steps", "save_steps": 5, "max_steps": 10}
    # The first are the best by a measure that is turned round.
    best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss", "greater_is_better": True}
    trainer = trainer_of(of_timm(), image_folder, tmp_path, **often, **best)
    trainer.train()
    assert trainer.state.best_global_step == 5 and trainer.model.timm_model.pos_embed.shape[1] == 1 + 2 * 2
    told = [each["eval_loss"] for each in trainer.state.log_history if "eval_loss" in each]
    assert [trainer.evaluate()["eval_loss"] for _ in range(2)] == [told[0], told[0]] != [told[1], told[1]]


def test_what_cannot_be_is_refused_in_one_line(image_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="batch size 16 cannot be shared by 1 processes in 3 parts"):
        trainer_of(vit(), image_folder, tmp_path, gradient_accumulation_steps=3)
    assert upchirp.size_multiple(as_classifier(vit())) == 16
    with pytest.raises(
        InputError, match=r"cannot read .*trainer_state.json .*: go on from a folder that Trainer saved"
    ):
        trainer_of(vit(), image_folder, tmp_path).train(resume_from_checkpoint=str(tmp_path))


def test_a_missing_library_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for library in ("accelerate",):
        monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(InputError, match="needs transformers and accelerate, which are not installed: pip install"):
        installed()
