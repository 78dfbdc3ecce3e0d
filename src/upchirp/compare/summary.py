"""What runs came to, as `summary.json` keeps it: a pure function of their logs and predictions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from upchirp.compare.equal_accuracy import Speedup, Timed, relative_time_spread, speedup_at_equal_accuracy
from upchirp.compare.speeds import Disturbance, Work, disturbances, steady_speeds
from upchirp.compare.uncertainty import Difference, Measured, difference, seed_spread
from upchirp.curriculum import Plan
from upchirp.training import TrainResult, read_metrics
from upchirp.training.evaluation.predictions import Predictions, read_predictions
from upchirp.training.run.run_folder import PREDICTIONS


@dataclass(frozen=True)
class Entry:
    """One curriculum at one budget."""

    curriculum: str
    """Preset or file."""
    budget: float
    """Share of the baseline's."""

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.label}-{self.budget:g}"

    @property
    def label(self) -> str:
        """Name of the curriculum."""
        return Path(self.curriculum).stem


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What one run of one seed left behind."""

    folder: Path
    """The run folder."""
    plan: Plan
    """What was executed."""
    top1: float
    """Percent right at the final size."""
    train_seconds: float
    """Training time."""
    log: Sequence[Mapping[str, Any]]
    """The lines of its log."""
    predictions: Predictions | None
    """What it guessed for each validation image, unless it was trained by a version that did not keep it."""

    def lines(self, kind: str) -> list[Mapping[str, Any]]:
        """The log's lines of one kind."""
        return [record for record in self.log if record["kind"] == kind]


def outcome_of(result: TrainResult) -> Outcome:
    """Read what a run left in its folder.

    Raises:
        InputError: a damaged file.
    """
    return Outcome(
        folder=result.output,
        plan=result.plan,
        top1=result.top1,
        train_seconds=result.train_seconds,
        log=read_metrics(result.output),
        predictions=read_predictions(result.output / PREDICTIONS),
    )


def summarise(outcomes: Mapping[Entry, Sequence[Outcome]], *, seeds: Sequence[int], root: Path) -> dict[str, Any]:
    """Numbers of every curriculum and budget, their differences from the first, and the speed-ups.

    Args:
        outcomes: of each entry one for each seed; the first entry is the baseline.
        seeds: of the runs, for their names.
        root: folder that the run folders are in.
    """
    hits = _hits(outcomes)
    timed = {
        entry: Timed(
            seconds=[run.train_seconds for run in runs],
            measured=Measured(
                accuracy=[run.top1 for run in runs], images=_validation_images(runs), hits=hits.get(entry)
            ),
        )
        for entry, runs in outcomes.items()
    }
    spread = seed_spread([each.measured for each in timed.values()])
    speeds = {
        entry: {
            f"{entry.name} seed {seed}": steady_speeds(run.lines("train"), run.plan)
            for seed, run in zip(seeds, runs, strict=True)
        }
        for entry, runs in outcomes.items()
    }
    baseline, *others = outcomes
    names = list(dict.fromkeys(entry.label for entry in others))
    disturbed = {
        name: disturbances(
            {
                run: own
                for entry in outcomes
                if entry == baseline or entry.label == name
                for run, own in speeds[entry].items()
            }
        )
        for name in names
    }
    speedups = {
        name: _undisturbed(
            speedup_at_equal_accuracy(
                timed[baseline],
                [timed[entry] for entry in others if entry.label == name],
                spread,
                time_spread=relative_time_spread(list(timed.values())),
            ),
            disturbed[name],
        )
        for name in names
    }
    differences = {entry: difference(timed[entry].measured, timed[baseline].measured, spread) for entry in others}
    return {
        "validation_images": timed[baseline].measured.images,
        "runs": [
            _entry_summary(entry, runs, root, list(speeds[entry].values()), differences.get(entry))
            for entry, runs in outcomes.items()
        ],
        "speedup_at_equal_accuracy": next(iter(speedups.values())).ratio,
        "speedups": {name: speedup.to_dict() for name, speedup in speedups.items()},
        "speeds_compared": {name: _compared(name, baseline, speeds) for name in names},
        "disturbed": {name: [each.to_dict() for each in found] for name, found in disturbed.items()},
    }


