"""A curriculum beyond images: a network on a table sees some columns first, and more of them as the run goes on.

The paper's outlook names tables whose columns are masked. Here the columns are in the order of how much each one
tells by itself, a share of them is shown, and the first layer computes with those alone, so that hidden columns cost
nothing. The same `upchirp.plan` turns the curriculum and a budget into steps; what a sample costs is counted for this
network. The table is scikit-learn's breast cancer data: 569 patients, 30 columns, two classes.

Run: python examples/table_columns.py --epochs 40 --seeds 5
"""

import argparse
from statistics import mean, stdev

import torch
from sklearn.datasets import load_breast_cancer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

import upchirp

HIDDEN = 64
BATCH = 32


class ColumnsFirst(nn.Module):
    """A network of two layers, of which the first takes the first columns alone."""

    def __init__(self, columns: int, classes: int) -> None:
        super().__init__()
        self.first = nn.Linear(columns, HIDDEN)
        self.last = nn.Linear(HIDDEN, classes)

    def forward(self, rows: Tensor) -> Tensor:
        shown = rows.shape[1]
        return self.last(linear(rows, self.first.weight[:, :shown], self.first.bias).relu())


def cost(columns: int) -> float:
    """Multiply-adds of one sample, whose columns are what an image's bandwidth is."""
    return HIDDEN * (columns + 2)


def curriculum(columns: int) -> upchirp.Curriculum:
    """A fifth of the columns for a fifth of the compute, three fifths until it is three fifths done, then all."""
    shares = ((0.2, columns // 5), (0.6, 3 * columns // 5), (1.0, columns))
    phases = tuple(upchirp.Phase(end=end, bandwidth=shown) for end, shown in shares)
    return upchirp.Curriculum(name="columns", axis="compute", phases=phases, magnitude=(0.0, 0.0))


def table(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows and labels to train on, and others to test on; the most telling columns first, by the training rows."""
    rows, labels = (torch.tensor(values) for values in load_breast_cancer(return_X_y=True))
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    train, test = order[100:], order[:100]
    rows = ((rows - rows[train].mean(0)) / rows[train].std(0)).float()
    apart = rows[train][labels[train] == 1].mean(0) - rows[train][labels[train] == 0].mean(0)
    rows = rows[:, apart.abs().argsort(descending=True)]
    return rows[train], labels[train], rows[test], labels[test]


def run(chosen: upchirp.Curriculum, epochs: float, seed: int) -> tuple[float, upchirp.Plan]:
    """Train by a curriculum; returns the share of test rows that are told right, and what was executed."""
    rows, labels, test_rows, test_labels = table(seed)
    plan = upchirp.plan(chosen, epochs=epochs, dataset_size=len(rows), batch_size=BATCH, learning_rate=3e-3, cost=cost)
    torch.manual_seed(seed)
    model = ColumnsFirst(rows.shape[1], 2)
    optimizer = torch.optim.AdamW(model.parameters())
    order = torch.Generator().manual_seed(seed)
    for step in plan.steps():
        batch = torch.randint(len(rows), (step.batch_size,), generator=order)
        for group in optimizer.param_groups:
            group["lr"] = step.learning_rate
        optimizer.zero_grad()
        cross_entropy(model(rows[batch, : step.bandwidth]), labels[batch]).backward()
        optimizer.step()
    right = model(test_rows).argmax(1) == test_labels
    return right.float().mean().item(), plan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=float, default=20, help="passes over the table with all of its columns")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    columns = table(0)[0].shape[1]
    usual = upchirp.Curriculum(
        name="all columns", axis="compute", phases=(upchirp.Phase(end=1.0, bandwidth=columns),), magnitude=(0.0, 0.0)
    )
    for chosen in (usual, curriculum(columns)):
        runs = [run(chosen, options.epochs, seed) for seed in range(options.seeds)]
        right, plan = [100 * share for share, _ in runs], runs[0][1]
        spread = stdev(right) if len(right) > 1 else 0.0
        print(f"{chosen.name}: {mean(right):.1f} % right, +- {spread:.1f} over {len(right)} seeds\n{plan}\n")


if __name__ == "__main__":
    main()
