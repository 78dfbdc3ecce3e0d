"""A training loop of one's own, on plain PyTorch, with the curriculum added.

The lines marked `# upchirp` are all that the curriculum takes. Run it with `python examples/own_loop.py`.
"""

import argparse

import timm
import torch
import torchvision

import upchirp  # upchirp


def main(epochs: float, batch_size: int, images: int, workers: int = 2) -> float:
    torch.manual_seed(0)
    dataset = torchvision.datasets.FakeData(images, (3, 64, 64), num_classes=10)
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, patch_size=8, depth=2, num_classes=10)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)

    curriculum = upchirp.efficienttrain_plus_plus(64, multiple=upchirp.size_multiple(model))  # upchirp
    plan = upchirp.plan(
        curriculum, epochs=epochs, dataset_size=images, batch_size=batch_size, learning_rate=1e-3
    )  # upchirp
    loader = upchirp.Loader(dataset, plan, workers=workers)  # upchirp
    transform = upchirp.BatchTransform(loader.augmentation, seed=0)  # upchirp

    loss = torch.tensor(0.0)
    for batch in loader:
        upchirp.fit_to_bandwidth(model, batch.bandwidth, optimizer=optimizer)  # upchirp
        optimizer.param_groups[0]["lr"] = batch.learning_rate  # upchirp
        inputs, targets = batch.prepare(transform)  # upchirp
        loss = upchirp.mixed_cross_entropy(model(inputs), targets, smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if batch.step.index % 10 == 0:
            print(f"{batch.progress:4.0%}  B={batch.bandwidth}  loss {loss.item():.3f}")
    return loss.item()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--images", type=int, default=1000)
    main(**vars(parser.parse_args()))
