"""timm's training script by curriculum: what takes the place of its loader and of its scheduler.

    loader_train = upchirp.timm.curriculum_loader(args, dataset_train, model)
    lr_scheduler = upchirp.timm.CurriculumScheduler(optimizer, loader_train, task)

All else stays: the script's functions for training and validation, its saver, its arguments.
"""

import logging
from argparse import Namespace
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import islice
from math import ceil
from typing import Any

import torch
import torch.distributed as dist
from timm.data import ImageDataset, resolve_data_config
from timm.data.auto_augment import rand_augment_transform
from timm.task import TrainingTask
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from upchirp.curriculum import Curriculum, LearningRate, efficienttrain_plus_plus, plan
from upchirp.data import Augmentation, Batch, Loader, as_source
from upchirp.data.images.decoding import Picture, open_picture
from upchirp.errors import InputError
from upchirp.models import fit_to_bandwidth, lent_at_size, resized_parameters, size_multiple, size_of_weights
from upchirp.models.meta import unwrap
from upchirp.randomness import step_seed
from upchirp.training import set_learning_rate

__all__ = ["CurriculumLoader", "CurriculumScheduler", "curriculum_loader"]

_logger = logging.getLogger(__name__)

_AS_IS: dict[str, tuple[Any, ...]] = {
    "task": ("classification",), "sched": ("cosine",), "model_dtype": (None, "float32"), "naflex_loader": (False,),
    "train_img_sizes": (None,), "train_batches_per_epoch": (None,), "epoch_repeats": (0,), "aug_repeats": (0,),
    "aug_splits": (0,), "use_multi_epochs_loader": (False,), "kd_model_name": (None,), "no_aug": (False,),
    "train_crop_mode": (None, "rrc"), "vflip": (0,), "color_jitter_prob": (None,), "grayscale_prob": (None,),
    "gaussian_blur_prob": (None,), "remode": ("pixel",), "recount": (1,), "resplit": (False,),
    "cutmix_minmax": (None,), "mixup_mode": ("batch",), "mixup_off_epoch": (0,), "warmup_prefix": (False,),
    "cooldown_epochs": (0,), "lr_cycle_limit": (1,), "lr_noise": (None,),
}  # fmt: skip
"""Arguments that ask for what a curriculum's batches or rates are not, and the values that ask for nothing."""


def curriculum_loader(
    args: Namespace, dataset: Any, model: nn.Module, *, curriculum: Curriculum | None = None
) -> "CurriculumLoader":
    """The loader of timm's training script, by a curriculum that is planned from the script's arguments.

    Epochs, batch size, learning rate, warm-up, RandAugment (`--aa`), crops, flips, erasing, mixing, smoothing and seed
    are as the arguments say; the magnitude of RandAugment rises to theirs. `--epochs` are equivalent ones, in which as
    much is computed as in so many passes at the final size. Where nothing is mixed, targets are labels, and the
    script's loss smooths them. From here on the model takes the shapes of whatever is loaded into it, such as those of
    a checkpoint from the middle.

    Args:
        args: of the script, with its learning rate.
        dataset: what the script has made for training, or what else `upchirp.Loader` takes, with the same labels.
        model: on its device, before weights to resume from are loaded, and before it is copied or wrapped.
        curriculum: by default EfficientTrain++ for the side that the script validates at.

    Raises:
        InputError: an argument that a curriculum's batches do not follow, or as `plan` and `Loader` raise it.
    """
    _check(args)
    looks: dict[str, Any] = resolve_data_config(vars(args), model=model)  # type: ignore[no-untyped-call]
    side = looks["input_size"][-1]
    augmentation, magnitude = _augmentation(args, looks)
    if curriculum is None:
        curriculum = efficienttrain_plus_plus(side, multiple=size_multiple(model))
        curriculum = replace(curriculum, magnitude=(0.0, magnitude))
    elif curriculum.final_size != side:
        raise InputError(f"the curriculum ends at {curriculum.final_size} px, and the script validates at {side} px")
    source = _Images(dataset) if isinstance(dataset, ImageDataset) else as_source(dataset)
    made = plan(
        curriculum,
        epochs=args.epochs,
        dataset_size=len(source),
        batch_size=args.batch_size * args.world_size * args.grad_accum_steps,
        learning_rate=args.lr,
        schedule=LearningRate(warmup=args.warmup_epochs / args.epochs, warmup_lr=args.warmup_lr, min_lr=args.min_lr),
    )
    _logger.info("%s: %s", made.curriculum, ", ".join(f"{of.steps} steps at {of.bandwidth} px" for of in made.stages))
    loader = Loader(
        source,
        made,
        augmentation=augmentation,
        seed=args.seed,
        workers=args.workers,
        micro_batch=args.batch_size,
        device=args.device,
        pin_memory=args.pin_mem,
    )
    model.register_load_state_dict_pre_hook(_fit_to_stored)  # type: ignore[no-untyped-call]
    return CurriculumLoader(loader, epochs=args.epochs, classes=args.num_classes, device=args.device)