def _hits(outcomes: Mapping[Entry, Sequence[Outcome]]) -> dict[Entry, npt.NDArray[np.float64]]:
    """For each entry the share of its seeds that guess each image right; nothing if runs are not comparable so."""
    runs = [run.predictions for own in outcomes.values() for run in own]
    known = [predictions for predictions in runs if predictions is not None]
    if len(known) < len(runs):
        return {}
    # An image that one run could not read is left out of all.
    common = reduce(np.intersect1d, [predictions.indices for predictions in known])
    labels = {predictions.labels[np.isin(predictions.indices, common)].tobytes() for predictions in known}
    if len(labels) > 1:
        return {}
    return {
        entry: np.mean(
            [run.predictions.hits[np.isin(run.predictions.indices, common)] for run in own if run.predictions], axis=0
        )
        for entry, own in outcomes.items()
    }


def _validation_images(runs: Sequence[Outcome]) -> int:
    return max((int(record.get("images", 0)) for run in runs for record in run.lines("evaluation")), default=0)


def _undisturbed(speedup: Speedup, found: Sequence[Disturbance]) -> Speedup:
    """Without a ratio if the times cannot be compared."""
    return replace(speedup, kind="disturbed", ratio=None, low=None, high=None, seconds=None) if found else speedup


def _compared(name: str, baseline: Entry, speeds: Mapping[Entry, Mapping[str, Mapping[Work, float]]]) -> bool:
    """Whether at one size at least both the baseline and the curriculum ran long enough to compare their speeds."""
    usual = {work for own in speeds[baseline].values() for work in own}
    others = {work for entry, runs in speeds.items() if entry.label == name for own in runs.values() for work in own}
    return bool(usual & others)


def _entry_summary(
    entry: Entry,
    runs: Sequence[Outcome],
    root: Path,
    speeds: Sequence[Mapping[Work, float]],
    against_baseline: Difference | None,
) -> dict[str, Any]:
    return {
        "curriculum": entry.label,
        "budget": entry.budget,
        "equivalent_epochs": runs[0].plan.equivalent_epochs,
        "accuracy": [run.top1 for run in runs],
        "difference": against_baseline.to_dict() if against_baseline else None,
        "train_seconds": [run.train_seconds for run in runs],
        "spent": [spent(run.lines("end")) for run in runs],
        "wait_share": [wait_share(run.lines("train")) for run in runs],
        "images_per_second": _speeds([record for run in runs for record in run.lines("train")]),
        "steady_speeds": [
            [{**work._asdict(), "images_per_second": speed} for work, speed in own.items()] for own in speeds
        ],
        "folders": [str(run.folder.relative_to(root)) for run in runs],
        "plan": runs[0].plan.to_dict(),
        "history": [[_history(record) for record in run.lines("evaluation")] for run in runs],
    }


def spent(ends: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Seconds of a run by what they went to; nothing for runs of versions that did not count them."""
    return dict(ends[-1].get("spent", {})) if ends else {}


def _history(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: record[name] for name in ("train_seconds", "progress", "bandwidth", "weights", "top1", "loss")}


def _speeds(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Median images per second by bandwidth."""
    sides = sorted({record["bandwidth"] for record in records})
    medians: dict[str, float] = {}
    for side in sides:
        speeds = sorted(record["images_per_second"] for record in records if record["bandwidth"] == side)
        medians[str(side)] = speeds[len(speeds) // 2]
    return medians


def wait_share(records: Sequence[Mapping[str, Any]]) -> float:
    """Share of a run's training time spent waiting for data, from the shares of its log lines.

    >>> wait_share([{"train_seconds": 10.0, "wait_share": 0.5}, {"train_seconds": 100.0, "wait_share": 0.0}])
    0.05
    """
    ends = [record["train_seconds"] for record in records]
    seconds = [end - begin for begin, end in pairwise([0.0, *ends])]
    waited = sum(share * length for share, length in zip((r["wait_share"] for r in records), seconds, strict=True))
    return waited / ends[-1] if ends and ends[-1] > 0 else 0.0
