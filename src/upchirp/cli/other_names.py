"""Flags by the names that they have in other training scripts, or in other commands of ours."""

from collections.abc import Collection, Sequence

_OURS = {
    "--final-size": (
        "img-size", "image-size", "input-size", "imgsz", "size", "resolution", "train-crop-size", "crop-size",
        "val-resize-size", "resize",
    ),
    "--lr": ("learning-rate", "lr0", "base-lr", "blr"),
    "--weight-decay": ("wd",),
    "--opt": ("optim", "optimizer"),
    "--sched": ("scheduler", "lr-scheduler", "lr-scheduler-type", "lr-schedule"),
    "--batch-size": ("bs", "batch", "train-batch-size", "per-device-train-batch-size", "per-gpu-batch-size"),
    "--epochs": ("epoch", "num-epochs", "num-train-epochs", "max-epochs"),
    "--warmup-passes": ("warmup-epochs", "lr-warmup-epochs"),
    "--warmup": ("warmup-ratio",),
    "--workers": ("num-workers", "dataloader-num-workers", "nproc"),
    "--data": ("dataset", "data-dir", "data-path", "dataset-name", "train-dir", "root"),
    "--output": ("out", "outdir", "out-dir", "output-dir", "save-dir", "project", "logdir", "log-dir"),
    "--amp-dtype": ("fp16", "bf16", "mixed-precision", "precision"),
    "--smoothing": ("label-smoothing",),
    "--clip-grad": ("clip", "grad-clip", "clip-grad-norm", "max-grad-norm", "gradient-clip-val"),
    "--model-ema": ("ema",),
    "--early-stop": ("patience", "early-stopping"),
    "--model": ("arch", "architecture", "backbone", "net", "model-name"),
    "--weights": ("checkpoint", "ckpt", "resume-from", "initial-checkpoint", "load"),
    "--run": ("run-dir", "run-folder", "experiment"),
    "--model-kwargs": ("model-args",),
}  # fmt: skip
_NAMES = {f"--{name}": flag for flag, names in _OURS.items() for name in names}


def meant(unknown: Sequence[str], flags: Collection[str]) -> list[str]:
    """What a command calls the flags that it does not know, as far as their names are usual elsewhere.

    Args:
        unknown: as they were given.
        flags: of the command.

    >>> meant(["--img-size", "--lerning-rate"], ["--final-size", "--lr"])
    ['--final-size']
    >>> meant(["--run"], ["--weights"])
    ['--weights RUN/model.safetensors']
    """
    found = [_NAMES[name] for name in unknown if _NAMES.get(name) in flags]
    if "--run" in unknown and "--weights" in flags:
        found.append("--weights RUN/model.safetensors")
    return found