def _check(args: Namespace) -> None:
    for name, usual in _AS_IS.items():
        value = getattr(args, name, usual[0])
        if value not in usual:
            raise InputError(f"`{name}={value}` does not go with a curriculum's batches and rates: leave it out")
    if args.no_prefetcher and (args.mixup > 0 or args.cutmix > 0):
        raise InputError("without its prefetcher the script would mix images that are mixed: leave out `no_prefetcher`")
    if args.warmup_epochs >= args.epochs:
        raise InputError(f"`warmup_epochs` is {args.warmup_epochs}: give fewer than the {args.epochs} of the run")


def _augmentation(args: Namespace, looks: dict[str, Any]) -> tuple[Augmentation, float]:
    """What the arguments say of the images, and the magnitude that RandAugment rises to."""
    layers, std, prob, magnitude = 0, 0.0, 0.5, 9.0
    if args.aa:
        if not args.aa.startswith("rand-") or "inc1" not in args.aa:
            raise InputError(f"`aa={args.aa}` is not done here: give a RandAugment such as `aa=rand-m9-mstd0.5-inc1`")
        drawn = rand_augment_transform(args.aa, {})
        first = drawn.ops[0]
        layers, std, prob = drawn.num_layers, float(first.hparams.get("magnitude_std", 0)), first.prob
        magnitude = float(first.magnitude)
    elif args.color_jitter:
        raise InputError(
            f"`color_jitter={args.color_jitter}`, the script's usual, is not done here: give `color_jitter=0`, or a "
            "RandAugment such as `aa=rand-m9-mstd0.5-inc1`, by which the script leaves it out too"
        )
    mixes = args.mixup > 0 or args.cutmix > 0
    augmentation = Augmentation(
        scale=tuple(args.scale),
        ratio=tuple(args.ratio),
        hflip=args.hflip,
        interpolation=looks["interpolation"],
        randaug_layers=layers,
        randaug_std=std,
        randaug_prob=prob,
        reprob=args.reprob,
        mixup=args.mixup,
        cutmix=args.cutmix,
        mixup_prob=args.mixup_prob if mixes else 0.0,
        mixup_switch_prob=args.mixup_switch_prob,
        smoothing=args.smoothing if mixes else 0.0,
        mean=looks["mean"],
        std=looks["std"],
    )
    return augmentation, magnitude


