"""Settings by the names that they have in other training scripts, and by names that are mistyped."""

import difflib
from collections.abc import Collection

_OURS = {
    "final_size": (
        "img_size", "image_size", "input_size", "imgsz", "size", "resolution", "train_crop_size", "crop_size",
        "val_resize_size", "resize",
    ),
    "lr": ("learning_rate", "lr0", "base_lr", "blr"),
    "weight_decay": ("wd",),
    "opt": ("optim", "optimizer"),
    "sched": ("scheduler", "lr_scheduler", "lr_scheduler_type", "lr_schedule"),
    "batch_size": ("bs", "batch", "train_batch_size", "per_device_train_batch_size", "per_gpu_batch_size"),
    "epochs": ("epoch", "num_epochs", "num_train_epochs", "max_epochs"),
    "warmup_passes": ("warmup_epochs", "lr_warmup_epochs"),
    "warmup": ("warmup_ratio",),
    "workers": ("num_workers", "dataloader_num_workers", "nproc"),
    "data": ("dataset", "data_dir", "data_path", "dataset_name", "train_dir", "root"),
    "output": ("out", "outdir", "out_dir", "output_dir", "save_dir", "project", "logdir", "log_dir"),
    "amp_dtype": ("fp16", "bf16", "mixed_precision", "precision"),
    "smoothing": ("label_smoothing",),
    "clip_grad": ("clip", "grad_clip", "clip_grad_norm", "max_grad_norm", "gradient_clip_val"),
    "model_ema": ("ema",),
    "early_stop": ("patience", "early_stopping"),
    "model": ("arch", "architecture", "backbone", "net", "model_name"),
    "weights": ("checkpoint", "ckpt", "resume_from", "initial_checkpoint", "load"),
    "run": ("run_dir", "run_folder", "experiment"),
    "model_kwargs": ("model_args",),
}  # fmt: skip
_LEAST, _FURTHER = 0.66, 0.1
"""How alike names are that may be meant, and how much less alike than the best."""


def meant(unknown: str, known: Collection[str]) -> list[str]:
    """The settings that an unknown name may mean: what is called so elsewhere, else what looks like it here or there.

    Args:
        unknown: as it was given, as a flag or not.
        known: names of settings, as Python has them.

    >>> known = ["final_size", "lr", "mixup", "mixup_prob"]
    >>> meant("img_size", known), meant("lerning_rate", known), meant("mixupp", known), meant("colour", known)
    (['final_size'], ['lr'], ['mixup'], [])
    """
    name = unknown.lstrip("-").replace("-", "_")
    elsewhere = {other: ours for ours, others in _OURS.items() if ours in known for other in others}
    if name in elsewhere:
        return [elsewhere[name]]
    alike = difflib.get_close_matches(name, [*known, *elsewhere], n=3, cutoff=_LEAST)
    ratios = [difflib.SequenceMatcher(None, each, name).ratio() for each in alike]
    return list(
        dict.fromkeys(
            elsewhere.get(each, each) for each, ratio in zip(alike, ratios, strict=True) if ratio > ratios[0] - _FURTHER
        )
    )
