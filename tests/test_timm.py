"""timm's training script by curriculum, in its order and by its functions: to the weights of the command."""

import copy
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from tests.commanded import AUGMENTATION, AVERAGE, EPOCHS, PARTS, RATE, ROWS, WARMUP, Commanded, net
from tests.runs import write_folder
from timm.data import create_dataset, create_loader, resolve_data_config
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.task import ClassificationTask, load_task_ema_checkpoint, resume_task_checkpoint
from timm.utils import CheckpointSaver, ModelEmaV2, dispatch_clip_grad
from torch import nn
from torchvision.datasets import ImageFolder

import upchirp
from upchirp import InputError
from upchirp.timm import CurriculumLoader, CurriculumScheduler, curriculum_loader

pytestmark = pytest.mark.filterwarnings("ignore")  # timm leaves files open


def arguments(folder: Path, **changes: Any) -> Namespace:
    """As the script's parser gives them, those of them that matter here, for the training of the command."""
    usual = {
        "data_dir": str(folder), "num_classes": 2, "batch_size": ROWS // PARTS, "grad_accum_steps": PARTS,
        "world_size": 1, "device": "cpu", "workers": 0, "seed": 0, "pin_mem": False, "no_prefetcher": False,
        "img_size": 64, "mean": AUGMENTATION.mean, "std": AUGMENTATION.std, "interpolation": "bicubic",
        "epochs": EPOCHS, "sched": "cosine", "lr": RATE, "warmup_epochs": EPOCHS * WARMUP, "warmup_lr": 1e-6,
        "min_lr": 1e-6, "cooldown_epochs": 0, "scale": [0.08, 1.0], "ratio": [3 / 4, 4 / 3], "hflip": 0.5, "vflip": 0.0,
        "color_jitter": 0.4, "aa": "rand-m9-mstd0.5-inc1", "reprob": 0.25, "mixup": 0.8, "cutmix": 1.0,
        "mixup_prob": 1.0, "mixup_switch_prob": 0.5, "smoothing": 0.1, "resume": "", "amp_dtype": None,
    }  # fmt: skip
    return Namespace(**{**usual, **changes})


class Killed(Exception):
    pass