def _fit_to_stored(model: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Let a model take the shapes of what is about to be loaded into it."""
    if not prefix and (size := size_of_weights(model, {name: value.shape for name, value in state.items()}, 0)):
        fit_to_bandwidth(model, size)


class _Images:
    """The files that a data set of timm's reads, decoded as those of our own sources, under its labels."""

    classes = ()

    def __init__(self, dataset: ImageDataset) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def describe(self, index: int) -> str:
        """The file's name."""
        return str(self._dataset.filename(index))  # type: ignore[no-untyped-call]

    def load(self, index: int) -> tuple[Picture, int]:
        """The image, not decoded yet, and its label."""
        stream, label, *_ = self._dataset.reader[index]
        with stream:
            return open_picture(stream.read()), label


class CurriculumLoader:
    """In place of what `timm.data.create_loader` gives for training: images and the shares of the classes, on a device.

    The plan's steps are cut into epochs of as many steps each, of which the last may have fewer. Batches are mixed,
    erased and normalised, so the script's own mixup is left out, and its loss is `SoftTargetCrossEntropy`. If nothing
    is to be mixed or smoothed, the targets are labels, for any loss.

    Args:
        loader: of the plan's batches; with a `micro_batch` a step comes in parts, as the script accumulates them.
        epochs: of the script.
        classes: of the data.
        device: where the model is.
    """

    mixup_enabled = False
    # The script asks them whether they want to know the epoch.
    dataset = batch_sampler = sampler = None

    def __init__(self, loader: Loader, *, epochs: int, classes: int, device: torch.device | str = "cpu") -> None:
        plan = loader.sampler.plan
        if not 1 <= epochs <= plan.total_steps:
            raise InputError(f"{epochs} epochs for {plan.total_steps} steps: give 1 or more, each of a step at least")
        self.loader, self.plan, self.device, self.classes = loader, plan, torch.device(device), classes
        self.updates = ceil(plan.total_steps / epochs)
        """Steps in an epoch."""
        stage = plan.stages[0]
        self.parts = len(loader.sampler.share(stage.batch_size)) // loader.sampler.batch_rows(stage)
        """Batches in a step."""
        self.position = 0
        """The step that comes next; the scheduler says so."""
        self._dense = loader.augmentation.mixes or loader.augmentation.smoothing > 0
        self._batches: Iterator[Batch] = iter(())
        self._given = -1

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self.updates * self.parts

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of the epoch that begins at the position.

        Raises:
            InputError: the plan has ended.
        """
        if self.position >= self.plan.total_steps:
            raise InputError(f"the {self.plan.total_steps} steps of the plan are done: train for no more epochs")
        if self._given != self.position:
            self.loader.load_state_dict({"step": self.position, "selection": None})
            self._batches = iter(self.loader)
        begins = True
        for batch in islice(self._batches, len(self)):
            if begins:
                torch.manual_seed(step_seed(self.loader.sampler.seed, batch.step.index, self.loader.sampler.rank))
            begins, self._given = batch.completes_step, batch.step.index + batch.completes_step
            images, targets = batch.prepare(self.loader.transform, self.device)
            yield images, targets.dense(self.classes) if self._dense else targets.labels


class CurriculumScheduler:
    """In place of a scheduler of timm's: the plan's learning rates, and a model that fits itself to its images.

    In training the model, the optimizer's moments and the average are resized when images of another side come. In
    evaluation model and average take the side of the images for a pass, and are as before after it, bit by bit.

    Args:
        optimizer: of the model's parameters; `lr_scale` of a group is its share of the learning rate.
        loader: which says the step.
        model: on its device; or the script's `task`, which has the average, too.
        ema: a wrapper with the averaged model as its `module`, such as `ModelEmaV3`.

    Raises:
        InputError: several processes, and a model whose parameters are resized: the script wraps it once.
    """

    t_in_epochs = False

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        loader: CurriculumLoader,
        model: nn.Module,
        ema: Any = None,
    ) -> None:
        if isinstance(model, TrainingTask):
            task: Any = model
            model, ema = task.get_trainable_module(), task.get_eval_model(ema=True)
        if isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
        several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        if several and (names := resized_parameters(model, loader.plan.sizes)):
            raise InputError(
                f"DistributedDataParallel cannot follow parameters that are resized ({min(names)}) where it is wrapped "
                "once: take a model whose parameters keep their shapes, or a loop as in examples/own_loop.py"
            )
        self._optimizer, self._loader, self._ema = optimizer, loader, ema
        self._side: int | None = None
        self._lent = ExitStack()

        # Functions, as a copy of the model is to have the very same, and not a copy of all that is here.
        def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            self._fit(_network(module), int(inputs[0].shape[-1]))

        def after(*_: Any) -> None:
            with _as_ever():
                self._lent.close()

        for module in (model, *([] if ema is None else [ema.module if isinstance(ema, ModelEmaV3) else ema])):
            module.register_forward_pre_hook(before)
            module.register_forward_hook(after, always_call=True)
        self.step_update(0)

    def step_update(self, num_updates: int, metric: float | None = None) -> None:
        """After so many steps: the learning rate of the next one."""
        self._loader.position = min(num_updates, self._loader.plan.total_steps)
        if num_updates < self._loader.plan.total_steps:
            set_learning_rate(self._optimizer, self._loader.plan.step(num_updates).learning_rate)

    def step(self, epoch: int, metric: float | None = None) -> None:
        """After so many epochs, as when a run goes on."""
        self.step_update(epoch * self._loader.updates)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: all follows from the epoch."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing."""

    def _fit(self, network: nn.Module, side: int) -> None:
        with _as_ever():
            if network.training:
                fit_to_bandwidth(network, side, self._optimizer, self._ema)
                self._side = side
            elif self._side is None:
                fit_to_bandwidth(network, side)
            else:
                self._lent.enter_context(lent_at_size([network], side, self._side))


@contextmanager
def _as_ever() -> Iterator[None]:
    """Whatever the script computes its passes in: parameters that are resized are trained on, in full precision."""
    with torch.inference_mode(False), torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
        yield


def _network(module: nn.Module) -> nn.Module:
    """The network in what may be compiled, or an average."""
    module = unwrap(module)
    return unwrap(module.module) if isinstance(module, ModelEmaV3) else module
