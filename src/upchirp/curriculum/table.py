"""A plan as a table of text."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from upchirp.curriculum.plans import Plan
    from upchirp.curriculum.stage import Stage

WIDTH = 80
"""Columns of a terminal that a table fits."""


def plan_table(plan: "Plan") -> str:
    """The stages of a plan, a line each, at most 80 columns wide.

    `decoded` stands there only with replay: how many of the images are newly prepared. `magnitude` stands there only
    with RandAugment.

    >>> from upchirp.curriculum import efficienttrain_plus_plus, plan
    >>> print(plan_table(plan(efficienttrain_plus_plus(), epochs=200)))
    progress    B   steps   images  batch  magnitude  max lr  compute
      0-20 %   96  68,118  279.0 M  4,096    0.0-1.8   0.004     20 %
     20-60 %  160  49,045  200.9 M  4,096    1.8-5.4   0.004     40 %
    60-100 %  224  25,023  102.5 M  4,096    5.4-9.0   0.004     40 %
    """
    total = sum(stage.cost for stage in plan.stages)
    rows = []
    for stage in plan.stages:
        start, end = stage.progress
        rows.append(
            {
                "progress": f"{100 * start:.0f}-{100 * end:.0f} %",
                "B": input_text(stage),
                "steps": f"{stage.steps:,}",
                "images": count_text(stage.samples),
                "decoded": count_text(stage.fresh_samples),
                "batch": f"{stage.batch_size:,}",
                "magnitude": "" if stage.magnitude is None else "{:.1f}-{:.1f}".format(*stage.magnitude),
                "max lr": f"{stage.learning_rate:.2g}",
                "compute": f"{100 * stage.cost / total:.0f} %",
            }
        )
    left_out = set()
    if not any(stage.replay.batches for stage in plan.stages):
        left_out.add("decoded")
    if all(stage.magnitude is None for stage in plan.stages):
        left_out.add("magnitude")
    names = [name for name in rows[0] if name not in left_out]
    return aligned([names, *([row[name] for name in names] for row in rows)])


def input_text(stage: "Stage") -> str:
    """What a stage shows: its bandwidth, and where they are its own a filter's radius, an operator and a transform.

    >>> from upchirp.curriculum.stage import Stage
    >>> usual = {"progress": (0, 1), "magnitude": (0, 9), "steps": 1, "batch_size": 1, "learning_rate": 1}
    >>> input_text(Stage(bandwidth=224, radius=40.0, cost_per_sample=1.0, **usual))
    '224 r=40'
    """
    radius = "" if stage.radius is None else f" r={stage.radius:g}"
    named = "".join(f" {name}" for name in (stage.operator, stage.transform) if name is not None)
    return f"{stage.bandwidth}{radius}{named}"


def aligned(rows: Sequence[Sequence[str]], *, left: int = 0) -> str:
    """Columns aligned on the right but for the first `left` ones, closer together if the table is wide.

    >>> print(aligned([["B", "steps"], ["96", "10"]]))
     B  steps
    96     10
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    gap = "  " if sum(widths) + 2 * (len(widths) - 1) <= WIDTH else " "
    return "\n".join(
        gap.join(
            text.ljust(width) if place < left else text.rjust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def count_text(count: int) -> str:
    """A number of images, in millions where that reads better.

    >>> count_text(279_011_328), count_text(20_000)
    ('279.0 M', '20,000')
    """
    return f"{count / 1e6:.1f} M" if count >= 1_000_000 else f"{count:,}"
