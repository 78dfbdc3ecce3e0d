"""Lightning's own trainer by curriculum: to the weights of the command."""

import os
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.commanded import AUGMENTATION, PARTS, Commanded, planned
from tests.commanded import net as same_net
from tests.processes import call_in_ranks
from torch.nn.functional import cross_entropy

import upchirp
from upchirp import InputError

pl = pytest.importorskip("lightning.pytorch", reason="Lightning is not installed")
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint  # noqa: E402

from upchirp.lightning import Curriculum, CurriculumData, fit_to_checkpoint  # noqa: E402
from upchirp.lightning.data import even_batch  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own
QUIET: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}


class Net(pl.LightningModule):
    """As one writes it without a curriculum, but for the schedule of the learning rate."""

    def __init__(self, dropout: float = 0.1) -> None:
        super().__init__()
        self.net = same_net(dropout)
        self.validated: list[tuple[int, int, float]] = []
        self.trained: dict[str, torch.Tensor] = {}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.net(images)

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        images, targets = batch
        return cross_entropy(self(images), targets)

    def validation_step(self, batch: Any, index: int) -> None:
        images, labels = batch
        loss = cross_entropy(self(images), labels)
        self.validated.append((self.trainer.global_step, images.shape[-1], loss.item()))
        self.log("val_loss", loss)

    def on_train_batch_end(self, *_: Any) -> None:
        # In the end an average takes their place.
        self.trained = {name: value.clone() for name, value in self.net.state_dict().items()}

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), weight_decay=0.0, fused=True)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        fit_to_checkpoint(self, checkpoint)


def data_of(folder: Path, **options: Any) -> CurriculumData:
    train, val = upchirp.open_data(str(folder), 64)
    return CurriculumData(train, val, planned(len(train)), **{"workers": 0, "augmentation": AUGMENTATION, **options})


def fit(
    net: pl.LightningModule, data: CurriculumData | None, *callbacks: Any, ckpt_path: Any = None, **options: Any
) -> Any:
    callbacks = callbacks or (Curriculum(),)
    own = {"max_epochs": 1, "accelerator": "cpu", "enable_checkpointing": False, "num_sanity_val_steps": 0}
    trainer = pl.Trainer(callbacks=list(callbacks), **{**QUIET, **own, **options})
    trainer.fit(net, datamodule=data, ckpt_path=ckpt_path)
    return trainer


class Killed(Exception):
    pass


