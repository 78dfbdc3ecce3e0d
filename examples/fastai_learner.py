"""fastai's learner by curriculum.

The lines marked `# upchirp` are what the curriculum takes. Run it with

    pip install fastai
    python examples/fastai_learner.py --data DIR                    # DIR holds train/CLASS/* and val/CLASS/*
    python examples/fastai_learner.py --data DIR --start-epoch 5    # goes on after five epochs

The learner's epochs have as many steps each; the learning rates are the plan's, so it is `fit`, not `fit_one_cycle`.
"""

import argparse
from functools import partial

import torch
from fastai.callback.tracker import SaveModelCallback
from fastai.learner import Learner
from fastai.metrics import accuracy
from fastai.optimizer import OptimWrapper

import upchirp
from upchirp.fastai import Curriculum, curriculum_loaders  # upchirp
from upchirp.models import create_model


def main(
    data: str,
    start_epoch: int = 0,
    *,
    output: str = ".",
    model: str = "vit_tiny_patch16_224",
    size: int = 224,
    epochs: int = 90,
    batch_size: int = 256,
    workers: int = 4,
) -> Learner:
    """Train, and return the learner."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    train, val = upchirp.open_data(data, size)  # upchirp
    net = create_model(model, final_size=size, num_classes=len(train.classes))
    curriculum = upchirp.efficienttrain_plus_plus(size, multiple=upchirp.size_multiple(net))  # upchirp
    plan = upchirp.plan(  # upchirp
        curriculum, epochs=epochs, dataset_size=len(train), batch_size=batch_size, learning_rate=1e-3
    )
    adamw = partial(OptimWrapper, opt=partial(torch.optim.AdamW, weight_decay=0.05))
    loss, saving = torch.nn.CrossEntropyLoss(), SaveModelCallback(every_epoch=True, with_opt=True)
    loaders = curriculum_loaders(train, val, plan, epochs=epochs, workers=workers, device=device)  # upchirp
    cbs = [Curriculum(), saving]  # upchirp: Curriculum goes first
    learner = Learner(loaders, net, loss, adamw, metrics=accuracy, cbs=cbs, path=output)
    if start_epoch:
        learner.load(f"model_{start_epoch - 1}")
    learner.fit(epochs, start_epoch=start_epoch)
    return learner


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--start-epoch", type=int, default=0)
    parser.add_argument("--model", default="vit_tiny_patch16_224")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--epochs", type=int, default=90)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--workers", type=int, default=4)
    main(**vars(parser.parse_args()))