class Script:
    """What the script does, in its order; the curriculum takes two lines of it."""

    def __init__(self, args: Namespace, model: nn.Module | None = None) -> None:
        self.args = args
        model = model or net()
        looks = resolve_data_config(vars(args), model=model)
        dataset_train = create_dataset("", root=args.data_dir, split="train", is_training=True)
        dataset_eval = create_dataset("", root=args.data_dir, split="val")
        common = {
            "input_size": looks["input_size"],
            "batch_size": args.batch_size,
            "num_workers": 0,
            "device": torch.device("cpu"),
        }
        self.loader: Any = create_loader(dataset_train, is_training=True, auto_augment=args.aa, **common)
        self.loader = curriculum_loader(args, dataset_train, model)  # the first line
        self.loader_eval = create_loader(dataset_eval, mean=looks["mean"], std=looks["std"], **common)
        soft = {"soft_targets": args.mixup > 0, "smoothing": args.smoothing}
        self.task = task = ClassificationTask(model, criterion_kwargs=soft, verbose=False)
        self.model, self.eval_model = task.get_trainable_module(), task.get_eval_model()
        self.optimizer = create_optimizer_v2(self.model, opt="adamw", lr=args.lr, weight_decay=0.0, fused=True)
        start = 0
        if args.resume:
            start = resume_task_checkpoint(task, args.resume, optimizer=self.optimizer, log_info=False)
        task.setup_ema(decay=AVERAGE, use_warmup=True)
        if args.resume:
            load_task_ema_checkpoint(task, args.resume)
        self.evaluator = task.create_evaluator()
        updates = (len(self.loader) + args.grad_accum_steps - 1) // args.grad_accum_steps
        self.scheduler: Any
        self.scheduler, epochs = create_scheduler_v2(self.optimizer, num_epochs=args.epochs, updates_per_epoch=updates)
        self.scheduler = CurriculumScheduler(self.optimizer, self.loader, task)  # the second line
        if start > 0:
            self.scheduler.step(start)
        self.epochs = range(start, epochs)
        self.sides: list[int] = []

    def run(self, folder: Path, kill: tuple[int, int] | None = None) -> "Script":
        saver = CheckpointSaver(
            self.model, self.optimizer, args=None, task=self.task, checkpoint_dir=folder, recovery_dir=folder
        )
        for epoch in self.epochs:
            for asked in (self.loader.dataset, self.loader.batch_sampler, self.loader.sampler):
                assert not hasattr(asked, "set_epoch")
            self.train(epoch, None if kill is None or kill[0] != epoch else kill[1])
            self.validate(self.eval_model)
            metrics = self.validate(self.task.get_eval_model(ema=True))
            saver.save_checkpoint(epoch, metric=metrics["top1"])
            self.scheduler.step(epoch + 1, metrics["top1"])
        return self

    def train(self, epoch: int, kill: int | None) -> None:
        self.model.train()
        accumulated = self.args.grad_accum_steps
        updates = epoch * ((len(self.loader) + accumulated - 1) // accumulated)
        self.optimizer.zero_grad()
        for index, (images, targets) in enumerate(self.loader):
            if index == kill:
                raise Killed
            self.sides.append(images.shape[-1])
            with torch.autocast("cpu", dtype=self.args.amp_dtype, enabled=self.args.amp_dtype is not None):
                loss = self.task(images, targets)["loss"]
            (loss / accumulated).backward()
            if (index + 1) % accumulated:
                continue
            dispatch_clip_grad(self.task.get_clip_parameters(), value=1e9, mode="value")
            self.optimizer.step()
            updates += 1
            self.optimizer.zero_grad()
            self.task.update_ema(step=updates)
            self.scheduler.step_update(num_updates=updates, metric=loss.item())

    def validate(self, model: nn.Module) -> dict[str, float]:
        self.evaluator.reset()
        model.eval()
        with torch.inference_mode():
            for images, targets in self.loader_eval:
                assert images.shape[-1] == 64
                with torch.autocast("cpu", dtype=self.args.amp_dtype, enabled=self.args.amp_dtype is not None):
                    self.evaluator.update(model(images), targets)
        metrics: dict[str, float] = self.evaluator.compute(distributed=False)
        return metrics

    def state(self) -> dict[str, Any]:
        kept = {**self.task.get_checkpoint_state(), **self.task.get_checkpoint_state(ema=True)}
        return {**kept, "optimizer": self.optimizer.state_dict()}


@pytest.fixture(scope="module")
def whole(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Script:
    """An uninterrupted training."""
    return Script(arguments(image_folder)).run(tmp_path_factory.mktemp("timm"))


def test_weights_are_those_of_the_command(whole: Script, commanded: Commanded) -> None:
    assert whole.loader.plan == commanded.plan
    assert len(whole.sides) == PARTS * commanded.plan.total_steps and set(whole.sides) == {32, 48, 64}
    torch.testing.assert_close(whole.state()["state_dict"], commanded.weights, rtol=0, atol=0)
    torch.testing.assert_close(whole.state()["state_dict_ema"], commanded.average, rtol=0, atol=0)


def test_it_goes_on_where_it_was_killed(whole: Script, image_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        Script(arguments(image_folder)).run(tmp_path, kill=(1, 5))
    last = tmp_path / "last.pth.tar"
    stored = torch.load(last, weights_only=False)
    # It was killed in its second epoch, and validated before at the final size; what is stored are the shapes of then.
    assert stored["epoch"] == 0 and stored["state_dict"]["pos_embed"].shape[1] == 1 + 3 * 3
    resumed = Script(arguments(image_folder, resume=str(last)))
    assert list(resumed.epochs) == [1]
    # Which changes nothing.
    assert resumed.validate(resumed.eval_model)["loss"] > 0
    torch.testing.assert_close(resumed.run(tmp_path).state(), whole.state(), rtol=0, atol=0)


def test_labels_are_left_to_the_loss_where_nothing_is_mixed(image_folder: Path, tmp_path: Path) -> None:
    plain = {"mixup": 0.0, "cutmix": 0.0, "aa": None, "color_jitter": 0.0, "grad_accum_steps": 1, "batch_size": 16}
    # Windows have masks, which are made anew where the side changes, in an evaluation by inference mode as well.
    small = {"window_size": 2, "embed_dim": 12, "depths": (2, 2), "num_heads": (1, 2), "num_classes": 2}
    windows: nn.Module = timm.create_model("swin_tiny_patch4_window7_224", img_size=64, **small)
    script = Script(arguments(image_folder, **plain, amp_dtype=torch.bfloat16), windows)
    script.loader.position = 14
    _, targets = next(iter(script.loader))
    assert targets.shape == (16,) and targets.dtype == torch.int64
    script.scheduler.step(0)
    script.run(tmp_path)
    assert set(script.sides) == {32, 64}
    with pytest.raises(InputError, match="steps of the plan are done: train for no more epochs"):
        script.train(EPOCHS, None)


def test_an_average_of_any_kind_and_copies_follow_the_images(whole: Script) -> None:
    model = net()
    average = ModelEmaV2(model)
    scheduler = CurriculumScheduler(torch.optim.AdamW(model.parameters()), whole.loader, model, average)
    model.train()(torch.zeros(2, 3, 32, 32))
    kept = average.module.pos_embed.clone()
    for each in (average.module, copy.deepcopy(model).eval()):
        assert each(torch.zeros(2, 3, 64, 64)).shape == (2, 2) and each.pos_embed.shape[1] == 1 + 2 * 2
    assert torch.equal(average.module.pos_embed, kept)
    scheduler.remove()
    with pytest.raises(AssertionError, match="Input height"):
        model(torch.zeros(2, 3, 64, 64))


def test_labels_are_those_of_the_script(tmp_path: Path) -> None:
    # In the order of numbers, as timm has it: images of class 10 are red, those of class 9 green.
    write_folder(tmp_path, train=8, val=1, classes=("10", "9"))
    plain = {"mixup": 0.0, "cutmix": 0.0, "aa": None, "color_jitter": 0.0, "reprob": 0.0, "epochs": 1}
    args = arguments(tmp_path, **plain, warmup_epochs=0, grad_accum_steps=1, batch_size=4)
    images, labels = next(iter(Script(args).loader))
    assert (images.mean((2, 3))[:, :2].argmax(dim=1) == 1 - labels).all()
    # A data set of others has the transform that the script's own loader gave it.
    others = ImageFolder(tmp_path / "train", transform=lambda image: 1 / 0)
    images, labels = next(iter(curriculum_loader(args, others, net())))
    assert (images.mean((2, 3))[:, :2].argmax(dim=1) == labels).all()


def test_what_cannot_be_is_refused_in_one_line(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(line: str, **changes: Any) -> None:
        with pytest.raises(InputError, match=line):
            Script(arguments(image_folder, **changes))

    refused(r"`vflip=0.5` does not go with a curriculum's batches and rates: leave it out", vflip=0.5)
    refused(r"`lr_k_decay=2.0` does not go with", lr_k_decay=2.0)
    with pytest.raises(InputError, match="`in_chans=1` does not go with"):
        curriculum_loader(arguments(image_folder, in_chans=1), [], net())
    refused(r"`sched=step` does not go", sched="step")
    refused(r"`color_jitter=0.4`, the script's usual, is not done here: give `color_jitter=0`", aa=None)
    for other in ("original", "rand-m9", "rand-m9-inc1-tweights"):
        refused(rf"`aa={other}` is not done here: give a RandAugment", aa=other)
    refused(r"mix images that are mixed: leave out `no_prefetcher`", no_prefetcher=True)
    refused(r"`warmup_epochs` is 5: give fewer than the 2 of the run", warmup_epochs=5)
    script = Script(arguments(image_folder))
    with pytest.raises(InputError, match="ends at 48 px, and the script validates at 64 px"):
        curriculum_loader(script.args, [], net(), curriculum=upchirp.constant(48))
    with pytest.raises(InputError, match="99 epochs for 15 steps: give 1 or more"):
        CurriculumLoader(script.loader.loader, epochs=99, classes=2)
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    with pytest.raises(
        InputError, match=r"cannot follow parameters that are resized \(pos_embed\) where it is wrapped"
    ):
        CurriculumScheduler(script.optimizer, script.loader, script.task)
    convolutions = timm.create_model("test_resnet", num_classes=2)
    CurriculumScheduler(script.optimizer, script.loader, convolutions)