class Kill(pl.Callback):
    """Ends the process of training at a step, after validations and checkpoints of it."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
        if trainer.global_step == self.step:
            raise Killed


IN_PARTS = {"accumulate_grad_batches": PARTS, "val_check_interval": 4 * PARTS}


def averaged(*more: Any) -> list[Any]:
    return [Curriculum(), EMAWeightAveraging(decay=0.9), *more]


@pytest.fixture(scope="module")
def whole(image_folder: Path) -> Net:
    """The net after an uninterrupted training with an average, as exact resumption is to give it."""
    net = Net()
    trainer = fit(net, data_of(image_folder), *averaged(), **IN_PARTS)
    assert trainer.global_step == trainer.datamodule.plan.total_steps
    return net


def test_weights_are_those_of_the_command(whole: Net, commanded: Commanded, image_folder: Path) -> None:
    assert data_of(image_folder).plan == commanded.plan
    torch.testing.assert_close(whole.trained, commanded.weights, rtol=0, atol=0)


def test_it_goes_on_exactly_where_it_was_killed(whole: Net, image_folder: Path, tmp_path: Path) -> None:
    step = 8
    saving = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=step, save_top_k=-1)
    options = {**IN_PARTS, "enable_checkpointing": True}
    with pytest.raises(Killed):
        fit(Net(), data_of(image_folder), *averaged(saving, Kill(step + 1)), **options)
    net = Net()
    fit(net, data_of(image_folder), *averaged(), ckpt_path=tmp_path / f"step={step}.ckpt", **IN_PARTS)
    torch.testing.assert_close(net.trained, whole.trained, rtol=0, atol=0)
    torch.testing.assert_close(net.state_dict(), whole.state_dict(), rtol=0, atol=0)
    assert net.validated == whole.validated[-len(net.validated) :]
    # What is in the file are the shapes of that step.
    stored = Net.load_from_checkpoint(tmp_path / f"step={step}.ckpt")
    assert stored.net.pos_embed.shape != net.net.pos_embed.shape


def test_validations_change_nothing_and_are_of_the_average_at_the_final_size(whole: Net, image_folder: Path) -> None:
    net = Net()
    data = data_of(image_folder)
    trainer = fit(net, data, *averaged(), accumulate_grad_batches=PARTS, limit_val_batches=0)
    torch.testing.assert_close(net.state_dict(), whole.state_dict(), rtol=0, atol=0)
    assert len({stage.bandwidth for stage in data.plan.stages}) == 3
    assert [(step, side) for step, side, _ in whole.validated] == [
        (step, 64) for step in range(4, trainer.global_step, 4)
    ]
    # At the end the module holds the average.
    (again,) = pl.Trainer(callbacks=[Curriculum()], accelerator="cpu", **QUIET).validate(net, data, verbose=False)
    assert net.validated[-1][1] == 64 and 0 < again["val_loss"] < 1
    below = upchirp.validate(whole.net, data.val, 64, workers=0)
    assert again["val_loss"] == pytest.approx(below.loss, rel=1e-5)


class Checked(Net):
    """On one of two devices."""

    def on_train_batch_start(self, batch: Any, index: int) -> None:
        assert len(batch[0]) == 8 and self.trainer.world_size == 2


def _train(images: str, to: str) -> None:
    # By which Lightning knows that it was started in ranks.
    os.environ["TORCHELASTIC_RUN_ID"] = "test"
    two = Checked(dropout=0.0)
    # It would hang if ranks had other numbers of batches.
    data = data_of(Path(images), val_batch_size=4)
    trainer = fit(two, data, devices=2, strategy="ddp", val_check_interval=4)
    # In the middle, where positions are smaller, and at the end.
    assert [(step, side) for step, side, _ in two.validated if step % 4 == 0] == [
        (step, 64) for step in (4, 8, 12) for _ in range(trainer.num_val_batches[0])
    ]
    if trainer.global_rank == 0:
        torch.save([two.state_dict(), float(trainer.callback_metrics["val_loss"])], to)


def test_two_processes_train_on_their_shares(image_folder: Path, tmp_path: Path) -> None:
    call_in_ranks(2, _train, image_folder, tmp_path / "two.pt")
    weights, val_loss = torch.load(tmp_path / "two.pt", weights_only=True)
    one = Net(dropout=0.0)
    trainer = fit(one, data_of(image_folder), val_check_interval=4)
    # Sums in another order; Adam divides by what is nearly 0.
    for name, value in one.state_dict().items():
        assert (value - weights[name]).abs().mean() < 2e-5, name
    assert val_loss == pytest.approx(float(trainer.callback_metrics["val_loss"]), abs=0.1)


def test_own_schedulers_are_refused_or_left_alone(image_folder: Path) -> None:
    class Scheduled(Net):
        rates: list[float] = []  # noqa: RUF012  of this class alone

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), lr=0.5)
            schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

        def on_train_batch_end(self, *_: Any) -> None:
            self.rates.append(self.optimizers().param_groups[0]["lr"])

    with pytest.raises(InputError, match="the learning rates are the plan's: let configure_optimizers return no"):
        fit(Scheduled(), data_of(image_folder))
    fit(Scheduled(), data_of(image_folder), Curriculum(own_rates=True), max_steps=3, limit_val_batches=0)
    assert Scheduled.rates == [0.25, 0.125, 0.0625]


def test_what_cannot_be_is_refused_in_one_line(image_folder: Path, tmp_path: Path) -> None:
    data = data_of(image_folder)
    with pytest.raises(InputError, match=r"one epoch for Lightning: Trainer\(max_epochs=1\)"):
        fit(Net(), data, max_epochs=3)
    with pytest.raises(InputError, match="the plan comes with the data"):
        fit(Net(), None)
    with pytest.raises(InputError, match="selection needs the loss of each image"):
        data_of(image_folder, select=upchirp.Selection())
    with pytest.raises(InputError, match="batch size 16 cannot be shared by 1 devices in 3 parts"):
        fit(Net(), data, accumulate_grad_batches=3)
    saving = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=2, save_top_k=-1)
    fit(Net(), data, Curriculum(), saving, enable_checkpointing=True, max_steps=2, limit_val_batches=0)
    other = CurriculumData(data.train, None, planned(len(data.train), epochs=3.0), workers=0)
    with pytest.raises(InputError, match="trained by another plan"):
        fit(Net(), other, ckpt_path=tmp_path / "step=2.ckpt")


def test_ranks_have_the_same_number_of_validation_batches() -> None:
    for images in range(2, 40):
        for ranks in (2, 3):
            batch = even_batch(images, ranks, 5)
            shares = {-(-len(range(rank, images, ranks)) // batch) for rank in range(ranks)}
            assert len(shares) == 1 or images < 2 * ranks, (images, ranks)


def test_a_missing_library_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for library in (
        "lightning",
        "lightning.pytorch",
        "pytorch_lightning",
    ):
        monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(InputError, match="needs Lightning, which is not installed: pip install"):
        runpy.run_path(str(Path(upchirp.__file__).parent / "lightning" / "library.py"))
