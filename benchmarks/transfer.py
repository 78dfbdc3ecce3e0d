"""What pre-training, fine-tuning and FixRes are worth: accuracy on real images, over several seeds.

A network is pre-trained by curriculum on the first 30 classes of a data set, then fine-tuned on the others with a new
head, beside one that is trained on them from scratch for as long. FixRes tunes the head and norms of one that was
trained on smaller images than there are, at larger sizes.
Example: `python benchmarks/transfer.py --data tiny-imagenet-40 --json`
"""

import argparse
import json
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

from defaults import exported_by
from upchirp import TrainConfig, train
from upchirp.cli.display import Display
from upchirp.machine import hardware, versions
from upchirp.training import EvalData, EvalLoading, Origin, evaluate_weights

MODEL = {"model": "resnet10t", "model_kwargs": {"channels": [64, 128, 256, 256]}}
SHARED = {"recipe": "light", "evaluations": 1, "batch_size": 256}


def share_out(data: Path, folder: Path, first: int) -> tuple[Path, Path]:
    """Two data folders of links: the first classes, and the others."""
    names = sorted(entry.name for entry in (data / "train").iterdir())
    parts = folder / "pretrain", folder / "target"
    if folder.exists():
        return parts
    for part, classes in zip(parts, (names[:first], names[first:]), strict=True):
        for split in ("train", "val"):
            (part / split).mkdir(parents=True)
            for name in classes:
                (part / split / name).symlink_to((data / split / name).resolve(), target_is_directory=True)
    return parts


def run(name: str, folder: Path, **settings: Any) -> dict[str, Any]:
    from rich.console import Console

    output = folder / name
    config = TrainConfig.from_flat({**SHARED, **settings, "output": str(output), "resume": "auto"})
    with Display(Console(stderr=True), title=name) as display:
        result = train(config, observers=(display,))
    return {"top1": result.top1, "train_seconds": result.train_seconds, "output": output}


def measure(options: argparse.Namespace, seed: int, folder: Path) -> dict[str, Any]:
    source, target = share_out(options.data, folder / "data", options.pretrain_classes)
    shared = {"seed": seed, "workers": options.workers, "final_size": options.final_size}
    pretrained = run(
        "pretrain", folder, **MODEL, **shared, data=str(source), regime="imagenet22k", epochs=options.pretrain_epochs
    )
    tuned: dict[str, Any] = {"data": str(target), "epochs": options.epochs, "batch_size": 128, **shared}
    start = {**MODEL, "regime": "finetune", "weights": str(exported_by(pretrained["output"]))}
    rate = {"lr_base": options.lr_base}
    curriculum = {"curriculum": "efficienttrain_plus_plus"}
    found = {
        "pretrained, own classes": pretrained["top1"],
        "from scratch, constant": run("scratch", folder, **MODEL, **tuned, curriculum="constant")["top1"],
        "from scratch, curriculum": run("scratch-curriculum", folder, **MODEL, **tuned, **curriculum)["top1"],
        "fine-tuned, default rate, constant": run("finetune", folder, **start, **tuned)["top1"],
        f"fine-tuned, lr_base {options.lr_base:g}, constant": run("finetune-fast", folder, **start, **tuned, **rate)[
            "top1"
        ],
        f"fine-tuned, lr_base {options.lr_base:g}, curriculum": run(
            "finetune-curriculum", folder, **start, **tuned, **rate, **curriculum
        )["top1"],
    }
    small = {**shared, "final_size": options.fixres_from, "data": str(source)}
    trained = run("small", folder, **MODEL, **small, regime="imagenet22k", epochs=options.pretrain_epochs)
    before = evaluate_weights(
        Origin(weights=exported_by(trained["output"])),
        EvalData(data=str(source)),
        sizes=options.sizes,
        loading=EvalLoading(workers=options.workers),
    )
    fixres = {}
    for size in options.sizes:
        after = run(
            f"fixres-{size}", folder, **MODEL, **{**small, "final_size": size}, regime="fixres",
            weights=str(exported_by(trained["output"])), epochs=options.fixres_epochs,
        )  # fmt: skip
        fixres[size] = after["top1"]
    return {
        "seed": seed,
        "top1": found,
        f"trained at {options.fixres_from} px, evaluated at": {
            result.size: result.evaluation.top1 for result in before
        },
        "fixres_at": fixres,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/CLASS/* and val/CLASS/*")
    parser.add_argument("--pretrain-classes", type=int, default=30)
    parser.add_argument("--final-size", type=int, default=64)
    parser.add_argument("--fixres-from", type=int, default=48, help="size at which the network for FixRes is trained")
    parser.add_argument("--sizes", type=int, nargs="+", default=[48, 56, 64], help="for its evaluation, and for FixRes")
    parser.add_argument("--pretrain-epochs", type=float, default=6.0)
    parser.add_argument("--epochs", type=float, default=4.0, help="of fine-tuning and of training from scratch")
    parser.add_argument("--fixres-epochs", type=float, default=1.0)
    parser.add_argument("--lr-base", type=float, default=2e-3, help="of the faster fine-tuning, at a batch of 512")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--output", type=Path, help="keep the runs here, and go on with those that are there")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.output or Path(temporary)
        runs = [measure(options, seed, folder / f"seed{seed}") for seed in options.seeds]
    if options.json:
        command = shlex.join(["python", *sys.argv])
        print(json.dumps({"command": command, "hardware": hardware(), "versions": versions(), "runs": runs}, indent=2))
        return
    for result in runs:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
