"""The script's two parts that the curriculum replaces: the same steps as in a loop of one's own."""

import copy
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.loss import SoftTargetCrossEntropy
from timm.utils import ModelEmaV3
from torch import nn

import upchirp
from upchirp import InputError
from upchirp.randomness import step_seed
from upchirp.timm import CurriculumLoader, CurriculumScheduler

AUGMENTATION = upchirp.Augmentation(mixup=0.8, cutmix=1.0, reprob=0.25, smoothing=0.1)


def net() -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = timm.create_model("test_vit3", img_size=64, num_classes=2, depth=2, drop_rate=0.1)
    return model


class Script:
    """What timm's script does with them."""

    def __init__(self, folder: Path, model: nn.Module, epochs: int = 2) -> None:
        train, _ = upchirp.open_data(str(folder), 64)
        curriculum = upchirp.efficienttrain_plus_plus(64, multiple=16)
        self.plan = upchirp.plan(curriculum, epochs=2, dataset_size=len(train), batch_size=16, learning_rate=1e-3)
        self.model, self.optimizer = model, torch.optim.AdamW(model.parameters())
        self.ema = ModelEmaV3(model, decay=0.9)
        given = upchirp.Loader(train, self.plan, augmentation=AUGMENTATION, workers=0, micro_batch=8)
        self.loader = CurriculumLoader(given, epochs=epochs, classes=2)
        self.scheduler = CurriculumScheduler(self.optimizer, self.loader, model, self.ema)
        self.sides: list[int] = []

    def epoch(self, epoch: int) -> None:
        self.model.train()
        updates = -(-len(self.loader) // 2) * epoch
        for index, (images, targets) in enumerate(self.loader):
            self.sides.append(images.shape[-1])
            (SoftTargetCrossEntropy()(self.model(images), targets) / 2).backward()
            if index % 2:
                self.optimizer.step()
                self.optimizer.zero_grad()
                updates += 1
                self.ema.update(self.model)
                self.scheduler.step_update(num_updates=updates, metric=1.0)
        self.scheduler.step(epoch + 1, 0.5)


def state_of(script: Script) -> dict[str, Any]:
    return copy.deepcopy(
        {"model": script.model.state_dict(), "ema": script.ema.state_dict(), "optimizer": script.optimizer.state_dict()}
    )


def test_weights_are_those_of_a_loop_of_one_s_own_and_an_epoch_is_gone_on_with(image_folder: Path) -> None:
    script, own = Script(image_folder, net()), net()
    script.epoch(0)
    stored = state_of(script)
    # Both models take the final size for as long as they are asked at it.
    for model in (script.model.eval(), script.ema.module.eval()):
        assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 2) and model.pos_embed.shape[1] == 1 + 3 * 3
    torch.testing.assert_close(state_of(script), stored, rtol=0, atol=0)
    script.epoch(1)
    assert len(script.sides) == 2 * script.plan.total_steps
    optimizer = torch.optim.AdamW(own.parameters())
    ema = ModelEmaV3(own, decay=0.9)
    given = upchirp.Loader(script.loader.loader._requested.source, script.plan, augmentation=AUGMENTATION, workers=0)
    for batch in given:
        upchirp.follow(batch.step, own, optimizer, ema)
        torch.manual_seed(step_seed(0, batch.step.index))
        images, targets = batch.prepare(given.transform)
        for part in (slice(8), slice(8, 16)):
            (SoftTargetCrossEntropy()(own(images[part]), targets.dense(2)[part]) / 2).backward()
        optimizer.step()
        optimizer.zero_grad()
        ema.update(own)
    torch.testing.assert_close(script.model.state_dict(), own.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(script.ema.state_dict(), ema.state_dict(), rtol=0, atol=0)
    again = net()
    # To the shapes that were stored, before they are loaded.
    upchirp.fit_to_bandwidth(again, script.plan.step(script.loader.updates - 1).bandwidth)
    resumed = Script(image_folder, again)
    for name, part in stored.items():
        getattr(resumed, name).load_state_dict(part)
    resumed.scheduler.step(1)
    resumed.epoch(1)
    torch.testing.assert_close(state_of(resumed), state_of(script), rtol=0, atol=0)


def test_what_cannot_be_is_refused_in_one_line(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="99 epochs for 15 steps: give 1 or more"):
        Script(image_folder, net(), epochs=99)
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 0)
    with pytest.raises(
        InputError, match=r"cannot follow parameters that are resized \(pos_embed\) where it is wrapped"
    ):
        Script(image_folder, net())
    Script(image_folder, timm.create_model("test_resnet", num_classes=2))
