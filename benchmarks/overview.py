"""Draws the picture of the README: what training shows the network when, and what that was worth.

The curve is that of Figure 7 and Table 9 in `results/evidence.json`; the images are made up by `--data generated`.
Example: `python benchmarks/overview.py docs/overview.svg`
"""

import json
import sys
from pathlib import Path
from statistics import fmean

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.ticker import PercentFormatter
from PIL import Image

from upchirp import efficienttrain_plus_plus
from upchirp.data import GeneratedSource

RESULTS = Path(__file__).parent / "results" / "evidence.json"
INK, CURRICULUM, USUAL = "#333333", "#1f77b4", "#8c8c8c"
SIZE, IMAGE = 224, 3


def draw(path: Path) -> None:
    plt.rcParams.update({"font.size": 9, "text.color": INK, "svg.hashsalt": "upchirp", "svg.fonttype": "none"})
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), width_ratios=(3, 2), layout="constrained")
    schedule(left)
    curve(right)
    figure.savefig(path, transparent=False, facecolor="white", metadata={"Date": None})


def schedule(axes: plt.Axes) -> None:
    """The input side of each stage over its share of the compute, and one image as the network sees it there."""
    curriculum = efficienttrain_plus_plus(SIZE)
    image = GeneratedSource("train", size=SIZE, num_images=20).load(IMAGE)[0].whole()
    start = 0.0
    for phase in curriculum.phases:
        middle, side = (start + phase.end) / 2, phase.bandwidth
        axes.fill_between([start, phase.end], side, color=CURRICULUM, alpha=0.15, linewidth=0)
        axes.plot([start, phase.end], [side] * 2, color=CURRICULUM, linewidth=2)
        axes.text(middle, side + 7, f"{side} px", ha="center")
        seen = image.resize((side, side), Image.Resampling.LANCZOS)
        axes.add_artist(AnnotationBbox(OffsetImage(seen, zoom=0.36), (middle, side / 2), frameon=False))
        start = phase.end
    axes.set(xlim=(0, 1), ylim=(0, 260), xlabel="share of the compute", ylabel="input side (bandwidth), pixels")
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("What the network is shown", loc="left")


def curve(axes: plt.Axes) -> None:
    """Accuracy against compute: the means, and each seed."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    usual, *others = results["figure-07-resnet"]["runs"]
    # All of the compute was an experiment of its own.
    others += [run for run in results["table-09"]["runs"] if run["name"] == others[0]["name"]]
    lines = (([usual], "s", USUAL, "training as usual"), (others, "o-", CURRICULUM, others[0]["name"]))
    for runs, style, colour, label in lines:
        for run in runs:
            for accuracy in run["accuracy"]:
                axes.plot(run["relative_compute"], accuracy, ".", color=colour, alpha=0.4, markersize=4)
        shares = [run["relative_compute"] for run in runs]
        axes.plot(shares, [fmean(run["accuracy"]) for run in runs], style, color=colour, label=label)
    axes.axhline(fmean(usual["accuracy"]), color=USUAL, linestyle=":", linewidth=1)
    axes.set(xlabel="compute, of that of training as usual", ylabel="top-1, %", xlim=(0, 1.05))
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left")
    axes.set_title("40 classes of Tiny ImageNet, 3 seeds", loc="left")


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
