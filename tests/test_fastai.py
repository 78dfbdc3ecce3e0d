"""fastai's learner by curriculum: to the weights of the command."""

import pickle
import runpy
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.commanded import AUGMENTATION, EPOCHS, ROWS, Shares, command, net, planned
from torch import nn

import upchirp
from upchirp import InputError

pytestmark = pytest.mark.filterwarnings("ignore")  # fastai's own


def test_a_missing_library_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "fastai"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fastai", None)
    with pytest.raises(InputError, match="needs fastai, which is not installed: pip install fastai"):
        runpy.run_path(str(Path(upchirp.__file__).with_name("fastai.py")))


def learner_of(folder: Path, output: Path, *callbacks: Any, loaders: Any = None, opt_func: Any = None) -> Any:
    vision = pytest.importorskip("fastai.learner", reason="fastai is not installed")
    optimizer = pytest.importorskip("fastai.optimizer")
    from upchirp.fastai import Curriculum, curriculum_loaders

    train, val = upchirp.open_data(str(folder), 64)
    given = {"epochs": EPOCHS, "augmentation": AUGMENTATION, "workers": 0, "val_batch_size": 8}
    opt_func = opt_func or partial(optimizer.OptimWrapper, opt=partial(torch.optim.AdamW, weight_decay=0.0, fused=True))
    return vision.Learner(
        loaders or curriculum_loaders(train, val, planned(len(train)), **given),
        net(),
        nn.CrossEntropyLoss(),
        opt_func,
        cbs=[Curriculum(), *callbacks],
        path=output,
    )


def test_it_goes_on_where_it_was_killed_to_the_weights_of_the_command(image_folder: Path, tmp_path: Path) -> None:
    core = pytest.importorskip("fastai.callback.core", reason="fastai is not installed")
    from fastai.callback.tracker import SaveModelCallback

    class Kill(core.Callback):
        def before_step(self) -> None:
            if (self.epoch, self.iter) == (1, 3):
                raise KeyboardInterrupt

    sides = []

    class Told(core.Callback):
        def after_pred(self) -> None:
            sides.append((self.training, self.xb[0].shape[-1], self.model.pos_embed.shape[1]))

    saving = {"every_epoch": True, "with_opt": True}
    whole = learner_of(image_folder, tmp_path, Told())
    with whole.no_bar(), whole.no_logging():
        whole.fit(EPOCHS)
    assert {(training, side) for training, side, _ in sides} == {(True, 32), (True, 48), (True, 64), (False, 64)}
    assert all(positions == 1 + (side // 16) ** 2 for training, side, positions in sides if training)
    assert whole.validate()[0] > 0
    # No hooks are left, which cannot be pickled.
    pickle.dumps(whole.model)
    model = net()
    command(image_folder, tmp_path / "run", model, Shares(), micro_batch=ROWS, model_ema=False)
    torch.testing.assert_close(whole.model.state_dict(), model.state_dict(), rtol=0, atol=0)
    killed = learner_of(image_folder, tmp_path, SaveModelCallback(**saving), Kill())
    with killed.no_bar(), killed.no_logging(), pytest.raises(KeyboardInterrupt):
        killed.fit(EPOCHS)
    resumed = learner_of(image_folder, tmp_path).load("model_0")
    assert resumed.model.pos_embed.shape[1] == 1 + 3 * 3
    with resumed.no_bar(), resumed.no_logging():
        resumed.fit(EPOCHS, start_epoch=1)
    torch.testing.assert_close(resumed.model.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_what_cannot_be_is_refused_in_one_line(image_folder: Path, tmp_path: Path) -> None:
    learner = learner_of(image_folder, tmp_path)
    from fastai.data.core import DataLoaders
    from fastai.optimizer import Adam

    with learner.no_bar(), pytest.raises(InputError, match=r"the plan is one of 2 epochs of whole steps: fit\(2\)"):
        learner.fit(3)
    with learner.no_bar(), pytest.raises(InputError, match="the learning rates are the plan's: call `fit`"):
        learner.fit_one_cycle(EPOCHS)
    with pytest.raises(InputError, match="moments are resized in torch's optimizers"):
        learner_of(image_folder, tmp_path, opt_func=Adam).fit(EPOCHS)
    with pytest.raises(InputError, match="the plan comes with the data"):
        learner_of(image_folder, tmp_path, loaders=DataLoaders([], [])).fit(EPOCHS)
