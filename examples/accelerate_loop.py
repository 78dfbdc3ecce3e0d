"""A loop with Hugging Face Accelerate and the curriculum added.

The lines marked `# upchirp` are what the curriculum takes. Run it with

    pip install accelerate
    accelerate launch examples/accelerate_loop.py --data DIR        # DIR holds train/CLASS/* and val/CLASS/*

The loader is not prepared by Accelerate: it gives each process its share of a batch by itself. Interrupted, the program
goes on where its checkpoint is, with the batches that would have come next.
"""

import argparse
from pathlib import Path

import torch
from accelerate import Accelerator
from timm.optim import create_optimizer_v2

import upchirp
from upchirp.models import create_model


def main(
    data: str,
    output: Path = Path("accelerate_loop.pt"),
    *,
    model: str = "vit_tiny_patch16_224",
    size: int = 224,
    epochs: float = 90.0,
    batch_size: int = 256,
    workers: int = 4,
    save_every: int = 500,
) -> float:
    """Train, and return the top-1 on the validation images."""
    # With Accelerate's mixed precision a copy of the model, as validation takes one, would call the model itself.
    accelerator = Accelerator(mixed_precision="no")
    train, val = upchirp.open_data(data, size)  # upchirp
    torch.manual_seed(0)
    net = create_model(model, final_size=size, num_classes=len(train.classes)).to(accelerator.device)
    optimizer = create_optimizer_v2(net, opt="adamw", weight_decay=0.05, fused=True)

    curriculum = upchirp.efficienttrain_plus_plus(size, multiple=upchirp.size_multiple(net))  # upchirp
    plan = upchirp.plan(  # upchirp
        curriculum, epochs=epochs, dataset_size=len(train), batch_size=batch_size, learning_rate=1e-3
    )
    augmentation = upchirp.Augmentation(mixup=0.8, cutmix=1.0, reprob=0.25, smoothing=0.1)  # upchirp
    loader = upchirp.Loader(train, plan, augmentation=augmentation, workers=workers)  # upchirp

    if output.exists():
        stored = torch.load(output, map_location="cpu", weights_only=True)
        upchirp.fit_to_bandwidth(net, stored["bandwidth"])  # upchirp: to the shapes that were stored
        net.load_state_dict(stored["model"])
        optimizer.load_state_dict(stored["optimizer"])
        loader.load_state_dict(stored["loader"])  # upchirp

    prepared = accelerator.prepare_optimizer(optimizer)
    forward: torch.nn.Module | None = None
    for batch in loader:
        if upchirp.follow(batch.step, net, optimizer) or forward is None:  # upchirp: bandwidth and learning rate
            # Parameters have new shapes, which a wrapper made before does not know.
            forward = accelerator.prepare_model(net)
        torch.manual_seed(batch.step.index)  # so that dropout, too, is what it would be without an interruption
        inputs, targets = batch.prepare(loader.transform, accelerator.device)  # upchirp: normalised, erased, mixed
        with upchirp.autocast(accelerator.device):
            logits = forward(inputs)
        loss = upchirp.mixed_cross_entropy(logits.float(), targets)  # upchirp
        prepared.zero_grad()
        accelerator.backward(loss)
        prepared.step()
        step = batch.step.index + 1
        if step % 10 == 0:
            accelerator.print(f"{batch.progress:4.0%}  {batch.bandwidth} px  loss {loss.item():.3f}", flush=True)
        if accelerator.is_main_process and (step % save_every == 0 or step == plan.total_steps):
            state = {"bandwidth": batch.bandwidth, "model": net.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({**state, "loader": loader.state_dict()}, output.with_suffix(".tmp"))
            output.with_suffix(".tmp").replace(output)

    result = upchirp.validate(net, val, size, augmentation=augmentation, workers=workers)  # upchirp
    accelerator.print(f"top-1 {result.top1:.1f} % of {result.images} validation images at {size} px")
    accelerator.end_training()
    return result.top1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--output", type=Path, default=Path("accelerate_loop.pt"))
    parser.add_argument("--model", default="vit_tiny_patch16_224")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--epochs", type=float, default=90.0)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--workers", type=int, default=4)
    main(**vars(parser.parse_args()))
