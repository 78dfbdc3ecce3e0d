"""The arguments of timm's training script, as a plan and a loader of its batches."""

import logging
from argparse import Namespace
from copy import copy
from dataclasses import replace
from typing import Any

from timm.data import ImageDataset, resolve_data_config
from timm.data.auto_augment import rand_augment_transform
from torch import nn

from upchirp.curriculum import Curriculum, LearningRate, efficienttrain_plus_plus, plan
from upchirp.data import Augmentation, Loader, Source, as_source
from upchirp.data.images.decoding import Picture, open_picture
from upchirp.errors import InputError
from upchirp.models import size_multiple
from upchirp.timm.following import CurriculumLoader, fit_to_stored

_logger = logging.getLogger(__name__)

_AS_IS: dict[str, tuple[Any, ...]] = {
    "task": ("classification",), "sched": ("cosine",), "model_dtype": (None, "float32"), "naflex_loader": (False,),
    "train_img_sizes": (None,), "train_batches_per_epoch": (None,), "epoch_repeats": (0,), "aug_repeats": (0,),
    "aug_splits": (0,), "use_multi_epochs_loader": (False,), "kd_model_name": (None,), "no_aug": (False,),
    "train_crop_mode": (None, "rrc"), "vflip": (0,), "color_jitter_prob": (None,), "grayscale_prob": (None,),
    "gaussian_blur_prob": (None,), "remode": ("pixel",), "recount": (1,), "resplit": (False,),
    "cutmix_minmax": (None,), "mixup_mode": ("batch",), "mixup_off_epoch": (0,), "warmup_prefix": (False,),
    "cooldown_epochs": (0,), "lr_cycle_limit": (1,), "lr_noise": (None,), "lr_k_decay": (1,), "in_chans": (None, 3),
    "input_img_mode": (None, "RGB"),
}  # fmt: skip
"""Arguments that ask for what a curriculum's batches or rates are not, and the values that ask for nothing."""


def curriculum_loader(
    args: Namespace, dataset: Any, model: nn.Module, *, curriculum: Curriculum | None = None
) -> CurriculumLoader:
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
    if looks["input_size"][0] != 3:
        raise InputError(f"`input_size={looks['input_size']}` is not of RGB images, as the script's data sets are here")
    augmentation, magnitude = _augmentation(args, looks)
    if curriculum is None:
        curriculum = efficienttrain_plus_plus(side, multiple=size_multiple(model))
        curriculum = replace(curriculum, magnitude=(0.0, magnitude))
    elif curriculum.final_size != side:
        raise InputError(f"the curriculum ends at {curriculum.final_size} px, and the script validates at {side} px")
    source = _source(dataset)
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
    model.register_load_state_dict_pre_hook(fit_to_stored)  # type: ignore[no-untyped-call]
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
        drawn = rand_augment_transform(args.aa, {}) if args.aa.startswith("rand-") else None
        usual = rand_augment_transform("rand-inc1", {})
        if drawn is None or [each.name for each in drawn.ops] != [each.name for each in usual.ops]:
            raise InputError(f"`aa={args.aa}` is not done here: give a RandAugment such as `aa=rand-m9-mstd0.5-inc1`")
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


def _source(dataset: Any) -> Source:
    """What the script has made, without the transform that its own loader has given it."""
    if isinstance(dataset, ImageDataset):
        return _Images(dataset)
    if getattr(dataset, "transform", None) is not None:
        dataset = copy(dataset)
        dataset.transform = None
    return as_source(dataset)


class _Images:
    """The files that a data set of timm's reads, decoded as those of our own sources, under its labels."""

    classes: tuple[str, ...] = ()

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
