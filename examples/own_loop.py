"""A training loop of one's own with the curriculum added: mixing, validation, resuming, many devices.

The lines marked `# upchirp` are what the curriculum takes. Run it with

    python examples/own_loop.py --data DIR                                 # DIR holds train/CLASS/* and val/CLASS/*
    torchrun --nproc-per-node 8 examples/own_loop.py --data DIR            # the same steps on 8 devices

Interrupted, it goes on where its checkpoint is, with the batches that would have come next.
"""

import argparse
import os
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import upchirp
from upchirp.models import create_model


def main(
    data: str,
    output: Path = Path("own_loop.pt"),
    *,
    model: str = "vit_tiny_patch16_224",
    size: int = 224,
    epochs: float = 90.0,
    batch_size: int = 256,
    workers: int = 4,
    save_every: int = 500,
    stop_after: int | None = None,
) -> float:
    """Train, and return the top-1 on the validation images; `stop_after` some steps it ends early, for a trial."""
    several = "RANK" in os.environ
    if several and not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    first = not several or dist.get_rank() == 0
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)

    train, val = upchirp.open_data(data, size)  # upchirp
    torch.manual_seed(0)  # before the model: all ranks start from the same weights
    # A network of timm's, whether it is made for a size or takes any; one of your own will do.
    net = create_model(model, final_size=size, num_classes=len(train.classes)).to(device)
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.05)

    curriculum = upchirp.efficienttrain_plus_plus(size, multiple=upchirp.size_multiple(net))  # upchirp
    plan = upchirp.plan(  # upchirp
        curriculum, epochs=epochs, dataset_size=len(train), batch_size=batch_size, learning_rate=1e-3
    )
    augmentation = upchirp.Augmentation(mixup=0.8, cutmix=1.0, reprob=0.25, smoothing=0.1)  # upchirp
    loader = upchirp.Loader(train, plan, augmentation=augmentation, workers=workers)  # upchirp

    if output.exists():
        stored = torch.load(output, map_location=device, weights_only=True)
        upchirp.fit_to_bandwidth(net, stored["bandwidth"])  # upchirp: to the shapes that were stored
        net.load_state_dict(stored["model"])
        optimizer.load_state_dict(stored["optimizer"])
        loader.load_state_dict(stored["loader"])  # upchirp

    forward: torch.nn.Module | None = None
    for batch in loader:
        step, last = batch.step.index + 1, batch.step.index + 1 == plan.total_steps
        if upchirp.follow(batch.step, net, optimizer) or forward is None:  # upchirp: bandwidth and learning rate
            # Parameters have new shapes, which a wrapper made before does not know.
            forward = DistributedDataParallel(net) if several else net
        torch.manual_seed(step)  # so that dropout, too, is what it would have been without the interruption
        inputs, targets = batch.prepare(loader.transform, device)  # upchirp: normalised, erased, mixed
        with upchirp.autocast(device):
            logits = forward(inputs)
        loss = upchirp.mixed_cross_entropy(logits.float(), targets)  # upchirp
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

        if first and step % 10 == 0:
            print(f"{batch.progress:4.0%}  {batch.bandwidth} px  loss {loss.item():.3f}", flush=True)
        if first and (step % save_every == 0 or last or step == stop_after):
            state = {
                "bandwidth": batch.bandwidth,
                "model": net.state_dict(),
                "optimizer": optimizer.state_dict(),
                "loader": loader.state_dict(),
            }
            temporary = output.with_suffix(".tmp")
            torch.save(state, temporary)
            temporary.replace(output)
        if step == stop_after:
            break

    result = upchirp.validate(net, val, size, augmentation=augmentation, workers=workers)  # upchirp
    if first:
        print(f"top-1 {result.top1:.1f} % of {result.images} validation images at {size} px")
    if several:
        dist.barrier()  # old torch (2.6) may hang while Gloo still drops tensors, pytorch/pytorch#154976
        dist.destroy_process_group()
    return result.top1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--output", type=Path, default=Path("own_loop.pt"))
    parser.add_argument("--model", default="vit_tiny_patch16_224")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--epochs", type=float, default=90.0)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--workers", type=int, default=4)
    main(**vars(parser.parse_args()))
